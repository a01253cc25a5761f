"""A Hessian is taken for symmetric only where it is known to be: users' rules need not be derivatives."""

import jax
import numpy as np
import pytest
from jax import lax
from jax import numpy as jnp

import admodes
from admodes.planner.calls.request import request

X = jnp.linspace(0.1, 1.0, 40)


def is_symmetric(f, x=X):
    return request("hessian", admodes.grad(f), 0, False, False, f).call((x,), {}).task().symmetric


def unlike(x):
    """What a rule that is no derivative says: an entry depends on both neighbours, and not as they depend on it."""
    steps = lambda z: lax.fori_loop(0, 20, lambda _, z: jnp.sin(z) + 0.3 * z, z)
    return jnp.roll(steps(x), 1) + 3 * jnp.roll(steps(x), -1)


def by_custom_vjp():
    identity = jax.custom_vjp(lambda x: x)
    identity.defvjp(lambda x: (x, x), lambda x, g: (g * unlike(x),))
    return identity


def by_custom_jvp():
    identity = jax.custom_jvp(lambda x: x)
    identity.defjvp(lambda p, t: (p[0], t[0] * unlike(p[0])))
    return identity


def by_partials():
    identity = jax.custom_jvp(lambda x: x)
    identity.defjvps(lambda t, out, x: t * unlike(x))
    return identity


AROUND = {
    "plain": lambda f: f,
    "jit": jax.jit,
    "scan": lambda f: lambda x: lax.scan(lambda c, _: (f(c), None), x, None, length=1)[0],
    "cond": lambda f: lambda x: lax.cond(x[0] > 0, f, lambda x: x, x),
    "remat": jax.checkpoint,
}


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("kind", [by_custom_vjp, by_custom_jvp, by_partials], ids=lambda kind: kind.__name__)
def test_rules_that_are_no_gradients(kind, around):
    g = AROUND[around](kind())
    f = lambda x: jnp.sum(g(x))
    assert not is_symmetric(f)
    if around in ("plain", "jit"):
        for form in ("dense", "scipy"):
            found = admodes.hessian(f, format=form)(X)
            found = found if form == "dense" else found.toarray()
            np.testing.assert_allclose(found, jax.jacrev(jax.grad(f))(X), rtol=1e-8, atol=1e-8)


def test_functions_that_are_known_to_have_gradients():
    """Those without rules, and those whose rules are JAX's."""
    for f in (
        lambda x: jnp.sum(jnp.sin(x) * jnp.roll(x, 1)),
        lambda x: jnp.sum(jax.nn.softplus(x) * jnp.roll(jax.nn.relu(x), 1)),
        lambda x: jax.nn.logsumexp(x),
        jax.jit(lambda x: jnp.sum(jnp.logaddexp(x, x[::-1]))),
    ):
        assert is_symmetric(f)
        np.testing.assert_allclose(admodes.hessian(f)(X), jax.hessian(f)(X), rtol=1e-8, atol=1e-10)


def test_a_gradient_of_another_gradient():
    """The rules in what is differentiated inside make a function like any other, which has a gradient."""
    identity = by_custom_vjp()
    f = lambda x: jnp.sum(admodes.grad(lambda y: jnp.sum(identity(y)))(x) * x)
    found = admodes.hessian(f)(X)
    np.testing.assert_allclose(found, found.T, rtol=1e-10)
    np.testing.assert_allclose(found, jax.hessian(lambda x: jnp.sum(unlike(x) * x))(X), rtol=1e-8, atol=1e-8)
