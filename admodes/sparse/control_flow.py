"""Patterns of what holds programs: branches, loops, checkpoints, linear solves.

A branch that is not known may be any: the union. Of a loop, the pattern of one step is found once and applied step by
step, which is exact (if the loop counts, or scans places, masks or factors that are known, its body is looked at anew
in each step). Where that would take too long, or the number of steps is not known, the step is closed under repetition:
C = (I ∪ J)* C₀, by repeated squaring.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax

from admodes.linear.pattern import SparsityPattern
from admodes.program import jax_compat as jc
from admodes.program.ir import from_jaxpr

# Equations, over all steps, that a loop is unrolled to at most: a quarter of a millisecond for each. Beyond, the
# pattern of a loop is less exact: more nonzeros, so more products.
UNROLLED = 4096
# The least part of zeros for which a loop over known factors is unrolled. Chosen.
OFTEN = 1 / 16
# Products of entries, within the connected parts of a matrix, that squaring it takes at most. Chosen; beyond, the
# inverse of a part counts as full.
INVERTED = 10**7
# Rows of results, over all steps, to which the pattern of a step is applied one by one, at most. Chosen, with the
# same consequences.
STEPPED = 10**6


def _remat(detector, operands, params, avals):
    return detector.walk(from_jaxpr(jc.close_jaxpr(params["jaxpr"])), operands)


def _cond(detector, operands, params, avals):
    index, *operands = operands
    branches: Sequence = jc.branches(params)
    if index.known is not None:
        branches = [branches[int(np.clip(int(index.known), 0, len(branches) - 1))]]
    results = [detector.walk(from_jaxpr(b), operands) for b in branches]
    return [_either(values) for values in zip(*results, strict=True)]


def _either(values):
    """A value that is one of several: known only if they agree."""
    first, *rest = values
    if not rest:
        return first
    union = None
    for v in values:
        union = _join(union, v.reach)
    return type(first)(first.aval, None, union)


def _join(a, b):
    if a is None or b is None:
        return b if a is None else a
    return a.union(b)


def _step_pattern(detector, closed, operands, fixed):
    """The patterns of the results of one step with respect to all its operands, which are unknown unless ``fixed``."""
    value = type(operands[0])
    avals = closed.in_avals
    sizes = [math.prod(a.shape) for a in avals]
    starts, total = np.cumsum([0, *sizes]), sum(sizes)
    local = []
    for k, (aval, operand) in enumerate(zip(avals, operands, strict=True)):
        on = jc.is_differentiable(aval) and not (fixed[k] and operand.reach is None)
        reach = SparsityPattern.identity(sizes[k], total, int(starts[k])) if on else None
        local.append(value(aval, operand.known if fixed[k] else None, reach))
    outs = detector.walk(from_jaxpr(closed), local)
    return [v.reach or SparsityPattern.empty(math.prod(v.aval.shape), total) for v in outs], starts


def _closure(step: SparsityPattern) -> SparsityPattern:
    """I ∪ J ∪ J² ∪ ..."""
    power = step.union(SparsityPattern.identity(step.shape[0]))
    while True:
        squared = power.compose(power)
        if squared.nnz == power.nnz:
            return power
        power = squared


def _columns(pattern: SparsityPattern, start: int, stop: int) -> SparsityPattern:
    return SparsityPattern(pattern.table[:, start:stop], pattern.labels)


def _stack(values, n) -> SparsityPattern:
    """The patterns of several values as one, one below the other."""
    parts = [v.reach or SparsityPattern.empty(math.prod(v.aval.shape), n) for v in values]
    return SparsityPattern.stack(parts) if parts else SparsityPattern.empty(0, n)


def _carried(detector, closed, consts, carry, xs, n):
    """The carries after any number of steps, and the patterns of the other results of a step in terms of
    (constants, carries) and of the scanned inputs."""
    patterns, starts = _step_pattern(
        detector, closed, [*consts, *carry, *xs], [True] * len(consts) + [False] * (len(carry) + len(xs))
    )
    a, b, end = (int(starts[k]) for k in (len(consts), len(consts) + len(carry), len(starts) - 1))
    step = SparsityPattern.stack(patterns[: len(carry)]) if carry else SparsityPattern.empty(0, end)
    # every step adds what the constants and any of the scanned inputs bring
    sources = _stack(consts, n), _stack([_any_slice(x) for x in xs], n)
    added = _columns(step, 0, a).compose(sources[0]).union(_columns(step, b, end).compose(sources[1]))
    start = _stack(carry, n).union(added)
    reached = _closure(_columns(step, a, b)).compose(start) if carry else start
    before = SparsityPattern.stack([sources[0], reached])
    outs = patterns[len(carry) :]
    ys = [(_columns(p, 0, b).compose(before), _columns(p, b, end)) for p in outs]
    return reached, ys


def _any_slice(value):
    """The entries that some slice of a scanned input can depend on: the union over the steps."""
    aval = jc.unstacked(value.aval)
    size = math.prod(aval.shape)
    if value.reach is None or not size:
        return type(value)(aval)
    steps = value.aval.shape[0]
    rows = np.tile(np.arange(size), steps)
    merge = SparsityPattern.build(rows, np.arange(rows.size), (size, rows.size))
    return type(value)(aval, None, merge.compose(value.reach))


def _width(operands) -> int:
    return next(v.reach.shape[1] for v in operands if v.reach is not None)


def _values(avals, pattern, kind):
    cuts = np.cumsum([0, *(math.prod(a.shape) for a in avals)])
    results = []
    for aval, a, b in zip(avals, cuts[:-1], cuts[1:], strict=True):
        reach = pattern.take_rows(slice(a, b)) if jc.is_differentiable(aval) else None
        results.append(kind(aval, None, reach if reach is not None and reach.nnz else None))
    return results


def _while(detector, operands, params, avals):
    loop = jc.while_parts(params)
    _, consts, carry = loop.split(operands)
    reached, _ = _carried(detector, loop.body, consts, carry, [], _width(operands))
    return _values(avals, reached, type(operands[0]))


def _scan(detector, operands, params, avals):
    loop, closed = jc.scan_parts(params)
    n_carry, length = loop.n_carry, loop.length
    consts, carry, xs = loop.split(operands)
    if not length:
        return [*carry, *map(type(operands[0]), avals[n_carry:])]
    counts = any(v.known is not None and not jc.is_differentiable(v.aval) for v in carry)
    counts = counts or any(map(_tells_steps_apart, xs))
    if counts and length * len(from_jaxpr(closed).equations) <= UNROLLED:
        walk = lambda state: detector.walk(from_jaxpr(closed), [*consts, *state])
        return _unrolled(walk, carry, xs, length, loop.reverse, avals)
    n = _width(operands)
    if n_carry and length * sum(math.prod(a.shape) for a in closed.out_avals) <= STEPPED:
        step = _step(detector, closed, consts, carry, xs, n)
        unknown = [type(x)(x.aval, None, x.reach) for x in xs]
        return _unrolled(step, carry, unknown, length, loop.reverse, avals)
    reached, ys = _carried(detector, closed, consts, carry, xs, n)
    results = _values(avals[:n_carry], reached, type(operands[0]))
    slices = _interleaved(xs, length, n)
    for aval, (every, own) in zip(avals[n_carry:], ys, strict=True):
        everywhere = every.take_rows(np.tile(np.arange(every.shape[0]), length))
        results += _values([aval], everywhere.union(_repeat(own, length).compose(slices)), type(operands[0]))
    return results


def _tells_steps_apart(value) -> bool:
    """True if a step depends on less where it knows its slice: of a place or mask, or a factor that is often 0."""
    if value.known is None or jc.is_extended(value.aval.dtype):
        return False
    if not jc.is_differentiable(value.aval):
        return True
    known = np.asarray(value.known)
    return int(np.count_nonzero(known == 0)) >= max(1, OFTEN * known.size)


def _interleaved(xs, length, n) -> SparsityPattern:
    """The scanned inputs, those of one step together."""
    stacked = _stack(xs, n)
    sizes = [math.prod(x.aval.shape) // length for x in xs]
    starts = np.cumsum([0, *(s * length for s in sizes)])
    steps = [np.arange(a, a + s * length).reshape(length, s) for a, s in zip(starts, sizes, strict=False)]
    return stacked.take_rows(np.concatenate(steps, axis=1).ravel()) if xs else SparsityPattern.empty(0, n)


def _repeat(pattern: SparsityPattern, count: int) -> SparsityPattern:
    """A block-diagonal pattern of ``count`` equal blocks."""
    matrix = pattern.matrix.tocoo()
    (m, n), steps = matrix.shape, np.arange(count)[:, None]
    rows, cols = (steps * m + matrix.row).ravel(), (steps * n + matrix.col).ravel()
    return SparsityPattern.build(rows, cols, (m * count, n * count))


def _step(detector, closed, consts, carry, xs, n):
    """One step as a function of (carries, slices of the scanned inputs), by the pattern found for unknown values."""
    fixed = [True] * len(consts) + [False] * (len(carry) + len(xs))
    patterns, _ = _step_pattern(detector, closed, [*consts, *carry, *xs], fixed)
    every, kind = SparsityPattern.stack(patterns), type(carry[0])
    return lambda state: _values(closed.out_avals, every.compose(_stack([*consts, *state], n)), kind)


def _unrolled(step, carry, xs, length, reverse, avals):
    """Step by step, but for those that find the same carries and slices as the step before them."""
    kind, count = type([*carry, *xs][0]), len(carry)
    order = np.arange(length)[::-1] if reverse else np.arange(length)
    again = np.all([_repeats(x, length, order) for x in xs], axis=0) if xs else np.ones(length, bool)
    outputs: list = []  # of the steps that were made
    which = np.zeros(length, int)  # of these is each step like
    settled = False
    for k, repeats in zip(order, again, strict=True):
        if not (settled and repeats):
            results = step([*carry, *(_slice(x, k) for x in xs)])
            settled = all(map(_unchanged, carry, results[:count]))
            carry = results[:count]
            outputs.append(results[count:])
        which[k] = len(outputs) - 1
    stacked = []
    for aval, values in zip(avals[count:], zip(*outputs, strict=True), strict=True):
        stack = jax.numpy.stack if jc.is_extended(aval.dtype) else np.stack
        with jax.ensure_compile_time_eval():
            known = stack([v.known for v in values])[which] if all(v.known is not None for v in values) else None
        stacked.append(kind(aval, known, _chosen(values, which)))
    return [kind(aval, v.known, v.reach) for aval, v in zip(avals, carry, strict=False)] + stacked


def _chosen(values, which) -> SparsityPattern | None:
    """The patterns of these values one below the other, as often and in the order that ``which`` says."""
    width = next((v.reach.shape[1] for v in values if v.reach is not None), None)
    if width is None:
        return None
    size = math.prod(values[0].aval.shape)
    return _stack(values, width).take_rows((which[:, None] * size + np.arange(size)).ravel())


def _repeats(value, length: int, order) -> np.ndarray:
    """For each step in this order, whether its slice is known to depend on the same as that of the step before it."""
    if value.known is not None:
        return np.zeros(length, bool)
    if value.reach is None:
        return np.ones(length, bool)
    size = math.prod(value.aval.shape) // length
    matrix = value.reach.take_rows((order[:, None] * size + np.arange(size)).ravel()).matrix
    counts = np.diff(matrix.indptr)
    rows = np.arange(size, length * size)
    equal = np.zeros(length * size, bool)
    equal[rows] = counts[rows] == counts[rows - size]
    entries = np.flatnonzero(np.repeat(equal, counts))
    row = np.repeat(np.arange(length * size), counts)[entries]
    other = entries - matrix.indptr[row] + matrix.indptr[row - size]
    equal[row[matrix.indices[entries] != matrix.indices[other]]] = False
    return equal.reshape(length, size).all(axis=1) & (np.arange(length) > 0)


def _unchanged(before, after) -> bool:
    if before.known is not None or after.known is not None:
        return False
    if before.reach is None or after.reach is None:
        return before.reach is after.reach
    return before.reach.equals(after.reach)


def _slice(value, k):
    aval = jc.unstacked(value.aval)
    size = math.prod(aval.shape)
    reach = None if value.reach is None else value.reach.take_rows(slice(k * size, (k + 1) * size))
    with jax.ensure_compile_time_eval():  # of keys
        return type(value)(aval, None if value.known is None else value.known[k], reach)


def _linear_solve(detector, operands, params, avals):
    """A x = b, where a program gives A x: then ẋ = A⁻¹ (ḃ - Ȧ x). Other results have none."""
    matvec = params["jaxprs"].matvec
    count, n, kind = len(matvec.out_avals), _width(operands), type(operands[0])
    consts, rhs = operands[: params["const_lengths"].matvec], operands[len(operands) - count :]
    fixed = [True] * len(consts) + [False] * count
    patterns, starts = _step_pattern(detector, matvec, [*consts, *map(kind, matvec.in_avals[len(consts) :])], fixed)
    product, at, end = SparsityPattern.stack(patterns), int(starts[len(consts)]), int(starts[-1])
    residual = _stack(rhs, n).union(_columns(product, 0, at).compose(_stack(consts, n)))
    solution = _inverse(_columns(product, at, end)).compose(residual)
    return [*_values(avals[:count], solution, kind), *map(kind, avals[count:])]


def _inverse(matrix: SparsityPattern) -> SparsityPattern:
    """The places where the inverse of a matrix can be nonzero: those of its powers, being a polynomial in the matrix.

    Where that would take too long, each connected part of the matrix counts as full.
    """
    from scipy.sparse.csgraph import connected_components

    size = matrix.shape[0]
    number, parts = connected_components(matrix.matrix, directed=False)
    if (np.bincount(parts, minlength=number).astype(float) ** 3).sum() <= INVERTED:
        return _closure(matrix)
    return SparsityPattern.shared(parts, parts, np.arange(size), (number, size))


def _full(detector, operands, params, avals):
    """Nothing is known: every result can depend on whatever some operand depends on."""
    n = _width(operands)
    every = _stack([v for v in operands if v.reach is not None], n)
    any_row = SparsityPattern.dense(1, every.shape[0]).compose(every)
    kind = type(operands[0])
    return [
        kind(a, None, any_row.take_rows(np.zeros(math.prod(a.shape), int)) if jc.is_differentiable(a) else None)
        for a in avals
    ]


HIGHER_ORDER: dict[Any, Callable] = {
    jc.remat_p: _remat,
    jc.cond_p: _cond,
    jc.while_p: _while,
    jc.scan_p: _scan,
    jc.shard_map_p: _full,
    lax.linear_solve_p: _linear_solve,
}
