"""Optimal control by collocation: the constraints of a nonlinear program."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from admodes.problems.registry import problem

CART, POLE, LENGTH, GRAVITY = 1.0, 0.3, 0.5, 9.81  # kg, kg, m, m/s²
DURATION, DISTANCE = 2.0, 1.0  # s, m


def cart_pole(states, force):
    """d/dt of (position, angle, and their rates), one row per moment; the angle is 0 where the pole hangs down."""
    _, angle, speed, spin = jnp.moveaxis(states, -1, 0)
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    inertia = CART + POLE * sin * sin
    swing = LENGTH * POLE * sin * spin * spin
    acceleration = (swing + force + POLE * GRAVITY * cos * sin) / inertia
    turn = -(cos * (swing + force) + (CART + POLE) * GRAVITY * sin) / (LENGTH * inertia)
    return jnp.stack([speed, spin, acceleration, turn], axis=-1)


@problem(summary="collocation of a cart that swings up a pole: banded", field="optimal control", inputs=55, outputs=48)
def collocation(dtype, rng, n=10):
    r"""The constraints of an optimal control problem after trapezoidal collocation on n intervals.

    Unknown are the states y₀ ... yₙ and the forces u₀ ... uₙ at the n + 1 moments. Constraints are the defects
    yₖ₊₁ − yₖ − h/2 (g(yₖ₊₁, uₖ₊₁) + g(yₖ, uₖ)) of the 4n equations of motion, and the four states at either end: from
    rest, hanging down, to rest a metre away, upright. At most ten nonzeros per row, near the diagonal.

    Reference: Kelly, *An introduction to trajectory optimization: how to do your own direct collocation*, SIAM Review
    59 (2017) 849-904, sections 3 and 6.
    """
    h = DURATION / n
    start, end = np.zeros(4, dtype), np.array([DISTANCE, np.pi, 0.0, 0.0], dtype)

    def f(unknowns):
        states, force = unknowns[:, :4], unknowns[:, 4]
        slopes = cart_pole(states, force)
        defects = states[1:] - states[:-1] - 0.5 * h * (slopes[1:] + slopes[:-1])
        return jnp.concatenate([defects.ravel(), states[0] - start, states[-1] - end])

    guess = np.linspace(0.0, 1.0, n + 1)[:, None] * np.append(end, 0.0) + 0.1 * rng.normal(size=(n + 1, 5))
    return f, (guess.astype(dtype),)
