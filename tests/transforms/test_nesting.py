"""Modes inside modes, and inside JAX's transformations, and the other way round."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import admodes

X = jnp.array([0.3, -0.7, 1.1])


def f(x):
    return jnp.sum(jnp.sin(x) * jax.nn.softplus(x) ** 2) * jnp.prod(x)


def close(a, b, rtol=1e-11):
    jax.tree.map(lambda u, v: np.testing.assert_allclose(u, v, rtol=rtol, atol=1e-13), a, b)


@pytest.mark.parametrize("outer", [admodes, jax])
@pytest.mark.parametrize("inner", [admodes, jax])
@pytest.mark.parametrize("jit", [lambda g: g, jax.jit])
@pytest.mark.every(2)
def test_second_derivatives_in_every_combination(outer, inner, jit):
    v = jnp.array([1.0, 2.0, -1.0])
    expected = jax.hessian(f)(X) @ v
    close(jit(lambda x: outer.jvp(inner.grad(f), (x,), (v,))[1])(X), expected)
    close(jit(outer.grad(lambda x: inner.jvp(f, (x,), (v,))[1]))(X), expected)
    close(jit(outer.grad(lambda x: inner.grad(f)(x) @ v))(X), expected)
    close(jit(lambda x: outer.jvp(lambda y: inner.jvp(f, (y,), (v,))[1], (x,), (v,))[1])(X), v @ expected)


def test_third_derivative():
    d3 = lambda lib: lib.grad(lib.grad(lib.grad(lambda x: jnp.sin(x) * jnp.exp(x) ** 2)))
    close(d3(admodes)(0.4), d3(jax)(0.4))
    close(jax.jit(d3(admodes))(0.4), d3(jax)(0.4))


def test_perturbations_are_not_confused():
    """d/dx (x * d/dy (x + y)) at x = 1 is 1, and 2 when perturbations are mixed up (Siskind and Pearlmutter 2005)."""

    def slope(derive):
        return derive(lambda x: x * derive(lambda y: x + y)(1.0))(1.0)

    assert slope(admodes.grad) == 1.0
    assert slope(lambda g: lambda x: admodes.jvp(g, (x,), (1.0,))[1]) == 1.0


def test_vmap_and_jit_anywhere():
    xs = jnp.stack([X, X + 1])
    expected = jax.vmap(jax.grad(f))(xs)
    close(jax.vmap(admodes.grad(f))(xs), expected)
    close(jax.jit(jax.vmap(admodes.grad(f)))(xs), expected)
    close(admodes.grad(lambda xs: jnp.sum(jax.vmap(f)(xs)))(xs), expected)
    close(admodes.grad(jax.jit(lambda xs: jnp.sum(jax.jit(jax.vmap(f))(xs))))(xs), expected)


def test_hessian_and_hvp():
    v = jnp.array([1.0, 2.0, -1.0])
    close(admodes.hessian(f)(X), jax.hessian(f)(X))
    close(admodes.hvp(f, X, v), jax.hessian(f)(X) @ v)
    g = lambda x, y: jnp.sum(x * x) * y["a"]
    args, vs = (X, {"a": 2.0}), (v, {"a": 1.0})
    close(admodes.hvp(g, args, vs), jax.jvp(jax.grad(g, (0, 1)), args, vs)[1])
    close(admodes.hessian(g, argnums=(0, 1))(*args), jax.hessian(g, argnums=(0, 1))(*args))


def test_pullback_is_a_pytree_that_leaves_jit():
    y, pullback = jax.jit(lambda x: admodes.vjp(f, x))(X)
    close(pullback(jnp.ones_like(y))[0], jax.grad(f)(X))
    close(jax.jit(lambda pb, g: pb(g))(pullback, jnp.ones_like(y))[0], jax.grad(f)(X))
    _, push = jax.jit(lambda x: admodes.linearize(f, x))(X)
    close(push(X), jax.jvp(f, (X,), (X,))[1])


def test_pullback_can_be_used_many_times():
    _, pullback = admodes.vjp(lambda x: jnp.sin(x) * x, X)
    basis = jnp.eye(3)
    close(jax.vmap(pullback)(basis)[0], jax.jacrev(lambda x: jnp.sin(x) * x)(X))
    close(pullback(basis[0]), pullback(basis[0]))


def test_closed_over_tracers():
    close(admodes.grad(lambda a: admodes.grad(lambda b: a * b * b)(2.0))(3.0), 4.0)
    close(jax.jit(lambda a: admodes.grad(lambda b: a * b * b)(2.0))(3.0), 12.0)
    close(jax.vmap(lambda a: admodes.grad(lambda b: a * b * b)(2.0))(X), 4 * X)
    close(jax.grad(lambda a: admodes.grad(lambda b: a * b * b)(2.0))(3.0), 4.0)


def test_jitted_function_that_closes_over_a_differentiated_value():
    def outer(a):
        inner = jax.jit(lambda b: a * jnp.sin(b))
        return inner(a) * inner(2.0)

    close(admodes.grad(outer)(0.7), jax.grad(outer)(0.7))
    close(admodes.jvp(outer, (0.7,), (1.0,)), jax.jvp(outer, (0.7,), (1.0,)))


def test_escaped_tracer_is_reported():
    leaked = []
    admodes.grad(lambda x: leaked.append(x) or x * x)(1.0)
    with pytest.raises(jax.errors.UnexpectedTracerError):
        jnp.sin(leaked[0])
