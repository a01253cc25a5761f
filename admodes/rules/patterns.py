"""Sparsity patterns of linear primitives, found by running the primitive (or its transpose) on entry numbers.

Each function takes a :class:`~admodes.linear.maps.Linear` map and returns its pattern, block by block, or None
(dense) when it depends on values that are not known. The patterns of indexing are in ``index_patterns.py``.
"""

from __future__ import annotations

import math

import numpy as np

from admodes.linear.maps import Linear
from admodes.linear.pattern import SparsityPattern
from admodes.program.folding import evaluate_known, is_known


def pattern_by_push(linear: Linear):
    """For primitives whose results are copies of operand entries (or zero): push the entries' numbers through."""

    if not all(x is None or is_known(x) for x in linear.operands):
        return None
    pairs = zip(linear.operands, linear.domain, strict=True)
    nothing = [np.zeros(aval.shape, np.int32) if x is None else x for x, aval in pairs]
    blocks = {}
    for i in np.flatnonzero(linear.active):
        size = math.prod(linear.domain[i].shape)
        operands = list(nothing)
        operands[i] = np.arange(1, size + 1, dtype=np.int32).reshape(linear.domain[i].shape)
        for j, numbers in enumerate(evaluate_known(linear.primitive, operands, dict(linear.params))):
            sources = np.asarray(numbers) - 1
            blocks[j, int(i)] = SparsityPattern.choice(sources, (sources.size, size))
    return blocks


def pattern_of_sums(linear: Linear):
    """For sums along axes: the entries of the operand that differ in those axes only are added up."""
    (aval,), (out,) = linear.domain, linear.codomain
    size = math.prod(out.shape)
    numbers = np.expand_dims(np.arange(size).reshape(out.shape), tuple(dict(linear.params)["axes"]))
    groups = np.broadcast_to(numbers, aval.shape).ravel()
    return {(0, 0): SparsityPattern.build(groups, np.arange(groups.size), (size, groups.size))}


def pattern_of_entries(linear: Linear):
    """For maps of entries: entry k of the result depends on entry k of each operand, whatever the residuals are."""
    return {
        (0, i): _identity(aval) for i, (aval, on) in enumerate(zip(linear.domain, linear.active, strict=True)) if on
    }


def pattern_of_operands(linear: Linear):
    """For identities of many operands: result i is operand i."""
    return {
        (i, i): _identity(aval) for i, (aval, on) in enumerate(zip(linear.domain, linear.active, strict=True)) if on
    }


def _identity(aval):
    return SparsityPattern.identity(math.prod(aval.shape))


def pattern_of_select(linear: Linear):
    """For a choice by entry: where the predicate is known, a case has the entries that it is chosen for."""
    (out,), which = linear.codomain, linear.operands[0]
    size, blocks = math.prod(out.shape), {}
    for i in np.flatnonzero(linear.active):
        numbers = np.arange(size)
        if is_known(which):
            chosen = np.broadcast_to(np.asarray(which).astype(int) == i - 1, out.shape)
            numbers = np.where(chosen.ravel(), numbers, -1)
        blocks[0, int(i)] = SparsityPattern.choice(numbers, (size, size))
    return blocks


def pattern_of_windows(linear: Linear):
    """For sums over (or choices from) windows: a result depends on the entries of its window."""
    params = dict(linear.params)
    (shape, out_shape), rank = (linear.domain[0].shape, linear.codomain[0].shape), len(linear.domain[0].shape)
    ones = (1,) * rank
    dilation, base = params.get("window_dilation", ones), params.get("base_dilation", ones)
    size, out_size = math.prod(shape), math.prod(out_shape)
    spread = np.zeros([(n - 1) * d + 1 if n else 0 for n, d in zip(shape, base, strict=True)], np.int64)
    spread[tuple(slice(None, None, d) for d in base)] = np.arange(1, size + 1).reshape(shape)
    padded = np.pad(spread, [(max(lo, 0), max(hi, 0)) for lo, hi in params["padding"]])
    crops = zip(padded.shape, params["padding"], strict=True)
    cropped = padded[tuple(slice(max(-lo, 0), n - max(-hi, 0)) for n, (lo, hi) in crops)]
    rows, cols = [], []
    for offset in np.ndindex(*params["window_dimensions"]):
        starts = [k * d for k, d in zip(offset, dilation, strict=True)]
        strides = params["window_strides"]
        at = tuple(slice(s, s + (m - 1) * k + 1, k) for s, m, k in zip(starts, out_shape, strides, strict=True))
        numbers = (cropped[at] if out_size else np.zeros(0, np.int64)).ravel()
        rows.append(np.flatnonzero(numbers))
        cols.append(numbers[rows[-1]] - 1)
    block = SparsityPattern.build(np.concatenate(rows), np.concatenate(cols), (out_size, size))
    return {(0, 0): block}


def pattern_of_prefixes(linear: Linear):
    """For cumulative sums: a result depends on the entries before it along the axis (after it, if reversed)."""
    params, (aval,) = dict(linear.params), linear.domain
    axis, size = params["axis"], math.prod(aval.shape)
    lines = np.moveaxis(np.arange(size).reshape(aval.shape), axis, 0)
    later, earlier = np.tril_indices(aval.shape[axis])
    if params["reverse"]:
        later, earlier = earlier, later
    return {(0, 0): SparsityPattern.build(lines[later].ravel(), lines[earlier].ravel(), (size, size))}
