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


# -- decompositions with equal values ------------------------------------------------------------------------

EQUAL = {
    "equal": np.eye(4),
    "two and two": np.diag([1.0, 1.0, 2.0, 2.0]),
    "equal up to rounding": None,
}


def with_equal_values(kind):
    q, p = (np.linalg.qr(sample((4, 4), "float64", seed=k))[0] for k in (5, 6))
    return q @ np.diag([1.0, 1.0, 2.0, 3.0]) @ p if EQUAL[kind] is None else EQUAL[kind]


@pytest.mark.parametrize("kind", EQUAL)
def test_product_of_the_factors_of_a_svd(kind):
    """U S Vᵀ = A: the gradient of its product with W is W."""
    a, w = with_equal_values(kind), sample((4, 4), "float64", seed=3)

    def product(a):
        u, s, vt = jnp.linalg.svd(a, full_matrices=False)
        return jnp.sum((u * s) @ vt * w)

    for derivative in (admodes.grad, admodes.jacfwd, lambda f: jax.jit(admodes.grad(f))):
        differ_little(derivative(product)(jnp.asarray(a)), w, 1e-7)


@pytest.mark.parametrize("shape", [(5, 4), (4, 5)], ids=str)
def test_svd_of_deficient_rank(shape):
    a, w = sample((shape[0], 2), "float64") @ sample((2, shape[1]), "float64", seed=1), sample(shape, "float64", seed=2)

    def product(a):
        u, s, vt = jnp.linalg.svd(a, full_matrices=False)
        return jnp.sum((u * s) @ vt * w)

    differ_little(admodes.grad(product)(jnp.asarray(a)), w, 1e-6)


@pytest.mark.parametrize("kind", EQUAL)
def test_symmetric_functions_of_equal_eigenvalues(kind):
    a = with_equal_values(kind)
    a, weights = jnp.asarray(a @ a.T), sample((4, 4), "float64", seed=3)
    log_det = lambda a: jnp.sum(jnp.log(jnp.linalg.eigvalsh(a)))
    expected = lambda a: jnp.linalg.slogdet((a + a.T) / 2)[1]
    differ_little(admodes.grad(log_det)(a), jax.grad(expected)(a), 1e-6)
    differ_little(admodes.hessian(log_det)(a), jax.hessian(expected)(a), 1e-6)

    def exponential(a):
        w, v = jnp.linalg.eigh(a)
        return jnp.sum((v * jnp.exp(w)) @ v.T * weights)

    by_series = lambda a: jnp.sum(jax.scipy.linalg.expm((a + a.T) / 2) * weights)
    differ_little(admodes.grad(exponential)(a), jax.grad(by_series)(a), 1e-6)
    assert not np.isfinite(admodes.hessian(exponential)(a)).all()  # it has no digits left, and says so


def test_values_that_are_apart_stay():
    w = jnp.array([1.0, 1 + 1e-9, 2.0])
    np.testing.assert_array_equal(admodes.jvp(jnp.linalg.eigvalsh, (jnp.diag(w),), (jnp.eye(3),))[0], w)


# -- the square root of a matrix -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["apart", "identity"])
@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_square_root_of_a_matrix(kind, dtype):
    """By eigenvalues where they are apart; at the identity d(A^1/2) = dA/2, and the second derivative -(dA)²/4."""
    root = jax.scipy.linalg.sqrtm
    t, u = sample((3, 3), dtype, seed=1), sample((3, 3), dtype, seed=2)
    a = np.eye(3, dtype=dtype)
    if kind == "apart":
        a = np.diag([1.0, 2.0, 4.0]).astype(dtype) + sample((3, 3), dtype, -0.3, 0.3)
    along = lambda t: lambda a: admodes.jvp(root, (a,), (t,))[1]
    value, first = admodes.jvp(root, (a,), (t,))
    second = admodes.jvp(along(t), (a,), (u,))[1]
    differ_little(value @ value, a)
    differ_little(value @ first + first @ value, t)
    # the derivative of R² = A to second order: R R'' + R'' R = -(R'ₜ R'ᵤ + R'ᵤ R'ₜ)
    other = along(u)(a)
    differ_little(value @ second + second @ value, -(first @ other + other @ first))
    _, pull = admodes.vjp(root, a)
    g = sample((3, 3), "complex128", seed=4)
    differ_little(np.real(np.sum(g * first)), np.real(np.sum(np.asarray(pull(jnp.asarray(g))[0]) * t)))
