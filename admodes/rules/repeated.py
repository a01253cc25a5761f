"""Updates of a scatter that meet at one place: the product of all others, and a function applied several times."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jax import lax

from admodes.program import jax_compat as jc


def products_of_others(places, factors):
    """For each factor the product of all others of the same place, without a division: zeros are no special case.

    Sorted by place, it is what comes before times what comes after: two scans that begin anew at each place.
    """
    n = factors.size
    order = lax.iota(jc.counter_dtype(n), n)
    places, order = lax.sort((lax.reshape(places, (n,)), order), num_keys=1)
    factors_in_order = lax.reshape(factors, (n,))[order]
    is_new = lax.ne(places[1:], places[:-1])
    before = _before(factors_in_order, is_new)
    after = lax.rev(_before(lax.rev(factors_in_order, (0,)), lax.rev(is_new, (0,))), (0,))
    others = lax.full((n,), 0, factors.dtype).at[order].set(lax.mul(before, after), unique_indices=True)
    return lax.reshape(others, factors.shape)


def _before(factors, is_new):
    """The product of all before an entry, back to the last that ``is_new`` (given for all but the first)."""

    def combine(left, right):
        (begun, product), (begins, factor) = left, right
        return lax.bitwise_or(begun, begins), lax.select(begins, factor, lax.mul(product, factor))

    start = lax.concatenate([lax.full((1,), True, bool), is_new], 0)
    _, products = lax.associative_scan(combine, (start, factors))
    one = lax.full((1,), 1, factors.dtype)
    shifted = lax.concatenate([one, products[:-1]], 0)
    return lax.select(start, lax.full_like(shifted, 1), shifted)


def apply_times(fun: Callable, times, x):
    """``fun`` applied to each entry as many times as is said there."""

    def step(state):
        k, y = state
        return lax.add(k, np.array(1, k.dtype)), lax.select(lax.lt(lax.full_like(times, k), times), fun(y), y)

    most = lax.reduce_max(times, tuple(range(times.ndim)))
    return lax.while_loop(lambda state: lax.lt(state[0], most), step, (np.zeros((), times.dtype), x))[1]
