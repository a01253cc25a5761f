"""Binomial schedules against the table of Griewank and Walther and against dynamic programming."""

import numpy as np
import pytest

from admodes.checkpointing.binomial import fewest_steps, longest, placements, repetitions, split

TABLE = {(10, 3): 15, (24, 3): 61, (50, 5): 122, (100, 5): 316, (200, 10): 522}


def least_steps(length, slots):
    """t[s, l] by dynamic programming over the place of the next stored state."""
    t = np.zeros((slots + 1, length + 1), int)
    t[1] = [n * (n - 1) // 2 for n in range(length + 1)]
    for s in range(2, slots + 1):
        for n in range(2, length + 1):
            left = np.arange(1, n)
            t[s, n] = (left + t[s, left] + t[s - 1, n - left]).min()
    return t


def steps_by_splits(length, slots, known):
    if length <= 1 or slots == 1:
        return length * (length - 1) // 2
    if (length, slots) not in known:
        m = split(length, slots)
        parts = steps_by_splits(m, slots, known), steps_by_splits(length - m, slots - 1, known)
        known[length, slots] = m + sum(parts)
    return known[length, slots]


@pytest.mark.parametrize(("length", "slots"), TABLE, ids=str)
def test_steps_are_those_of_the_table(length, slots):
    assert fewest_steps(length, slots) == TABLE[length, slots] == steps_by_splits(length, slots, {})


def test_steps_are_the_optimum_up_to_a_thousand():
    slots = 10
    best, known = least_steps(1000, slots), {}
    for s in range(1, slots + 1):
        for n in range(1, 1001):
            assert fewest_steps(n, s) == best[s, n], (n, s)
            assert steps_by_splits(n, s, known) == best[s, n], (n, s)


@pytest.mark.parametrize(("length", "slots"), [(1000, 50), (500, 500), (400, 800), (100_000, 100)], ids=str)
def test_splits_reach_the_formula_with_many_slots(length, slots):
    assert steps_by_splits(length, slots, {}) == fewest_steps(length, slots)


def test_a_chain_of_the_longest_length_needs_no_further_repetition():
    for slots in (2, 5, 12):
        for r in range(5):
            assert repetitions(longest(slots, r), slots) == r
            assert repetitions(longest(slots, r) + 1, slots) == r + 1


@pytest.mark.parametrize("slots", [1, 2, 3, 10, 300])
def test_placements_are_ascending_and_fit_the_slots(slots):
    for length in (0, 1, 2, 3, 10, 11, 200, 1001):
        at = placements(length, slots)
        assert list(at) == sorted(set(at))
        assert len(at) <= slots + 1
        assert length == 0 or (at[0] == 0 and at[-1] == length - 1)
        if length:
            stored = at[:slots]  # the last step's state, beyond those, is the working one
            gaps = np.diff((*stored, length))
            assert (np.diff((*at, length))[1:] <= np.diff((*at, length))[:-1]).all()  # single steps come last
            steps = stored[-1] + sum(fewest_steps(int(gap), slots - k) for k, gap in enumerate(gaps))
            assert steps == fewest_steps(length, slots)


@pytest.mark.parametrize(
    ("length", "slots", "message"), [(-1, 3, "at least 0 steps"), (5, 0, "slots must be at least 1")]
)
def test_bad_input(length, slots, message):
    for function in (fewest_steps, repetitions, placements):
        with pytest.raises(ValueError, match=message):
            function(length, slots)
