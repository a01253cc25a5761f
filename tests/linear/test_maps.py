"""Every kind of linear map: push and pull are transposes of each other, and the pattern covers the matrix."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from admodes.linear.maps import Compose
from admodes.linear.materialise import cost, materialise
from admodes.linear.pattern import SparsityPattern
from admodes.modes.interpreter import INTERPRETER
from admodes.program import jax_compat as jc

X = jnp.array([0.3, -0.7, 1.1])
A = jnp.arange(6.0).reshape(2, 3)


@jax.custom_vjp
def given_by_its_pullback(x):
    return jnp.sin(x)


given_by_its_pullback.defvjp(lambda x: (jnp.sin(x), jnp.cos(x)), lambda c, g: (c * g,))

KINDS = {
    "Elementwise": (lambda x: lax.mul(x, lax.neg(x)), [X]),
    "Elementwise with broadcasting": (lambda x, y: lax.mul(lax.sub(x, y), y), [A, jnp.float64(2.0)]),
    "Linear": (lambda x: lax.transpose(x, (1, 0)), [A]),
    "Linear in several operands": (lambda x, y: lax.concatenate([x, y, x], 0), [X, X]),
    "Sum": (lambda x, y: lax.dot(x, y), [A, X]),
    "Function": (lambda x: jnp.linalg.cholesky(x @ x.T + jnp.eye(2)), [A]),
    "Function given by its pullback": (given_by_its_pullback, [X]),
    "Compiled": (jax.jit(lambda x: jnp.sin(x) * x), [X]),
    "Rematerialised": (jax.checkpoint(lambda x: jnp.sin(x) * x), [X]),
    "Branches": (lambda x: lax.cond(x[0] > 0, jnp.sin, jnp.cos, x), [X]),
    "Scan": (lambda x: lax.scan(lambda c, u: (c * u, c), x, jnp.ones((2, 3)) * x), [X]),
    "integers": (lambda x: (x, lax.argmax(x, 0, np.int32)), [X]),
}


def tape_of(fun, args):
    flat = lambda *xs: jax.tree.leaves(fun(*xs))
    return INTERPRETER.record_function(flat, args, [True] * len(args))


def random_like(avals, seed):
    rng = np.random.default_rng(seed)
    return tuple(jnp.asarray(rng.normal(size=a.shape)) if jc.is_differentiable(a) else None for a in avals)


def inner(xs, ys):
    return sum(float(jnp.vdot(x, y)) for x, y in zip(xs, ys, strict=True) if x is not None and y is not None)


@pytest.mark.parametrize("kind", KINDS)
def test_adjoint_identity(kind):
    _, tape = tape_of(*KINDS[kind])
    for linear in (tape, *tape.maps):
        t, g = random_like(linear.domain, 1), random_like(linear.codomain, 2)
        np.testing.assert_allclose(inner(g, linear.push(t)), inner(linear.pull(g), t), rtol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
def test_zeros_stay_symbolic(kind):
    _, tape = tape_of(*KINDS[kind])
    for linear in (tape, *tape.maps):
        assert all(t is None for t in linear.push((None,) * len(linear.domain)))
        assert all(g is None for g in linear.pull((None,) * len(linear.codomain)))


@pytest.mark.parametrize("kind", KINDS)
def test_materialised_by_push_and_by_pull_and_covered_by_the_pattern(kind):
    _, tape = tape_of(*KINDS[kind])
    pushed, pulled, pattern = materialise(tape, "push"), materialise(tape, "pull"), tape.pattern()
    for key, block in pushed.items():
        np.testing.assert_allclose(block, pulled[key], rtol=1e-11, atol=1e-14)
        nonzero = np.asarray(block) != 0
        covered = pattern[key].to_dense() if key in pattern else np.zeros_like(nonzero)
        assert not np.any(nonzero & ~covered)


@pytest.mark.parametrize("kind", KINDS)
def test_maps_are_pytrees(kind):
    _, tape = tape_of(*KINDS[kind])
    t = random_like(tape.domain, 1)
    leaves, tree = jax.tree.flatten(tape)
    again = jax.jit(lambda leaves, t: jax.tree.unflatten(tree, leaves).push(t))(leaves, t)
    for a, b in zip(again, tape.push(t), strict=True):
        if b is not None:
            np.testing.assert_allclose(a, b, rtol=1e-12)


def test_composition():
    _, first = tape_of(lambda x: jnp.sin(x), [X])
    _, second = tape_of(lambda x: A @ x, [X])
    both = Compose(second, first)
    expected = A * jnp.cos(X)
    np.testing.assert_allclose(materialise(both, "push")[0, 0], expected)
    np.testing.assert_allclose(materialise(both, "pull")[0, 0], expected)
    assert both.pattern()[0, 0].nnz == 5  # one entry of A is zero


def test_patterns_add_and_compose_as_matrices_do():
    rng = np.random.default_rng(0)
    a, b = rng.random((4, 5)) < 0.3, rng.random((5, 3)) < 0.3
    pattern = lambda m: SparsityPattern.build(*np.nonzero(m), m.shape)
    assert np.array_equal(pattern(a).compose(pattern(b)).to_dense(), (a.astype(int) @ b.astype(int)) > 0)
    c = rng.random((4, 5)) < 0.3
    union = pattern(a).union(pattern(c))
    assert np.array_equal(union.to_dense(), a | c)
    assert union.nnz == len(union.rows) == len(union.cols) == np.sum(a | c)
    assert "4 x 5" in repr(union)


def test_cost_counts_the_work_of_one_application():
    _, tape = tape_of(lambda x: A @ x, [X])
    push, pull = cost(tape, "push"), cost(tape, "pull")
    assert push.flops >= 6
    assert pull.flops >= 6
    assert push.bytes >= 8 * (6 + 3 + 2)
