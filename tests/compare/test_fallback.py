"""JAX's rule for one primitive: only when asked for, and gone afterwards."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp

import admodes
from admodes.compare import compare
from admodes.compare.fallback import use_jax_rule
from admodes.errors import UnsupportedPrimitiveError
from admodes.rules import table
from admodes.rules.table import lookup

cbrt_p = jax.lax.cbrt_p


@pytest.fixture(autouse=True)
def table_without_cbrt(monkeypatch):
    """A primitive known to JAX, unknown to the table."""
    monkeypatch.delitem(table._RULES, cbrt_p)


def f(x):
    return jnp.sum(jnp.sin(x) * cbrt_p.bind(x, accuracy=None))


X = np.array([0.5, -1.0, 2.0])


def test_without_the_fallback_the_primitive_is_named():
    with pytest.raises(UnsupportedPrimitiveError, match="'cbrt'"):
        admodes.grad(f)(X)
    with pytest.raises(UnsupportedPrimitiveError, match="'cbrt'"):
        compare(f, X)


def test_both_modes_and_second_order_with_the_borrowed_rule():
    with use_jax_rule(cbrt_p):
        gradient = admodes.grad(f)(X)
        _, slope = admodes.jvp(f, (X,), (np.ones(3),))
        second = admodes.hessian(f)(X)
    np.testing.assert_allclose(gradient, jax.grad(f)(X), rtol=1e-14)
    np.testing.assert_allclose(slope, np.sum(jax.grad(f)(X)), rtol=1e-14)
    np.testing.assert_allclose(second, jax.hessian(f)(X), rtol=1e-14, atol=1e-14)
    assert lookup(cbrt_p) is None


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
        return jax.lax.fori_loop(0, 3, lambda i, y: cbrt_p.bind(y, accuracy=None) * 0.5, x)

    for g in (f, looped):
        result = compare(g, X, fallback="jax", repeat=1)
        assert result.borrowed == ("cbrt",)
        assert "borrowed from JAX: cbrt" in str(result)
        assert max(row.rel_error for row in result.rows) < 1e-14
    assert compare(jnp.sin, X, fallback="jax", repeat=1).borrowed == ()
    assert lookup(cbrt_p) is None


@pytest.mark.parametrize(
    ("primitive", "g"),
    [
        (jax.lax.transpose_p, lambda x: jnp.sum(jnp.outer(x, x**2).T * jnp.arange(9.0).reshape(3, 3))),
        (jax.lax.reduce_sum_p, lambda x: jnp.sum(x**3) ** 2),
        (jax.lax.mul_p, lambda x: jnp.prod(x * x * jnp.sin(x))),
        (jax.lax.dot_general_p, lambda x: jnp.sum(jnp.sin(x @ jnp.outer(x, x)))),
        (jax.lax.concatenate_p, lambda x: jnp.sum(jnp.concatenate([x, x**2]) ** 2)),
        (jax.lax.add_p, lambda x: jnp.sum((x + x**2) ** 2)),
    ],
)
def test_linear_primitives_are_transposed_by_jax(primitive, g):
    """JAX's rule of a linear primitive applies the primitive to the tangents."""
    expected = jax.grad(g)(X), jax.hessian(g)(X)
    with use_jax_rule(primitive):
        np.testing.assert_allclose(admodes.grad(g)(X), expected[0], rtol=1e-12)
        np.testing.assert_allclose(admodes.grad(jax.jit(g))(X), expected[0], rtol=1e-12)
        np.testing.assert_allclose(admodes.jacfwd(g)(X), expected[0], rtol=1e-12)
        for outer, inner in (("jacfwd", "grad"), ("jacrev", "grad"), ("jacrev", "jacfwd")):
            found = getattr(admodes, outer)(getattr(admodes, inner)(g))(X)
            np.testing.assert_allclose(found, expected[1], rtol=1e-12, atol=1e-12)
