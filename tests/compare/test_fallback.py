"""JAX's rule for one primitive: only when asked for, and gone afterwards."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

import admodes
from admodes.compare import compare
from admodes.compare.fallback import use_jax_rule
from admodes.errors import UnsupportedPrimitiveError
from admodes.rules.table import lookup

cube_p = Primitive("cube")  # known to JAX, unknown to the table
cube_p.def_impl(lambda x: x * x * x)
cube_p.def_abstract_eval(lambda x: x)
mlir.register_lowering(cube_p, mlir.lower_fun(lambda x: x * x * x, multiple_results=False))
ad.defjvp(cube_p, lambda t, x: 3 * x * x * t)
batching.defvectorized(cube_p)


def f(x):
    return jnp.sum(jnp.sin(x) * cube_p.bind(x))


X = np.array([0.5, -1.0, 2.0])


def test_without_the_fallback_the_primitive_is_named():
    with pytest.raises(UnsupportedPrimitiveError, match="'cube'"):
        admodes.grad(f)(X)
    with pytest.raises(UnsupportedPrimitiveError, match="'cube'"):
        compare(f, X)


def test_both_modes_and_second_order_with_the_borrowed_rule():
    with use_jax_rule(cube_p):
        gradient = admodes.grad(f)(X)
        _, slope = admodes.jvp(f, (X,), (np.ones(3),))
        second = admodes.hessian(f)(X)
    np.testing.assert_allclose(gradient, jax.grad(f)(X), rtol=1e-14)
    np.testing.assert_allclose(slope, np.sum(jax.grad(f)(X)), rtol=1e-14)
    np.testing.assert_allclose(second, jax.hessian(f)(X), rtol=1e-14, atol=1e-14)
    assert lookup(cube_p) is None


def test_the_table_is_restored_also_after_an_error():
    before = lookup(jax.lax.sin_p)

    def fail():
        with use_jax_rule(jax.lax.sin_p):
            assert lookup(jax.lax.sin_p) is not before
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert lookup(jax.lax.sin_p) is before


def test_a_primitive_with_several_operands_and_results():
    def g(a, b):
        return jnp.sum(jax.lax.sort([a * b, b], num_keys=1)[1] * jnp.arange(4.0))

    a, b = np.array([3.0, 1.0, 2.0, 5.0]), np.array([1.0, -1.0, 0.5, 2.0])
    with use_jax_rule(jax.lax.sort_p):
        ours = admodes.grad(g, (0, 1))(a, b)
    for actual, expected in zip(ours, jax.grad(g, (0, 1))(a, b), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-14)


def test_compare_says_what_it_borrowed():
    def looped(x):
        return jax.lax.fori_loop(0, 3, lambda i, y: cube_p.bind(y) * 0.5, x)

    for g in (f, looped):
        result = compare(g, X, fallback="jax", repeat=1)
        assert result.borrowed == ("cube",)
        assert "borrowed from JAX: cube" in str(result)
        assert max(row.rel_error for row in result.rows) < 1e-14
    assert compare(jnp.sin, X, fallback="jax", repeat=1).borrowed == ()
    assert lookup(cube_p) is None
