r"""Loops walked back in bounded memory: states kept in a fixed number of slots, the others computed again.

A sweep leaves a :class:`Trail`; :func:`unwind` walks it back. Loops whose length is known are placed by the binomial
schedule (Griewank and Walther 2000), loops that end by a condition by the online schedule of Wang, Moin and Iaccarino
(2009), which overwrites states such that what is kept is at any time nearly as good. Both sweeps, and the
way back, are control flow on traced numbers: the size of the program depends neither on the length nor on the slots,
and the compiler cannot merge what is computed twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jax import lax

from admodes.program import jax_compat as jc
from admodes.rules.binomial import placements

UNUSED = np.iinfo(np.int32).max
Arrays = Sequence  # of jax.Array


class Trail(NamedTuple):
    """What is kept of a loop: ``states`` holds the carry in one slot more than the schedule counts (the working one).

    ``length`` is the number of steps; the state before step ``at[k]`` is in slot ``order[k]``, in ascending order,
    UNUSED where there is none.
    """

    length: Any
    at: Any
    order: Any
    states: tuple


def _read(states: Arrays, slot) -> tuple:
    return tuple(lax.dynamic_index_in_dim(s, slot, keepdims=False) for s in states)


def _write(states: Arrays, slot, carry: Arrays) -> tuple:
    return tuple(lax.dynamic_update_index_in_dim(s, x, slot, 0) for s, x in zip(states, carry, strict=True))


def _int(x):
    return lax.convert_element_type(x, np.int32)


def online(advance: Callable, going: Callable, carry: Arrays, slots: int) -> tuple[tuple, Trail]:
    """Run ``while going(carry): carry = advance(carry)``, keeping states as it goes: (carry, trail).

    Slots are ranked by the age of their states, and levels do not rise with the rank. When all slots are full, the
    level of the last rises, and the latest state moves on in it; the states before it of lower level are then
    overwritten, the latest first, and the new states have level 0 (Wang, Moin and Iaccarino 2009, algorithm 1): the
    ranks from there on turn round. Between two such promotions, a step costs one write.
    """
    n = slots + 1
    ranks: Any = np.arange(n, dtype=np.int32)
    at: Any = np.where(ranks == 0, 0, UNUSED).astype(np.int32)
    level: Any = np.where(ranks == 0, UNUSED, 0).astype(np.int32)
    carry = tuple(carry)
    states = tuple(lax.broadcast(x, (n,)) for x in carry)

    def run(state):
        alive, carry, done, first, order, level, at, states = state

        def more(inner):
            alive, _, rank, *_ = inner
            return lax.bitwise_and(alive, lax.lt(rank, np.int32(n)))

        def step(inner):
            _, carry, rank, done, at, states = inner
            carry, done = tuple(advance(carry)), lax.add(done, np.int32(1))
            slot = lax.dynamic_index_in_dim(order, rank, keepdims=False)
            at = lax.dynamic_update_index_in_dim(at, done, slot, 0)
            return going(carry), carry, lax.add(rank, np.int32(1)), done, at, _write(states, slot, carry)

        alive, carry, _, done, at, states = lax.while_loop(more, step, (alive, carry, first, done, at, states))
        promoted = lax.add(lax.index_in_dim(level, n - 1, keepdims=False), np.int32(1))
        first = _int(lax.reduce_sum(_int(lax.ge(level, lax.broadcast(promoted, (n,)))), (0,)))
        new = lax.ge(ranks, lax.broadcast(first, (n,)))
        level = lax.select(new, lax.full_like(level, 0), level)
        level = lax.dynamic_update_index_in_dim(level, promoted, first, 0)
        backward = lax.rev(order, (0,))
        turned = lax.dynamic_slice_in_dim(lax.concatenate([backward, backward], 0), lax.sub(np.int32(n), first), n)
        return alive, carry, done, first, lax.select(new, turned, order), level, at, states

    start = (going(carry), carry, np.int32(0), np.int32(1), ranks, level, at, states)
    _, carry, done, _, _, _, at, states = lax.while_loop(lambda state: state[0], run, start)
    at = lax.select(lax.lt(at, lax.broadcast(done, (n,))), at, np.full(n, UNUSED, np.int32))
    at, order = lax.sort((at, ranks), num_keys=1)
    return carry, Trail(done, at, order, states)


def placed(advance: Callable, carry: Arrays, length: int, slots: int, results: Arrays = ()) -> tuple:
    """Run ``length`` steps (1 or more) ``carry, results = advance(k, carry, results)``, kept by the binomial schedule.

    Returns (carry, results, trail); ``results`` are not kept.
    """
    starts = placements(length, slots)
    n = len(starts)
    at, ends = np.array(starts, np.int32), np.array((*starts[1:], length), np.int32)
    apart = sum(end - start > 1 for start, end in zip(at, ends, strict=True))  # then each state is kept

    def steps(first, end, carry, results):
        return lax.fori_loop(first, end, lambda k, s: tuple(map(tuple, advance(k, *s))), (carry, results))

    def stretch(i, state):
        carry, results, states = state
        states = _write(states, i, carry)
        first, end = (lax.dynamic_index_in_dim(edges, i, keepdims=False) for edges in (at, ends))
        return (*steps(first, end, carry, results), states)

    def single(i, state):
        carry, results, states = state
        states = _write(states, i, carry)
        return (*map(tuple, advance(lax.add(_int(i), np.int32(length - n)), carry, results)), states)

    states = tuple(lax.broadcast(x, (n,)) for x in carry)
    state = (tuple(carry), tuple(results), states)
    state = lax.fori_loop(0, apart, stretch, state) if apart else state
    carry, results, states = lax.fori_loop(apart, n, single, state)
    return carry, results, Trail(np.int32(length), at, np.arange(n, dtype=np.int32), states)


def unwind(advance: Callable, pull: Callable, trail: Trail, cotangents):
    """Walk a loop back: ``cotangents = pull(k, carry, cotangents)`` for each step k, the last one first.

    ``carry = advance(k, carry)`` brings back the states that were not kept, storing others in the slots that have
    become free, by the binomial schedule for the gap and the slots that there are. A gap with a slot for each of its
    states (β(s, 1) = s + 1 steps or fewer) is filled in one loop, and walked back in another.
    """
    n = len(trail.order)
    order, one = trail.order, np.int32(1)

    def slot(rank):
        return lax.dynamic_index_in_dim(order, rank, keepdims=False)

    def stored(at, rank):
        return lax.dynamic_index_in_dim(at, lax.max(rank, np.int32(0)), keepdims=False)

    def reversal(state):
        end, top, at, states, cotangents = state

        def crowded(inner):
            top, at, _ = inner
            return lax.gt(lax.sub(end, stored(at, top)), lax.sub(np.int32(n), top))

        def approach(inner):
            top, at, states = inner
            here = stored(at, top)
            there = lax.add(here, _split(lax.sub(end, here), lax.sub(np.int32(n - 1), top)))
            carry = lax.fori_loop(here, there, lambda k, c: tuple(advance(k, c)), _read(states, slot(top)))
            top = lax.add(top, one)
            return top, lax.dynamic_update_index_in_dim(at, there, top, 0), _write(states, slot(top), carry)

        def fill(k, inner):
            top, at, states, carry = inner
            carry, k, top = tuple(advance(k, carry)), lax.add(k, one), lax.add(top, one)
            return top, lax.dynamic_update_index_in_dim(at, k, top, 0), _write(states, slot(top), carry), carry

        def next_kept(inner):
            end, top, _ = inner
            return lax.bitwise_and(lax.ge(top, np.int32(0)), lax.eq(stored(at, top), lax.sub(end, one)))

        def back(inner):
            end, top, cotangents = inner
            end = lax.sub(end, one)
            return end, lax.sub(top, one), pull(end, _read(states, slot(top)), cotangents)

        top, at, states = lax.while_loop(crowded, approach, (top, at, states))
        here = stored(at, top)
        start = (top, at, states, _read(states, slot(top)))
        top, at, states, _ = lax.fori_loop(here, lax.sub(end, one), fill, start)
        end, top, cotangents = lax.while_loop(next_kept, back, (end, top, cotangents))
        return end, top, at, states, cotangents

    kept = _int(lax.reduce_sum(_int(lax.lt(trail.at, lax.broadcast(trail.length, (n,)))), (0,)))
    start = (trail.length, lax.sub(kept, one), trail.at, trail.states, cotangents)
    return lax.while_loop(lambda state: lax.gt(state[0], np.int32(0)), reversal, start)[-1]


def _split(length, slots):
    """:func:`admodes.rules.binomial.split` on traced numbers (in single precision: exact up to 2²⁴ steps)."""
    length, slots = (lax.convert_element_type(x, np.float32) for x in (length, slots))
    one = np.float32(1)

    def short(state):
        _, reach, _ = state
        return lax.bitwise_and(lax.lt(reach, length), lax.gt(slots, one))

    def lengthen(state):
        r, reach, _ = state
        r = lax.add(r, one)
        return r, lax.round(lax.div(lax.mul(reach, lax.add(slots, r)), r)), reach

    # β(s, r) = β(s, r−1) (s+r)/r and β(s−1, r−1) = β(s, r−1) s/(s+r−1)
    r, _, below = lax.while_loop(short, lengthen, (np.float32(0), one, one))
    rest = lax.round(lax.div(lax.mul(below, slots), lax.max(lax.add(slots, lax.sub(r, one)), one)))
    left = lax.select(lax.gt(slots, one), lax.min(below, lax.sub(length, rest)), lax.sub(length, one))
    return _int(lax.clamp(one, left, lax.sub(length, one)))


def like(values: Arrays, avals: Sequence) -> list:
    """The values with the weak types that a loop's results have by these types."""
    pairs = zip(values, avals, strict=True)
    return [x if jc.typeof(x).weak_type == a.weak_type else jc.convert_like(x, a) for x, a in pairs]
