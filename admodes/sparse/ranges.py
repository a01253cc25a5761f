"""Ranges of integers: what is known of indices that depend on the input.

The place of the largest of two entries is 0 or 1, a clipped start lies between the limits, and an index that cannot be
negative is not counted from the end. Where an entry is read at one of a few places, the pattern has these alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from jax import lax

from admodes.program import jax_compat as jc
from admodes.program.folding import evaluate_known

# Sets of places that are tried for what reads an array at a place of which a range is known. Chosen. Each takes as long
# as finding the pattern for known places; beyond, any place along the axis counts.
MOST_CHOICES = 32
# Entries of an array of which ranges are followed. Chosen, for the time of detection.
MOST_ENTRIES = 10**6

Range = tuple[np.ndarray, np.ndarray]  # the least and the largest value of each entry, 64-bit integers

MONOTONE = frozenset(  # results grow with the operands: their ranges end where those of the operands do
    (
        lax.broadcast_in_dim_p,
        lax.clamp_p,
        lax.concatenate_p,
        lax.max_p,
        lax.min_p,
        lax.reduce_max_p,
        lax.reduce_min_p,
        lax.reshape_p,
        lax.rev_p,
        lax.slice_p,
        lax.squeeze_p,
        jc.stop_gradient_p,
        lax.transpose_p,
    )
)
ARITHMETIC = {lax.add_p: np.add, lax.sub_p: np.subtract, lax.mul_p: np.multiply}
LOGIC = {lax.and_p: np.minimum, lax.or_p: np.maximum}  # of truth values
COMPARISONS = {lax.lt_p: np.less, lax.le_p: np.less_equal, lax.gt_p: np.greater, lax.ge_p: np.greater_equal}


def is_counted(aval) -> bool:
    """True for arrays of integers or of truth values, which are 0 or 1, that are not too large."""
    dtype = getattr(aval, "dtype", None)
    return isinstance(dtype, np.dtype) and dtype.kind in "iub" and aval.size <= MOST_ENTRIES


def range_of(value) -> Range | None:
    """The range of a value of the detector."""
    if value.range is not None or value.known is None or not is_counted(value.aval):
        return value.range
    known = np.asarray(value.known).astype(np.int64)
    return known, known


def range_of_result(primitive, operands: Sequence, params: dict, aval) -> Range | None:
    """The range of the result of an equation, None if nothing is known of it."""
    if primitive in (lax.argmax_p, lax.argmin_p):
        (axis,) = params["axes"]
        return np.zeros(aval.shape, np.int64), np.full(aval.shape, operands[0].aval.shape[axis] - 1)
    if not all(is_counted(v.aval) for v in operands):
        return None
    given = list(map(range_of, operands))
    if primitive is lax.select_n_p:
        return _selected(given[0], given[1:])
    if primitive is lax.rem_p and given[1] is not None:
        return _remainder(given[0], given[1], aval.shape)
    ranges = [r for r in given if r is not None]
    if len(ranges) < len(given):
        return None
    found: Range | None = None
    if primitive is lax.convert_element_type_p:
        found = ranges[0] if aval.dtype.kind != "b" else None
    elif primitive in MONOTONE:
        ends = ([r[k].astype(v.aval.dtype) for r, v in zip(ranges, operands, strict=True)] for k in (0, 1))
        low, high = (np.asarray(evaluate_known(primitive, end, params)[0]).astype(np.int64) for end in ends)
        found = low, high
    elif primitive in (lax.eq_p, lax.ne_p):
        (low, high), (least, most) = ranges
        apart = (high < least) | (most < low)
        equal = (low == high) & (least == most) & ~apart
        yes, no = (equal, apart) if primitive is lax.eq_p else (apart, equal)
        found = yes.astype(np.int64), (~no).astype(np.int64)
    elif primitive in LOGIC and aval.dtype.kind == "b":
        found = LOGIC[primitive](ranges[0][0], ranges[1][0]), LOGIC[primitive](ranges[0][1], ranges[1][1])
    elif primitive in ARITHMETIC or primitive in COMPARISONS:
        function = (ARITHMETIC | COMPARISONS)[primitive]
        corners = [np.asarray(function(a, b)).astype(np.int64) for a, b in itertools.product(*ranges)]
        found = np.min(corners, axis=0), np.max(corners, axis=0)
    return found if found is None or _fits(found, aval.dtype) else None


def _remainder(of: Range | None, by: Range, shape) -> Range | None:
    """The range of a remainder, which has the sign of what is divided."""
    most = np.maximum(np.abs(by[0]), np.abs(by[1])) - 1
    if (most < 0).any():
        return None
    low, high = of or (np.int64(-1), np.int64(1))
    largest = most if of is None else np.minimum(most, np.maximum(np.abs(low), np.abs(high)))
    least, greatest = np.where(low < 0, -largest, 0), np.where(high > 0, largest, 0)
    return np.broadcast_to(least, shape), np.broadcast_to(greatest, shape)


def _fits(found: Range, dtype) -> bool:
    """True if no value is beyond what the type holds, where it would start anew."""
    if dtype.kind == "b":
        return True
    limits = np.iinfo(dtype)
    return not found[0].size or bool(found[0].min() >= limits.min and found[1].max() <= limits.max)


def _selected(which: Range | None, cases: Sequence[Range | None]) -> Range | None:
    """The range of a selection: of those cases that can be selected."""
    low, high = which or (np.int64(0), np.int64(len(cases) - 1))
    possible = [(low <= k) & (k <= high) for k in range(len(cases))]
    taken = [(p, c) for p, c in zip(possible, cases, strict=True) if p.any()]
    if any(c is None for _, c in taken):
        return None
    least = np.min([np.where(p, c[0], np.iinfo(np.int64).max) for p, c in taken if c is not None], axis=0)
    most = np.max([np.where(p, c[1], np.iinfo(np.int64).min) for p, c in taken if c is not None], axis=0)
    return least, most


def choices(primitive, operands: Sequence) -> Iterator[list] | None:
    """The places that an array can be read at, as known operands in the place of those; None if there are too many."""
    if primitive not in (lax.gather_p, lax.dynamic_slice_p) or operands[0].reach is None:
        return None
    if all(v.known is not None for v in operands[1:]):
        return None
    ranges = [r for r in map(range_of, operands[1:]) if r is not None]
    if len(ranges) < len(operands) - 1:
        return None
    columns = []  # of each operand, the widths of the ranges of its components
    for low, high in ranges:
        apart = (high - low).reshape(-1, high.shape[-1] if primitive is lax.gather_p else 1)
        columns.append(apart.max(0, initial=0) + 1)
    widths = np.concatenate(columns)
    if np.prod(widths.astype(float)) > MOST_CHOICES:
        return None
    return _each(operands, ranges, columns)


def _each(operands, ranges, columns) -> Iterator[list]:
    cuts = np.cumsum([0, *map(len, columns)])
    for steps in itertools.product(*(range(w) for w in np.concatenate(columns))):
        places = []
        for (low, high), a, b in zip(ranges, cuts[:-1], cuts[1:], strict=True):
            step = np.array(steps[a:b]) if low.ndim else steps[a]
            places.append(np.minimum(low + step, high))
        yield places
