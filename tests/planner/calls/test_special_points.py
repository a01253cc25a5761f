"""Planned Jacobians and Hessians where the program sits on kinks, or zeros meet infinite slopes."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from jax.scipy.special import betaln

import admodes

ZERO = jnp.zeros(3)


def norm_squared(x):
    return jnp.linalg.norm(x) ** 2


def dense(matrix):
    return (
        matrix.todense() if hasattr(matrix, "todense") else matrix.toarray() if hasattr(matrix, "toarray") else matrix
    )


@pytest.mark.parametrize("form", ["dense", "bcoo", "scipy"])
def test_norm_squared(form):
    np.testing.assert_allclose(dense(admodes.hessian(norm_squared, format=form)(ZERO)), 2 * np.eye(3), atol=1e-7)
    found = admodes.jacobian(lambda x: norm_squared(x)[None], format=form, nan_safe=True)(ZERO)
    np.testing.assert_allclose(dense(found), np.zeros((1, 3)), atol=1e-12)
    with pytest.raises(ValueError, match="compressed"):
        admodes.jacobian(norm_squared, format="compressed", nan_safe=True)


def test_the_other_derivatives():
    v = jnp.array([1.0, -2.0, 3.0])
    np.testing.assert_allclose(admodes.hvp(norm_squared, ZERO, v, nan_safe=True), 2 * v, rtol=1e-7)
    np.testing.assert_allclose(admodes.laplacian(norm_squared, nan_safe=True)(ZERO), 6.0, rtol=1e-7)
    np.testing.assert_allclose(jax.jit(admodes.hessian(norm_squared, nan_safe=True))(ZERO), 2 * np.eye(3), atol=1e-7)
    value, slope = admodes.value_and_jacobian(norm_squared, nan_safe=True)(ZERO)
    np.testing.assert_allclose(value, 0.0)
    np.testing.assert_allclose(slope, np.zeros(3), atol=1e-12)


@pytest.mark.slow
def test_a_smooth_function_of_maximum_and_minimum():
    f = lambda t: betaln(*jnp.exp(t)) - betaln(jnp.exp(t[0]) + 1, jnp.exp(t[1]))
    at, expected = jnp.zeros(2), np.array([[0.25, -0.25], [-0.25, 0.25]])
    np.testing.assert_allclose(admodes.hessian(f)(at), expected, rtol=1e-6)
    np.testing.assert_allclose(admodes.hessian(f, ties="lexicographic")(at), expected, rtol=1e-10)
    np.testing.assert_allclose(admodes.hvp(f, at, jnp.array([1.0, 0.0]), ties="lexicographic"), expected[0], rtol=1e-10)
    np.testing.assert_allclose(admodes.laplacian(f, ties="lexicographic")(at), 0.5, rtol=1e-10)


def test_kinks_that_are_real_stay_as_they_are_in_jax():
    f = lambda x: jnp.sum(jnp.maximum(x, 0.0) ** 2 + x**3)
    np.testing.assert_allclose(admodes.hessian(f)(ZERO), jax.hessian(f)(ZERO), atol=1e-6)


def test_the_square_of_a_complex_modulus():
    f = lambda v: 3 * jnp.abs(v[0] + 1j * v[1]) ** 2
    np.testing.assert_allclose(admodes.hessian(f)(jnp.zeros(2)), 6 * np.eye(2), atol=1e-6)


def test_pair_potentials_with_a_masked_diagonal():
    def masked(x):
        r = jnp.sqrt(jnp.sum((x[:, None] - x) ** 2, -1))
        return jnp.sum(jnp.where(jnp.eye(len(x), dtype=bool), 0.0, 1 / r))

    def pairs(x):
        i, j = np.triu_indices(len(x), 1)
        return 2 * jnp.sum(1 / jnp.linalg.norm(x[i] - x[j], axis=-1))

    x = jnp.arange(6.0).reshape(3, 2) ** 1.5
    np.testing.assert_allclose(admodes.grad(masked, nan_safe=True)(x), jax.grad(pairs)(x), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(admodes.hessian(masked)(x), jax.hessian(pairs)(x), rtol=1e-8, atol=1e-10)


def test_policies_that_are_not_planned_are_named():
    with pytest.raises(ValueError, match="dense"):
        admodes.jacobian(jnp.abs, ties="average", format="bcoo")
    with pytest.raises(ValueError, match="'best'"):
        admodes.hessian(jnp.sum, ties="best")
    for jacobian in (admodes.jacfwd, admodes.jacrev, admodes.jacobian):
        found = [float(jacobian(jnp.abs, ties=p)(0.0)) for p in ("jax", "first", "average", "lexicographic")]
        assert found == [1.0, 1.0, 0.0, 1.0]
    assert float(admodes.linearize(jnp.abs, 0.0, ties="average")[1](1.0)) == 0.0
