"""Indexing: slices at computed places, gather and scatter.

The transpose of a gather is a scatter-add with the same dimension numbers, and the other way round. Indices
out of bounds follow the primitive's mode in both directions.
"""

from __future__ import annotations

import math
from functools import reduce

import numpy as np
from jax import lax

from admodes.linear.maps import Elementwise
from admodes.program import jax_compat as jc
from admodes.rules import host
from admodes.rules.index_patterns import (
    pattern_of_dynamic_slice,
    pattern_of_dynamic_update_slice,
    pattern_of_gather,
    pattern_of_scatter,
    pattern_of_scatter_add,
)
from admodes.rules.reductions import batched
from admodes.rules.repeated import apply_times, products_of_others
from admodes.rules.structural import zeros_like
from admodes.rules.table import FunctionRule, LinearRule, LocalRule, function, linear, register, structural

# -- slices -------------------------------------------------------------------------------------------

structural(
    lax.dynamic_slice_p,
    lambda g, x, *starts, slice_sizes: lax.dynamic_update_slice_p.bind(zeros_like(x), g, *starts),
    pattern=pattern_of_dynamic_slice,
    host=host.dynamic_slice,
)


def _pull_dynamic_update_slice(g, x, update, *starts):
    return (
        lambda: lax.dynamic_update_slice_p.bind(g, zeros_like(update), *starts),
        lambda: lax.dynamic_slice_p.bind(g, *starts, slice_sizes=update.shape),
    )


structural(
    lax.dynamic_update_slice_p, _pull_dynamic_update_slice, places=(0, 1), pattern=pattern_of_dynamic_update_slice
)

# -- gather -------------------------------------------------------------------------------------------


class GatherRule(LinearRule):
    """A gather is linear but for what it fills in at indices out of bounds, whose derivative is zero."""

    def jacobian(self, interpreter, primitive, outs, primals, active, params):
        if params["fill_value"] is not None:
            params = dict(params, fill_value=0)
        return super().jacobian(interpreter, primitive, outs, primals, active, params)


def _pull_gather(g, x, indices, *, dimension_numbers, slice_sizes, fill_value, **how):
    numbers = lax.ScatterDimensionNumbers(
        update_window_dims=dimension_numbers.offset_dims,
        inserted_window_dims=dimension_numbers.collapsed_slice_dims,
        scatter_dims_to_operand_dims=dimension_numbers.start_index_map,
        operand_batching_dims=dimension_numbers.operand_batching_dims,
        scatter_indices_batching_dims=dimension_numbers.start_indices_batching_dims,
    )
    return lax.scatter_add(zeros_like(x), indices, g, numbers, **how)


register(lax.gather_p, GatherRule(_pull_gather, (0,), pattern_of_gather), cost="gathering", moves=True)


def gather_back(x, indices, updates, numbers, mode=None):
    """The gather that reads ``x`` where a scatter with these dimension numbers puts ``updates`` (array or type)."""
    size = iter(numbers.update_window_dims)
    own = (*numbers.inserted_window_dims, *numbers.operand_batching_dims)
    return lax.gather(
        x,
        indices,
        lax.GatherDimensionNumbers(
            offset_dims=numbers.update_window_dims,
            collapsed_slice_dims=numbers.inserted_window_dims,
            start_index_map=numbers.scatter_dims_to_operand_dims,
            operand_batching_dims=numbers.operand_batching_dims,
            start_indices_batching_dims=numbers.scatter_indices_batching_dims,
        ),
        [1 if i in own else updates.shape[next(size)] for i in range(x.ndim)],
        mode=mode,
        fill_value=0,
    )


# -- scatter: linear kinds ------------------------------------------------------------------------------


def _pull_scatter_add(g, x, indices, updates, *, dimension_numbers, mode, **_):
    return g, lambda: gather_back(g, indices, updates, dimension_numbers, mode)


def _pull_scatter_sub(g, x, indices, updates, *, dimension_numbers, mode, **_):
    return g, lambda: lax.neg(gather_back(g, indices, updates, dimension_numbers, mode))


def _pull_scatter(g, x, indices, updates, *, dimension_numbers, mode, **params):
    # what was overwritten has no influence
    def of_operand():
        erased = zeros_like(updates)
        return lax.scatter_p.bind(g, indices, erased, dimension_numbers=dimension_numbers, mode=mode, **params)

    return of_operand, lambda: gather_back(g, indices, updates, dimension_numbers, mode)


structural(lax.scatter_add_p, _pull_scatter_add, places=(0, 2), pattern=pattern_of_scatter_add, cost="scattering")
linear(lax.scatter_sub_p, _pull_scatter_sub, places=(0, 2), pattern=pattern_of_scatter_add, cost="scattering")

# -- scatter: overwriting ---------------------------------------------------------------------------------


def _winners(outs, primals, *, dimension_numbers, indices_are_sorted, unique_indices, mode, **_):
    """The operand entries that survive, and the updates that arrive: number the updates and scatter the numbers.

    If two updates meet, which one wins is up to the compiler; whichever does leaves its number.
    """
    x, indices, updates = primals
    window = dimension_numbers.update_window_dims
    shape = [1 if i in window else n for i, n in enumerate(updates.shape)]
    count = math.prod(shape)
    dtype = jc.counter_dtype(count)
    numbers = lax.broadcast_in_dim(
        lax.reshape(lax.add(lax.iota(dtype, count), dtype.type(1)), shape), updates.shape, range(len(shape))
    )
    arrived = lax.scatter(
        lax.full(x.shape, 0, dtype),
        indices,
        numbers,
        dimension_numbers,
        indices_are_sorted=indices_are_sorted,
        unique_indices=unique_indices,
        mode=mode,
    )
    survives = lax.eq(arrived, dtype.type(0))
    wins = lax.eq(numbers, gather_back(arrived, indices, updates, dimension_numbers))
    return indices, survives, wins


def _push_scatter(
    indices, survives, wins, tangents, *, dimension_numbers, indices_are_sorted, unique_indices, mode, **_
):
    t, _, u = tangents
    t = lax.full_like(survives, 0, u.dtype) if t is None else lax.select(survives, t, zeros_like(t))
    if u is None:
        return (t,)
    return (
        lax.scatter_add(
            t,
            indices,
            lax.select(wins, u, zeros_like(u)),
            dimension_numbers,
            indices_are_sorted=indices_are_sorted,
            unique_indices=unique_indices,
            mode=mode,
        ),
    )


class ScatterRule(LocalRule):
    """Linear if no two updates can meet; otherwise linear between the entries that win."""

    kind = "linear"
    apart = LinearRule(_pull_scatter, (0, 2), pattern_of_scatter)
    meeting = FunctionRule(_push_scatter, residuals=_winners)

    def jacobian(self, interpreter, primitive, outs, primals, active, params):
        if params["update_jaxpr"] is not None:
            return self._applied(interpreter, outs, primals, active, params)
        rule = self.apart if params["unique_indices"] else self.meeting
        return rule.jacobian(interpreter, primitive, outs, primals, active, params)

    def _applied(self, interpreter, outs, primals, active, params):
        """``x.at[i].apply(f)``: a diagonal, f' at the places that are met (once or several times) and 1 elsewhere."""
        if not active[0]:
            return None
        x, indices, like = primals
        numbers, mode = params["dimension_numbers"], params["mode"]
        scalar = batched(jc.close(params["update_jaxpr"], params["update_consts"]), like.ndim)

        def fun(y):
            return [scalar(y, y)[0]] if params["unique_indices"] else [apply_times(lambda z: scalar(z, z)[0], times, y)]

        if not params["unique_indices"]:
            ones = lax.full(like.shape, 1, np.int32)
            counts = lax.scatter_add(lax.full(x.shape, 0, np.int32), indices, ones, numbers, mode=mode)
            times = gather_back(counts, indices, like, numbers, mode)
        met = gather_back(x, indices, like, numbers, mode)
        _, (slopes,) = interpreter.push_function(fun, [met], [lax.full_like(met, 1)])
        if slopes is None:
            slopes = zeros_like(met)
        diagonal = lax.scatter(lax.full_like(x, 1), indices, slopes, numbers, mode=mode)
        return Elementwise.build((diagonal, None, None), tuple(map(jc.typeof, primals)), tuple(map(jc.typeof, outs)))


register(lax.scatter_p, ScatterRule(), cost="scattering", moves=True, reach=pattern_of_scatter)

# -- scatter: products and extremes -----------------------------------------------------------------------


def _push_scatter_mul(outs, primals, tangents, **params):
    x, indices, updates = primals
    t, _, u = tangents
    total = None
    if t is not None:
        factors = lax.scatter_mul_p.bind(lax.full_like(x, 1), indices, updates, **params)
        total = lax.mul(t, factors)
    if u is not None:
        how = {k: params[k] for k in ("indices_are_sorted", "unique_indices", "mode")}
        numbers = params["dimension_numbers"]
        if not params["unique_indices"] and updates.size:
            dtype = jc.counter_dtype(x.size + 1)
            places = lax.reshape(lax.add(lax.iota(dtype, x.size), dtype.type(1)), x.shape)  # 0 is out of bounds
            places = gather_back(places, indices, updates, numbers, params["mode"])
            u = lax.mul(u, products_of_others(places, updates))
        placed = lax.mul(x, lax.scatter_add(zeros_like(x), indices, u, numbers, **how))
        total = placed if total is None else lax.add(total, placed)
    return (total,)


function(lax.scatter_mul_p, _push_scatter_mul, cost="scattering", reach=pattern_of_scatter_add)


def _shares(outs, primals, *, dimension_numbers, mode, **_):
    """The part of its tangent that each update, and the operand entry below it, contributes: the mean at ties.

    An update that is out of bounds reads the nearest place: its part is any finite number, because it is dropped in
    the end.
    """
    x, indices, updates = primals
    (out,) = outs
    one = x.dtype.type(1)

    def spread(values):
        return gather_back(values, indices, updates, dimension_numbers, lax.GatherScatterMode.CLIP)

    def count(values):
        return spread(lax.scatter_add(zeros_like(x), indices, values, dimension_numbers, mode=mode))

    reached, before = spread(out), spread(x)
    attains, retained = lax.eq(updates, reached), lax.eq(before, reached)
    ones, zeros = lax.full_like(updates, 1), zeros_like(updates)
    attaining, meeting = count(lax.select(attains, ones, zeros)), count(ones)
    with_operand = lax.div(one, lax.add(attaining, one))
    of_update = lax.select(retained, with_operand, lax.div(one, lax.max(attaining, one)))
    of_update = lax.select(attains, of_update, zeros)
    # the operand's tangent is in the result once; each of the updates that meet there takes back its part of the rest
    of_operand = lax.div(lax.sub(lax.select(retained, with_operand, zeros), one), lax.max(meeting, one))
    return x, indices, of_operand, of_update


def _push_scatter_extreme(
    x, indices, of_operand, of_update, tangents, *, dimension_numbers, indices_are_sorted, unique_indices, mode, **_
):
    t, _, u = tangents
    changes = []
    if t is not None:
        below = gather_back(t, indices, of_update, dimension_numbers, lax.GatherScatterMode.CLIP)
        changes.append(lax.mul(below, of_operand))
    if u is not None:
        changes.append(lax.mul(u, of_update))
    return (
        lax.scatter_add(
            zeros_like(x) if t is None else t,
            indices,
            reduce(lax.add, changes),
            dimension_numbers,
            indices_are_sorted=indices_are_sorted,
            unique_indices=unique_indices,
            mode=mode,
        ),
    )


for _extreme in (lax.scatter_min_p, lax.scatter_max_p):
    function(
        _extreme,
        _push_scatter_extreme,
        residuals=_shares,
        cost="scattering",
        kink="undecided",
        reach=pattern_of_scatter_add,
    )
