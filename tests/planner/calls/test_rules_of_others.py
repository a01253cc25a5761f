"""Plans tell apart functions whose primitives look alike, but whose rules, a library's or a user's, differ."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

import admodes
from admodes.program import jax_compat as jc

X = jnp.arange(1.0, 4.0)


def registered(slope):
    """A library's sine, with the rule that it registered with JAX."""
    primitive = Primitive("sine")
    primitive.def_impl(jnp.sin)
    primitive.def_abstract_eval(lambda x: x)
    mlir.register_lowering(primitive, mlir.lower_fun(jnp.sin, multiple_results=False))
    batching.defvectorized(primitive)
    ad.defjvp(primitive, lambda t, x: t * slope * jnp.cos(x))
    return primitive.bind


def by_object(slope):
    """A user's sine as an object, whose slope is a closure of its class."""
    kind = jc.contact("HiPrim")

    class Sine(kind):
        def __init__(self, aval):
            self.in_avals, self.out_aval, self.params = (aval,), aval, {}
            super().__init__()

        def expand(self, x):
            return jnp.sin(x)

        def jvp(self, primals, tangents):
            return self(*primals), tangents[0] * slope * jnp.cos(primals[0])

        def batch(self, axis_data, args, dims):
            raise NotImplementedError("slopes are asked for one at a time")

    return lambda x: Sine(jax.typeof(x))(x)


@pytest.mark.parametrize("sine", [registered, by_object])
def test_rules_that_differ_have_plans_of_their_own(sine):
    found = [admodes.plan(sine(slope), X).decision.fingerprint for slope in (1.0, 2.0)]
    assert found[0] != found[1]


def test_jacobians_of_registered_rules_do_not_mix():
    for slope in (1.0, 2.0):
        np.testing.assert_allclose(admodes.jacobian(registered(slope))(X), jnp.diag(slope * jnp.cos(X)), rtol=1e-12)
