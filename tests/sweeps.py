"""The ways to a derivative of a function of one number: for tests of what must be right in every one of them."""

import jax
from jax import lax
from jax import numpy as jnp

import admodes

FIRST = {
    "grad": lambda f, x: admodes.grad(f)(x),
    "jvp": lambda f, x: admodes.jvp(f, (x,), (jnp.ones_like(x),))[1],
    "grad under jit": lambda f, x: jax.jit(admodes.grad(f))(x),
    "grad of jit": lambda f, x: admodes.grad(jax.jit(f))(x),
    "grad under vmap": lambda f, x: jax.vmap(admodes.grad(f))(jnp.stack([x, x]))[1],
    "grad of vmap": lambda f, x: admodes.grad(lambda xs: jnp.sum(jax.vmap(f)(xs)))(jnp.stack([x, x]))[1],
    "jvp of vmap": lambda f, x: admodes.jvp(jax.vmap(f), (jnp.stack([x, x]),), (jnp.ones(2),))[1][1],
    "jacobian": lambda f, x: admodes.jacobian(f)(x),
    "sparse jacobian": lambda f, x: admodes.jacobian(lambda xs: jnp.stack([f(xs[0]), f(xs[1])]))(jnp.stack([x, x]))[
        1, 1
    ],
    "checkpoint": lambda f, x: admodes.grad(jax.checkpoint(f))(x),
    "memory_limit": lambda f, x: admodes.grad(f, memory_limit=10**6)(x),
    "nan_safe": lambda f, x: admodes.grad(f, nan_safe=True)(x),
    "subgradient": lambda f, x: admodes.subgradient(f)(x),
    "scan": lambda f, x: admodes.grad(lambda x: lax.scan(lambda c, _: (c + f(x), None), 0.0 * x, None, length=1)[0])(x),
}
SECOND = {
    "grad of grad": lambda f, x: admodes.grad(admodes.grad(f))(x),
    "forward over reverse": lambda f, x: admodes.jvp(admodes.grad(f), (x,), (jnp.ones_like(x),))[1],
    "reverse over forward": lambda f, x: admodes.grad(lambda x: admodes.jvp(f, (x,), (jnp.ones_like(x),))[1])(x),
    "hessian": lambda f, x: admodes.hessian(f)(x),
}
