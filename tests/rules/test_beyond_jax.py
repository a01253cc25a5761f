"""Derivatives that JAX does not have, against functions that are written out, and finite differences."""

import jax
import numpy as np
import pytest
from jax import lax
from jax import numpy as jnp

import admodes
from tests.oracle import check, sample


def differ_little(found, expected, tolerance=1e-12):
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, atol=tolerance * scale, rtol=0)


# -- scatters whose updates meet ---------------------------------------------------------------------------

PLACES = jnp.array([0, 0, 3, 0, 9, 3])  # 9 is out of bounds


def factors():
    """Rows with zeros at the places that meet others."""
    x, u = sample((4, 3), "float64", 0.5, 2), sample((6, 3), "float64", 0.5, 2, 1)
    x[1], u[2, 0], u[4, 1], u[0, 2], u[1, 2] = 0, 0, 0, 0, 0
    return jnp.asarray(x), jnp.asarray(u)


def products(x, u):
    return jnp.stack([x[0] * u[0] * u[1] * u[3], x[1], x[2], x[3] * u[2] * u[5]])


def test_products_of_updates_that_meet():
    x, u = factors()
    found = lambda x, u: x.at[PLACES].multiply(u)
    check(found, (x, u), modes=(), adjoint=True, transforms=False)
    for argnum in (0, 1):
        differ_little(admodes.jacrev(found, argnum)(x, u), jax.jacrev(products, argnum)(x, u))
        curved = lambda x, u: jnp.sum(jnp.sin(found(x, u)))
        expected = jax.hessian(lambda x, u: jnp.sum(jnp.sin(products(x, u))), argnum)(x, u)
        differ_little(admodes.hessian(curved, argnum)(x, u), expected)


@pytest.mark.parametrize("library", ["segment_prod", "multiply"])
def test_products_by_segments_in_transforms(library):
    ids = jnp.array([0, 0, 1, 1, 1, 2])
    x = jnp.array([[2.0, 3.0, 1.0, 0.0, 5.0, -1.0], [0.0, 0.0, 1.0, 4.0, 5.0, 2.0]])

    def found(x):
        if library == "multiply":
            return jnp.ones(3).at[ids].multiply(x)
        return jax.ops.segment_prod(x, ids, 3)

    expected = jax.vmap(jax.jacrev(lambda x: jnp.stack([x[0] * x[1], x[2] * x[3] * x[4], x[5]])))(x)
    differ_little(jax.jit(jax.vmap(admodes.jacrev(found)))(x), expected)
    differ_little(jax.vmap(admodes.jacfwd(found))(x), expected)


@pytest.mark.parametrize("places", [[0, 2], [0, 2, 0, 9]], ids=str)
def test_a_function_applied_at_places(places):
    x, places = jnp.asarray(sample((4, 3), "float64", 0.5, 2)), np.array(places)
    found = lambda x: x.at[places].apply(jnp.sin)

    def written_out(x):
        rows = list(x)
        for k in places:
            if k < 4:
                rows[k] = jnp.sin(rows[k])
        return jnp.stack(rows)

    check(found, (x,), modes=(), adjoint=True, transforms=False)
    loss = lambda f: lambda x: jnp.sum(f(x) ** 3)
    differ_little(admodes.grad(loss(found))(x), jax.grad(loss(written_out))(x))
    differ_little(admodes.hessian(loss(found))(x), jax.hessian(loss(written_out))(x))
    differ_little(jax.vmap(admodes.grad(loss(found)))(x[None]), jax.grad(loss(written_out))(x)[None])
    if places.size == 2:
        found = lambda x: x.at[places].apply(jnp.sin, unique_indices=True)
        differ_little(admodes.jacrev(found)(x), jax.jacrev(written_out)(x))


# -- pooling -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", ["VALID", "SAME"])
@pytest.mark.parametrize(("stride", "base"), [(1, 1), (2, 1), (2, 2)])
def test_dilated_pooling(padding, stride, base):
    x = np.random.default_rng(0).permutation(48).reshape(6, 8).astype(float)
    for reduce, start in ((lax.max, -jnp.inf), (lax.min, jnp.inf)):
        how = {"window_dilation": (2, 2), "base_dilation": (1, base)}
        fun = lambda x: lax.reduce_window(x, start, reduce, (2, 3), (stride, 1), padding, **how)  # noqa: B023
        check(fun, (x,), modes=("jvp",), adjoint=True, transforms=False)
        check(fun, (jnp.round(x / 20),), modes=("jvp",), adjoint=True, transforms=False, fd=False)  # ties


# -- the incomplete beta function in its shapes -------------------------------------------------------------


@pytest.mark.parametrize("argnum", [0, 1, 2])
def test_incomplete_beta_in_its_shapes(argnum):
    mpmath = pytest.importorskip("mpmath")
    a, b, x = (np.array(v) for v in ([0.3, 2.0, 30, 1e-2, 1000], [0.8, 3, 20, 5, 2000], [0.2, 0.5, 0.62, 1e-3, 0.34]))
    slope = lambda *args: admodes.jvp(
        lambda v: lax.betainc(*args[:argnum], v, *args[argnum + 1 :]), (args[argnum],), (jnp.ones_like(args[0]),)
    )[1]
    with mpmath.workdps(40):

        def exact(*point):
            def along(v):
                shapes = [*point[:argnum], v, *point[argnum + 1 :]]
                return mpmath.betainc(shapes[0], shapes[1], 0, shapes[2], regularized=True)

            return float(mpmath.diff(along, mpmath.mpf(point[argnum])))

        expected = [exact(*map(float, point)) for point in zip(a, b, x, strict=True)]
    np.testing.assert_allclose(slope(a, b, x), expected, rtol=1e-9)
    for other in (0, 1, 2):  # the second derivatives, by finite differences of the first
        check(slope, (a[:3], b[:3], x[:3]), modes=(), adjoint=True, transforms=False, argnums=other, step=1e-4)


def test_incomplete_beta_at_its_ends():
    for x in (0.0, 1.0):
        for argnum in (0, 1):
            assert admodes.grad(lax.betainc, argnum)(2.0, 3.0, x) == 0
    narrow = admodes.grad(lax.betainc)(jnp.bfloat16(2), jnp.bfloat16(3), jnp.bfloat16(0.5))
    np.testing.assert_allclose(narrow, admodes.grad(lax.betainc)(2.0, 3.0, 0.5), rtol=1e-2)
    assert narrow.dtype == jnp.bfloat16
