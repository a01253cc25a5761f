"""Structural primitives: they move entries.

Each is linear, so it is its own derivative; what an entry states is the transpose, which moves the
cotangents back and adds up those that come from one entry.
"""

from __future__ import annotations

import numpy as np
from jax import lax

from admodes.linear.maps import ONE
from admodes.program import jax_compat as jc
from admodes.program.traits import describe
from admodes.rules import host
from admodes.rules.patterns import pattern_by_push, pattern_of_entries, pattern_of_operands, pattern_of_select
from admodes.rules.table import LinearRule, elementwise, register, structural, zero


def zeros_like(x):
    """Zeros of the type of ``x``, which is a type or an array."""
    return jc.fill_zeros(x) if isinstance(x, jc.Aval) else lax.full_like(x, 0)


# -- one operand, one result --------------------------------------------------------------------------

structural(
    lax.transpose_p,
    lambda g, x, *, permutation: lax.transpose(g, np.argsort(permutation)),
    pattern=pattern_by_push,
    host=host.transpose,
    part=True,
)
structural(
    lax.squeeze_p,
    lambda g, x, *, dimensions: lax.expand_dims(g, dimensions),
    pattern=pattern_by_push,
    host=host.squeeze,
    cost="free",
    part=True,
    in_order=True,
)
structural(
    lax.rev_p, lambda g, x, *, dimensions: lax.rev(g, dimensions), pattern=pattern_by_push, host=host.rev, part=True
)
structural(lax.copy_p, lambda g, x: lax.copy_p.bind(g), pattern=pattern_of_entries, cost="free")


def _pull_reshape(g, x, *, new_sizes, dimensions, sharding):
    if dimensions is None:
        return lax.reshape(g, x.shape, out_sharding=x.sharding)
    permuted = lax.reshape(g, [x.shape[d] for d in dimensions])
    return lax.transpose(permuted, np.argsort(dimensions))


structural(
    lax.reshape_p, _pull_reshape, pattern=pattern_by_push, host=host.reshape, cost="free", part=True, in_order=True
)


def _pull_broadcast_in_dim(g, x, *, shape, broadcast_dimensions, sharding):
    # an entry of x was repeated along the new axes and along its own axes of size 1
    repeated = {d for d, n in zip(broadcast_dimensions, x.shape, strict=True) if n == 1 and shape[d] != 1}
    axes = [d for d in range(len(shape)) if d in repeated or d not in broadcast_dimensions]
    summed = lax.reduce_sum(g, axes) if axes else g
    return lax.reshape(summed, x.shape, out_sharding=x.sharding) if repeated else summed


structural(
    lax.broadcast_in_dim_p,
    _pull_broadcast_in_dim,
    pattern=pattern_by_push,
    host=host.broadcast_in_dim,
    cost="free",
    in_order=True,
)


def _pull_tile(g, x, *, reps):
    split = [k for pair in zip(reps, x.shape, strict=True) for k in pair]
    layout = jc.sharding_of_axes(x, [axis for d in range(len(x.shape)) for axis in (None, d)])
    return lax.reduce_sum(lax.reshape(g, split, out_sharding=layout), range(0, len(split), 2))


structural(lax.tile_p, _pull_tile, pattern=pattern_by_push, host=host.tile, cost="joining")


def _pull_slice(g, x, *, start_indices, limit_indices, strides):
    strides = strides or (1,) * len(x.shape)
    ends = [a + max((n - 1) * k + 1, 0) if n else a for a, n, k in zip(start_indices, g.shape, strides, strict=True)]
    margins = [(a, n - b, k - 1) for a, n, b, k in zip(start_indices, x.shape, ends, strides, strict=True)]
    return lax.pad(g, g.dtype.type(0), margins)


def _text_of_slice(operands, *, start_indices, limit_indices, strides):
    """The slice in brackets, where it takes all entries between its ends."""
    if set(strides or ()) <= {1}:
        spans = zip(start_indices, limit_indices, strict=True)
        return f"{operands[0]}[{', '.join(f'{start}:{limit}' for start, limit in spans)}]"
    return None


structural(lax.slice_p, _pull_slice, pattern=pattern_by_push, text=_text_of_slice, host=host.slice_, part=True)


class ConversionRule(LinearRule):
    """Between floating-point types a conversion is linear; to integers its derivative is zero."""

    def jacobian(self, interpreter, primitive, outs, primals, active, params):
        if not jc.is_differentiable(jc.typeof(outs[0])):
            return None
        return super().jacobian(interpreter, primitive, outs, primals, active, params)


def _pull_convert_element_type(g, x, **_):
    # real to complex pulls back the real part, complex to real gives a cotangent without imaginary part
    return jc.convert_like(g, x)


register(
    lax.convert_element_type_p,
    ConversionRule(_pull_convert_element_type, (0,), pattern_of_entries),
    host=host.convert,
    cost="free",
    moves=True,
)
structural(
    lax.reduce_precision_p,
    lambda g, x, **kw: lax.reduce_precision_p.bind(g, **kw),
    pattern=pattern_of_entries,
    cost="arithmetic",
)

# -- many operands ------------------------------------------------------------------------------------


def _pull_concatenate(g, *xs, dimension):
    return lax.split(g, [x.shape[dimension] for x in xs], dimension)


structural(
    lax.concatenate_p, _pull_concatenate, places=None, pattern=pattern_by_push, host=host.concatenate, cost="joining"
)
structural(
    lax.stack_p,
    lambda g, *xs, axis: lax.unstack_p.bind(g, axis=axis),
    places=None,
    pattern=pattern_by_push,
    host=host.stack,
    cost="joining",
)


def _pull_pad(g, x, value, *, padding_config):
    # negative margins, so that pad crops; then the interior entries are skipped
    cropped = [(-lo, -hi, 0) for lo, hi, _ in padding_config]

    def of_entries():
        inner = lax.pad(g, g.dtype.type(0), cropped)
        if not any(gap for _, _, gap in padding_config):
            return inner
        return lax.slice(inner, (0,) * inner.ndim, inner.shape, [gap + 1 for _, _, gap in padding_config])

    def of_value():
        # the sum over the padded places; the total less the rest would cancel, and turn inf into NaN
        padded = lax.pad(lax.full(x.shape, False), True, padding_config)
        return lax.reduce_sum(lax.select(padded, g, zeros_like(g)), range(g.ndim))

    return of_entries, of_value


structural(lax.pad_p, _pull_pad, places=None, pattern=pattern_by_push, host=host.pad, cost="padding")


def _pull_select_n(g, which, *cases):
    dtype = jc.dtype_of(which)

    def of_case(i):
        nothing = zeros_like(g)
        if dtype == np.bool_:
            return lax.select_n(which, *((nothing, g) if i else (g, nothing)))
        return lax.select(lax.eq(which, dtype.type(i)), g, nothing)

    return None, *(lambda i=i: of_case(i) for i in range(len(cases)))


structural(lax.select_n_p, _pull_select_n, places=None, pattern=pattern_of_select, host=host.select_n, cost="selecting")

# -- many results -------------------------------------------------------------------------------------


def _pull_split(gs, x, *, sizes, axis):
    def zeros(size):
        return zeros_like(x.update(shape=(*x.shape[:axis], size, *x.shape[axis + 1 :])))

    return lax.concatenate([zeros(n) if g is None else g for g, n in zip(gs, sizes, strict=True)], axis)


structural(lax.split_p, _pull_split, pattern=pattern_by_push, host=host.split)


def _pull_unstack(gs, x, *, axis):
    nothing = zeros_like(next(g for g in gs if g is not None))
    return lax.stack_p.bind(*(nothing if g is None else g for g in gs), axis=axis)


structural(lax.unstack_p, _pull_unstack, pattern=pattern_by_push, host=host.unstack, part=True)

# -- identities: hints to the compiler, places, names ---------------------------------------------------


def _through(primitive):
    """The transpose of an identity with results as operands: the cotangents that are there take the same road back."""

    def pull(gs, *xs, **params):
        back = iter(primitive.bind(*(g for g in gs if g is not None), **params))
        return [None if g is None else next(back) for g in gs]

    return pull


def _pull_device_put(gs, *xs, devices, srcs, copy_semantics):
    if any(how == type(how).DONATE_INPUT for how in copy_semantics):
        raise ValueError("donate=True is not allowed in a device_put that is differentiated in reverse mode.")
    each = zip(gs, devices, srcs, copy_semantics, strict=True)
    there = [(g, device, src, type(how).ALWAYS_COPY) for g, device, src, how in each if g is not None]
    cts, devices, srcs, copies = zip(*there, strict=True)
    back = iter(lax.device_put_p.bind(*cts, devices=srcs, srcs=devices, copy_semantics=copies))
    return [None if g is None else next(back) for g in gs]


structural(lax.optimization_barrier_p, _through(lax.optimization_barrier_p), places=None, pattern=pattern_of_operands)
structural(lax.device_put_p, _pull_device_put, places=None, pattern=pattern_of_operands)
for _identity in (jc.sharding_constraint_p, jc.layout_constraint_p, jc.with_memory_space_constraint_p):
    structural(_identity, lambda g, x, _p=_identity, **params: _p.bind(g, **params), pattern=pattern_of_entries)
describe(jc.sharding_constraint_p, host=host.unchanged)
structural(
    jc.reshard_p,
    lambda g, x, *, dst_sharding, **params: jc.reshard_p.bind(g, dst_sharding=x.sharding, **params),
    pattern=pattern_of_entries,
    host=host.unchanged,
)
structural(
    jc.relayout_p,
    lambda g, x, **_: jc.relayout_p.bind(g, dst_layout=x.layout),
    pattern=pattern_of_entries,
)
elementwise(jc.name_p, ONE, cost="free")
if jc.stage_p is not None:
    elementwise(jc.stage_p, ONE, cost="free")
elementwise(jc.tie_p, None, ONE, cost="free")

# -- no derivative ------------------------------------------------------------------------------------

zero(jc.stop_gradient_p, jc.dce_sink_p, cost="free")
zero(lax.bitcast_convert_type_p)
describe(lax.iota_p, cost="free", host=host.iota)
