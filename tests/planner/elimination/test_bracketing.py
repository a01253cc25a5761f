"""Networks and chains of arrays against known counts and against all orders."""

import itertools
import random

import pytest

from admodes.planner.elimination.bounds import lower_bound
from admodes.planner.elimination.bracketing import bracket, forward_cost, network, reverse_cost
from admodes.planner.elimination.orders import multiplications
from admodes.planner.elimination.search import search

R2_SIZES = (76, 34, 76, 50, 8, 86, 57, 57)
R2 = network(R2_SIZES, [(0, 1), (0, 2), (0, 5), (1, 4), (2, 3), (3, 4), (4, 5), (5, 6), (6, 7)])


def test_r2_costs_what_is_published():
    assert forward_cost(R2, R2_SIZES) == 2_143_732
    assert reverse_cost(R2, R2_SIZES) == 1_607_799
    best = search(R2, sizes=R2_SIZES)
    assert best.multiplications == multiplications(R2, best.order, sizes=R2_SIZES) == 769_044
    assert best.optimal
    everything = [multiplications(R2, order, sizes=R2_SIZES) for order in itertools.permutations(R2.intermediates)]
    assert min(everything) == 769_044
    assert lower_bound(R2, sizes=R2_SIZES) <= 769_044


def test_annealing_with_sizes_finds_the_optimum_of_r2():
    assert search(R2, sizes=R2_SIZES, seconds=5.0, target=769_044, exact=0).multiplications == 769_044


def test_large_networks_are_searched():
    rng = random.Random(1)
    sizes = [rng.randint(1, 50) for _ in range(20)]
    chain = network(sizes, [(k, k + 1) for k in range(19)])
    optimum = bracket(sizes).cost
    best = search(chain, sizes=sizes, seconds=0.5)
    assert best.lower_bound <= optimum <= best.multiplications <= 1.2 * optimum


def every_bracketing(sizes):
    """The cost of each way to multiply a chain."""
    if len(sizes) == 2:
        return [0]
    return [
        a + b + sizes[0] * sizes[k] * sizes[-1]
        for k in range(1, len(sizes) - 1)
        for a in every_bracketing(sizes[: k + 1])
        for b in every_bracketing(sizes[k:])
    ]


@pytest.mark.parametrize("seed", range(4))
def test_brackets_are_optimal(seed):
    rng = random.Random(seed)
    sizes = [rng.randint(1, 30) for _ in range(7)]
    best = bracket(sizes)
    assert best.cost == min(every_bracketing(sizes))
    assert best.cost == search(network(sizes, [(k, k + 1) for k in range(6)]), sizes=sizes).multiplications


def test_an_hourglass_is_split_at_its_waist():
    sizes, edges = (800, 400, 8, 400, 800), [800 * 400, 400 * 8, 8 * 400, 400 * 800]
    best = bracket(sizes)
    assert str(best) == "((J4 J3) (J2 J1))"
    assert best.cost == 2 * 800 * 400 * 8 + 800 * 8 * 800
    alone = [min(n, m) * cost for n, m, cost in zip(sizes[:-1], sizes[1:], edges, strict=True)]
    mixed = bracket(sizes, accumulate=alone, push=edges, pull=edges)
    assert str(mixed) == "((4 pushed J3) (J2 1 pulled))"
    assert mixed.cost == 2 * (8 * 400 * 8 + 8 * 400 * 800) + 800 * 8 * 800


def test_forward_and_reverse_are_brackets():
    tall = bracket((1, 50, 60, 70), accumulate=[50, 1e9, 1e9], push=[50, 3000, 4200], pull=[50, 3000, 4200])
    assert (tall.how, tall.cost) == ("push", 50 + 3000 + 4200)
    assert str(tall) == "(2..3 pushed J1)"
    wide = bracket((70, 60, 50, 1), accumulate=[1e9, 1e9, 50], push=[4200, 3000, 50], pull=[4200, 3000, 50])
    assert (wide.how, wide.cost) == ("pull", 50 + 3000 + 4200)
    assert str(wide) == "(J3 1..2 pulled)"


def test_bad_chains_are_refused():
    with pytest.raises(ValueError, match="at least one stage"):
        bracket((5,))
    with pytest.raises(ValueError, match="one cost for each"):
        bracket((5, 6), push=[1.0, 2.0])
