"""Diagonals, Laplacians and blocks against the same entries of JAX's whole matrices."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import admodes
from admodes.linear.pattern import SparsityPattern
from admodes.planner.calls import diagonals, jacobian
from admodes.sparse.partial import color_for

X = jnp.linspace(0.3, 1.4, 6)
B = jnp.linspace(-1.0, 1.0, 12).reshape(4, 3)

SQUARE = {
    "elementwise": (lambda x: jnp.sin(x) * x, 1),
    "tridiagonal": (lambda x: x * jnp.roll(x, 1) * jnp.roll(x, -1), 2),
    "triangular": (lambda x: jnp.cumsum(x) * x, 6),
    "off the diagonal": (lambda x: jnp.roll(x, 1), None),
    "constant": (lambda x: jnp.ones_like(x), None),
}


@pytest.mark.parametrize("name", SQUARE)
def test_diagonal(name):
    fun, _ = SQUARE[name]
    expected = jnp.diag(jax.jacfwd(fun)(X))
    for found in (admodes.diagonal(fun), admodes.diagonal(fun, chunk_size=2), jax.jit(admodes.diagonal(fun))):
        np.testing.assert_allclose(found(X), expected, rtol=1e-12)


@pytest.mark.parametrize("name", ["elementwise", "tridiagonal", "triangular"])
def test_how_many_products_a_diagonal_takes(name):
    fun, passes = SQUARE[name]
    pattern = admodes.sparsity(fun, X)
    assert color_for(pattern, type(pattern).identity(6)).number == passes


def test_diagonal_of_trees():
    fun = lambda t, s: ({"a": t["a"] ** 2 * s, "b": t["b"] * t["a"].sum()}, s)
    found, aux = admodes.diagonal(fun, has_aux=True)({"a": jnp.arange(2.0), "b": jnp.ones((2, 2))}, 3.0)
    np.testing.assert_allclose(found["a"], [0.0, 6.0])
    np.testing.assert_allclose(found["b"], np.ones((2, 2)))
    assert aux == 3.0


@pytest.mark.parametrize("fun", [lambda x: jnp.sum(x**3), lambda x: jnp.tanh(jnp.outer(x, x)).sum(), lambda x: x[0]])
def test_laplacian(fun):
    expected = jnp.trace(jax.hessian(fun)(X))
    np.testing.assert_allclose(admodes.laplacian(fun)(X), expected, rtol=1e-12)
    points = jnp.stack([X, 2 * X])
    wanted = [jnp.trace(jax.hessian(fun)(x)) for x in points]
    np.testing.assert_allclose(jax.vmap(admodes.laplacian(fun))(points), wanted, rtol=1e-12)


def test_laplacian_of_a_vector():
    np.testing.assert_allclose(admodes.laplacian(jnp.sin)(X), -jnp.sin(X), rtol=1e-12)


@pytest.mark.parametrize("coupled", [False, True])
def test_block_jacobian(coupled):
    fun = lambda x: jnp.tanh(x @ jnp.cos(jnp.arange(6.0).reshape(3, 2))) + coupled * x.sum()
    whole = jax.jacfwd(fun)(B)
    expected = jnp.stack([whole[b, :, b] for b in range(4)])
    np.testing.assert_allclose(admodes.block_jacobian(fun)(B), expected, rtol=1e-12)
    np.testing.assert_allclose(jax.jit(admodes.block_jacobian(fun))(B), expected, rtol=1e-12)


MADE_ANEW = {
    "diagonal": lambda k: admodes.diagonal(lambda x: jnp.roll(x, 1) * x**2 * k),
    "laplacian": lambda k: admodes.laplacian(lambda x: jnp.sum(jnp.roll(x, 1) * x**3 * k)),
    "block_jacobian": lambda k: admodes.block_jacobian(lambda x: x[:, None] ** 2 * k),
}


@pytest.mark.parametrize("name", MADE_ANEW)
def test_what_is_made_anew_is_not_compiled_again(name, monkeypatch):
    make = MADE_ANEW[name]
    first = make(2.0)(X)
    runs, chosen = set(jacobian._RUNS.entries), set(diagonals._CHOSEN.entries)
    with monkeypatch.context() as patched:
        patched.setattr(diagonals, "_cheapest", None)
        np.testing.assert_allclose(make(2.0)(X), first, rtol=0)
    assert set(jacobian._RUNS.entries) == runs
    assert set(diagonals._CHOSEN.entries) == chosen
    np.testing.assert_allclose(make(3.0)(X), 1.5 * first, rtol=1e-12)  # another function is another plan


def test_parts_of_one_function_do_not_mix():
    fun = lambda x: jnp.cumsum(x) * x
    whole = jax.jacfwd(fun)(X)
    for size in (None, 2):
        np.testing.assert_allclose(admodes.diagonal(fun, chunk_size=size)(X), jnp.diag(whole), rtol=1e-12)
        np.testing.assert_allclose(admodes.block_jacobian(fun, chunk_size=size)(X), jnp.diag(whole), rtol=1e-12)
    np.testing.assert_allclose(admodes.jacobian(fun)(X), whole, rtol=1e-12)


def test_colors_of_many_columns_are_found_in_time_that_grows_with_their_number():
    def seconds(n):
        rows = np.arange(n)
        columns = np.concatenate([rows, (rows + 1) % n, (rows - 1) % n])
        pattern = SparsityPattern.build(np.tile(rows, 3), columns, (n, n))
        started = time.process_time()
        colors = color_for(pattern, SparsityPattern.identity(n))
        assert colors.number == 2
        return time.process_time() - started

    seconds(100)
    assert seconds(200_000) < 1.0


def test_errors():
    with pytest.raises(ValueError, match="square"):
        admodes.diagonal(lambda x: x[1:])(X)
    with pytest.raises(ValueError, match="leading axis"):
        admodes.block_jacobian(jnp.sum)(X)
    with pytest.raises(TypeError, match="one argument"):
        admodes.diagonal(jnp.sin, argnums=(0,))
    with pytest.raises(TypeError, match="scalar"):
        admodes.laplacian(jnp.sin, nan_safe=True)(X)
