"""Where zeros meet infinite slopes: the limit, or a strong zero where a selection masks the entry; never a wrong 0."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp

import admodes

REMOVABLE = {
    "exp(log x)": (lambda x: jnp.exp(jnp.log(x)), 0.0, 1.0),
    "sqrt(x)**2": (lambda x: jnp.sqrt(x) ** 2, 0.0, 1.0),
    "1/(1/x)": (lambda x: 1 / (1 / x), 0.0, 1.0),
    "cbrt(x)**3": (lambda x: jnp.cbrt(x) ** 3, 0.0, 1.0),
    "cos(arccos x)": (lambda x: jnp.cos(jnp.arccos(x)), 1.0, 1.0),
    "exp(log(1 - x))": (lambda x: jnp.exp(jnp.log(1 - x)), 1.0, -1.0),
    "norm squared": (lambda x: jnp.linalg.norm(x) ** 2, [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]),
    "distance squared": (lambda x: jnp.linalg.norm(x[:2] - x[2:]) ** 2, [1.0, 2.0, 1.0, 2.0], [0.0] * 4),
    "a mixture": (
        lambda w: jax.nn.logsumexp(jnp.log(w) + jnp.array([0.3, -0.4])),
        [0.0, 1.0],
        [np.exp(0.7), 1.0],
    ),
}


@pytest.mark.parametrize("name", REMOVABLE)
def test_limits(name):
    f, x, expected = REMOVABLE[name]
    x = jnp.array(x)
    assert jnp.isnan(admodes.grad(f)(x)).any()
    for gradient in (admodes.grad(f, nan_safe=True), jax.jit(admodes.grad(f, nan_safe=True)), admodes.subgradient(f)):
        np.testing.assert_allclose(gradient(x), expected, rtol=1e-7, atol=1e-12)
    tangents = [admodes.jvp(f, (x,), (v.reshape(x.shape),), nan_safe=True)[1] for v in np.eye(x.size)]
    np.testing.assert_allclose(tangents, np.ravel(expected), rtol=1e-7, atol=1e-12)
    for jacobian in (admodes.jacfwd, admodes.jacrev):
        np.testing.assert_allclose(jacobian(f, nan_safe=True)(x), expected, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("name", ["exp(log x)", "sqrt(x)**2", "norm squared"])
def test_limits_in_32_bits(name):
    f, x, expected = REMOVABLE[name]
    found = admodes.grad(f, nan_safe=True)(jnp.array(x, jnp.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_what_has_no_limit_stays_as_it_is():
    assert jnp.isnan(admodes.grad(lambda x: jnp.log(x) * jnp.nan, nan_safe=True)(0.0))
    assert admodes.grad(lambda x: x * jnp.log(x), nan_safe=True)(0.0) == -jnp.inf
    assert admodes.grad(jnp.sqrt, nan_safe=True)(0.0) == jnp.inf


def test_second_derivatives_of_a_limit():
    f = lambda x: jnp.sqrt(x) ** 2 + x**2
    np.testing.assert_allclose(admodes.jacfwd(admodes.grad(f, nan_safe=True), nan_safe=True)(0.0), 2.0, rtol=1e-6)
