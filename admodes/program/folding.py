"""Evaluating equations on known values at once, on the host: what a compiler would fold away.

Common primitives are a line of numpy (a compilation for each shape would take longer than the whole analysis);
the others are evaluated by JAX.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax import lax

from admodes.program import jax_compat as jc


def is_known(x) -> bool:
    """True if ``x`` is a value that is here, not a tracer that stands for any, nor spread over several processes."""
    return x is not None and not isinstance(x, jc.Tracer) and jc.is_here(x)


CALLS_OUT = (jc.pure_callback_p, jc.io_callback_p, jc.ffi_call_p)


def is_foldable(equation) -> bool:
    """True if an equation of known values may be evaluated ahead of time.

    Functions of the user's are called when the program runs, and only where it comes to them: one may raise an error on
    a branch that is never taken.
    """
    calls_out = equation.primitive in CALLS_OUT or jc.mentions(equation.params, CALLS_OUT)
    return not (equation.effects or equation.primitive is jc.shard_map_p or calls_out)


def evaluate_known(primitive, operands: Sequence, params: dict) -> list:
    """The results of one equation whose operands are all known."""
    by_numpy = _NUMPY.get(primitive)
    if by_numpy is not None and not any(jc.is_extended(jc.dtype_of(x)) for x in operands):
        out = by_numpy(*map(np.asarray, operands), **params)
        if out is not None:
            return out if primitive.multiple_results else [out]
    with jax.ensure_compile_time_eval(), jc.without_mesh():
        out = primitive.bind(*map(jax.numpy.asarray, operands), **params)
    results = out if primitive.multiple_results else [out]
    return [x if jc.is_extended(jc.dtype_of(x)) else np.asarray(x) for x in results]


def _broadcast_in_dim(x, *, shape, broadcast_dimensions, sharding):
    expanded = [1] * len(shape)
    for d, n in zip(broadcast_dimensions, x.shape, strict=True):
        expanded[d] = n
    return np.broadcast_to(x.reshape(expanded), shape)


def _reshape(x, *, new_sizes, dimensions, sharding):
    return (x if dimensions is None else x.transpose(dimensions)).reshape(new_sizes)


def _slice(x, *, start_indices, limit_indices, strides):
    return x[tuple(map(slice, start_indices, limit_indices, strides or (1,) * x.ndim))]


def _pad(x, value, *, padding_config):
    for axis, (low, high, gap) in enumerate(padding_config):
        n = x.shape[axis]
        x = np.moveaxis(x, axis, 0)
        spread = np.full((max(n + gap * (n - 1), 0), *x.shape[1:]), value, x.dtype)
        spread[:: gap + 1] = x
        spread = spread[max(-low, 0) : len(spread) - max(-high, 0)]
        margins = [(max(low, 0), max(high, 0))] + [(0, 0)] * (x.ndim - 1)
        x = np.moveaxis(np.pad(spread, margins, constant_values=value), 0, axis)
    return x


def _split(x, *, sizes, axis):
    return np.split(x, np.cumsum(sizes)[:-1], axis)


def _iota(*, dtype, shape, dimension, sharding):
    line = np.arange(shape[dimension], dtype=dtype)
    return np.broadcast_to(np.expand_dims(line, tuple(d for d in range(len(shape)) if d != dimension)), shape)


def _convert(x, *, new_dtype, **_):
    exact = x.dtype.kind in "bu" or (x.dtype.kind in "if" and np.dtype(new_dtype).kind in x.dtype.kind + "fc")
    return x.astype(new_dtype) if exact and not jc.is_extended(new_dtype) else None


def _select_n(which, *cases):
    which = np.broadcast_to(which, cases[0].shape).astype(int)
    return np.choose(which, cases) if len(cases) <= 32 else None


def _dynamic_slice(x, *starts, slice_sizes):
    first = [min(max(int(s), 0), n - k) for s, n, k in zip(starts, x.shape, slice_sizes, strict=True)]
    return x[tuple(slice(s, s + k) for s, k in zip(first, slice_sizes, strict=True))]


def _exact(op: Callable) -> Callable:
    """An operation on whole numbers and logical values, where numpy and JAX agree (wrap-around included)."""

    def apply(*xs, **_):
        with np.errstate(over="ignore"):
            return op(*xs) if all(x.dtype.kind in "iub" for x in xs) else None

    return apply


_NUMPY: dict = {
    **dict.fromkeys((jc.reshard_p, jc.sharding_constraint_p), lambda x, **_: x),  # values here are on no device
    lax.transpose_p: lambda x, *, permutation: x.transpose(permutation),
    lax.reshape_p: _reshape,
    lax.squeeze_p: lambda x, *, dimensions: np.squeeze(x, tuple(dimensions)),
    lax.rev_p: lambda x, *, dimensions: np.flip(x, dimensions),
    lax.broadcast_in_dim_p: _broadcast_in_dim,
    lax.slice_p: _slice,
    lax.pad_p: _pad,
    lax.concatenate_p: lambda *xs, dimension: np.concatenate(xs, dimension),
    lax.stack_p: lambda *xs, axis: np.stack(xs, axis),
    lax.unstack_p: lambda x, *, axis: list(np.moveaxis(x, axis, 0)),
    lax.tile_p: lambda x, *, reps: np.tile(x, reps),
    lax.split_p: _split,
    lax.iota_p: _iota,
    lax.convert_element_type_p: _convert,
    lax.select_n_p: _select_n,
    lax.dynamic_slice_p: _dynamic_slice,
    lax.reduce_sum_p: lambda x, *, axes, **_: x.sum(tuple(axes), dtype=x.dtype) if x.dtype.kind in "iu" else None,
    lax.add_p: _exact(np.add),
    lax.sub_p: _exact(np.subtract),
    lax.mul_p: _exact(np.multiply),
    lax.max_p: _exact(np.maximum),
    lax.min_p: _exact(np.minimum),
    lax.eq_p: _exact(np.equal),
    lax.ne_p: _exact(np.not_equal),
    lax.lt_p: _exact(np.less),
    lax.le_p: _exact(np.less_equal),
    lax.gt_p: _exact(np.greater),
    lax.ge_p: _exact(np.greater_equal),
    lax.and_p: _exact(np.bitwise_and),
    lax.or_p: _exact(np.bitwise_or),
    lax.not_p: _exact(np.invert),
}
