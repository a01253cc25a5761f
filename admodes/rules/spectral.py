r"""Spectral decompositions: eigh, eig, svd. Of eig, distinct eigenvalues are assumed.

With V⁻¹ A V = Λ, first-order perturbation theory gives Λ̇ = diag(P) and V̇ = V (F ⊙ P) for P = V⁻¹ Ȧ V and
Fᵢⱼ = 1 / (λⱼ - λᵢ), Fᵢᵢ = 0, up to a multiple of each eigenvector, which its normalisation decides.

Equal eigenvalues of a Hermitian matrix, or equal singular values, have eigenvectors that are not determined. The
results computed from them in the end mostly do not depend on the choice (log det, a matrix function, U S Vᴴ) and have a
derivative: the limit for values that are apart. It cannot be had from equal values, for there the change of the
vectors, which grows like 1/gap, meets the difference of the values. So values that are equal up to rounding are moved
apart by √ε of the largest while derivatives are taken: these, and what is computed from the values, then are right to
half of the digits. Where the derivative of 1/gap is asked for, nothing is left, and the result is NaN.

Reference: Giles, *Collected matrix derivative results for forward and reverse mode AD* (2008), section 3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np
from jax import lax
from jax import numpy as jnp

from admodes.linear.maps import Function
from admodes.program import jax_compat as jc
from admodes.rules.elementwise import c
from admodes.rules.linalg import H, T, cols, conj, diagonal, dot, eye, real, rows
from admodes.rules.table import Applied, HigherOrderRule, higher_order


def _gaps(w):
    """Fᵢⱼ = 1 / (wⱼ - wᵢ) off the diagonal, 0 on it."""
    shape = (*w.shape, w.shape[-1])
    difference = lax.sub(rows(w, shape), cols(w, shape))
    one = eye(difference)
    return lax.sub(lax.integer_pow(lax.add(one, difference), -1), one)


ALIKE = 64  # times ε and the size of the matrix: values that near are equal up to the rounding of the decomposition
STEPS_WITH_DIGITS = 1.5  # between values that are nearer, 1/gap² has not half of its digits: those moved apart too


def _apart(w, a, above_zero=False):
    """Ascending values of which none are equal, and for each the number of the cluster that it is in.

    They change as before. With ``above_zero`` the first may not be zero either. The size of the matrix ``a`` is the
    measure, not that of the values: in derivatives of derivatives these come as they were moved already.
    """
    n, last = w.shape[-1], w.ndim - 1
    if n == 0:
        return w, lax.full(w.shape, 0, np.int32)
    eps = float(jnp.finfo(w.dtype).eps)
    size = lax.stop_gradient(lax.reduce_max(lax.reduce_sum(lax.abs(a), (last + 1,)), (last,)))
    size = lax.select(lax.eq(size, lax.full_like(size, 0)), lax.full_like(size, 1), size)
    size = lax.broadcast_in_dim(size, w.shape, range(last))
    step, tolerance = (lax.mul(c(factor, w), size) for factor in (np.sqrt(eps), ALIKE * eps))
    start = lax.full_like(lax.slice_in_dim(w, 0, 1, axis=last), 0 if above_zero else -np.inf)
    gap = lax.sub(w, lax.concatenate([start, lax.slice_in_dim(w, 0, n - 1, axis=last)], last))
    alike = lax.le(gap, tolerance)
    count = lax.cumsum(lax.convert_element_type(alike, w.dtype), last)
    of_others = lax.cummax(lax.select(alike, lax.full_like(count, 0), count), last)
    shift = lax.mul(lax.sub(count, of_others), step)
    near = lax.le(gap, lax.mul(c(STEPS_WITH_DIGITS, step), step))
    clusters = lax.cumsum(lax.convert_element_type(lax.bitwise_not(near), np.int32), last)
    return lax.add(w, lax.stop_gradient(shift)), clusters


def _blurred(gaps, difference, clusters):
    """The inverse ``gaps``, whose own derivative is NaN between values of one cluster."""
    alike = lax.eq(rows(clusters, gaps.shape), cols(clusters, gaps.shape))
    alike = lax.bitwise_and(alike, lax.eq(eye(gaps), lax.full_like(gaps, 0)))
    return lax.add(gaps, _without_slope(difference, alike))


@jax.custom_jvp
def _without_slope(x, where):
    """Zeros whose derivative is NaN ``where`` said."""
    return lax.full_like(x, 0)


@_without_slope.defjvp
def _push_without_slope(primals, tangents):
    """A sum of products with NaN is NaN for tangents that are zero too, and where zeros are strong."""
    (x, where), (t, _) = primals, tangents
    nan = lax.select(where, lax.full_like(x, np.nan), lax.full_like(x, 0))
    lines = (*x.shape[:-2], 1, x.shape[-1] * x.shape[-2])
    rate = dot(lax.reshape(t, lines), T(lax.reshape(nan, lines)))
    rate = lax.broadcast_in_dim(rate, x.shape, range(x.ndim))
    return lax.full_like(x, 0), lax.select(where, rate, lax.full_like(rate, 0))


# -- eigh --------------------------------------------------------------------------------------------------


def _factor_eigh(a, *, subset_by_index, **params):
    """JAX differentiates eigh as a function of the Hermitian part, whichever triangle is read."""
    if subset_by_index not in (None, (0, a.shape[-1])):
        raise NotImplementedError("eigh of a subset of the eigenvalues has no derivative")
    hermitian = lax.div(lax.add(a, H(a)), np.array(2, a.dtype))
    v, w = lax.linalg.eigh_p.bind(hermitian, subset_by_index=subset_by_index, **params)
    w, clusters = _apart(w, hermitian)
    return (v, w), (v, w, clusters)


def _push_eigh(v, w, clusters, tangents, **_):
    (t,) = tangents
    p = dot(H(v), t, v)
    shape = (*w.shape, w.shape[-1])
    gaps = _blurred(_gaps(w), lax.sub(rows(w, shape), cols(w, shape)), clusters)
    return dot(v, lax.mul(lax.convert_element_type(gaps, v.dtype), p)), diagonal(real(p))


# -- eig and svd -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FactorRule(HigherOrderRule):
    """A decomposition whose derivative needs factors that were not asked for.

    ``factor(a, **params)`` returns (results, residuals); ``push(*residuals, tangents, **params)`` their tangents.
    """

    factor: Callable
    differential: Callable
    kind = "function"

    def _map(self, interpreter, primals, active, params):
        outs, residuals = self.factor(*primals, **params)
        apply = Applied(self.differential, tuple(params.items()))
        domain, codomain = tuple(map(jc.typeof, primals)), tuple(map(jc.typeof, outs))
        return list(outs), Function(tuple(residuals), active, apply, interpreter.transpose, "push", domain, codomain)

    def push(self, interpreter, primitive, primals, tangents, params):
        outs, linear = self._map(interpreter, primals, tuple(t is not None for t in tangents), params)
        return outs, linear.push(tuple(tangents))

    def record(self, interpreter, recorder, primitive, primals, slots, params):
        outs, linear = self._map(interpreter, primals, tuple(s is not None for s in slots), params)
        return outs, recorder.append(slots, lambda: linear, outs)


def _factor_eig(a, *, compute_left_eigenvectors, compute_right_eigenvectors, enable_eigvec_derivs, implementation):
    if (compute_left_eigenvectors or compute_right_eigenvectors) and not enable_eigvec_derivs:
        raise NotImplementedError(
            "Derivatives of non-symmetric eigenvectors are only valid under assumptions on the input that cannot be "
            "checked; opt in with jax.lax.linalg.eig(..., enable_eigvec_derivs=True)."
        )
    factors = lax.linalg.eig_p.bind(
        a,
        compute_left_eigenvectors=compute_left_eigenvectors,
        compute_right_eigenvectors=True,
        enable_eigvec_derivs=True,  # second derivatives of the values do not depend on the normalisation
        implementation=implementation,
    )
    return factors if compute_right_eigenvectors else factors[:-1], factors


def _push_eig(*args, compute_left_eigenvectors, compute_right_eigenvectors, **_):
    w, *left, right, (t,) = args
    t = lax.convert_element_type(t, right.dtype)
    if not compute_left_eigenvectors and not compute_right_eigenvectors:
        return (lax.reduce_sum(lax.mul(jnp.linalg.solve(right, t), T(right)), (right.ndim - 1,)),)  # diag(V⁻¹ Ȧ V)
    dw, dright = _push_eigenvectors(w, right, t)
    tangents = [dw]
    if compute_left_eigenvectors:
        tangents.append(_push_eigenvectors(conj(w), left[0], H(t))[1])  # they are eigenvectors of Aᴴ
    if compute_right_eigenvectors:
        tangents.append(dright)
    return tangents


def _push_eigenvectors(w, v, t):
    """Λ̇, and V̇ = U + V diag(c) with U = V (F ⊙ P).

    LAPACK makes each vector of norm 1 with its largest entry (number k) real. Keeping that so needs
    Re cⱼ = -Re(vⱼᴴ uⱼ) and Im cⱼ = -Im(uₖⱼ) / vₖⱼ.
    """
    p = dot(jnp.linalg.solve(v, t), v)
    u = dot(v, lax.mul(_gaps(w), p))
    axis = v.ndim - 2
    largest = lax.expand_dims(lax.argmax(lax.abs(v), axis, np.int32), (axis,))
    mask = lax.eq(lax.broadcasted_iota(np.int32, v.shape, axis), lax.broadcast_in_dim(largest, v.shape, range(v.ndim)))

    def at_largest(x):
        return lax.reduce_sum(lax.select(mask, x, lax.full_like(x, 0)), (axis,))

    norm = lax.neg(lax.real(lax.reduce_sum(lax.mul(lax.conj(v), u), (axis,))))
    phase = lax.neg(lax.div(lax.imag(at_largest(u)), lax.real(at_largest(v))))
    return diagonal(p), lax.add(u, lax.mul(v, rows(lax.complex(norm, phase), v.shape)))


higher_order(lax.linalg.eigh_p, FactorRule(_factor_eigh, _push_eigh), cost="solving")
higher_order(lax.linalg.eig_p, FactorRule(_factor_eig, _push_eig), cost="solving")


def _factor_svd(a, *, full_matrices, compute_uv, **params):
    if compute_uv and full_matrices and a.shape[-2] != a.shape[-1]:
        raise NotImplementedError("the singular vectors that full_matrices=True adds have no derivative")
    s, *vectors = lax.linalg.svd_p.bind(a, full_matrices=False, compute_uv=True, **params)
    last = (s.ndim - 1,)
    s, clusters = (lax.rev(x, last) for x in _apart(lax.rev(s, last), a, above_zero=a.shape[-2] != a.shape[-1]))
    factors = (s, *vectors)
    return factors if compute_uv else factors[:1], (*factors, clusters)


def _push_svd(s, u, vh, clusters, tangents, *, compute_uv, **_):
    """With P = Uᴴ Ȧ V: ṡ = Re diag(P); U̇ = U (F ⊙ (P S + S Pᴴ) + D), V̇ = V (F ⊙ (S P + Pᴴ S)), where
    Fᵢⱼ = 1 / (sⱼ² - sᵢ²) and D = diag(P - Pᴴ) / 2s is the phase, which U takes. If there are more rows than
    columns, (1 - U Uᴴ) Ȧ V S⁻¹ is added to U̇; if fewer, (1 - V Vᴴ) Ȧᴴ U S⁻¹ to V̇.
    """
    (t,) = tangents
    dtype, v = u.dtype, H(vh)
    p = dot(H(u), t, v)
    ds = diagonal(real(p))
    if not compute_uv:
        return (ds,)
    shape = p.shape
    s_cols, s_rows = cols(s, shape), rows(s, shape)
    difference = lax.mul(lax.add(s_rows, s_cols), lax.sub(s_rows, s_cols))
    one = eye(difference)
    gaps = lax.sub(lax.div(np.array(1, s.dtype), lax.add(difference, one)), one)
    gaps = lax.convert_element_type(_blurred(gaps, lax.sub(s_rows, s_cols), clusters), dtype)
    ps = lax.mul(lax.convert_element_type(s_rows, dtype), p)
    sp = lax.mul(lax.convert_element_type(s_cols, dtype), p)

    zero = lax.convert_element_type(lax.eq(s, np.array(0, s.dtype)), s.dtype)
    inverse = lax.sub(lax.div(np.array(1, s.dtype), lax.add(s, zero)), zero)
    phase = lax.mul(np.array(0.5, dtype), lax.sub(p, H(p)))
    phase = lax.mul(phase, lax.convert_element_type(lax.mul(eye(difference), rows(inverse, shape)), dtype))
    du = dot(u, lax.add(lax.mul(gaps, lax.add(ps, H(ps))), phase))
    dv = dot(v, lax.mul(gaps, lax.add(sp, H(sp))))

    m, n = t.shape[-2:]
    if m > n:
        du = lax.add(du, _outside(u, dot(t, v), s))
    if m < n:
        dv = lax.add(dv, _outside(v, dot(H(t), u), s))
    return ds, du, H(dv)


def _outside(u, x, s):
    """(1 - U Uᴴ) X S⁻¹."""
    return lax.div(lax.sub(x, dot(u, dot(H(u), x))), lax.convert_element_type(rows(s, x.shape), x.dtype))


higher_order(lax.linalg.svd_p, FactorRule(_factor_svd, _push_svd), cost="solving")
