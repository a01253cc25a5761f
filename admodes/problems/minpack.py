"""Systems and functionals of the MINPACK-2 test problem collection.

Reference for all: Averick, Carter, Moré and Xue, *The MINPACK-2 test problem collection*, Argonne National
Laboratory, report MCS-P153-0692, 1992.
"""

from __future__ import annotations

import functools
import operator

import jax.numpy as jnp
import numpy as np

from admodes.problems.registry import problem

# moments of one measured heart beat: sums of x and y, then the pairs of orders 1, 2, 3
HEART_MOMENTS = (0.485, -0.0019, -0.0581, 0.015, 0.105, 0.0406, 0.167, -0.399)
HEART_START = (0.299, 0.186, -0.0273, 0.0254, -0.474, 0.474, -0.0892, 0.0892)


def dipole_residual(x):
    a, b, c, d, t, u, v, w = x
    mx, my, s1, s2, s3, s4, s5, s6 = HEART_MOMENTS
    tv, uw = t * t - v * v, u * u - w * w
    t3, v3 = t * (t * t - 3.0 * v * v), v * (v * v - 3.0 * t * t)
    u3, w3 = u * (u * u - 3.0 * w * w), w * (w * w - 3.0 * u * u)
    return (
        a + b - mx,
        c + d - my,
        t * a + u * b - v * c - w * d - s1,
        v * a + w * b + t * c + u * d - s2,
        a * tv - 2.0 * c * t * v + b * uw - 2.0 * d * u * w - s3,
        c * tv + 2.0 * a * t * v + d * uw + 2.0 * b * u * w - s4,
        a * t3 + c * v3 + b * u3 + d * w3 - s5,
        c * t3 - a * v3 + d * u3 - b * w3 - s6,
    )


@problem(summary="two dipoles from eight moments of the heart's field", field="medicine", inputs=8, outputs=8)
def human_heart_dipole(dtype, rng):
    r"""Find two dipoles (a + ic, b + id) at the places (t + iv, u + iw) that have the measured moments.

    (a + ic)(t + iv)ᵏ + (b + id)(u + iw)ᵏ = σₖ for k = 0 ... 3: real and imaginary parts are eight equations in eight
    unknowns. All operations are scalar.

    Reference: MINPACK-2; Nelson and Hodgkin, *Determination of magnitudes, directions, and locations of
    two independent dipoles in a circular conducting region from boundary potential measurements*, IEEE Trans. Biomed.
    Eng. 28 (1981) 817-823.
    """
    return dipole_residual, (tuple(dtype.type(v) for v in HEART_START * rng.uniform(0.9, 1.1, 8)),)


PRESSURE, AIR = 40.0, 10.0  # atmospheres; air to fuel


def combustion_residual(x):
    x1, x2, x3, x4, x5, x6, x7, x8, x9, x10, x11 = x
    root = jnp.sqrt(PRESSURE / x11)
    return (
        x1 + x4 - 3.0,
        2.0 * x1 + x2 + x4 + x7 + x8 + x9 + 2.0 * x10 - AIR,
        2.0 * x2 + 2.0 * x5 + x6 + x7 - 8.0,
        2.0 * x3 + x9 - 4.0 * AIR,
        x2 * x4 - x1 * x5,
        jnp.sqrt(x2 * x4) - jnp.sqrt(x1) * root * x6,
        jnp.sqrt(x1 * x2) - jnp.sqrt(x4) * x7 * root,
        x1 - x4 * x8 * PRESSURE / x11,
        x1 * jnp.sqrt(x3) - x4 * x9 * root,
        x1 * x1 - x4 * x4 * x10 * PRESSURE / x11,
        functools.reduce(operator.sub, x[:10], x11),
    )


@problem(summary="chemical equilibrium of propane burning in air", field="chemistry", inputs=11, outputs=11)
def propane_combustion(dtype, rng):
    r"""Amounts x₁ ... x₁₀ of the products of burning propane in air, and their sum x₁₁, in equilibrium.

    Four conservation laws of the elements, six equilibria (for example √x₂ √x₄ = √x₁ x₆ √(p/x₁₁)) and the sum:
    eleven equations, sparse. p = 40 atm, ten parts of air to one of fuel. All operations are scalar. The constants of
    the six equilibria are 1, as in the literature on Jacobian accumulation, so that counts of multiplications compare.

    Reference: MINPACK-2 (the full formulation); Meintjes and Morgan, *Chemical equilibrium systems as
    numerical test problems*, ACM Trans. Math. Software 16 (1990) 143-151; Lohoff and Neftci, *Optimizing automatic
    differentiation with deep reinforcement learning*, NeurIPS 2024.
    """
    start = np.array([1.5, 1.0, 19.0, 1.5, 1.0, 1.5, 1.5, 0.6, 4.0, 0.5, 30.0])
    return combustion_residual, (tuple(dtype.type(v) for v in start * rng.uniform(0.95, 1.05, 11)),)


@problem(
    summary="solid fuel ignition: five-point stencil and exp",
    field="partial differential equations",
    inputs=64,
    outputs=64,
)
def bratu(dtype, rng, n=8):
    r"""−Δu = λ eᵘ in the unit square, u = 0 on its boundary, by five-point differences on n × n inner points.

    F(u)ᵢⱼ = 4uᵢⱼ − (the four neighbours) − h² λ exp(uᵢⱼ), h = 1/(n + 1), λ = 5: at most five nonzeros per row.

    Reference: MINPACK-2; Bebernes and Eberly, *Mathematical Problems from Combustion Theory*, Springer
    1989.
    """
    strength = 5.0 / (n + 1) ** 2

    def f(u):
        wide = jnp.pad(u, 1)
        neighbours = wide[:-2, 1:-1] + wide[2:, 1:-1] + wide[1:-1, :-2] + wide[1:-1, 2:]
        return 4.0 * u - neighbours - strength * jnp.exp(u)

    return f, (rng.uniform(0.0, 1.0, (n, n)).astype(dtype),)


@problem(
    summary="area of a surface over a square: scalar, sparse Hessian",
    field="variational problems",
    inputs=64,
    outputs=1,
)
def minimal_surface(dtype, rng, n=8):
    r"""∫ √(1 + |∇u|²) over the unit square for a surface whose height is given on the boundary (x² − y²).

    Each cell of the grid is cut into two triangles on which u is linear; the n × n inner heights are the unknowns.

    Reference: MINPACK-2.
    """
    width = 1.0 / (n + 1)
    grid = np.linspace(0.0, 1.0, n + 2)
    frame = grid[:, None] ** 2 - grid[None, :] ** 2
    frame[1:-1, 1:-1] = 0.0

    def f(u, frame):
        z = jnp.pad(u, 1) + frame
        rise_x, rise_y = (z[1:] - z[:-1]) / width, (z[:, 1:] - z[:, :-1]) / width
        lower = jnp.sqrt(1.0 + rise_x[:, :-1] ** 2 + rise_y[:-1] ** 2)
        upper = jnp.sqrt(1.0 + rise_x[:, 1:] ** 2 + rise_y[1:] ** 2)
        return 0.5 * width**2 * jnp.sum(lower + upper)

    return f, (rng.uniform(-0.2, 0.2, (n, n)).astype(dtype), frame.astype(dtype))
