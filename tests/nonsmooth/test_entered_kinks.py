"""Kinks of primitives that a user enters, spelled out or found in the slope, beside the same formula in lax."""

import jax
import numpy as np
import pytest
from jax import lax
from jax import numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import batching, mlir

import admodes
from admodes.errors import UnsupportedPrimitiveError
from admodes.rules.table import elementwise, zero


def primitive(name, fun):
    p = Primitive(name)
    p.def_impl(fun)
    p.def_abstract_eval(lambda *xs: max(xs, key=lambda x: x.ndim))
    mlir.register_lowering(p, mlir.lower_fun(fun, multiple_results=False))
    batching.defbroadcasting(p)
    return p


def _where(mask, a, b):
    return lax.select(mask, lax.full_like(mask, a, np.float64), lax.full_like(mask, b, np.float64))


def leaky(x):
    return lax.select(lax.gt(x, lax.full_like(x, 0)), x, lax.mul(x, lax.full_like(x, 0.1)))


def bend(x):
    return lax.select(lax.gt(x, lax.full_like(x, 0)), lax.add(x, lax.mul(x, x)), lax.sin(x) * 0.1)


def larger(x, y):
    return lax.select(lax.ge(x, y), x, y)


def step(x):
    return _where(lax.ge(x, lax.full_like(x, 0)), 1.0, 0.0)


def enter_unsaid(name, fun, *slopes):
    p = primitive(name, fun)
    elementwise(p, *slopes)
    return p.bind


def enter_spelled(name, fun, *slopes):
    p = primitive(name, fun)
    elementwise(p, *slopes, kink=fun)
    return p.bind


SLOPES = {
    leaky: [lambda out, x: _where(lax.gt(x, lax.full_like(x, 0)), 1.0, 0.1)],
    bend: [lambda out, x: jnp.where(x > 0, 1.0 + 2.0 * x, 0.1 * jnp.cos(x))],
    larger: [lambda out, x, y: _where(lax.ge(x, y), 1.0, 0.0), lambda out, x, y: _where(lax.ge(x, y), 0.0, 1.0)],
}
X, V = np.array([0.0, 0.5, -1.0, 0.0]), np.array([1.0, -1.0, 2.0, -3.0])


@pytest.fixture(params=[enter_unsaid, enter_spelled], ids=["unsaid", "spelled"])
def enter(request):
    return request.param


@pytest.mark.parametrize("fun", [leaky, bend], ids=["leaky", "bend"])
def test_one_operand(enter, fun):
    entered = enter(fun.__name__, fun, *SLOPES[fun])

    def of(f):
        return lambda x: jnp.sum(jnp.arange(1.0, 5.0) * (f(x) - f(-x)) * jnp.cos(x))

    for call in (admodes.subgradient, lambda f: jax.jit(admodes.subgradient(f))):
        np.testing.assert_allclose(call(of(entered))(X), call(of(fun))(X), rtol=1e-12)
    np.testing.assert_allclose(admodes.directional(entered, X, V), admodes.directional(fun, X, V), rtol=1e-12)
    looped = lambda f: lambda x: lax.fori_loop(0, 3, lambda _, y: f(f(y)) - f(-y), x)
    found, expected = (admodes.directional(looped(f), X, V) for f in (entered, fun))
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_broadcast_operand(enter):
    entered = enter("larger", lambda x, y: larger(*jnp.broadcast_arrays(x, y)), *SLOPES[larger])
    for f in (lambda x: entered(x, -x), lambda x: entered(x, jnp.sin(x) * 2.0)):
        plain = lambda x, f=f: f(x)
        at = admodes.directional(plain, X, V)
        beside = (np.asarray(f(X + 1e-7 * V)) - np.asarray(f(X))) / 1e-7
        np.testing.assert_allclose(at, beside, atol=1e-5)


def test_the_doctor_sees_the_kink(enter):
    entered = enter("leaky", leaky, *SLOPES[leaky])
    (kink,) = admodes.doctor(lambda x: jnp.sum(entered(x)), X).kinks
    assert (kink.primitive, kink.count, kink.jump) == ("leaky", 2, False)
    assert not admodes.doctor(lambda x: jnp.sum(entered(x)), X + 0.25).kinks


def test_a_jump_is_spelled_out():
    p = primitive("step", step)
    zero(p, kink=step, tie="at 0", jump=True)
    for f in (p.bind, step):
        product = lambda x, f=f: f(x) * x + f(-x) * x**2
        np.testing.assert_allclose(admodes.directional(product, 0.0, 1.0), 1.0)
        np.testing.assert_allclose(admodes.directional(product, 0.0, -1.0), 0.0)
    (kink,) = admodes.doctor(lambda x: p.bind(x) * x, 0.0).kinks
    assert (kink.primitive, kink.what, kink.jump) == ("step", "at 0", True)


def test_a_slope_that_compares_its_own_result_asks_for_more():
    """It is known beside the point only once the slope is."""
    p = primitive("ramp", lambda x: jnp.maximum(x, 0.0))
    slope = lambda out, x: _where(lax.gt(out, lax.full_like(x, 0)), 1.0, 0.0)
    elementwise(p, slope)
    with pytest.raises(UnsupportedPrimitiveError, match="say kink="):
        admodes.directional(p.bind, 0.0, 1.0)
    elementwise(p, slope, kink=lambda x: lax.max(x, lax.full_like(x, 0)))
    assert (admodes.directional(p.bind, 0.0, 1.0), admodes.directional(p.bind, 0.0, -1.0)) == (1.0, 0.0)


def test_the_second_derivative_of_a_piece():
    entered = enter_unsaid("bend", bend, *SLOPES[bend])
    for v, expected in ((1.0, 2.0), (-1.0, 0.0)):  # of x + x², and of sin(x)/10
        found = admodes.grad(admodes.subgradient(entered, direction=v))(0.0)
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_a_slope_that_is_made_of_the_function_itself():
    """(e^-|x|)' = -sign x e^-|x|"""
    p = primitive("peak", lambda x: jnp.exp(-jnp.abs(x)))
    elementwise(p, lambda out, x: lax.neg(lax.mul(lax.sign(x), p.bind(x))))
    for v in (1.0, -1.0):
        np.testing.assert_allclose(admodes.subgradient(p.bind, direction=v)(0.0), -v)
        np.testing.assert_allclose(admodes.directional(p.bind, 0.0, v), -1.0)
    (kink,) = admodes.doctor(p.bind, 0.0).kinks
    assert (kink.primitive, kink.count) == ("peak", 1)


def test_a_special_function_with_a_kink():
    """exp(-|x|) I₀(x) falls on both sides of 0."""
    slopes = [admodes.directional(jax.scipy.special.i0e, 0.0, v) for v in (1.0, -1.0)]
    np.testing.assert_allclose(slopes, [-1.0, -1.0])
    assert admodes.doctor(jax.scipy.special.i0e, 0.0).kinks
    np.testing.assert_allclose(admodes.directional(jax.scipy.special.i1e, 0.0, 2.0), 1.0)
