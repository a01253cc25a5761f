"""What known seeds go through before they meet the arguments is computed ahead."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import admodes

RNG = np.random.default_rng(0)


def net():
    first, last = RNG.standard_normal((12, 40)) / 4, RNG.standard_normal((40, 12)) / 4
    return lambda x: jnp.tanh(x @ first) @ last, RNG.standard_normal((30, 12))


def convolutions():
    kernels = RNG.standard_normal((6, 1, 3, 3)), RNG.standard_normal((1, 6, 3, 3))
    layer = lambda u, k: lax.conv_general_dilated(u, k, (1, 1), "SAME")
    return lambda u: layer(jnp.tanh(layer(u[None, None], kernels[0])), kernels[1])[0, 0], RNG.standard_normal((10, 10))


def network():
    ends = RNG.integers(0, 300, (2, 900))

    def flows(x):
        angle, size = x[:300], x[300:]
        d = angle[ends[0]] - angle[ends[1]]
        return jax.ops.segment_sum(size[ends[0]] * size[ends[1]] * jnp.sin(d), ends[0], 300)

    return flows, RNG.standard_normal(600)


def dense(products):
    pattern = products.coloring.pattern
    full = np.zeros(pattern.shape)
    full[pattern.rows, pattern.cols] = products.values()
    return full


@pytest.mark.parametrize("make", [net, convolutions, network])
def test_values_and_derivatives_are_the_same(make):
    f, x = make()
    expected = np.asarray(jax.jacrev(f)(x)).reshape(-1, x.size)
    found = admodes.jacobian(f, format="compressed")
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)
    close(dense(found(x)), expected)
    close(dense(jax.jit(found)(x)), expected)
    values = lambda x: found(x).values()
    pattern = found(x).coloring.pattern
    tangent = jax.jvp(jax.jacrev(f), (x,), (x,))[1].reshape(-1, x.size)[pattern.rows, pattern.cols]
    close(admodes.jvp(values, (x,), (x,))[1], tangent)
    close(jax.jvp(values, (x,), (x,))[1], tangent)


def test_the_first_product_is_not_in_the_program():
    f, x = net()
    products = lambda jacobian: str(jax.make_jaxpr(jacobian)(x)).count("dot_general")
    assert products(admodes.jacobian(f, format="bcoo")) < products(jax.jacrev(f))


def test_effects_happen_once_and_at_run_time():
    seen = []
    inner, x = net()

    def f(x):
        jax.debug.callback(lambda v: seen.append(float(v)), x[0, 0])
        return inner(x)

    jacobian = jax.jit(admodes.jacobian(f, format="compressed"))
    compiled = jacobian.lower(x).compile()
    assert not seen
    compiled(x)
    jax.effects_barrier()
    assert seen == [x[0, 0]]
