"""Triangular systems with many right-hand sides, solved by products of blocks."""

from __future__ import annotations

import itertools
import math
import re

import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
import numpy as np
import pytest
from jax import lax

import admodes
from admodes.planner.sweeps.right_hand_sides import LEAF, MANY, solve, solved_by_products
from admodes.program.evaluate import evaluate
from admodes.program.trace import trace

N = 45  # three blocks, the last of them smaller
rng = np.random.default_rng(0)
MATRIX = rng.standard_normal((N, N)) + N * np.eye(N)
B = rng.standard_normal(N)


def largest_solve(fun, x) -> int:
    """The most entries of the right-hand sides of a triangular solve in the compiled program (CPU)."""
    text = jax.jit(fun).lower(x).compile().as_text()
    calls = re.findall(r"= \(?f64\[([0-9,]+)\].*trsm", text)
    return max((math.prod(map(int, shape.split(","))) for shape in calls), default=0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
@pytest.mark.parametrize(("left", "lower", "transpose", "unit"), list(itertools.product([True, False], repeat=4)))
def test_products_solve_as_the_primitive_does(left, lower, transpose, unit, dtype):
    a = np.asarray(MATRIX / N + (0.2j * MATRIX.T if dtype is np.complex128 else 0), dtype)
    shape = (N, 7) if left else (7, N)
    b = np.asarray(rng.standard_normal(shape), dtype)
    options = {"left_side": left, "lower": lower, "transpose_a": transpose, "unit_diagonal": unit}
    for conjugate in (False, True):
        found = solve(a, b, conjugate_a=conjugate, **options)
        expected = lax.linalg.triangular_solve(a, b, conjugate_a=conjugate, **options)
        tolerance = 1e-4 if dtype is np.float32 else 1e-11
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * np.abs(expected).max())


PROBLEMS = {
    "solve": lambda x: jnp.linalg.solve(MATRIX + jnp.diag(x), B),
    "lower triangle": lambda x: jsl.solve_triangular(MATRIX + jnp.diag(x), jnp.sin(x) * B, lower=True),
    "upper triangle, transposed": lambda x: jsl.solve_triangular(MATRIX + jnp.diag(x), B, trans=1),
    "inverse": lambda x: jnp.linalg.inv(MATRIX + jnp.diag(x))[:, 3],
    "cholesky": lambda x: jsl.cho_solve(jsl.cho_factor(MATRIX @ MATRIX.T + jnp.diag(x)), B),
    "determinants": lambda x: jnp.stack([jnp.linalg.slogdet(MATRIX + jnp.diag(s * x))[1] for s in (1, 2)]),
    "the user's solver": lambda x: lax.custom_linear_solve(
        lambda v: (MATRIX + jnp.diag(x)) @ v,
        B,
        lambda _, b: jnp.linalg.solve(MATRIX + jnp.diag(x), b),
        lambda _, b: jnp.linalg.solve((MATRIX + jnp.diag(x)).T, b),
    ),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_jacobians_of_solves(name):
    f, x = PROBLEMS[name], np.linspace(0.5, 1.5, N)
    found, expected = admodes.jacobian(f), jax.jacrev(f)
    np.testing.assert_allclose(found(x), expected(x), rtol=1e-9, atol=1e-11)
    if name in ("solve", "lower triangle", "upper triangle, transposed", "the user's solver"):
        assert largest_solve(found, x) < MANY <= largest_solve(jax.jacfwd(f), x)


def test_the_result_is_differentiated_and_batched():
    f, x = PROBLEMS["solve"], np.linspace(0.5, 1.5, N)
    found, expected = admodes.jacobian(f), jax.jacfwd(f)
    tangent = jax.jvp(expected, (x,), (B,))[1]
    np.testing.assert_allclose(admodes.jvp(found, (x,), (B,))[1], tangent, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(jax.jvp(found, (x,), (B,))[1], tangent, rtol=1e-8, atol=1e-12)
    batch = np.stack([x, 2 * x])
    np.testing.assert_allclose(jax.vmap(found)(batch), jax.vmap(expected)(batch), rtol=1e-9, atol=1e-12)


def test_what_stays_a_solve():
    few = MANY // N
    f = lambda a, b: lax.linalg.triangular_solve(a, b, left_side=True, lower=True)

    def changed(a, b, seeded, count):
        program = trace(f, a, b)
        return solved_by_products(program, seeded, count) is not program

    a, b = MATRIX, rng.standard_normal((N, few))
    assert not changed(a, b, (False, False), 1)
    assert not changed(a, b[:, :1], (False, True), few)
    assert changed(a, b[:, :1], (False, True), few + 1)
    assert not changed(a, b, (True, False), 100)  # each seed has a matrix of its own
    assert not changed(a[:LEAF, :LEAF], b[:LEAF], (False, True), 100)
    assert not changed(a[None], b[None], (False, True), 100)  # a batch of matrices
    program = trace(f, a, b)
    many = solved_by_products(program, (False, True), 100)
    np.testing.assert_allclose(evaluate(many, a, b)[0], f(a, b), rtol=1e-12, atol=1e-12)
