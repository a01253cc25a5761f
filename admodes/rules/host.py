"""Primitives on the host: the same in numpy, without a compilation for each shape.

Where numpy and JAX may differ in the last bit the answer is None, and JAX computes the result.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from admodes.program import jax_compat as jc


def unchanged(x, **_):
    """Values here are on no device."""
    return x


def transpose(x, *, permutation):
    return x.transpose(permutation)


def squeeze(x, *, dimensions):
    return np.squeeze(x, tuple(dimensions))


def rev(x, *, dimensions):
    return np.flip(x, dimensions)


def concatenate(*xs, dimension):
    return np.concatenate(xs, dimension)


def stack(*xs, axis):
    return np.stack(xs, axis)


def unstack(x, *, axis):
    return list(np.moveaxis(x, axis, 0))


def tile(x, *, reps):
    return np.tile(x, reps)


def reduce_sum(x, *, axes, **_):
    return x.sum(tuple(axes), dtype=x.dtype) if x.dtype.kind in "iu" else None


def broadcast_in_dim(x, *, shape, broadcast_dimensions, sharding):
    expanded = [1] * len(shape)
    for d, n in zip(broadcast_dimensions, x.shape, strict=True):
        expanded[d] = n
    return np.broadcast_to(x.reshape(expanded), shape)


def reshape(x, *, new_sizes, dimensions, sharding):
    return (x if dimensions is None else x.transpose(dimensions)).reshape(new_sizes)


def slice_(x, *, start_indices, limit_indices, strides):
    return x[tuple(map(slice, start_indices, limit_indices, strides or (1,) * x.ndim))]


def pad(x, value, *, padding_config):
    for axis, (low, high, gap) in enumerate(padding_config):
        n = x.shape[axis]
        x = np.moveaxis(x, axis, 0)
        spread = np.full((max(n + gap * (n - 1), 0), *x.shape[1:]), value, x.dtype)
        spread[:: gap + 1] = x
        spread = spread[max(-low, 0) : len(spread) - max(-high, 0)]
        margins = [(max(low, 0), max(high, 0))] + [(0, 0)] * (x.ndim - 1)
        x = np.moveaxis(np.pad(spread, margins, constant_values=value), 0, axis)
    return x


def split(x, *, sizes, axis):
    return np.split(x, np.cumsum(sizes)[:-1], axis)


def iota(*, dtype, shape, dimension, sharding):
    line = np.arange(shape[dimension], dtype=dtype)
    return np.broadcast_to(np.expand_dims(line, tuple(d for d in range(len(shape)) if d != dimension)), shape)


def convert(x, *, new_dtype, **_):
    exact = x.dtype.kind in "bu" or (x.dtype.kind in "if" and np.dtype(new_dtype).kind in x.dtype.kind + "fc")
    return x.astype(new_dtype) if exact and not jc.is_extended(new_dtype) else None


def select_n(which, *cases):
    which = np.broadcast_to(which, cases[0].shape).astype(int)
    return np.choose(which, cases) if len(cases) <= 32 else None


def dynamic_slice(x, *starts, slice_sizes):
    first = [min(max(int(s), 0), n - k) for s, n, k in zip(starts, x.shape, slice_sizes, strict=True)]
    return x[tuple(slice(s, s + k) for s, k in zip(first, slice_sizes, strict=True))]


def exact(op: Callable) -> Callable:
    """An operation on whole numbers and logical values, where numpy and JAX agree (wrap-around included)."""

    def apply(*xs, **_):
        with np.errstate(over="ignore"):
            return op(*xs) if all(x.dtype.kind in "iub" for x in xs) else None

    return apply
