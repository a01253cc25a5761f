r"""Loops walked back in bounded memory: states kept in a fixed number of slots, the others computed again.

A sweep leaves a :class:`Trail`; :func:`unwind` walks it back. Loops whose length is known are placed by the binomial
schedule (Griewank and Walther 2000), loops that end by a condition by the online schedule of Wang, Moin and Iaccarino
(2009), which overwrites states such that what is kept is at any time nearly as good. Both sweeps, and the
way back, are control flow on traced numbers: the size of the program depends neither on the length nor on the slots,
and the compiler cannot merge what is computed twice.

The unit of a schedule is a stretch of ``width`` steps (the last one may be shorter), which is walked back at once, from
the tapes of its steps: a schedule for so many times fewer units runs steps again fewer times.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jax import lax

from admodes.checkpointing.binomial import placements
from admodes.program import jax_compat as jc

UNUSED = np.iinfo(np.int32).max
Arrays = Sequence  # of jax.Array


class Trail(NamedTuple):
    """The states that are kept of a loop: ``states`` holds the carry in one slot more than the schedule counts (the
    working one).

    ``length`` is the number of steps; the state before stretch ``at[k]`` is in slot ``order[k]``, in ascending order,
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


def online(step: Callable, going: Callable, carry: Arrays, slots: int, width: int) -> tuple[tuple, Trail]:
    """Run ``while going(carry): carry = step(carry)``, keeping states as it goes: (carry, trail).

    Slots are ranked by the age of their states, and levels do not rise with the rank. When all slots are full, the
    level of the last rises, and the latest state moves on in it; the states before it of lower level are then
    overwritten, the latest first, and the new states have level 0 (Wang, Moin and Iaccarino 2009, algorithm 1): the
    ranks from there on turn round. Between two such promotions, a stretch costs one write.

    With 3 slots, and the working one, the states that are kept after so many steps::

        step   0  1  2  3  4  5  6  7  8  9 10 11
           3   o  o  o
           5   o  o        o                         the 2 is overwritten
           6   o           o  o                      the 1 too
           8   o           o        o                the 5 is
          11   o           o                 o       the 7 is, for the 10
    """
    n = slots + 1
    ranks = _array(np.arange(n))
    at = _array(np.where(np.arange(n) == 0, 0, UNUSED))
    level = _array(np.where(np.arange(n) == 0, UNUSED, 0))
    carry = tuple(carry)
    states = tuple(lax.broadcast(x, (n,)) for x in carry)

    def single(state):
        _, carry, length = state
        carry = tuple(step(carry))
        return going(carry), carry, lax.add(length, np.int32(1))

    def stretch(state):
        end = lax.add(state[2], np.int32(width))
        return lax.while_loop(lambda s: lax.bitwise_and(s[0], lax.lt(s[2], end)), single, state)

    def run(state):
        alive, carry, length, done, first, order, level, at, states = state

        def more(inner):
            (alive, *_), rank, *_ = inner
            return lax.bitwise_and(alive, lax.lt(rank, np.int32(n)))

        def advance(inner):
            moving, rank, done, at, states = inner
            moving, done = (single if width == 1 else stretch)(moving), lax.add(done, np.int32(1))
            slot = lax.dynamic_index_in_dim(order, rank, keepdims=False)
            at = lax.dynamic_update_index_in_dim(at, done, slot, 0)
            return moving, lax.add(rank, np.int32(1)), done, at, _write(states, slot, moving[1])

        start = (alive, carry, length), first, done, at, states
        (alive, carry, length), _, done, at, states = lax.while_loop(more, advance, start)
        promoted = lax.add(lax.index_in_dim(level, n - 1, keepdims=False), np.int32(1))
        first = _int(lax.reduce_sum(_int(lax.ge(level, lax.broadcast(promoted, (n,)))), (0,)))
        new = lax.ge(ranks, lax.broadcast(first, (n,)))
        level = lax.select(new, lax.full_like(level, 0), level)
        level = lax.dynamic_update_index_in_dim(level, promoted, first, 0)
        backward = lax.rev(order, (0,))
        turned = lax.dynamic_slice_in_dim(lax.concatenate([backward, backward], 0), lax.sub(np.int32(n), first), n)
        return alive, carry, length, done, first, lax.select(new, turned, order), level, at, states

    zero, one = np.int32(0), np.int32(1)
    start = (going(carry), carry, zero, zero, one, ranks, level, at, states)
    _, carry, length, done, _, _, _, at, states = lax.while_loop(lambda state: state[0], run, start)
    at = lax.select(lax.lt(at, lax.broadcast(done, (n,))), at, np.full(n, UNUSED, np.int32))
    at, order = lax.sort((at, ranks), num_keys=1)
    return carry, Trail(length, at, order, states)


def placed(step: Callable, carry: Arrays, length: int, slots: int, width: int, results: Arrays = ()) -> tuple:
    """Run ``length`` steps (1 or more) ``carry, results = step(k, carry, results)``, kept by the binomial schedule.

    Returns (carry, results, trail); ``results`` are not kept.
    """
    stretches = -(-length // width)
    starts = placements(stretches, slots)
    n = len(starts)
    at, ends = np.array(starts, np.int32), np.array((*starts[1:], stretches), np.int32)
    apart = sum(end - start > 1 for start, end in zip(at, ends, strict=True))  # then each state is kept

    def steps(first, last, carry, results):
        first, last = _times(first, width), lax.min(_times(last, width), np.int32(length))
        return lax.fori_loop(first, last, lambda k, s: tuple(map(tuple, step(k, *s))), (carry, results))

    def crowd(i, state):
        carry, results, states = state
        states = _write(states, i, carry)
        first, last = (lax.dynamic_index_in_dim(edges, i, keepdims=False) for edges in (at, ends))
        return (*steps(first, last, carry, results), states)

    def each(i, state):
        carry, results, states = state
        states = _write(states, i, carry)
        k = lax.add(_int(i), np.int32(stretches - n))
        if width == 1:
            return (*map(tuple, step(k, carry, results)), states)
        return (*steps(k, lax.add(k, np.int32(1)), carry, results), states)

    states = tuple(lax.broadcast(x, (n,)) for x in carry)
    state = (tuple(carry), tuple(results), states)
    state = lax.fori_loop(0, apart, crowd, state) if apart else state
    carry, results, states = lax.fori_loop(apart, n, each, state)
    return carry, results, Trail(np.int32(length), _array(at), _array(np.arange(n)), states)


def unwind(step: Callable, record: Callable, pull: Callable, trail: Trail, cotangents, width: int, tapes: Arrays):
    """Walk a loop back: ``cotangents = pull(k, tape, cotangents)`` for each step k, the last one first.

    ``carry = step(k, carry)`` brings back the states that were not kept, storing others in the slots that have
    become free, by the binomial schedule for the gap and the slots that there are. A gap with a slot for each of its
    states (β(s, 1) = s + 1 stretches or fewer) is filled in one loop, and walked back in another. There
    ``carry, tape = record(k, carry)`` are the steps of a stretch once more; ``tapes`` has room for those of ``width``
    steps, none if that is 1.

    Ten steps, 4 slots, of which the first sweep has filled 0, 4, 7 and 9 (o: a state that is kept, >: a step that is
    run again, <: one that is differentiated, its state then being free)::

        step   0  1  2  3  4  5  6  7  8  9
               o           o        o     o<
               o           o        o> o<         the slot of 9 takes 8
               o           o        o<
               o           o> o> o<               two free slots take 5 and 6: the gap is filled
               o           o< o<
               o> o> o> o<
               o< o< o<
    """
    n = len(trail.order)
    order, one = trail.order, np.int32(1)

    def slot(rank):
        return lax.dynamic_index_in_dim(order, rank, keepdims=False)

    def stored(at, rank):
        return lax.dynamic_index_in_dim(at, lax.max(rank, np.int32(0)), keepdims=False)

    def steps(first, last, carry):
        return lax.fori_loop(_times(first, width), _times(last, width), lambda k, c: tuple(step(k, c)), carry)

    def differentiate(k, carry, cotangents, tapes):
        if width == 1:
            return pull(k, record(k, carry)[1], cotangents), tapes
        first = _times(k, width)
        count = lax.min(np.int32(width), lax.sub(trail.length, first))

        def forward(i, inner):
            carry, tape = record(lax.add(first, _int(i)), inner[0])
            return tuple(carry), _write(inner[1], i, tape)

        def backward(i, cotangents):
            i = lax.sub(lax.sub(count, one), _int(i))
            return pull(lax.add(first, i), _read(tapes, i), cotangents)

        _, tapes = lax.fori_loop(0, count, forward, (carry, tapes))
        return lax.fori_loop(0, count, backward, cotangents), tapes

    def reversal(state):
        end, top, at, states, cotangents, tapes = state

        def crowded(inner):
            top, at, _ = inner
            return lax.gt(lax.sub(end, stored(at, top)), lax.sub(np.int32(n), top))

        def approach(inner):
            top, at, states = inner
            here = stored(at, top)
            there = lax.add(here, _split(lax.sub(end, here), lax.sub(np.int32(n - 1), top)))
            carry = steps(here, there, _read(states, slot(top)))
            top = lax.add(top, one)
            return top, lax.dynamic_update_index_in_dim(at, there, top, 0), _write(states, slot(top), carry)

        def fill(k, inner):
            top, at, states, carry = inner
            carry = tuple(step(k, carry)) if width == 1 else steps(k, lax.add(k, one), carry)
            k, top = lax.add(k, one), lax.add(top, one)
            return top, lax.dynamic_update_index_in_dim(at, k, top, 0), _write(states, slot(top), carry), carry

        def next_kept(inner):
            end, top, *_ = inner
            return lax.bitwise_and(lax.ge(top, np.int32(0)), lax.eq(stored(at, top), lax.sub(end, one)))

        def back(inner):
            end, top, cotangents, tapes = inner
            end = lax.sub(end, one)
            return end, lax.sub(top, one), *differentiate(end, _read(states, slot(top)), cotangents, tapes)

        top, at, states = lax.while_loop(crowded, approach, (top, at, states))
        here = stored(at, top)
        start = (top, at, states, _read(states, slot(top)))
        top, at, states, _ = lax.fori_loop(here, lax.sub(end, one), fill, start)
        end, top, cotangents, tapes = lax.while_loop(next_kept, back, (end, top, cotangents, tapes))
        return end, top, at, states, cotangents, tapes

    end = lax.div(lax.add(trail.length, np.int32(width - 1)), np.int32(width))
    kept = _int(lax.reduce_sum(_int(lax.lt(trail.at, lax.broadcast(end, (n,)))), (0,)))
    start = (end, lax.sub(kept, one), trail.at, trail.states, tuple(cotangents), tuple(tapes))
    return lax.while_loop(lambda state: lax.gt(state[0], np.int32(0)), reversal, start)[4]


def _times(k, width: int):
    return lax.mul(_int(k), np.int32(width)) if width > 1 else k


def _split(length, slots):
    """:func:`admodes.checkpointing.binomial.split` on traced numbers (in single precision: exact up to 2²⁴ steps)."""
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


def _array(values: np.ndarray):
    """Constants as a loop may carry them: under a mesh of explicit axes, these are arrays on that mesh."""
    return lax.add(values.astype(np.int32), lax.full(values.shape, np.int32(0)))


def like(values: Arrays, avals: Sequence) -> list:
    """The values with the weak types that a loop's results have by these types."""
    pairs = zip(values, avals, strict=True)
    return [x if jc.typeof(x).weak_type == a.weak_type else jc.convert_like(x, a) for x, a in pairs]
