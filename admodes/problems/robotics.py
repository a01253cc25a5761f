"""Kinematics of robots."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from admodes.problems.registry import problem

# Denavit-Hartenberg lengths in metres: link lengths a1, a2, a3 and offsets d1, d4, d6
A1, A2, A3 = 0.18, 0.89, 0.05
D1, D4, D6 = 0.45, 1.035, 0.185


def pose(angles):
    t1, t2, t3, t4, t5, t6 = angles
    s1, c1, s2, c2 = jnp.sin(t1), jnp.cos(t1), jnp.sin(t2), jnp.cos(t2)
    s23, c23 = jnp.sin(t2 + t3), jnp.cos(t2 + t3)
    s4, c4, s5, c5, s6, c6 = jnp.sin(t4), jnp.cos(t4), jnp.sin(t5), jnp.cos(t5), jnp.sin(t6), jnp.cos(t6)

    # the approach axis: third column of R = Rz(t1) Rx(π/2) Rz(t2 + t3) Rx(π/2) Rz(t4) Ry(t5) Rz(t6)
    in_plane = c23 * c4 * s5 + s23 * c5
    ax = c1 * in_plane + s1 * s4 * s5
    ay = s1 * in_plane - c1 * s4 * s5
    az = s23 * c4 * s5 - c23 * c5
    # the last row of its first two columns
    nz = s23 * (c4 * c5 * c6 - s4 * s6) + c23 * s5 * c6
    oz = -s23 * (c4 * c5 * s6 + s4 * c6) - c23 * s5 * s6

    reach = A1 + A2 * c2 + A3 * c23 + D4 * s23
    position = (c1 * reach + D6 * ax, s1 * reach + D6 * ay, D1 + A2 * s2 + A3 * s23 - D4 * c23 + D6 * az)
    euler = (jnp.arctan2(ay, ax), jnp.arctan2(jnp.sqrt(ax * ax + ay * ay), az), jnp.arctan2(oz, -nz))
    return position, euler


@problem(summary="pose of a six-axis industrial arm from its joint angles", field="robotics", inputs=6, outputs=6)
def robot_arm(dtype, rng):
    r"""Forward kinematics of an anthropomorphic arm with six revolute joints and a spherical wrist.

    The joint angles θ give the pose T = A₁(θ₁) ⋯ A₆(θ₆) of the tool, Aᵢ = Rot_z(θᵢ) Trans_z(dᵢ) Trans_x(aᵢ) Rot_x(αᵢ),
    with (a, α, d) = (a₁, 90°, d₁), (a₂, 0, 0), (a₃, 90°, 0), (0, −90°, d₄), (0, 90°, 0), (0, 0, d₆). Returned are the
    position in metres and the ZYZ Euler angles. All operations are scalar.

    Reference: Siciliano, Sciavicco, Villani and Oriolo, *Robotics: Modelling, Planning and Control*, Springer 2009,
    sections 2.8 and 2.9.
    """
    angles = np.array([0.3, 0.8, -0.4, 0.6, 0.9, -0.7]) + rng.uniform(-0.1, 0.1, 6)
    return pose, (tuple(dtype.type(t) for t in angles),)
