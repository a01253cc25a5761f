"""The oracle of Taylor mode: nested ``jvp`` along a line, JAX's where it has one, and how results are compared."""

import math

import jax
import numpy as np
from jax import numpy as jnp

from admodes import taylor

FLOAT0 = jax.dtypes.float0


def nested(fun, args, directions, order, jvp=jax.jvp):
    """The derivatives of t -> fun(args + t directions) at 0, from order 0 on."""

    def line(t):
        return fun(*jax.tree.map(lambda x, v: x if v is None else x + t * v, args, directions))

    stages = [line]
    for _ in range(order):
        stages.append(lambda t, f=stages[-1]: jvp(f, (t,), (1.0,))[1])
    return jax.jit(lambda: [f(0.0) for f in stages])()


def derivatives(fun, args, directions, order, wrap=jax.jit):
    """The same by Taylor mode."""
    coefficients = wrap(lambda *xs: taylor(fun, xs, directions, order))(*args)

    def scaled(c, k):
        return c if k < 2 or jax.typeof(c).dtype == FLOAT0 else math.factorial(k) * c

    return [jax.tree.map(lambda c, k=k: scaled(c, k), c) for k, c in enumerate(coefficients)]


def assert_close(found, expected, rtol=1e-10):
    """Equal up to ``rtol`` of the largest entry of an order, and of the largest derivative if it is none."""
    leaves = [np.asarray(x) for x in jax.tree.leaves(expected)]
    assert len(jax.tree.leaves(found)) == len(leaves)
    for k, (a, b) in enumerate(zip(jax.tree.leaves(found), leaves, strict=True)):
        if b.dtype == FLOAT0:
            continue
        scale = np.abs(b).max(initial=0, where=np.isfinite(b)) if np.issubdtype(b.dtype, np.inexact) else 0
        np.testing.assert_allclose(a, b, rtol, rtol * max(scale, 1e-3), err_msg=f"leaf {k}")


def check(fun, args, order=3, rtol=1e-10, wrap=jax.jit, jvp=jax.jvp, seed=3):
    """Compare along a random direction of all floating-point arguments."""
    rng = np.random.default_rng(seed)

    def direction(x):
        v = rng.uniform(0.5, 1.5, np.shape(x)) * np.where(rng.random(np.shape(x)) < 0.5, -1, 1)
        return np.asarray(v, np.asarray(x).dtype)

    args = tuple(map(jnp.asarray, args))
    directions = tuple(map(direction, args))
    assert_close(derivatives(fun, args, directions, order, wrap), nested(fun, args, directions, order, jvp), rtol)
