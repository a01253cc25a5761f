"""What vjp returns, against what JAX's does: references that take up gradients, and its residuals."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import admodes
from admodes.modes.pullback import NotNeeded, NotSaveable

LIBRARIES = (admodes, jax)
W = np.arange(6.0).reshape(2, 3) / 10
X = np.array([0.5, -1.0, 2.0])
G = np.array([1.0, -2.0])


def f(w, x):
    return jnp.sin(w["w"] @ x) + w["b"]


ARGS = {"w": jnp.asarray(W), "b": jnp.ones(2)}, jnp.asarray(X)


def test_references_take_up_gradients():
    found = []
    for library in LIBRARIES:
        _, pullback = library.vjp(f, *ARGS)
        refs = {"w": jax.new_ref(jnp.ones((2, 3))), "b": jax.ad.DontWant()}, jax.ad.GradValue()
        results = [pullback.with_refs(*refs)(jnp.asarray(G)) for _ in range(2)]
        assert [jax.tree.map(type, r) for r in results[:1]] == [jax.tree.map(type, results[1])]
        assert type(results[0][0]["w"]) is jax.ad.GradRef
        assert type(results[0][0]["b"]) is jax.ad.DidntWant
        found.append((refs[0]["w"][...], results[1][1]))
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)


def test_gradients_of_microbatches_are_summed_inside_jit():
    def total(library, w, xs):
        ref = jax.new_ref(jnp.zeros_like(w))

        def step(_, x):
            y, pullback = library.vjp(lambda w: jnp.sum(jnp.sin(w @ x)), w)
            pullback.with_refs(ref)(jnp.ones_like(y))
            return None, y

        lax.scan(step, None, xs)
        return jax.ref.freeze(ref)

    xs = jnp.stack([X, 2 * X, X**2])
    expected = jax.grad(lambda w: jnp.sum(jnp.sin(w @ xs.T)))(W)
    for library in LIBRARIES:
        np.testing.assert_allclose(jax.jit(total, static_argnums=0)(library, W, xs), expected, rtol=1e-12)


def test_what_with_refs_refuses():
    _, pullback = admodes.vjp(f, *ARGS)
    ref = jax.new_ref(jnp.zeros(5))
    with pytest.raises(ValueError, match="in the structure of the arguments"):
        pullback.with_refs(ref)
    value = jax.ad.GradValue()
    with pytest.raises(ValueError, match="cannot take up a cotangent of type"):
        pullback.with_refs({"w": ref, "b": value}, value)(G)
    with pytest.raises(TypeError, match="not 3"):
        pullback.with_refs({"w": 3, "b": value}, value)(G)
    with pytest.raises(ValueError, match="unexpected tree structure"):
        pullback.with_refs({"w": value, "b": value}, value)((G, G))


def test_residuals_that_are_arguments_are_told_from_others():
    ours, theirs = (library.vjp(f, *ARGS)[1] for library in LIBRARIES)
    assert len(ours.args_res) == len(theirs.args_res) == 2
    (b, w), x = ours.args_res  # in the order of the leaves; tuples in the place of dicts
    assert isinstance(b, NotNeeded)
    assert w is ARGS[0]["w"]
    assert x is ARGS[1]
    assert [r.shape for r in ours.opaque_residuals] == [r.shape for r in theirs.opaque_residuals] == [(2,)]
    np.testing.assert_allclose(ours.opaque_residuals[0], np.cos(W @ X))


def test_an_argument_may_be_put_in_later():
    """A residual that is an argument need not be stored: it is put back before the pullback is called."""
    w, x = jnp.asarray(W), jnp.asarray(X)
    found = []
    for library in LIBRARIES:
        _, pullback = library.vjp(lambda w, x: w @ x, w, x)
        pullback.args_res[0] = 3 * w
        found.append(pullback(jnp.asarray(G)))
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    np.testing.assert_allclose(found[0][1], 3 * W.T @ G)


def test_a_pullback_leaves_jit_and_enters_another():
    _, pullback = jax.jit(lambda *args: admodes.vjp(f, *args))(*ARGS)
    expected = jax.vjp(f, *ARGS)[1](jnp.asarray(G))
    for found in (pullback(G), jax.jit(lambda pullback, g: pullback(g))(pullback, G)):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), found, expected)
    doubled = jax.tree.map(lambda x: x, pullback)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), doubled(G), expected)


def test_the_linearised_program():
    pullback = admodes.vjp(f, *ARGS)[1]
    jaxpr = pullback.jaxpr
    residuals = [*jax.tree.leaves(pullback.args_res), *pullback.opaque_residuals]
    assert len(jaxpr.invars) == 3
    assert {v.aval.shape for v in jaxpr.constvars} == {r.shape for r in residuals}
    assert [v.aval.shape for v in jaxpr.outvars] == [(2,)]


def test_nested_and_batched():
    g = lambda x: jnp.sum(jnp.sin(x) * x**2)

    def by_refs(x):
        y, pullback = admodes.vjp(g, x)
        ref = jax.new_ref(jnp.zeros_like(x))
        pullback.with_refs(ref)(jnp.ones_like(y))
        return jax.ref.freeze(ref)

    np.testing.assert_allclose(jax.jit(by_refs)(X), jax.grad(g)(X), rtol=1e-12)
    batch = jnp.stack([X, 2 * X])
    np.testing.assert_allclose(jax.vmap(by_refs)(batch), jax.vmap(jax.grad(g))(batch), rtol=1e-12)
    np.testing.assert_allclose(admodes.jacfwd(by_refs)(X), jax.hessian(g)(X), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit], ids=["eager", "jit"])
def test_arguments_that_must_not_be_kept(transform):
    w, x = jnp.asarray(W), jnp.asarray(X)
    _, pullback = transform(lambda w, x: admodes.vjp(jnp.dot, w, x, saveable_args=(False, True)))(w, x)
    assert isinstance(pullback.args_res[0], NotSaveable)
    for call in (pullback, lambda g: jax.jit(lambda pullback, g: pullback(g))(pullback, g)):
        with pytest.raises(ValueError, match=r"not-saveable args\[0\]"):
            call(G)
    pullback.args_res[0] = w
    found = transform(lambda pullback, g: pullback(g))(pullback, G)
    jax.tree.map(np.testing.assert_allclose, found, (np.outer(G, X), W.T @ G))


def test_arguments_that_are_not_needed_are_not_asked_for():
    _, pullback = admodes.vjp(lambda x: jnp.sin(x * x), jnp.asarray(X), saveable_args=False)
    with pytest.raises(ValueError, match="not-saveable"):
        pullback(X)
    _, pullback = admodes.vjp(jnp.sin, jnp.asarray(X), saveable_args=False)
    assert isinstance(pullback.args_res[0], NotNeeded)
    np.testing.assert_allclose(pullback(X)[0], np.cos(X) * X)


def test_flags_by_parts_of_arguments():
    ours = admodes.vjp(f, *ARGS, saveable_args=({"w": False, "b": True}, True))[1]
    for flags in (((True, False), True), [[True, False], True]):  # containers only have as many children
        assert jax.tree.structure(admodes.vjp(f, *ARGS, saveable_args=flags)[1]) == jax.tree.structure(ours)
    for flags, words in (
        ((True,), "number of children"),
        ((True, (True, True)), "leaf"),
        ((1, True), "tuple-tree of bools"),
        (({"w": True, "c": True}, True), "keys"),
    ):
        with pytest.raises(ValueError, match=f"saveable_args .*{words}"):
            admodes.vjp(f, *ARGS, saveable_args=flags)


def test_arguments_declared_constant():
    def g(w, x):
        return {"both": w * x, "x": [jnp.sin(x)], "none": 1.0}

    y, pullback = admodes.vjp(g, 2.0, 3.0, in_nzs=(True, False))
    assert y["both"] == 6
    assert pullback.out_nzs == {"both": True, "x": [False], "none": False}
    assert pullback({"both": 1.0, "x": [1.0], "none": 1.0}) == (3, 0)
    y, push = admodes.linearize(g, 2.0, 3.0, in_nzs=(False, True))
    assert push.out_nzs == {"both": True, "x": [True], "none": False}
    found = push(7.0, 1.0)  # the tangent of what is constant has no effect
    jax.tree.map(np.testing.assert_allclose, found, {"both": 2.0, "x": [np.cos(3.0)], "none": 0.0})
    if "in_nzs" in inspect.signature(jax.vjp).parameters:
        theirs = jax.vjp(g, 2.0, 3.0, in_nzs=(True, False))[1].out_nzs  # jax 0.11 hands out a flat tuple, 0.12 a tree
        assert jax.tree.leaves(theirs) == jax.tree.leaves(pullback.out_nzs)
        theirs = jax.linearize(g, 2.0, 3.0, in_nzs=(False, True))[1].out_nzs
        assert jax.tree.leaves(theirs) == jax.tree.leaves(push.out_nzs)
