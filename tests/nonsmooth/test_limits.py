"""Where zeros meet infinite slopes: the limit, or a strong zero where a selection masks the entry; never a wrong 0."""

from functools import partial

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


def _columns(x, push):
    """Its derivative from the images of the unit vectors."""
    return jnp.stack([push(jnp.asarray(v).reshape(x.shape)) for v in np.eye(x.size)]).reshape(x.shape)


# (f, x) -> the gradient of f at x, by every function that differentiates
GRADIENTS = {
    "grad": lambda f, x: admodes.grad(f, nan_safe=True)(x),
    "value_and_grad": lambda f, x: admodes.value_and_grad(f, nan_safe=True)(x)[1],
    "grad, memory_limit": lambda f, x: admodes.grad(f, nan_safe=True, memory_limit="1GiB")(x),
    "subgradient": lambda f, x: admodes.subgradient(f)(x),
    "jvp": lambda f, x: _columns(x, lambda v: admodes.jvp(f, (x,), (v,), nan_safe=True)[1]),
    "linearize": lambda f, x: _columns(x, admodes.linearize(f, x, nan_safe=True)[1]),
    "vjp": lambda f, x: admodes.vjp(f, x, nan_safe=True)[1](jnp.ones(()))[0],
    "vjp, of a part": lambda f, x: admodes.vjp(lambda c, x: c * f(x), 2.0, x, in_nzs=(False, True), nan_safe=True)[1](
        jnp.array(0.5)
    )[1],
    "vjp, has_aux": lambda f, x: admodes.vjp(lambda x: (f(x), x), x, has_aux=True, nan_safe=True)[1](jnp.ones(()))[0],
    "vjp, with_refs": lambda f, x: admodes.vjp(f, x, nan_safe=True)[1].with_refs(jax.ad.GradValue())(jnp.ones(()))[0],
    "vjp, batched": lambda f, x: jax.vmap(admodes.vjp(f, x, nan_safe=True)[1])(jnp.array([0.0, 1.0]))[0][1],
    "jacfwd": lambda f, x: admodes.jacfwd(f, nan_safe=True)(x),
    "jacrev": lambda f, x: admodes.jacrev(f, nan_safe=True)(x),
    "jacobian": lambda f, x: admodes.jacobian(f, nan_safe=True)(x),
    "value_and_jacobian": lambda f, x: admodes.value_and_jacobian(f, nan_safe=True)(x)[1],
}


@pytest.mark.parametrize("way", GRADIENTS)
@pytest.mark.parametrize("name", REMOVABLE)
@pytest.mark.every(4)
def test_limits(name, way):
    f, x, expected = REMOVABLE[name]
    x = jnp.array(x)
    assert jnp.isnan(admodes.grad(f)(x)).any()
    np.testing.assert_allclose(GRADIENTS[way](f, x), expected, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("way", GRADIENTS)
def test_limits_under_jit(way):
    f, x, expected = REMOVABLE["distance squared"]
    found = jax.jit(partial(GRADIENTS[way], f))(jnp.array(x))
    np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-12)


def _masked(x):
    return jnp.sum(jnp.where(x > 1, jnp.sqrt(x - 1), 0.0)) + jnp.sum(x**2)


@pytest.mark.parametrize("way", [way for way in GRADIENTS if way != "subgradient"])
def test_masks(way):
    np.testing.assert_allclose(GRADIENTS[way](_masked, jnp.array([1.0, 5.0])), [2.0, 10.25], rtol=1e-7)


# (f, x, v) -> the product of the Hessian of f at x with v
PRODUCTS = {
    "hvp": lambda f, x, v: admodes.hvp(f, x, v, nan_safe=True),
    "hessian": lambda f, x, v: admodes.hessian(f, nan_safe=True)(x) @ v,
    "jvp of grad": lambda f, x, v: admodes.jvp(admodes.grad(f, nan_safe=True), (x,), (v,), nan_safe=True)[1],
    "linearize of grad": lambda f, x, v: admodes.linearize(admodes.grad(f, nan_safe=True), x, nan_safe=True)[1](v),
    "vjp of grad": lambda f, x, v: admodes.vjp(admodes.grad(f, nan_safe=True), x, nan_safe=True)[1](v)[0],
    "jacrev of grad": lambda f, x, v: admodes.jacrev(admodes.grad(f, nan_safe=True), nan_safe=True)(x) @ v,
}


@pytest.mark.parametrize("way", PRODUCTS)
@pytest.mark.parametrize(
    ("f", "x", "hessian"),
    [
        (lambda x: jnp.linalg.norm(x) ** 2, [0.0, 0.0], 2 * np.eye(2)),
        (lambda x: jnp.sqrt(x[0]) ** 2 * x[1] + x[1] ** 3, [0.0, 2.0], [[0.0, 1.0], [1.0, 12.0]]),
        (_masked, [1.0, 5.0], [[2.0, 0.0], [0.0, 2.0 - 1 / 32]]),
    ],
    ids=["norm squared", "product", "mask"],
)
@pytest.mark.every(4)
def test_second_order(way, f, x, hessian):
    x, v = jnp.array(x), jnp.array([0.5, -2.0])
    np.testing.assert_allclose(PRODUCTS[way](f, x, v), np.asarray(hessian) @ v, rtol=2e-6, atol=2e-6)
    trace = admodes.laplacian(f, nan_safe=True)(x)
    np.testing.assert_allclose(trace, np.trace(hessian), rtol=2e-6)


def test_maps_keep_what_they_cannot_settle():
    f = lambda x: jnp.exp(jnp.log(x))
    assert np.isnan(admodes.vjp(f, 0.0, nan_safe=True)[1].map @ 1.0)
    assert np.isnan(admodes.linearize(f, 0.0, nan_safe=True)[1].map @ 1.0)


def test_pullbacks_leave_compiled_functions():
    for transform in (admodes.vjp, admodes.linearize):
        _, linear = jax.jit(lambda x, transform=transform: transform(lambda x: 1 / (1 / x), x, nan_safe=True))(0.0)
        np.testing.assert_allclose(np.ravel(linear(3.0))[0], 3.0, rtol=1e-7)


def test_arguments_that_must_not_be_kept():
    with pytest.raises(ValueError, match="saveable_args"):
        admodes.vjp(jnp.sqrt, 1.0, saveable_args=False, nan_safe=True)


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
