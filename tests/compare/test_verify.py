"""``verify`` asks the values themselves: two derivatives that agree may both be wrong."""

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

import admodes

X = jnp.array([1.0, 2.0])


def differences(found):
    return [f for f in found.findings if f.what.startswith("central differences")]


def test_both_wrong_alike():
    """Bits are no derivative, neither of JAX nor here, but the value is that of 2x."""
    as_bits = lambda x: lax.bitcast_convert_type(lax.bitcast_convert_type(x, np.int64), np.float64) * 2.0
    found = admodes.verify(as_bits, X)
    assert not found.ok
    assert [f.problem for f in differences(found)] != [""]
    assert all(not f.problem for f in found.findings if f.what.endswith("mode"))


def test_where_jax_has_no_derivative():
    def loop(x):  # custom_vjp has no forward mode there, while loops no reverse mode
        keep = jax.custom_vjp(lambda y: y)
        keep.defvjp(lambda y: (y, None), lambda _, g: (g,))
        return lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, jnp.sin(s[1])), (0, keep(x)))[1]

    found = admodes.verify(loop, X)
    assert found.ok, str(found)
    assert found.findings[0].what.startswith("JAX has no derivative")


def test_what_differences_say_nothing_about():
    """Kinks, and derivatives that are no derivatives on purpose."""
    for f in (jnp.abs, lambda x: jax.nn.relu(x), lambda x: x * lax.stop_gradient(x)):
        assert admodes.verify(f, jnp.array([0.0, 1.0])).ok
    rounded = jax.custom_jvp(lambda x: jnp.round(x))
    rounded.defjvp(lambda p, t: (rounded(*p), t[0]))
    assert admodes.verify(rounded, X + 0.3).ok
