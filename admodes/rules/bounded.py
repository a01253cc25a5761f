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

    The latest state is always kept. When the slots are full, its level rises; the states of lower level before it are
    then overwritten, the latest first, and the new states have level 0 (Wang, Moin and Iaccarino 2009, algorithm 1).
    Between two such promotions the slots to be written are a list, so that a step costs one write.
    """
    n = slots + 1
    numbers: Any = np.arange(n, dtype=np.int32)
    at: Any = np.where(numbers == 0, 0, UNUSED).astype(np.int32)
    level: Any = np.where(numbers == 0, UNUSED, 0).astype(np.int32)
    targets: Any = np.roll(numbers, -1)  # the slots to be written next
    carry = tuple(carry)
    states = tuple(lax.broadcast(x, (n,)) for x in carry)

    def run(state):
        _, carry, done, at, level, targets, count, states = state

        def more(inner):
            alive, _, j, *_ = inner
            return lax.bitwise_and(alive, lax.lt(j, count))

        def step(inner):
            _, carry, j, done, at, states = inner
            carry, done = tuple(advance(carry)), lax.add(done, np.int32(1))
            slot = lax.dynamic_index_in_dim(targets, j, keepdims=False)
            at = lax.dynamic_update_index_in_dim(at, done, slot, 0)
            return going(carry), carry, lax.add(j, np.int32(1)), done, at, _write(states, slot, carry)

        start = (state[0], carry, np.int32(0), done, at, states)
        alive, carry, _, done, at, states = lax.while_loop(more, step, start)
        last = lax.dynamic_index_in_dim(targets, lax.sub(count, np.int32(1)), keepdims=False)
        is_last = lax.eq(numbers, lax.broadcast(last, (n,)))
        promoted = lax.add(lax.dynamic_index_in_dim(level, last, keepdims=False), np.int32(1))
        promoted = lax.broadcast(promoted, (n,))
        given_up = lax.bitwise_and(lax.lt(level, promoted), lax.bitwise_not(is_last))
        level = lax.select(is_last, promoted, lax.select(given_up, np.zeros(n, np.int32), level))
        # the latest state moves on in its own slot, then the later of those given up go first
        rank = lax.select(
            is_last, np.full(n, -UNUSED, np.int32), lax.select(given_up, lax.neg(at), np.ones(n, np.int32))
        )
        _, targets = lax.sort((rank, numbers), num_keys=1)
        count = lax.add(_int(lax.reduce_sum(_int(given_up), (0,))), np.int32(1))
        return alive, carry, done, at, level, targets, count, states

    start = (going(carry), carry, np.int32(0), at, level, targets, np.int32(slots), states)
    _, carry, done, at, _, _, _, states = lax.while_loop(lambda state: state[0], run, start)
    at = lax.select(lax.lt(at, lax.broadcast(done, (n,))), at, np.full(n, UNUSED, np.int32))
    at, order = lax.sort((at, numbers), num_keys=1)
    return carry, Trail(done, at, order, states)


def placed(advance: Callable, carry: Arrays, length: int, slots: int, results: Arrays = ()) -> tuple:
    """Run ``length`` steps ``carry, results = advance(k, carry, results)``, kept by the binomial schedule.

    Returns (carry, results, trail); ``results`` are not kept.
    """
    starts = placements(length, slots)
    n = len(starts)
    at, ends = np.array(starts, np.int32), np.array((*starts[1:], length), np.int32)

    def stretch(i, state):
        carry, results, states = state
        states = _write(states, i, carry)
        first, end = (lax.dynamic_index_in_dim(edges, i, keepdims=False) for edges in (at, ends))
        carry, results = lax.fori_loop(first, end, lambda k, s: tuple(map(tuple, advance(k, *s))), (carry, results))
        return carry, results, states

    states = tuple(lax.broadcast(x, (n,)) for x in carry)
    start = (tuple(carry), tuple(results), states)
    carry, results, states = lax.fori_loop(np.int32(0), np.int32(n), stretch, start) if n else start
    return carry, results, Trail(np.int32(length), at, np.arange(n, dtype=np.int32), states)


def unwind(advance: Callable, pull: Callable, trail: Trail, cotangents):
    """Walk a loop back: ``cotangents = pull(k, carry, cotangents)`` for each step k, the last one first.

    ``carry = advance(k, carry)`` brings back the states that were not kept, storing others in the slots that have
    become free, by the binomial schedule for the gap and the slots that there are.
    """
    n = len(trail.order)
    if n == 0:
        return cotangents
    order, one = trail.order, np.int32(1)

    def slot(rank):
        return lax.dynamic_index_in_dim(order, rank, keepdims=False)

    def reversal(state):
        end, top, at, states, cotangents = state
        wanted = lax.sub(end, one)

        def before(inner):
            here, *_ = inner
            return lax.lt(here, wanted)

        def approach(inner):
            here, top, at, states = inner
            there = lax.add(here, _split(lax.sub(end, here), lax.sub(np.int32(n - 1), top)))
            carry = lax.fori_loop(here, there, lambda k, c: tuple(advance(k, c)), _read(states, slot(top)))
            top = lax.add(top, one)
            at = lax.dynamic_update_index_in_dim(at, there, top, 0)
            return there, top, at, _write(states, slot(top), carry)

        here = lax.dynamic_index_in_dim(at, top, keepdims=False)
        _, top, at, states = lax.while_loop(before, approach, (here, top, at, states))
        cotangents = pull(wanted, _read(states, slot(top)), cotangents)
        return wanted, lax.sub(top, one), at, states, cotangents

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
