r"""Binomial checkpointing: which states of a loop to keep so that the fewest steps are run again.

To walk back a chain of l steps with s stored states (the initial one among them), each step is run forward at most r
times before it is differentiated, and β(s, r) = C(s+r, s) is the longest chain for which r repetitions do. The fewest
steps in all are t(l, s) = r l − C(s+r, s+1), for the least r with β(s, r) ≥ l.

The functions here are pure; ``reversal.py`` runs the schedules.

References: Griewank, "Achieving logarithmic growth of temporal and spatial complexity in reverse automatic
differentiation", Optimization Methods and Software 1 (1992); Griewank and Walther, "Algorithm 799: revolve", ACM TOMS
26 (2000); for a length not known in advance, Wang, Moin and Iaccarino, "Minimal repetition dynamic checkpointing
algorithm for unsteady adjoint calculation", SIAM J. Sci. Comput. 31 (2009).
"""

from __future__ import annotations

from math import comb


def _check(length: int, slots: int) -> None:
    if length < 0:
        raise ValueError(f"a loop has at least 0 steps, not {length}")
    if slots < 1:
        raise ValueError(f"slots must be at least 1, for the state that a loop starts from; got {slots}")


def longest(slots: int, repetitions: int) -> int:
    """β(s, r) = C(s+r, s): the longest chain of which no step is run forward more than r times; 0 for r < 0.

    >>> longest(3, 2), longest(10, 3)
    (10, 286)
    """
    return comb(slots + repetitions, slots) if repetitions >= 0 else 0


def repetitions(length: int, slots: int) -> int:
    """The least r with β(slots, r) ≥ length.

    >>> repetitions(10, 3), repetitions(11, 3), repetitions(5, 1)
    (2, 3, 4)
    """
    _check(length, slots)
    if slots == 1:
        return max(length - 1, 0)
    r = 0
    while longest(slots, r) < length:
        r += 1
    return r


def fewest_steps(length: int, slots: int) -> int:
    """t(l, s) = r l − C(s+r, s+1): the fewest forward steps, beside the l that are differentiated where they stand.

    >>> [fewest_steps(l, s) for l, s in ((10, 3), (24, 3), (50, 5), (100, 5), (200, 10))]
    [15, 61, 122, 316, 522]
    """
    r = repetitions(length, slots)
    return r * length - comb(slots + r, slots + 1) if length else 0


def split(length: int, slots: int) -> int:
    """The number of steps to advance before storing the next state, at least 1 and less than ``length`` (2 or more).

    m steps on the left are walked back with all slots, the rest with one fewer: t(l, s) = m + t(m, s) + t(l−m, s−1).
    Any m with β(s, r−2) ≤ m ≤ β(s, r−1) and β(s−1, r−1) ≤ l−m ≤ β(s−1, r) is best; here the greatest.

    >>> split(10, 3), split(2, 1), split(100, 1)
    (4, 1, 99)
    """
    r = repetitions(length, slots)
    return min(longest(slots, r - 1), length - longest(slots - 1, r - 1))


def placements(length: int, slots: int) -> tuple[int, ...]:
    """The steps before which the first sweep stores the state, in order; the last step's state is kept besides.

    >>> placements(10, 3)
    (0, 4, 7, 9)
    >>> placements(3, 10), placements(0, 10)
    ((0, 1, 2), ())
    """
    _check(length, slots)
    kept: list[int] = []
    at = 0
    while at < length - 1 and slots > 0:
        kept.append(at)
        at += split(length - at, slots)
        slots -= 1
    return (*kept, length - 1) if length else ()
