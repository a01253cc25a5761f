"""Reductions over windows (pooling), and the selections that are their derivatives.

The derivative of a maximum over windows is the tangent of the entry that is chosen, the first one at ties:
``select_and_gather_add``. Its transpose, ``select_and_scatter_add``, sends each cotangent to that entry.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from jax import lax

from admodes.program import jax_compat as jc
from admodes.program.derived import instantiate, keep, merge, pushed
from admodes.rules.moved_alike import Step, StepsRule
from admodes.rules.patterns import pattern_of_windows
from admodes.rules.reductions import batched, reduce_by_tree
from admodes.rules.table import HigherOrderRule, higher_order, linear, structural

# -- sums -------------------------------------------------------------------------------------------------


def _pull_reduce_window_sum(g, x, *, window_dimensions, window_strides, padding, base_dilation, window_dilation):
    # Each entry adds up the cotangents of the windows that it is in: a window sum again, over the cotangents spread by
    # the strides. Along one axis the window of result j starts at j·stride - low, measured in dilated operand entries.
    margins = []
    for n, m, width, stride, (low, _), base, dilation in zip(
        x.shape, g.shape, window_dimensions, window_strides, padding, base_dilation, window_dilation, strict=True
    ):
        reach = (width - 1) * dilation
        spread = (m - 1) * stride + 1 if m else 0
        dilated = (n - 1) * base + 1 if n else 0
        before = reach - low
        margins.append((before, dilated + reach - before - spread, stride - 1))
    ones = (1,) * len(x.shape)
    return lax.reduce_window_sum_p.bind(
        lax.pad(g, g.dtype.type(0), margins),
        window_dimensions=window_dimensions,
        window_strides=base_dilation,
        padding=((0, 0),) * len(x.shape),
        base_dilation=ones,
        window_dilation=window_dilation,
    )


structural(lax.reduce_window_sum_p, _pull_reduce_window_sum, pattern=pattern_of_windows, cost="reducing")

# -- extremes ---------------------------------------------------------------------------------------------


def _choose(select_prim, primitive, primals, params):
    return [primitive.bind(*primals, **params)], [
        Step(lax.select_and_gather_add_p, primals, dict(params, select_prim=select_prim))
    ]


higher_order(lax.reduce_window_max_p, StepsRule(partial(_choose, lax.ge_p)), cost="reducing")
higher_order(lax.reduce_window_min_p, StepsRule(partial(_choose, lax.le_p)), cost="reducing")


def _pull_select_and_gather_add(
    g, t, x, *, select_prim, window_dimensions, window_strides, padding, base_dilation, window_dilation
):
    if any(d != 1 for d in window_dilation):
        return _pull_by_offsets(
            g, x, select_prim, window_dimensions, window_strides, padding, base_dilation, window_dilation
        )
    dilated = any(d != 1 for d in base_dilation)
    if dilated:
        never = x.dtype.type(-np.inf if select_prim is lax.ge_p else np.inf)
        x = lax.pad(x, never, [(0, 0, d - 1) for d in base_dilation])
    ct = lax.select_and_scatter_add_p.bind(
        g,
        x,
        select_prim=select_prim,
        window_dimensions=window_dimensions,
        window_strides=window_strides,
        padding=padding,
    )
    return lax.slice(ct, (0,) * ct.ndim, ct.shape, base_dilation) if dilated else ct


def _pull_by_offsets(g, x, select_prim, dimensions, strides, padding, base_dilation, window_dilation):
    """The same for windows with gaps, offset by offset: where an entry is the chosen one, it gets the cotangent."""
    never = x.dtype.type(-np.inf if select_prim is lax.ge_p else np.inf)
    margins = [(low, high, d - 1) for (low, high), d in zip(padding, base_dilation, strict=True)]
    spread = lax.pad(x, never, margins)
    places = []
    for offset in np.ndindex(*dimensions):
        starts = [k * d for k, d in zip(offset, window_dilation, strict=True)]
        ends = [a + (m - 1) * s + 1 if m else a for a, m, s in zip(starts, g.shape, strides, strict=True)]
        places.append((starts, ends))
    best, chosen = lax.full_like(g, never, x.dtype), lax.full_like(g, -1, np.int32)
    for k, (starts, ends) in enumerate(places):
        entry = lax.slice(spread, starts, ends, strides)
        stays = select_prim.bind(best, entry)
        best, chosen = lax.select(stays, best, entry), lax.select(stays, chosen, lax.full_like(chosen, k))
    total = lax.full(spread.shape, 0, g.dtype)
    for k, (starts, ends) in enumerate(places):
        part = lax.select(lax.eq(chosen, lax.full_like(chosen, k)), g, lax.full_like(g, 0))
        around = [(a, n - b, s - 1) for a, b, n, s in zip(starts, ends, spread.shape, strides, strict=True)]
        total = lax.add(total, lax.pad(part, g.dtype.type(0), around))
    # back from the spread entries: negative margins cut, and each base_dilation-th entry is one of the operand
    cut = lax.pad(total, g.dtype.type(0), [(-low, -high, 0) for low, high in padding])
    return lax.slice(cut, (0,) * cut.ndim, cut.shape, base_dilation)


def _pull_select_and_scatter_add(g, source, x, **params):
    ones = (1,) * x.ndim
    return lax.select_and_gather_add_p.bind(g, x, base_dilation=ones, window_dilation=ones, **params)


linear(lax.select_and_gather_add_p, _pull_select_and_gather_add, pattern=pattern_of_windows, cost="reducing")
linear(lax.select_and_scatter_add_p, _pull_select_and_scatter_add, cost="scattering")

# -- any operation ----------------------------------------------------------------------------------------


class ReduceWindowRule(HigherOrderRule):
    """Windows reduced by an operation that the user gives.

    Forward mode reduces pairs of values and tangents by the operation on dual numbers. In reverse mode the windows
    are laid out as arrays, one per offset, and reduced by a tree of operations.
    """

    kind = "higher order"

    def push(self, interpreter, primitive, primals, tangents, params):
        n = len(primals) // 2
        self._check(tangents[n:])
        closed = jc.close(params["jaxpr"], params["consts"])
        on = tuple(jc.is_differentiable(jc.typeof(x)) for x in primals[:n])
        program, _ = pushed(closed, interpreter, on + on, on)
        k = sum(on)
        # the operation gets (values, tangents) of the left, then of the right; the program wants values first
        order = (*range(n), *range(2 * n, 2 * n + k), *range(n, 2 * n), *range(2 * n + k, 2 * (n + k)))
        dual = jc.permute_inputs(program, order)
        avals = [jc.typeof(x) for x in primals[:n]]
        ts = keep(on, instantiate(tangents[:n], avals, on))
        zeros = [lax.full((), 0, t.dtype) for t in ts]
        flat = primitive.bind(
            *primals[:n], *ts, *primals[n:], *zeros, **dict(params, jaxpr=jc.inner(dual), consts=tuple(dual.consts))
        )
        return flat[:n], merge(on, flat[n:])

    def record(self, interpreter, recorder, primitive, primals, slots, params):
        self._check(slots[len(slots) // 2 :])
        return interpreter.continue_function(recorder, partial(_reduce_windows, params), primals, slots)

    def _check(self, derivatives):
        if any(d is not None for d in derivatives):
            raise TypeError("the derivative of lax.reduce_window with respect to its initial values")


def _reduce_windows(params, *args):
    operands, initial = args[: len(args) // 2], args[len(args) // 2 :]
    scalar = batched(jc.close(params["jaxpr"], params["consts"]), operands[0].ndim + 1)
    padding, base = params["padding"], params["base_dilation"]
    margins = [(lo, hi, d - 1) for (lo, hi), d in zip(padding, base, strict=True)]
    stacks = []
    for x, value in zip(operands, initial, strict=True):
        padded = lax.pad(x, value, margins)
        shape = [
            (n - (w - 1) * d - 1) // s + 1
            for n, w, d, s in zip(
                padded.shape,
                params["window_dimensions"],
                params["window_dilation"],
                params["window_strides"],
                strict=True,
            )
        ]
        entries = []
        for offset in np.ndindex(*params["window_dimensions"]):
            starts = [k * d for k, d in zip(offset, params["window_dilation"], strict=True)]
            ends = [a + (m - 1) * s + 1 for a, m, s in zip(starts, shape, params["window_strides"], strict=True)]
            entries.append(lax.expand_dims(lax.slice(padded, starts, ends, params["window_strides"]), (0,)))
        stacks.append(lax.concatenate(entries, 0))
    # the initial value takes part once for each window, neutral or not
    pairs = zip(stacks, initial, strict=True)
    stacks = [lax.concatenate([lax.full((1, *xs.shape[1:]), value), xs], 0) for xs, value in pairs]
    return reduce_by_tree(lambda left, right: scalar(*left, *right), stacks, None, (0,))


higher_order(lax.reduce_window_p, ReduceWindowRule(), cost="reducing")
