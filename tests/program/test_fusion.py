"""Values that follow from others that are kept: which ones, and that they are the same."""

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

from admodes.program.evaluate import evaluate
from admodes.program.fusion import derived
from admodes.program.ir import from_jaxpr


def program(fun, *args):
    return from_jaxpr(jax.make_jaxpr(fun)(*args))


def test_what_follows_is_computed_from_what_does_not():
    def fun(x, w):
        y = jnp.tanh(x)
        z = 1.0 - y * y
        return y, z, z * w, jnp.sin(z)

    x, w = np.linspace(0.1, 1.0, 3), np.full(3, 2.0)
    p = program(fun, x, w)
    y, z, zw, sine = p.outputs
    again = derived(p, p.inputs[1:], [y, z, zw, sine])
    assert (again.inputs, again.outputs) == ((y,), (z,))  # z w has two sources: more bytes to read than it has
    np.testing.assert_allclose(evaluate(again, np.tanh(x))[0], 1.0 - np.tanh(x) ** 2)


def test_broadcasts_of_what_is_known_follow():
    p = program(lambda w: jnp.broadcast_to(-w, (4, 3)) * 2.0, np.ones(3))
    assert derived(p, p.inputs, p.outputs).outputs == p.outputs
    assert derived(p, (), p.outputs).outputs == ()


def test_each_result_of_an_equation_is_its_own_source():
    """sort has two results, of which one is kept."""
    p = program(lambda x: [y := lax.sort((x, x + 1.0), num_keys=1)[1], -y], np.ones(3))
    kept, wanted = p.outputs
    assert derived(p, (), [kept, wanted]).inputs == (kept,)
    first, second = next(e.outputs for e in p.equations if len(e.outputs) == 2)
    assert derived(p, [first], [wanted]).outputs == ()
    assert second == kept


def test_parts_of_what_is_kept_follow():
    p = program(lambda x: [y := jnp.sin(x), y[0], 2.0 * y[1:], jnp.sin(y[0])], np.ones((3, 2)))
    y, part, doubled, sine = p.outputs
    again = derived(p, (), [y, part, doubled, sine])
    assert (again.inputs, again.outputs) == ((y,), (part, doubled))
    first, rest = evaluate(again, np.arange(6.0).reshape(3, 2))
    np.testing.assert_array_equal(first, [0.0, 1.0])
    np.testing.assert_array_equal(rest, [[4.0, 6.0], [8.0, 10.0]])
