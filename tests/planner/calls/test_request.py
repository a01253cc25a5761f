"""What is asked for: Hessians that are none, and parts whose inputs or outputs play no role."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import admodes

X = jnp.linspace(0.3, 1.4, 40)


def not_a_derivative(factor):
    """A product with a rule of the user's whose Hessian is not symmetric."""

    @jax.custom_jvp
    def product(a, b):
        return a * b

    product.defjvp(lambda p, t: (product(*p), factor * t[0] * p[1] + (t[1] * p[0] if factor == 2 else 0.0)))
    return lambda v: jnp.sum(product(v[1:], v[:-1])) + jnp.sum(product(v[0], v[1:])) + jnp.sum(v**3)


@pytest.mark.parametrize("factor", [1, 2])
def test_hessians_with_rules_that_are_no_derivatives_are_not_taken_to_be_symmetric(factor):
    f = not_a_derivative(factor)
    expected = jax.hessian(f)(X)
    assert not np.allclose(expected, expected.T)
    plan = admodes.plan(admodes.grad(f), X)
    compressed = admodes.hessian(f, format="compressed")(X)
    assert compressed.coloring.kind in ("column", "row")
    np.testing.assert_allclose(plan.jacobian(X), expected, rtol=1e-12)
    np.testing.assert_allclose(admodes.hessian(f, format="bcoo")(X).todense(), expected, rtol=1e-12)


def test_cuts_go_past_inputs_that_are_not_used():
    def f(p):
        y = jnp.mean(p["x"]) * jnp.arange(1.0, 4)
        return jax.lax.fori_loop(0, 50, lambda _, y: jnp.sin(y), y)

    p = {"x": jnp.linspace(0.0, 1.0, 100), "y": jnp.ones(3)}
    found, expected = admodes.jacobian(f)(p), jax.jacfwd(f)(p)
    for k, block in expected.items():
        np.testing.assert_allclose(found[k], block, rtol=1e-12)


def test_a_compressed_jacobian_of_nothing():
    found = admodes.jacobian(lambda v: v**2, format="compressed")(jnp.zeros(0))
    assert found.coloring.number == 0


def test_blocks_have_the_dtypes_that_jax_gives_them():
    x = jnp.ones(2, jnp.bfloat16), jnp.ones(2, jnp.float32)

    def f(x):
        return x[0].astype("float32") * x[1], x[0] * 2

    def dtypes(blocks):
        return [block.dtype for block in jax.tree.leaves(blocks)]

    assert dtypes(admodes.jacobian(f)(x)) == dtypes(jax.jacobian(f)(x))

    def scalar(x):
        return jnp.sum(f(x)[0] ** 2)

    assert dtypes(admodes.hessian(scalar)(x)) == dtypes(jax.hessian(scalar)(x))
    assert admodes.jacobian(lambda x: x * jnp.exp(1j * x))(x[1]).dtype == jnp.complex64


def test_where_a_function_decides_on_values_is_said():
    def decides(x):
        return x if x[0] > 0 else -x

    line = decides.__code__.co_firstlineno + 1
    where = rf"test_request\.py:{line} .*decides\): Attempted boolean conversion"
    for call in (
        lambda: admodes.jacobian(decides, format="bcoo")(X),
        lambda: admodes.plan(decides, X),
        lambda: admodes.sparsity(decides, X),
    ):
        with pytest.raises(admodes.errors.PlanningError, match=where):
            call()
