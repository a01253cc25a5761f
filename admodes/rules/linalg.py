r"""Factorisations by triangles: cholesky, lu, qr; and the small matrix algebra that all of linear algebra shares.

With A = L U, say, L⁻¹ Ȧ U⁻¹ = L⁻¹ L̇ + U̇ U⁻¹ is the sum of a strictly lower and an upper triangle, and so falls into
the two. Axes before the last two are batches.

References: Murray, *Differentiation of the Cholesky decomposition* (arXiv:1602.07527); de Hoog, Anderssen and Lukas,
*Differentiation of matrix functionals using triangular factorization* (2011); Walter and Lehmann, *Algorithmic
differentiation of linear algebra functions* (arXiv:1001.1654).
"""

from __future__ import annotations

import numpy as np
from jax import lax

from admodes.program.traits import describe
from admodes.rules.table import function, zero

# -- matrix algebra ----------------------------------------------------------------------------------------


def T(x):
    """Transpose of the last two axes."""
    return lax.transpose(x, (*range(x.ndim - 2), x.ndim - 1, x.ndim - 2))


def conj(x):
    return lax.conj(x) if np.issubdtype(x.dtype, np.complexfloating) else x


def real(x):
    return lax.real(x) if np.issubdtype(x.dtype, np.complexfloating) else x


def H(x):
    """Conjugate transpose of the last two axes."""
    return conj(T(x))


def dot(x, *others):
    """The product of matrices, from left to right."""
    for y in others:
        batch = tuple(range(x.ndim - 2))
        numbers = (((x.ndim - 1,), (x.ndim - 2,)), (batch, batch))
        x = lax.dot_general(x, y, numbers, precision=lax.Precision.HIGHEST)
    return x


def _offsets(x):
    """Column number minus row number of each entry."""
    rows, cols = (lax.broadcasted_iota(np.int32, x.shape[-2:], axis) for axis in (0, 1))
    return lax.sub(cols, rows)


def _where(mask, x):
    """The entries of ``x`` where the mask (of one matrix) is set, 0 elsewhere."""
    batched = lax.broadcast(mask, x.shape[:-2])
    return lax.select(batched, x, lax.full_like(x, 0))


def tril(x, k=0):
    """The entries with column number minus row number at most ``k``."""
    return _where(lax.le(_offsets(x), np.int32(k)), x)


def triu(x, k=0):
    """The entries with column number minus row number at least ``k``."""
    return _where(lax.ge(_offsets(x), np.int32(k)), x)


def diagonal(x):
    """The diagonal of square matrices, as vectors."""
    return lax.reduce_sum(_where(lax.eq(_offsets(x), np.int32(0)), x), (x.ndim - 1,))


def eye(x):
    """The identity with the shape and dtype of ``x``."""
    return _where(lax.eq(_offsets(x), np.int32(0)), lax.full_like(x, 1))


def rows(x, shape):
    """Vectors as the rows of matrices with this shape: the entries (..., i, j) are x[..., j]."""
    return lax.broadcast_in_dim(x, shape, (*range(x.ndim - 1), x.ndim))


def cols(x, shape):
    """Vectors as the columns of matrices with this shape: the entries (..., i, j) are x[..., i]."""
    return lax.broadcast_in_dim(x, shape, range(x.ndim))


def block(x, rows=(0, None), cols=(0, None)):
    """A range of rows and of columns."""
    (r0, r1), (c0, c1) = rows, cols
    lead, (m, n) = x.shape[:-2], x.shape[-2:]
    limits = (*lead, m if r1 is None else r1, n if c1 is None else c1)
    return lax.slice(x, (*(0 for _ in lead), r0, c0), limits)


def pad(x, m, n):
    """Zeros appended up to m rows and n columns."""
    config = [(0, 0, 0)] * (x.ndim - 2) + [(0, m - x.shape[-2], 0), (0, n - x.shape[-1], 0)]
    return lax.pad(x, np.array(0, x.dtype), config)


def take_rows(x, permutation):
    """Row ``permutation[..., i]`` of ``x`` as row i."""
    nb = x.ndim - 2
    batch = tuple(range(nb))
    numbers = lax.GatherDimensionNumbers(
        offset_dims=(nb + 1,),
        collapsed_slice_dims=(nb,),
        start_index_map=(nb,),
        operand_batching_dims=batch,
        start_indices_batching_dims=batch,
    )
    return lax.gather(
        x,
        lax.expand_dims(permutation, (permutation.ndim,)),
        numbers,
        slice_sizes=(1,) * (nb + 1) + (x.shape[-1],),
        unique_indices=True,
        mode=lax.GatherScatterMode.PROMISE_IN_BOUNDS,
    )


def solve_triangular(a, b, *, left, lower, transpose=False, conjugate=False, unit=False):
    """X with op(A) X = B, or X op(A) = B."""
    return lax.linalg.triangular_solve(
        a,
        b,
        left_side=left,
        lower=lower,
        transpose_a=transpose,
        conjugate_a=conjugate,
        unit_diagonal=unit,
    )


# -- cholesky ----------------------------------------------------------------------------------------------


def _push_cholesky(lower, tangents, **_):
    """L̇ = L Φ(L⁻¹ Ȧ L⁻ᴴ), where Φ is the lower triangle with the diagonal halved.

    The primitive reads the lower triangle of A only, and takes A for Hermitian: so it does with Ȧ.
    """
    (t,) = tangents
    t = lax.add(tril(t), conj(T(tril(t, -1))))
    if np.issubdtype(t.dtype, np.complexfloating):
        t = lax.sub(t, lax.mul(eye(t), lax.complex(lax.full_like(lax.real(t), 0), lax.imag(t))))
    right = solve_triangular(lower, t, left=False, lower=True, transpose=True, conjugate=True)
    both = tril(solve_triangular(lower, right, left=True, lower=True))
    return (dot(lower, lax.div(both, lax.add(eye(both), np.array(1, both.dtype)))),)


function(
    lax.linalg.cholesky_p,
    _push_cholesky,
    value=lambda a: (tril(lax.linalg.cholesky_p.bind(a)),),  # the raw primitive may leave A's upper triangle there
    residuals=lambda outs, primals: outs,
    cost="solving",
)


# -- lu ----------------------------------------------------------------------------------------------------


def _push_lu(lu, permutation, tangents):
    """With P A = L U and M = L⁻¹ P Ȧ U⁻¹: L̇ = L tril(M, -1), U̇ = triu(M) U.

    A factor that is not square is completed by columns (rows) of the identity.
    """
    (t,) = tangents
    m, n = lu.shape[-2:]
    k = min(m, n)
    lower = pad(tril(block(lu, cols=(0, k)), -1), m, m)
    lower = lax.add(lower, eye(lower))
    upper = pad(triu(block(lu, rows=(0, k))), n, n)
    upper = lax.add(upper, lax.sub(eye(upper), pad(eye(block(upper, (0, k), (0, k))), n, n)))
    left = solve_triangular(lower, take_rows(t, permutation), left=True, lower=True, unit=True)
    both = solve_triangular(upper, left, left=False, lower=False)
    return lax.add(dot(lower, tril(both, -1)), dot(triu(both), upper)), None, None


function(lax.linalg.lu_p, _push_lu, residuals=lambda outs, primals: (outs[0], outs[2]), cost="solving")
zero(lax.linalg.lu_pivots_to_permutation_p, cost="moving")


# -- qr ----------------------------------------------------------------------------------------------------


def _push_thin_qr(q, r, t):
    """With M = Qᴴ Ȧ R⁻¹ and Ω the skew-Hermitian matrix whose strict lower triangle is M's and whose diagonal is the
    imaginary part of M's: Q̇ = Q (Ω - M) + Ȧ R⁻¹ and Ṙ = (M - Ω) R.
    """
    t_over_r = solve_triangular(r, t, left=False, lower=False)
    m = dot(H(q), t_over_r)
    strict = tril(m, -1)
    imaginary = lax.sub(m, lax.convert_element_type(real(m), m.dtype))
    skew = lax.add(lax.sub(strict, H(strict)), lax.mul(eye(m), imaginary))
    return lax.add(dot(q, lax.sub(skew, m)), t_over_r), dot(lax.sub(m, skew), r)


def _push_qr(a, q, r, permutation, tangents, *, pivoting, full_matrices, **_):
    (t,) = tangents
    if pivoting:
        a, t = (T(take_rows(T(x), permutation)) for x in (a, t))
    m, n = a.shape[-2:]
    last = a.ndim - 1
    if m < n:
        # A = (A₁ A₂) = Q (R₁ R₂): the first block is a QR decomposition, and R₂ = Qᴴ A₂
        dq, dr1 = _push_thin_qr(q, block(r, cols=(0, m)), block(t, cols=(0, m)))
        dr2 = lax.add(dot(H(dq), block(a, cols=(m, n))), dot(H(q), block(t, cols=(m, n))))
        dr = lax.concatenate((dr1, dr2), last)
    elif full_matrices and m > n:
        dq1, dr1 = _push_thin_qr(block(q, cols=(0, n)), block(r, rows=(0, n)), t)
        dq = lax.concatenate((dq1, _push_complement(q, dq1)), last)
        dr = pad(dr1, m, n)
    else:
        dq, dr = _push_thin_qr(q, r, t)
    return (dq, dr, None) if pivoting else (dq, dr)


def _push_complement(q, dq1):
    """The columns Q₂ that complete Q₁ to a unitary matrix, where (Q₁ Q₂) is the product of Householder reflections.

    With Z = Q₁₂ (Q₁₁ - 1)⁻¹, where Q₁₁ are the upper and Q₁₂ the lower rows of Q₁, these columns change by
    Q̇₂ = Q̇₁ Zᴴ - (Q₁ + Q₂ Z)(Q̇₁₂ - Z Q̇₁₁)ᴴ (arXiv:2409.13374, equations 32 and 33).
    """
    n = dq1.shape[-1]
    q1, q2 = block(q, cols=(0, n)), block(q, cols=(n, None))
    top, bottom = block(q1, rows=(0, n)), block(q1, rows=(n, None))
    lu, _, permutation = lax.linalg.lu(lax.sub(top, eye(top)))
    z = T(_solve_transposed(lu, permutation, T(bottom)))
    change = lax.sub(block(dq1, rows=(n, None)), dot(z, block(dq1, rows=(0, n))))
    return lax.sub(dot(dq1, H(z)), dot(lax.add(q1, dot(q2, z)), H(change)))


def _solve_transposed(lu, permutation, b):
    """X with Aᵀ X = B from the LU decomposition P A = L U of A: Aᵀ = Uᵀ Lᵀ P."""
    x = solve_triangular(lu, b, left=True, lower=False, transpose=True)
    x = solve_triangular(lu, x, left=True, lower=True, transpose=True, unit=True)
    order = lax.broadcasted_iota(np.int32, permutation.shape, permutation.ndim - 1)
    _, inverse = lax.sort((permutation, order), num_keys=1)
    return take_rows(x, inverse)


function(
    lax.linalg.qr_p,
    _push_qr,
    residuals=lambda outs, primals, pivoting, **_: (primals[0], *outs[:2], outs[2] if pivoting else None),
    cost="solving",
)

# -- no rule yet -------------------------------------------------------------------------------------------

_factorizations = (
    lax.linalg.hessenberg_p,
    lax.linalg.householder_product_p,
    lax.linalg.schur_p,
    lax.linalg.tridiagonal_p,
)
describe(*_factorizations, cost="solving")
