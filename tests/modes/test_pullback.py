"""What a pullback keeps, and how it is emptied and filled again: as with JAX's."""

import gc
import weakref

import jax
import numpy as np
import pytest
from jax import numpy as jnp

import admodes

X, W = jnp.arange(12.0).reshape(3, 4) / 7, jnp.cos(jnp.arange(16.0)).reshape(4, 4)
G = jnp.ones((3, 4))


def f(x, w):
    return 2.0 * ((1.0 * x) @ w)


def is_kept(entry) -> bool:
    return isinstance(entry, jax.Array)


def same(actual, expected):
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-12)


def test_the_arguments_that_are_kept_are_those_that_jax_keeps():
    for fun in (f, lambda x, w: jnp.sin(x) @ w, lambda x, w: x + w[:3], lambda x, w: x * w[0]):
        ours, theirs = (d.vjp(fun, X, W)[1] for d in (admodes, jax))
        assert list(map(is_kept, ours.args_res)) == list(map(is_kept, theirs.args_res))
        same(ours(G), theirs(G))
    assert admodes.vjp(jnp.sin, X)[1].opaque_residuals


def test_an_argument_that_was_taken_out_is_freed_and_can_be_put_back():
    w = W + 0.0
    _, pullback = admodes.vjp(f, X, w)
    expected = pullback(G)
    pullback.args_res[1] = None
    alive = weakref.ref(w)
    del w
    gc.collect()
    assert alive() is None
    with pytest.raises(ValueError, match="put back"):
        pullback(G)
    pullback.args_res[1] = W
    same(pullback(G), expected)
    pullback.args_res[1] = 3 * W
    np.testing.assert_allclose(pullback(G)[0], 3 * expected[0], rtol=1e-12)


def test_arguments_that_are_not_needed_are_not_kept_alive():
    x = X + 0.0
    alive = weakref.ref(x)
    _, pullback = admodes.vjp(jnp.sin, x)
    del x
    gc.collect()
    assert alive() is None
    np.testing.assert_allclose(pullback(G)[0], jnp.cos(X), rtol=1e-12)


def test_trees_of_arguments():
    _, pullback = admodes.vjp(lambda p: p["x"] @ p["w"] + p["b"], {"x": X, "w": W, "b": 1.0})
    (kept,) = pullback.args_res
    assert is_kept(kept["x"])
    assert is_kept(kept["w"])
    assert not is_kept(kept["b"])
    expected = pullback(G)
    pullback.args_res = [{"x": X, "w": 2 * W, "b": None}]
    with pytest.raises(ValueError, match="put back"):
        pullback(G)
    pullback.args_res = [{"x": X, "w": W, "b": 0.0}]
    same(jax.tree.leaves(pullback(G)), jax.tree.leaves(expected))


@pytest.mark.parametrize("emptied", [False, True])
def test_through_jit(emptied):
    @jax.jit
    def forward(x, w):
        _, pullback = admodes.vjp(f, x, w)
        if emptied:
            pullback.args_res = [None, None]
        return pullback

    @jax.jit
    def backward(pullback, x, w):
        if emptied:
            pullback.args_res = [x, w]
        return pullback(G)

    pullback = forward(X, W)
    kept = jax.tree.leaves(pullback)
    assert all(leaf.shape != W.shape for leaf in kept) == emptied
    same(backward(pullback, X, W), jax.vjp(f, X, W)[1](G))


def test_inside_of_other_transformations():
    def cotangents(x, w):
        _, pullback = admodes.vjp(f, x, w)
        pullback.args_res[1] = 2 * w
        return pullback(G)[0]

    expected = 2 * jax.vjp(f, X, W)[1](G)[0]
    np.testing.assert_allclose(cotangents(X, W), expected, rtol=1e-12)
    np.testing.assert_allclose(jax.vmap(cotangents, (None, 0))(X, W[None])[0], expected, rtol=1e-12)
    np.testing.assert_allclose(admodes.jvp(lambda w: cotangents(X, w), (W,), (W,))[1], expected, rtol=1e-12)
    np.testing.assert_allclose(jax.jvp(lambda w: cotangents(X, w), (W,), (W,))[1], expected, rtol=1e-12)
    gradient = admodes.grad(lambda w: jnp.sum(cotangents(X, w)))(W)
    np.testing.assert_allclose(gradient, jax.grad(lambda w: 2 * jnp.sum(jax.vjp(f, X, w)[1](G)[0]))(W), rtol=1e-12)
