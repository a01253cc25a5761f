"""Full Jacobians of programs whose local Jacobians are sparse: they are accumulated all the same."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
import numpy as np
import pytest

import admodes
from admodes.planner.choice.candidates import LONGER
from admodes.planner.cost.machine import machine

rng = np.random.default_rng(0)
N = 40
MATRIX, B, MASSES = rng.standard_normal((N, N)) + N * np.eye(N), rng.standard_normal(N), rng.uniform(1, 2, 20)


def accelerations(x):
    x = x.reshape(-1, 3)
    d = x[None] - x[:, None]
    return ((MASSES / ((d**2).sum(-1) + 0.1) ** 1.5)[..., None] * d).sum(1)


PROBLEMS = {
    "bodies": (accelerations, 60),
    "products of all before": (lambda x: jnp.cumprod(1 + 0.1 * jnp.sin(x)), 200),
    "a solve": (lambda x: jnp.linalg.solve(MATRIX + jnp.diag(x), B), N),
    "a triangular solve": (lambda x: jsl.solve_triangular(MATRIX + jnp.diag(x), B, lower=True), N),
    "a transposed one": (lambda x: jsl.solve_triangular(MATRIX + jnp.diag(x), x * B, trans=1), N),
    "one from the right": (
        lambda x: jax.lax.linalg.triangular_solve(MATRIX + jnp.diag(x), B[None] * x, unit_diagonal=True),
        N,
    ),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_product_is_full_but_its_factors_are_not(name):
    f, n = PROBLEMS[name]
    x = rng.uniform(0.5, 1.5, n)
    plan = admodes.plan(f, x)
    (found,) = (c for c in plan.candidates if c.name == "accumulation")
    plain = [c for c in plan.candidates if c.name in ("forward", "reverse")]
    assert found.work.flops < min(c.work.flops for c in plain)
    assert plan.best is found
    np.testing.assert_allclose(plan.jacobian(x), jax.jacfwd(f)(x), rtol=1e-9, atol=1e-12)


def test_what_cannot_win_is_not_planned():
    matrix = rng.standard_normal((300, 300)) / 17
    f = lambda x: jnp.tanh(matrix @ jnp.tanh(matrix @ x))
    plan = admodes.plan(f, np.ones(300))
    most = LONGER * min(c.seconds for c in plan.candidates) / machine().gathered
    assert "accumulation" not in [c.name for c in plan.candidates]
    assert most < 300**3
