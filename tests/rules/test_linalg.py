"""Linear algebra against JAX: real and complex, batched, wide and tall, first and second order."""

import jax
import numpy as np
import pytest
from jax import lax
from jax import numpy as jnp
from jax import scipy as jsp
from oracle import JAX_VERSION, check, sample

import admodes

F32, F64, C128 = np.float32, np.float64, np.complex128
la = lax.linalg


def _H(a):
    return a.swapaxes(-1, -2).conj()


def _definite(shape, dtype=F64, seed=0):
    """Hermitian, positive definite, with distinct eigenvalues."""
    a = sample(shape, dtype, seed=seed)
    return np.asarray(a @ _H(a) + np.diag(np.arange(1.0, shape[-1] + 1)), dtype)


def _dominant(shape, dtype=F64, seed=0):
    """Well-conditioned, not symmetric."""
    return np.asarray(sample(shape, dtype, -1, 1, seed) + 3 * np.eye(shape[-1]), dtype)


def _cholesky(a):
    return la.cholesky((a + _H(a)) / 2, symmetrize_input=False)


def _eigh(a):
    return la.eigh((a + _H(a)) / 2, symmetrize_input=False)


def _eig(**options):
    flags = {"compute_left_eigenvectors": False, "compute_right_eigenvectors": False, **options}
    return lambda a: la.eig(a, **flags)


def _eigenvectors(a):
    return la.eig(a, compute_left_eigenvectors=True, enable_eigvec_derivs=True)


def _reduced_svd(a):
    return la.svd(a, full_matrices=False)


def _qr(**options):
    return lambda a: la.qr(a, **{"full_matrices": False, **options})[:2]


FACTORISATIONS = {
    # (function, operand of a given dtype)
    "cholesky": (_cholesky, lambda d: _definite((3, 3), d)),
    "lu": (lambda a: la.lu(a)[0], lambda d: sample((3, 3), d)),
    "lu tall": (lambda a: la.lu(a)[0], lambda d: sample((4, 2), d)),
    "lu wide": (lambda a: la.lu(a)[0], lambda d: sample((2, 4), d)),
    "qr": (_qr(), lambda d: sample((3, 3), d)),
    "qr tall": (_qr(), lambda d: sample((4, 2), d)),
    "qr wide": (_qr(), lambda d: sample((2, 4), d)),
    "qr full": (_qr(full_matrices=True), lambda d: sample((4, 2), d)),
    "qr pivoted": (_qr(pivoting=True), lambda d: sample((4, 3), d)),
    "eigh": (_eigh, lambda d: _definite((3, 3), d)),
    "eigenvalues": (_eig(), lambda d: _dominant((3, 3), d)),
    "eigenvectors": (_eigenvectors, lambda d: _dominant((3, 3), d)),
    "svd": (_reduced_svd, lambda d: sample((3, 3), d)),
    "svd tall": (_reduced_svd, lambda d: sample((4, 2), d)),
    "svd wide": (_reduced_svd, lambda d: sample((2, 4), d)),
    "singular values": (lambda a: la.svd(a, compute_uv=False), lambda d: sample((4, 3), d)),
}


def _gauge_free(name, dtype):
    """True if LAPACK leaves no phase to choose, so that finite differences can tell."""
    return dtype == F64 or name.split()[0] not in ("eigh", "svd")


COMPLEX = ("cholesky", "lu wide", "qr tall", "qr full", "eigh", "eigenvalues", "eigenvectors", "svd tall", "svd wide")


@pytest.mark.parametrize(("name", "dtype"), [(n, F64) for n in FACTORISATIONS] + [(n, C128) for n in COMPLEX])
@pytest.mark.every(2)
def test_factorisation(name, dtype):
    fun, operand = FACTORISATIONS[name]
    check(fun, (operand(dtype),), fd=_gauge_free(name, dtype), transforms=False, rtol=1e-9)


@pytest.mark.parametrize("name", ["cholesky", "lu", "qr tall", "eigh", "svd tall"])
def test_factorisation_of_a_batch(name):
    fun, operand = FACTORISATIONS[name]
    batch = np.stack([operand(F32), 2 * operand(F32) + np.eye(*operand(F32).shape, dtype=F32)])
    check(fun, (batch,), rtol=1e-3)


@pytest.mark.parametrize("name", ["cholesky", "lu", "qr tall", "eigh", "svd tall", "eigenvalues"])
def test_second_order(name):
    fun, operand = FACTORISATIONS[name]
    check(fun, (operand(F64),), order=2, transforms=False, rtol=1e-8)


@pytest.mark.parametrize("fun", [_cholesky, _eigh, _reduced_svd, lambda a: la.lu(a)[0], _qr()])
@pytest.mark.parametrize("shape", [(0, 0), (1, 1), (0, 2, 2)])
@pytest.mark.every(3)
def test_small_shapes(fun, shape):
    check(fun, (sample(shape, F64, 1, 2),), transforms=False)


def test_value_under_differentiation_is_jax_s():
    """The raw primitives return (or read) one triangle; JAX's derivatives see the tidy function."""
    a = sample((3, 3), F64) + 5 * np.eye(3)
    check(lambda a: la.eigh(a, symmetrize_input=False), (a,), fd=False, transforms=False)


@pytest.mark.parametrize("dtype", [F64, "complex128"])
def test_cholesky_reads_one_triangle(dtype):
    """So the other triangle has no influence, as differences show; before 0.12 JAX's derivatives saw one."""
    a = sample((3, 3), dtype) + 5 * np.eye(3)
    modes = ("jvp", "vjp") if JAX_VERSION >= (0, 12) else ()
    check(lambda a: jnp.tril(la.cholesky(a, symmetrize_input=False)), (a,), modes=modes, adjoint=True, transforms=False)


def test_what_is_not_positive_definite_is_nan_everywhere():
    check(la.cholesky, (-np.eye(3),), transforms=False)


def test_equal_eigenvalues():
    """The eigenvectors have no derivative, functions of all eigenvalues have one: right to half of the digits."""
    direction = np.array([[1.0, 2.0, -1.0], [2.0, 3.0, 0.5], [-1.0, 0.5, -2.0]])
    for f, slope in ((jnp.sum, 1.0), (lambda w: jnp.sum(jnp.log(w)), 0.5), (lambda w: jnp.sum(w**3), 12.0)):
        value, rate = admodes.jvp(lambda a, f=f: f(la.eigh(a)[1]), (2 * np.eye(3),), (direction,))
        np.testing.assert_allclose(value, f(jnp.full(3, 2.0)), rtol=1e-7)
        np.testing.assert_allclose(rate, slope * np.trace(direction), rtol=1e-6)
        gradient = admodes.grad(lambda a, f=f: f(la.eigh(a)[1]))(2 * np.eye(3))
        np.testing.assert_allclose(gradient, slope * np.eye(3), rtol=1e-6, atol=1e-6)


def _symmetric(a):
    return (a + a.T) / 2


WEIGHTS = np.sin(np.arange(9.0)).reshape(3, 3)
ROTATION = np.linalg.qr(np.cos(np.arange(9.0)).reshape(3, 3))[0]
# with equal values, and nearly equal ones, of all sizes
CLUSTERED = {
    "zero": np.zeros((3, 3)),
    "identity": np.eye(3),
    "two, turned": 1e9 * ROTATION @ np.diag([1.0, 1.0, 2.0]) @ ROTATION.T,
    "rank one": 1e-9 * np.ones((3, 3)),
    "near": np.diag([1.0, 1.0 + 1e-9, 2.0]),
}
# a function of all values, and one of the vectors; the same without a decomposition
SPECTRAL = {
    "sum of squares": (lambda a: jnp.sum(la.eigh(a)[1] ** 2), lambda a: jnp.sum(_symmetric(a) ** 2)),
    "square": (
        lambda a: jnp.sum(WEIGHTS * ((v := la.eigh(a)) and (v[0] * v[1] ** 2) @ v[0].T)),
        lambda a: jnp.sum(WEIGHTS * (_symmetric(a) @ _symmetric(a))),
    ),
    "sum of singular squares": (lambda a: jnp.sum(la.svd(a, compute_uv=False) ** 2), lambda a: jnp.sum(a**2)),
    "singular cubes": (
        lambda a: jnp.sum(WEIGHTS * ((f := la.svd(a, full_matrices=False)) and (f[0] * f[1] ** 3) @ f[2])),
        lambda a: jnp.sum(WEIGHTS * (a @ a.T @ a)),
    ),
}


@pytest.mark.parametrize("point", CLUSTERED)
@pytest.mark.parametrize("name", SPECTRAL)
@pytest.mark.every(3)
def test_second_derivatives_at_equal_eigenvalues(name, point):
    """Of the values alone they are right to half of the digits, of their vectors NaN; no entry is a wrong number."""
    fun, same = SPECTRAL[name]
    a = jnp.asarray(CLUSTERED[point])
    expected = np.asarray(jax.hessian(same)(a))
    size = np.abs(expected).max() + max(np.abs(a).max(), 1e-9)
    for hessian in (
        admodes.hessian(fun),
        admodes.jacfwd(admodes.grad(fun)),
        admodes.jacrev(admodes.grad(fun)),
        admodes.jacfwd(admodes.grad(fun, nan_safe=True), nan_safe=True),
    ):
        found = np.asarray(hessian(a))
        known = np.isfinite(found)
        assert known.all() or "sum" not in name
        np.testing.assert_allclose(found[known], expected[known], rtol=0, atol=1e-6 * size)


@pytest.mark.parametrize(
    ("fun", "shape"),
    [
        (lambda a: la.svd(a, full_matrices=True), (4, 2)),
        (lambda a: la.eig(a), (3, 3)),
        (lambda a: la.schur(a), (3, 3)),
        (lambda a: la.hessenberg(a), (3, 3)),
    ],
)
def test_what_jax_refuses_is_refused(fun, shape):
    a = sample(shape, F64)
    for library in (jax, admodes):
        with pytest.raises(NotImplementedError):
            library.jvp(fun, (a,), (a,))


# -- solves ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", range(16))
def test_triangular_solve(flags):
    left, lower, transpose, unit = (bool(flags >> k & 1) for k in range(4))
    dtype = C128 if flags % 3 == 0 else F64
    options = {"left_side": left, "lower": lower, "transpose_a": transpose, "unit_diagonal": unit}
    options["conjugate_a"] = dtype == C128 and flags % 2 == 0
    shape = (3, 2) if (flags ^ flags >> 1 ^ flags >> 2 ^ flags >> 3) & 1 else (3, 5)  # the two orders of the product
    b = sample(shape if left else shape[::-1], dtype, seed=1)
    check(lambda a, b: la.triangular_solve(a, b, **options), (_dominant((3, 3), dtype), b), transforms=False)


def test_triangular_solve_of_a_batch():
    a, b = _dominant((2, 3, 3)), sample((2, 3, 1), F64, seed=1)
    check(lambda a, b: la.triangular_solve(a, b, left_side=True), (a, b), order=2)
    check(lambda b: la.triangular_solve(a, b, left_side=True, lower=True), (b,), transforms=False)
    check(lambda a: la.triangular_solve(a, b, left_side=True, lower=True), (a,), transforms=False)


def test_triangular_solve_with_a_singular_matrix():
    a = np.array([[1.0, 0.0], [2.0, 0.0]])
    for columns in (1, 3):
        check(
            lambda a, b: la.triangular_solve(a, b, left_side=True, lower=True),
            (a, np.ones((2, columns))),
            fd=False,
            transforms=False,
        )


@pytest.mark.parametrize("dtype", [F32, F64])
def test_tridiagonal_solve(dtype):
    lower, main, upper = sample((5,), dtype), sample((5,), dtype, 4, 6, 1), sample((5,), dtype, seed=2)
    b = sample((5, 2), dtype, seed=3)
    check(la.tridiagonal_solve, (lower, main, upper, b), transforms=dtype == F64, rtol=1e-5)
    check(lambda d, b: la.tridiagonal_solve(lower, d, upper, b), (main, b), transforms=False, rtol=1e-5)


@pytest.mark.parametrize("dtype", [F64, C128])
def test_solve(dtype):
    a, b = _dominant((3, 3), dtype), sample((3, 2), dtype, seed=1)
    check(jnp.linalg.solve, (a, b), order=2, transforms=False)
    check(jnp.linalg.solve, (np.stack([a, a + 1]), b[:, 0]), transforms=False)


@pytest.mark.parametrize("fun", [jnp.linalg.inv, jnp.linalg.det, jnp.linalg.slogdet, jnp.linalg.pinv])
def test_what_is_built_on_solves(fun):
    check(fun, (_dominant((3, 3)),), transforms=False, rtol=1e-9)


def test_iterative_solver():
    a, b = _definite((3, 3)), sample((3,), F64, seed=1)
    check(lambda a, b: jsp.sparse.linalg.cg(lambda x: (a + a.T) @ x / 2, b, tol=1e-14)[0], (a, b), rtol=1e-8)


def _diagonal_solver(d, b, **options):
    return lax.custom_linear_solve(lambda x: d * x, b, lambda _, y: y / d, **options)


def test_custom_linear_solve():
    d, b = sample((3,), F64, 1, 2), sample((3,), F64, seed=1)
    check(lambda d, b: _diagonal_solver(d, b, transpose_solve=lambda _, y: y / d), (d, b), order=2)
    check(lambda d, b: _diagonal_solver(d, b, symmetric=True), (d, b))
    check(lambda d: _diagonal_solver(d, b, symmetric=True), (d,))
    check(lambda b: _diagonal_solver(d, b, symmetric=True), (b,))
    check(lambda d, b: _diagonal_solver(d, b), (d, b), modes=("jvp",))


def test_custom_linear_solve_of_a_tree_with_extras():
    def solve(d, b):
        def by_division(_, y):
            return {"u": y["u"] / d, "v": y["v"] / 2}, jnp.sum(y["u"])

        return lax.custom_linear_solve(
            lambda x: {"u": d * x["u"], "v": 2 * x["v"]}, b, by_division, transpose_solve=by_division, has_aux=True
        )

    d, b = sample((3,), F64, 1, 2), {"u": sample((3,), F64, seed=1), "v": sample((2,), F64, seed=2)}
    check(lambda d, b: solve(d, b)[0], (d, b))
    check(lambda d, b: solve(d, b), (d, b), modes=("jvp",), fd=False, transforms=False)


def test_custom_linear_solve_without_transpose():
    for library in (jax, admodes):
        with pytest.raises(TypeError, match="transpose_solve required"):
            library.grad(lambda b: _diagonal_solver(jnp.ones(3), b).sum())(jnp.ones(3))
