"""Collectives: they are linear, and their transposes are collectives, under vmap(axis_name=...) as under shard_map."""

from __future__ import annotations

import numpy as np
from jax import lax

from admodes.program import jax_compat as jc
from admodes.rules.table import linear, zero

_p = jc.collectives


def _pull_psum(g, x, *, axes, axis_index_groups):
    """Each device's x reaches the sum on every device, so x̄ sums ḡ over the devices.

    Axes given by number are axes of x itself, over which g is spread.
    """
    positions = [axis for axis in axes if isinstance(axis, int)]
    if positions:
        g = lax.broadcast_in_dim(g, x.shape, [i for i in range(x.ndim) if i not in positions])
    names = tuple(axis for axis in axes if not isinstance(axis, int))
    return lax.psum_p.bind(g, axes=names, axis_index_groups=axis_index_groups) if names else g


def _pull_pbroadcast(g, x, *, source, axis_name):
    """Every device has the source's x: there x̄ is the sum of all ḡ, elsewhere 0."""
    total = lax.psum(g, axis_name)
    at_source = lax.eq(lax.axis_index(axis_name), lax.convert_element_type(source, np.int32))
    return lax.select(lax.broadcast(at_source, g.shape), total, lax.full_like(g, 0))


def _pull_pbroadcast_dynamic(g, x, source, *, axis_name):
    return _pull_pbroadcast(g, x, source=source, axis_name=axis_name)


def _pull_all_gather(g, x, *, all_gather_dimension, axis_name, axis_index_groups, axis_size, tiled):
    return lax.psum_scatter(
        g,
        axis_name,
        scatter_dimension=all_gather_dimension,
        axis_index_groups=axis_index_groups,
        tiled=tiled,
    )


def _pull_all_gather_invariant(g, x, *, all_gather_dimension, axis_name, axis_size, tiled):
    """The gathered value is one for all devices, and so is g: each device takes its own part."""
    size = g.shape[all_gather_dimension] // axis_size
    start = lax.mul(lax.axis_index(axis_name), np.int32(size))
    own = lax.dynamic_slice_in_dim(g, start, size, all_gather_dimension)
    return own if tiled else lax.squeeze(own, (all_gather_dimension,))


def _pull_reduce_scatter(g, x, *, scatter_dimension, axis_name, axis_index_groups, axis_size, tiled):
    return lax.all_gather(g, axis_name, axis=scatter_dimension, axis_index_groups=axis_index_groups, tiled=tiled)


def _pull_all_to_all(g, x, *, split_axis, concat_axis, **params):
    return lax.all_to_all(g, split_axis=concat_axis, concat_axis=split_axis, **params)


def _pull_ppermute(g, x, *, perm, axis_name):
    return lax.ppermute(g, axis_name, [(target, source) for source, target in perm])


linear(lax.psum_p, _pull_psum, cost="reducing")
linear(lax.ppermute_p, _pull_ppermute, cost="reducing")
linear(_p.pbroadcast_p, _pull_pbroadcast, cost="reducing")
linear(getattr(_p, "pbroadcast_dynamic_p", None), _pull_pbroadcast_dynamic, cost="reducing")  # since jax 0.12
linear(lax.all_to_all_p, _pull_all_to_all, cost="reducing")
linear(lax.all_gather_p, _pull_all_gather, cost="reducing")
linear(_p.all_gather_invariant_p, _pull_all_gather_invariant, cost="reducing")
linear(_p.reduce_scatter_p, _pull_reduce_scatter, cost="reducing")
zero(lax.axis_index_p, cost="free")


# -- pairs that are each other's transpose, inside shard_map with replication tracking -----------------------


def _transposes(primitive, other, cost: str) -> None:
    linear(primitive, lambda g, x, *, axes: other.bind(g, axes=axes), cost=cost)
    linear(other, lambda g, x, *, axes: primitive.bind(g, axes=axes), cost="free")


_transposes(_p.psum_invariant_p, jc.pvary_p, cost="reducing")
_transposes(_p.unreduced_psum_p, _p.preduced_p, cost="reducing")
_transposes(_p.vary_unreduced_cast_p, jc.reduced_vary_cast_p, cost="free")
linear(
    _p.all_gather_reduced_p,
    lambda g, x, *, all_gather_dimension, **params: _p.unreduced_reduce_scatter_p.bind(
        g, scatter_dimension=all_gather_dimension, **params
    ),
    cost="reducing",
)
linear(
    _p.unreduced_reduce_scatter_p,
    lambda g, x, *, scatter_dimension, **params: _p.all_gather_reduced_p.bind(
        g, all_gather_dimension=scatter_dimension, **params
    ),
    cost="reducing",
)


# -- ragged_all_to_all -------------------------------------------------------------------------------------


def _pull_ragged_all_to_all(
    g, operand, output, input_offsets, send_sizes, output_offsets, recv_sizes, *, axis_name, axis_index_groups
):
    """The rows that were sent come back; the rows of ``output`` that were received are not its own."""
    swap = {"axis_name": axis_name, "split_axis": 0, "concat_axis": 0, "tiled": True}
    starts = lax.all_to_all(output_offsets, **swap)
    targets = lax.all_to_all(input_offsets, **swap)
    back = lax.ragged_all_to_all_p.bind(
        g,
        jc.zeros(operand),
        starts,
        recv_sizes,
        targets,
        send_sizes,
        axis_name=axis_name,
        axis_index_groups=axis_index_groups,
    )
    row = lax.broadcasted_iota(starts.dtype, (g.shape[0], *starts.shape), 0)
    first, last = (lax.broadcast_in_dim(x, row.shape, (1,)) for x in (starts, lax.add(starts, recv_sizes)))
    received = lax.reduce_or(lax.bitwise_and(lax.ge(row, first), lax.lt(row, last)), (1,))
    received = lax.broadcast_in_dim(received, g.shape, (0,))
    return back, lax.select(received, lax.full_like(g, 0), g)


linear(lax.ragged_all_to_all_p, _pull_ragged_all_to_all, places=(0, 1), cost="reducing")
