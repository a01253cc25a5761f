"""Programs derived from sub-programs live as long as those."""

import gc

import jax
import jax.numpy as jnp
import pytest
from jax import lax

import admodes
from admodes.program import jax_compat as jc
from admodes.program.derived import Recording

X = jnp.array([0.5, 1.5, 2.5])


def loop(y):
    return lax.scan(lambda c, u: (jnp.sin(c) * u, c), y, y)[0].sum()


def branch(y):
    return lax.cond(y[0] > 0, lambda: jnp.sin(y).sum(), lambda: y[0])


def sine(y):
    return jnp.sin(y).sum()


def alive() -> int:
    gc.collect()
    return sum(isinstance(o, (jc.Jaxpr, jc.ClosedJaxpr, Recording)) for o in gc.get_objects())


@pytest.mark.parametrize("body", [sine, loop, branch], ids=lambda f: f.__name__)
@pytest.mark.parametrize("call", [jax.jit, jax.checkpoint], ids=lambda f: f.__name__)
@pytest.mark.every(3)
def test_nothing_outlives_the_function(call, body):
    """A new closure at each call, as in a training loop that defines its loss inside: nothing may pile up."""

    def differentiate():
        fresh = call(lambda y: body(y))
        admodes.grad(lambda x: fresh(x))(X)
        admodes.jvp(lambda x: call(lambda y: sine(y))(x), (X,), (X,))

    differentiate()
    before = alive()
    for _ in range(2):
        differentiate()
    assert alive() <= before
