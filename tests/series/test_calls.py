"""``jet``, ``taylor`` and ``derivative``: conventions, transforms, pytrees, kinks, errors, and what they emit."""

import math

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax import lax
from jax import numpy as jnp
from jax.experimental.jet import jet as jax_jet

import admodes
from tests.programs import programs
from tests.series.nested import FLOAT0, assert_close, check, derivatives, nested
from tests.test_fuzz import point, quick, thorough

X, V = np.array([0.3, -0.7, 1.1]), np.array([1.0, 0.5, -2.0])
W = np.random.default_rng(0).normal(size=(3, 3))


def layer(x):
    return jnp.tanh(W @ x) * jnp.exp(-x)


@pytest.mark.parametrize("scaled", [True, False])
def test_jet_has_the_conventions_of_jax(scaled):
    args, series = (X, V), ([V, X, X * V], [X, V, X + V])
    fun = lambda x, y: jnp.exp(x) / (2 + jnp.sin(y * x))
    ours = admodes.jet(fun, args, series, factorial_scaled=scaled)
    theirs = jax_jet(fun, args, series, factorial_scaled=scaled)
    assert_close(ours, theirs)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)


def test_taylor_gives_the_coefficients():
    coefficients = admodes.taylor(lambda t: 1 / (1 - t), 0.0, 1.0, 5)
    np.testing.assert_allclose(coefficients, np.ones(6))


def test_derivative_of_a_function_of_a_scalar():
    found = admodes.derivative(lambda t, a: {"sin": jnp.sin(a * t), "power": t**5}, 4)(0.3, 2.0)
    np.testing.assert_allclose([found["sin"], found["power"]], [16 * math.sin(0.6), 120 * 0.3])


def test_pytrees_and_several_arguments():
    args = ({"a": X, "b": (V,)}, jnp.float32(2))
    directions = ({"a": V, "b": (X,)}, jnp.float32(1))
    fun = lambda tree, s: {"product": tree["a"] * tree["b"][0] ** 2, "scalar": jnp.exp(s)}
    assert_close(derivatives(fun, args, directions, 3), nested(fun, args, directions, 3), 1e-5)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit, lambda f: jax.jit(jax.jit(f))], ids=["plain", "jit", "twice"])
def test_below_jit(wrap):
    check(layer, [X], order=5, wrap=wrap)
    check(jax.jit(layer), [X], order=5, wrap=wrap)


def test_below_vmap():
    batch = np.stack([X, V, X * V])
    third = lambda x: admodes.taylor(layer, x, V, 3)[3]
    np.testing.assert_allclose(jax.vmap(third)(batch), [third(x) for x in batch], rtol=1e-12)


@pytest.mark.parametrize("library", [admodes, jax], ids=["admodes", "jax"])
def test_gradients_of_a_residual(library):
    def loss(w):
        u = lambda t: jnp.sum(jnp.tanh(w @ (X * t)))
        return (admodes.derivative(u, 2)(0.5) + u(0.5)) ** 2

    def by_nesting(w):
        u = lambda t: jnp.sum(jnp.tanh(w @ (X * t)))
        return (jax.grad(jax.grad(u))(0.5) + u(0.5)) ** 2

    np.testing.assert_allclose(library.grad(loss)(W), jax.grad(by_nesting)(W), rtol=1e-10)


def test_within_loops_and_branches():
    def step(c, _):
        return c + 0.1 * admodes.derivative(lambda t: jnp.sin(t * c), 2)(0.5), None

    found = lax.scan(step, 0.3, None, length=3)[0]
    expected = 0.3
    for _ in range(3):
        expected += -0.1 * expected**2 * math.sin(expected * 0.5)
    np.testing.assert_allclose(found, expected)
    branch = lambda x: lax.cond(x > 0, admodes.derivative(jnp.exp, 2), admodes.derivative(jnp.sin, 2), x)
    np.testing.assert_allclose([branch(0.5), branch(-0.5)], [math.exp(0.5), math.sin(0.5)])


def test_python_may_decide_on_values():
    def fun(x):
        return x**3 if x > 0 else -x

    assert [float(admodes.derivative(fun, 3)(x)) for x in (2.0, -2.0)] == [6.0, 0.0]


def test_users_rules_are_differentiated():
    @jax.custom_jvp
    def doubled(x):
        return jnp.sin(x)

    doubled.defjvp(lambda p, t: (doubled(*p), 2 * jnp.cos(p[0]) * t[0]))
    check(lambda x: doubled(x * x), [X], order=4)

    @jax.custom_jvp
    def own(x):
        return jnp.exp(x)

    own.defjvp(lambda p, t: (own(*p), own(*p) * t[0]))
    for wrap in (jax.jit, lambda f: f):
        check(own, [X], order=5, wrap=wrap)

    @jax.custom_vjp
    def clipped(x):
        return x**2

    clipped.defvjp(lambda x: (clipped(x), x), lambda x, g: (jnp.sin(x) * g,))
    check(clipped, [X], order=4, jvp=admodes.jvp)


def test_nesting():
    outer = admodes.derivative(lambda s: admodes.derivative(lambda t: jnp.sin(s * t), 2)(0.7), 2)(0.4)
    expected = jax.grad(jax.grad(lambda s: jax.grad(jax.grad(lambda t: jnp.sin(s * t)))(0.7)))(0.4)
    np.testing.assert_allclose(outer, expected, rtol=1e-12)


def test_shard_map():
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("d",))
    spec = jax.sharding.PartitionSpec("d")
    fun = jax.shard_map(lambda x: jnp.sin(x) * x, mesh=mesh, in_specs=spec, out_specs=spec)
    x = np.linspace(0.1, 0.9, 4)
    found = jax.jit(lambda x: admodes.taylor(fun, x, np.ones(4), 3))(x)
    assert_close(found, admodes.taylor(lambda x: jnp.sin(x) * x, x, np.ones(4), 3))


# -- kinks ---------------------------------------------------------------------------------------------

KINKS = {
    # (function, its two pieces for t > 0 as functions of (t, v))
    "abs": jnp.abs,
    "relu": jax.nn.relu,
    "max": lambda x: jnp.maximum(x, 0.0),
    "min": lambda x: jnp.minimum(0.0, x),
    "clip": lambda x: jnp.clip(x, 0.0, 3.0),
    "where": lambda x: jnp.where(x > 0, x, 0.0),
    "leaky": lambda x: jnp.where(x >= 0, x, 0.1 * x),
    "reduce": lambda x: jnp.max(jnp.stack([x, 0 * x, -2 * x])),
    "sort": lambda x: jnp.sort(jnp.stack([x, 0 * x, -2 * x]))[1],
}


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("curve", [(1.0, 0.5, -2.0), (-1.0, 0.5, 3.0), (0.0, 1.0, 1.0), (0.0, 0.0, -1.0)])
@pytest.mark.parametrize("name", KINKS)
def test_the_piece_that_the_curve_enters(name, curve, jit):
    """Beside the point f is smooth along the curve: the expansion of the piece is fitted there."""
    fun = KINKS[name]
    polynomial = lambda t: sum(c * t**k for k, c in enumerate(curve, 1))
    jet = lambda series: admodes.jet(fun, (0.0,), (series,), factorial_scaled=False)
    y, found = (jax.jit(jet) if jit else jet)(list(curve))
    t = np.array([1e-2, 2e-2, 3e-2])
    values = [float(fun(polynomial(s))) for s in t]
    expected = np.linalg.solve(np.stack([t, t**2, t**3], 1), values)
    assert float(y) == 0
    np.testing.assert_allclose(found, expected, atol=1e-8)


def test_values_are_those_at_the_point():
    y, (first,) = admodes.jet(lambda x: jnp.where(x > 0, 1.0, 0.0) + x, (0.0,), ([1.0],))
    assert (float(y), float(first)) == (0.0, 1.0)


def test_guards_hold():
    sinc = lambda x: jnp.where(x == 0, 1.0, jnp.sin(x) / jnp.where(x == 0, 1.0, x))
    assert not np.isnan(admodes.taylor(sinc, 0.0, 1.0, 3)).any()


@pytest.mark.parametrize("exponent", [2.5, 1.5, 3.0])
def test_powers_at_zero(exponent):
    found = admodes.taylor(lambda x: x**exponent, 0.0, 1.0, 4)
    expected = [1.0 if k == exponent else 0.0 if k < exponent else math.inf for k in range(5)]
    if exponent == 3.0:
        np.testing.assert_array_equal(found, [0, 0, 0, 1, 0])
    else:
        finite = np.isfinite(expected)
        np.testing.assert_array_equal(np.array(found)[finite], np.array(expected)[finite])
        assert not np.isfinite(np.array(found)[~finite]).any()


# -- types, errors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "complex64"])
def test_dtypes(dtype):
    x = jnp.asarray(X, dtype)
    found = admodes.taylor(lambda x: jnp.sin(x) / (3 + x), x, jnp.ones_like(x), 3)
    assert {c.dtype for c in found} == {x.dtype}


def test_integers():
    y, (ys, ns) = admodes.jet(lambda x, n: (x * n, jnp.round(x).astype(int)), (2.0, 3), ([1.0, 1.0], [None, None]))
    assert float(y[0]) == 6.0
    assert [float(c) for c in ys] == [3.0, 3.0]
    assert {c.dtype for c in ns} == {FLOAT0}


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: admodes.taylor(jnp.sin, 1.0, 1.0, 0), ValueError, "order of at least 1, got 0"),
        (lambda: admodes.taylor(jnp.sin, 1.0, 1.0, 1.5), TypeError, "whole number as order"),
        (lambda: admodes.derivative(jnp.sin, -1), ValueError, "at least 1"),
        (lambda: admodes.derivative(jnp.sin)(X), TypeError, "function of a scalar"),
        (lambda: admodes.derivative(jnp.sin)(1), TypeError, "int"),
        (lambda: admodes.jet(jnp.sin, (1.0,), ([],)), ValueError, "at least 1"),
        (lambda: admodes.jet(jnp.sin, 1.0, ([1.0],)), TypeError, "primals as a tuple or list"),
        (lambda: admodes.jet(jnp.sin, (1.0,), ([1.0], [1.0])), ValueError, "1 primals, 2 series"),
        (lambda: admodes.jet(jnp.add, (1.0, 1.0), ([1.0], [1.0, 2.0])), ValueError, r"lengths \[1, 2\]"),
        (lambda: admodes.jet(jnp.sin, (1.0,), (1.0,)), TypeError, "series of argument 0"),
        (lambda: admodes.jet(jnp.sin, (X,), ([1.0],)), ValueError, r"term 1 of argument 0 has shape \(\)"),
        (lambda: admodes.jet(jnp.sin, (X,), ([V.astype("f4")],)), TypeError, "term 1 of argument 0 has dtype float32"),
        (lambda: admodes.jet(jnp.sin, ([X],), ([X],)), TypeError, "structure"),
        (lambda: admodes.jet(jnp.sin, (np.arange(3),), ([np.arange(3)],)), TypeError, "has dtype int"),
        (lambda: admodes.taylor(jnp.add, (1.0, 1.0), 1.0, 2), TypeError, "tuple of 2 tangents"),
    ],
)
def test_errors(call, error, words):
    with pytest.raises(error, match=words):
        call()


# -- what is emitted ----------------------------------------------------------------------------------------


def count(fun, *args):
    jaxpr = jax.make_jaxpr(fun)(*args)
    return len(jaxpr.jaxpr.eqns)


def test_zero_series_cost_nothing():
    """Of x + t v through a linear function only one coefficient is there."""
    linear = lambda x: jnp.roll(W @ x, 1) * 3.0
    first = count(lambda x: admodes.jvp(linear, (x,), (V,)), X)
    assert count(lambda x: admodes.taylor(linear, x, V, 9), X) == first + 8  # the zeros that are returned


@pytest.mark.parametrize("fun", [jnp.exp, jnp.sin, jnp.log, jnp.tanh, jax.nn.sigmoid, jnp.sqrt, lambda x: x**5])
def test_programs_grow_with_the_square_of_the_order(fun):
    sizes = [count(lambda x, k=k: admodes.taylor(fun, jnp.exp(x), V, k), X) for k in (4, 8, 16)]
    assert sizes[2] - sizes[1] < 5 * (sizes[1] - sizes[0])


@given(programs(modes=("jvp",)), st.integers(0, 1000))
@quick
def test_random_programs(f, seed):
    agree(f, seed)


@pytest.mark.slow
@given(programs(modes=("jvp",)), st.integers(0, 1000))
@thorough
def test_many_random_programs(f, seed):
    agree(f, seed)


def agree(f, seed):
    """Beside kinks only: where a zero meets one, the piece that is entered is not what JAX takes."""
    args, directions = point(4 * seed + 1)
    expected = nested(f, args, directions, 3)
    if all(np.isfinite(x).all() and np.abs(x).max(initial=0) < 1e6 for x in jax.tree.leaves(expected)):
        assert_close(derivatives(f, args, directions, 3), expected, 1e-7)
