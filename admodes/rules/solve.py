r"""Linear solves: triangular_solve, tridiagonal_solve, custom_linear_solve.

A X = B gives Ẋ = A⁻¹ (Ḃ - Ȧ X), and the transpose of that: with W = A⁻ᵀ X̄, B̄ = W and Ā = -W Xᵀ, where only the entries
of Ā count that A has.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from jax import lax

from admodes.linear.maps import LinearMap, add, expand, linear_map, static
from admodes.linear.pattern import SparsityPattern
from admodes.program import jax_compat as jc
from admodes.rules.linalg import T, conj, dot, tril, triu
from admodes.rules.table import HigherOrderRule, LocalRule, higher_order, register


def _neg(x):
    return None if x is None else lax.neg(x)


# -- triangular_solve --------------------------------------------------------------------------------------


def pattern_of_columns(
    linear: TriangularSolve | TridiagonalSolve, matrices: range, rows: bool = False
) -> dict[tuple[int, int], SparsityPattern]:
    """The blocks of a solve for X of A X = B: a column of X depends on that of B, and on all of A, which ``matrices``
    are; with ``rows``, those of X A = B.

    Each matrix of a batch is a system of its own.
    """
    (out,) = linear.codomain
    axis = len(out.shape) - (2 if rows else 1)  # along which systems have A in common
    blocks, places = {}, np.indices(out.shape)
    for i, (aval, on) in enumerate(zip(linear.domain, linear.active, strict=True)):
        if on:
            kept = list(range(len(out.shape) - 2)) + ([] if i in matrices else [axis])
            own, shape = np.indices(aval.shape), [out.shape[d] for d in kept]
            labels, groups = (np.zeros(a.shape, np.int64) for a in (out, aval))
            for d, k in zip(kept, shape, strict=True):
                labels, groups = labels * k + places[d], groups * k + own[d]
            size, number = math.prod(aval.shape), math.prod(shape)
            blocks[0, i] = SparsityPattern.shared(labels, groups.ravel(), np.arange(size), (number, size))
    return blocks


@linear_map
class TriangularSolve(LinearMap):
    """The Jacobian of X in op(A) X = B, or X op(A) = B, where op may transpose and conjugate."""

    a: Any
    x: Any
    active: tuple = static()
    params: tuple = static()
    domain: tuple = static()
    codomain: tuple = static()

    def _solve(self, b, transposed=False):
        params = dict(self.params)
        params["transpose_a"] ^= transposed
        return lax.linalg.triangular_solve_p.bind(self.a, b, **params)

    def _triangle(self, t):
        params = dict(self.params)
        k = int(params["unit_diagonal"])
        return tril(t, -k) if params["lower"] else triu(t, k)

    def _op(self, t):
        params = dict(self.params)
        t = T(t) if params["transpose_a"] else t
        return conj(t) if params["conjugate_a"] else t

    def _solve_last(self):
        """True if A⁻¹ (Ȧ X) is cheaper than (A⁻¹ Ȧ) X: X has fewer columns (rows, on the other side) than A."""
        return self.a.shape[-1] > self.x.shape[-1 if dict(self.params)["left_side"] else -2]

    def moved(self, t):
        """op(Ȧ) X, or X op(Ȧ), for a tangent of the matrix."""
        return self._times(self._op(self._triangle(t)), self.x)

    def _times(self, left, right):
        return dot(left, right) if dict(self.params)["left_side"] else dot(right, left)

    def push(self, tangents):
        da, db = tangents
        if da is not None:
            da = lax.neg(self._op(self._triangle(da)))
            da = self._solve(self._times(da, self.x)) if self._solve_last() else self._times(self._solve(da), self.x)
        return (add(da, None if db is None else self._solve(db)),)

    def pull(self, cotangents):
        (g,) = cotangents
        if g is None:
            return None, None
        da, db = self.active
        db = self._solve(g, transposed=True) if db or (da and self._solve_last()) else None
        if not da:
            return None, db
        if self._solve_last():
            da = self._times(db, T(self.x))
        else:
            da = self._solve(self._times(g, T(self.x)), transposed=True)
        return self._triangle(lax.neg(self._op(da))), db if self.active[1] else None

    def pattern(self):
        return pattern_of_columns(self, range(1), not dict(self.params)["left_side"])


class TriangularSolveRule(LocalRule):
    kind = "solve"

    def jacobian(self, interpreter, primitive, outs, primals, active, params):
        domain, codomain = tuple(map(jc.typeof, primals)), tuple(map(jc.typeof, outs))
        x = outs[0] if active[0] else None
        return TriangularSolve(primals[0], x, tuple(active), tuple(params.items()), domain, codomain)


register(lax.linalg.triangular_solve_p, TriangularSolveRule(), cost="solving")


# -- tridiagonal_solve -------------------------------------------------------------------------------------


def _shift(x, k):
    """Entry i - k at place i of axis -2 (matrices), and 0 where there is none."""
    config = [(0, 0, 0)] * (x.ndim - 2) + [(k, -k, 0), (0, 0, 0)]
    return lax.pad(x, np.array(0, x.dtype), config)


@linear_map
class TridiagonalSolve(LinearMap):
    """The Jacobian of X in A X = B, where A has lower, main and upper diagonals (l₀ and the last u are unused)."""

    diagonals: tuple
    x: Any
    active: tuple = static()
    params: tuple = static()
    domain: tuple = static()
    codomain: tuple = static()

    def push(self, tangents):
        *diagonals, rhs = tangents
        for t, k in zip(diagonals, (1, 0, -1), strict=True):
            if t is not None:
                rhs = _subtract(rhs, lax.mul(lax.expand_dims(t, (t.ndim,)), _shift(self.x, k)))
        if rhs is None:
            return (None,)
        return (lax.linalg.tridiagonal_solve_p.bind(*self.diagonals, rhs, **dict(self.params)),)

    def pull(self, cotangents):
        (g,) = cotangents
        if g is None:
            return (None,) * 4
        lower, main, upper = (lax.expand_dims(d, (d.ndim,)) for d in self.diagonals)
        transposed = [lax.squeeze(d, (d.ndim - 1,)) for d in (_shift(upper, 1), main, _shift(lower, -1))]
        w = lax.linalg.tridiagonal_solve_p.bind(*transposed, g, **dict(self.params))
        cts = [
            lax.neg(lax.reduce_sum(lax.mul(w, _shift(self.x, k)), (w.ndim - 1,))) if on else None
            for on, k in zip(self.active, (1, 0, -1), strict=False)
        ]
        return (*cts, w if self.active[3] else None)

    def pattern(self):
        return pattern_of_columns(self, range(3))


def _subtract(x, y):
    return lax.neg(y) if x is None else lax.sub(x, y)


class TridiagonalSolveRule(LocalRule):
    kind = "solve"

    def jacobian(self, interpreter, primitive, outs, primals, active, params):
        domain, codomain = tuple(map(jc.typeof, primals)), tuple(map(jc.typeof, outs))
        x = outs[0] if any(active[:3]) else None
        return TridiagonalSolve(tuple(primals[:3]), x, tuple(active), tuple(params.items()), domain, codomain)


register(lax.linalg.tridiagonal_solve_p, TridiagonalSolveRule(), cost="solving")


# -- custom_linear_solve -----------------------------------------------------------------------------------

NO_TRANSPOSE_SOLVE = "transpose_solve required for backwards mode automatic differentiation of custom_linear_solve"


@linear_map
class CustomSolve(LinearMap):
    """(y, b) ↦ A⁻¹ (b - y), by the user's own solver; ``y`` stands for the change Ȧ x of the matrix-vector product.

    Where ``scale`` is given, what the solver closes over (a tolerance) is for right-hand sides of this norm only:
    others are scaled to it, which is exact since the solution is linear in them.
    """

    operands: tuple
    scale: Any
    params: tuple = static()
    active: tuple = static()
    domain: tuple = static()
    codomain: tuple = static()

    def _solve(self, operands, b, const_lengths, jaxprs, n):
        if self.scale is None:
            return lax.linear_solve_p.bind(*operands, *b, const_lengths=const_lengths, jaxprs=jaxprs)[:n]
        norm = _norm(b)
        factor = lax.div(self.scale, lax.select(lax.gt(norm, lax.full_like(norm, 0)), norm, self.scale))
        b = [lax.mul(x, expand(lax.convert_element_type(factor, x.dtype), x.shape)) for x in b]
        xs = lax.linear_solve_p.bind(*operands, *b, const_lengths=const_lengths, jaxprs=jaxprs)[:n]
        return [lax.div(x, expand(lax.convert_element_type(factor, x.dtype), x.shape)) for x in xs]

    def push(self, tangents):
        n = len(tangents) // 2
        rhs = [add(_neg(y), b) for y, b in zip(tangents[:n], tangents[n:], strict=True)]
        rhs = [jc.zeros(a) if b is None else b for a, b in zip(self.domain[n:], rhs, strict=True)]
        x = self._solve(self.operands, rhs, **dict(self.params), n=n)
        return (*x, *(None for _ in self.codomain[n:]))

    def pull(self, cotangents):
        n = len(self.domain) // 2
        lengths, jaxprs = (dict(self.params)[name] for name in ("const_lengths", "jaxprs"))
        if jaxprs.transpose_solve is None:
            raise TypeError(NO_TRANSPOSE_SOLVE)
        if all(g is None for g in cotangents[:n]):
            return (None,) * (2 * n)
        given = [jc.zeros(a) if g is None else g for a, g in zip(self.codomain, cotangents[:n], strict=False)]
        groups = iter(self.operands)
        split = type(lengths)(*([next(groups) for _ in range(k)] for k in lengths))
        operands = [x for group in split.transpose() for x in group]
        w = self._solve(operands, given, lengths.transpose(), jaxprs.transpose(), n)
        cts = (*map(lax.neg, w), *w)
        return tuple(ct if on else None for ct, on in zip(cts, self.active, strict=True))


def _norm(arrays):
    """The Euclidean norm of all entries, a constant of no derivative."""
    squares = [lax.reduce_sum(lax.square(lax.abs(x)), tuple(range(x.ndim))) for x in map(lax.stop_gradient, arrays)]
    return lax.sqrt(sum(squares[1:], squares[0]))


class CustomSolveRule(HigherOrderRule):
    """Solve, then differentiate the matrix-vector product at the solution with respect to the values it closes over."""

    def push(self, interpreter, primitive, primals, tangents, params):
        outs = primitive.bind(*primals, **params)
        consts, x, n = _matvec_operands(primals, outs, params)
        dy = [None] * n
        if any(t is not None for t in tangents[: len(consts)]):
            ts = [*tangents[: len(consts)], *dy]
            dy = interpreter.push_program(params["jaxprs"].matvec, [*consts, *x], ts)[1]
        seeds = (*dy, *tangents[len(primals) - n :])
        if all(t is None for t in seeds):
            return outs, [None] * len(outs)
        return outs, _solve_map(primals, outs, seeds, params, None).push(seeds)

    def record(self, interpreter, recorder, primitive, primals, slots, params):
        if recorder.linear:  # the solution is not needed
            outs = list(map(jc.fill_zeros, params["jaxprs"].solve.out_avals))
        else:
            outs = primitive.bind(*primals, **params)
        consts, x, n = _matvec_operands(primals, outs, params)
        y_slots = [None] * n
        if any(s is not None for s in slots[: len(consts)]):
            own = [*slots[: len(consts)], *y_slots]
            y_slots = interpreter.continue_program(recorder, params["jaxprs"].matvec, [*consts, *x], own)[1]
        reads = (*y_slots, *slots[len(primals) - n :])
        if all(s is None for s in reads):
            return outs, [None] * len(outs)
        steered = recorder.linear and any(s is not None for s in slots[len(consts) : len(primals) - n])
        linear = _solve_map(primals, outs, reads, params, _norm(primals[len(primals) - n :]) if steered else None)
        out_slots = recorder.append(reads, lambda: linear, outs)
        return outs, [*out_slots[:n], *(None for _ in out_slots[n:])]


def _matvec_operands(primals, outs, params):
    """The values that the matrix-vector product closes over, the solution, and how many arrays it has."""
    n = len(params["jaxprs"].matvec.out_avals)
    return primals[: params["const_lengths"].matvec], outs[:n], n


def _solve_map(primals, outs, reads, params, scale):
    n = len(reads) // 2
    operands = tuple(primals[: len(primals) - n])
    domain = tuple(map(jc.typeof, primals[len(primals) - n :]))
    active = tuple(r is not None for r in reads)
    return CustomSolve(operands, scale, tuple(params.items()), active, (*domain, *domain), tuple(map(jc.typeof, outs)))


higher_order(lax.linear_solve_p, CustomSolveRule(), cost="solving")
