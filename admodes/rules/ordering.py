"""Sorting and selecting: results are entries of the operands at places that the values decide.

The places are found in the same call that computes the results, so that nothing is sorted twice; from there on
the derivative is a gather.
"""

from __future__ import annotations

from jax import lax

from admodes.program import jax_compat as jc
from admodes.rules.moved_alike import Step, StepsRule
from admodes.rules.table import higher_order


def _at(places, axis) -> Step:
    """The entries at ``places`` along ``axis``."""
    rank = places.ndim
    batch = tuple(i for i in range(rank) if i != axis)
    numbers = lax.GatherDimensionNumbers(
        offset_dims=(),
        collapsed_slice_dims=(axis,),
        start_index_map=(axis,),
        operand_batching_dims=batch,
        start_indices_batching_dims=batch,
    )
    params = {
        "dimension_numbers": numbers,
        "slice_sizes": (1,) * rank,
        "unique_indices": False,
        "indices_are_sorted": False,
        "mode": lax.GatherScatterMode.PROMISE_IN_BOUNDS,
        "fill_value": None,
    }
    return Step(lax.gather_p, (lax.expand_dims(places, (rank,)),), params)


def _sort(primitive, primals, params):
    # the places travel along as one more operand that is not a key
    shape, axis = primals[0].shape, params["dimension"]
    numbers = lax.broadcasted_iota(jc.counter_dtype(shape[axis]), shape, axis)
    *outs, places = primitive.bind(*primals, numbers, **params)
    return outs, [_at(places, axis)] * len(outs)


def _top_k(primitive, primals, params):
    values, places = primitive.bind(*primals, **params)
    axis = params["axis"] if "axis" in params else params["reduction_dimension"] % values.ndim
    return [values, places], [_at(places, axis)]


higher_order(lax.sort_p, StepsRule(_sort), cost="scattering")
higher_order(lax.top_k_p, StepsRule(_top_k), cost="scattering")
higher_order(lax.approx_top_k_p, StepsRule(_top_k), cost="scattering")
