"""Sparsity patterns of linear primitives, found by running the primitive (or its transpose) on entry numbers.

Each function takes a :class:`~admodes.linear.maps.Linear` map and returns its pattern, block by block, or None
(dense) when it depends on values that are not known, such as the traced indices of a gather.
"""

from __future__ import annotations

import math

import jax
import numpy as np

from admodes.linear.maps import Linear
from admodes.linear.pattern import SparsityPattern
from admodes.program import jax_compat as jc


def pattern_by_push(linear: Linear):
    """For primitives whose results are copies of operand entries (or zero): push the entries' numbers through."""

    def push(i, numbers):
        operands = [x if x is not None else _zeros(a) for x, a in zip(linear.operands, linear.domain, strict=True)]
        operands[i] = numbers
        out = linear.primitive.bind(*operands, **dict(linear.params))
        return out if linear.primitive.multiple_results else (out,)

    return _by_numbers(linear, push, linear.domain, linear.active, linear.codomain, transposed=False)


def pattern_by_pull(linear: Linear):
    """For primitives that only add entries up (each operand entry reaches at most one result): pull numbers back."""

    def pull(j, numbers):
        cotangents = [_zeros(a) for a in linear.codomain]
        cotangents[j] = numbers
        operands = [_counting(a) if x is None else x for x, a in zip(linear.operands, linear.domain, strict=True)]
        g = tuple(cotangents) if linear.primitive.multiple_results else cotangents[0]
        return linear.rule.transpose(g, linear.active, *operands, **dict(linear.params))

    every = (True,) * len(linear.codomain)
    return _by_numbers(linear, pull, linear.codomain, every, linear.domain, transposed=True)


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
    n = math.prod(aval.shape)
    return SparsityPattern.build(np.arange(n), np.arange(n), (n, n))


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


def _by_numbers(linear, direction, sources, wanted, targets, transposed):
    """Send the entry numbers 1, 2, ... of each source through ``direction`` and read off where they arrive."""
    if any(isinstance(x, jc.Tracer) for x in linear.operands):
        return None
    blocks = {}
    for k, (source, on) in enumerate(zip(sources, wanted, strict=True)):
        if not on:
            continue
        size = math.prod(source.shape)
        with jax.ensure_compile_time_eval():
            numbers = jax.numpy.arange(1, size + 1, dtype=np.int32).reshape(source.shape)
            results = direction(k, numbers)
        for m, (result, target) in enumerate(zip(results, targets, strict=True)):
            if result is None:
                continue
            flat = np.abs(np.asarray(result).ravel())
            there = np.flatnonzero(flat)
            here, n = flat[there] - 1, math.prod(target.shape)
            if transposed:
                blocks[k, m] = SparsityPattern.build(here, there, (size, n))
            else:
                blocks[m, k] = SparsityPattern.build(there, here, (n, size))
    return blocks


def _counting(aval):
    return jc.Aval(aval.shape, np.dtype(np.int32))


def _zeros(aval):
    return jc.fill_zeros(_counting(aval))
