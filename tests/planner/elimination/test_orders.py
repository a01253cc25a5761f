"""Counts of elimination orders against the literature's, bounds against them, and annealing against both."""

import itertools
import random
import time
from pathlib import Path

import pytest

from admodes.planner.elimination.bounds import lower_bound
from admodes.planner.elimination.graph import ScalarGraph
from admodes.planner.elimination.orders import (
    ORDERS,
    Working,
    accumulate,
    classical_orders,
    forward,
    markowitz,
    multiplications,
    relative_markowitz,
    reverse,
)
from admodes.planner.elimination.search import Annealer, search

DATA = Path(__file__).parents[2] / "data" / "elimination"
RULES = ("all", "unit")

# name: forward, reverse, lowest Markowitz, best known, sum of products of cuts (rule "all", nothing merged)
# The table that comes with the instances has 356 for Markowitz on the last one; with ties to the first vertex, which
# gives all the other figures, it is 350.
PUBLISHED = {
    "roe_flux_1d": (620, 364, 407, 295, 223),
    "robot_arm_6dof": (397, 301, 288, 221, 221),
    "human_heart_dipole": (240, 172, 194, 148, 148),
    "propane_combustion": (151, 90, 111, 88, 88),
    "black_scholes_jacobian": (513, 453, 350, 297, 196),
}
# name: best of forward, reverse and Markowitz, best known (nothing merged), best known (common subexpressions merged)
UNIT = {
    "roe_flux_1d": (234, 184, 160),
    "robot_arm_6dof": (179, 151, 126),
    "human_heart_dipole": (48, 48, 48),
    "propane_combustion": (24, 24, 24),
    "black_scholes_jacobian": (266, 220, 205),
}


def instance(name, kind="raw"):
    return ScalarGraph.from_json(DATA / f"{name}.{kind}.json")


def random_graph(rng, inputs=3, middle=7, outputs=2, sinks=0):
    """A graph whose every intermediate lies between inputs and outputs, with partials of all kinds."""
    n = inputs + middle + outputs
    values = (None, None, 1.0, -1.0, 0.5)
    edges = {}
    for w in range(inputs, n):
        last = inputs + middle
        for u in rng.sample(range(min(w, last)), k=min(rng.choice((1, 2, 2, 3)), min(w, last))):
            edges[u, w] = rng.choice(values)
    used = {u for u, _ in edges}
    for u in range(inputs, inputs + middle):
        if u not in used:
            edges[u, inputs + middle] = None
    ends = [n + k for k in range(sinks)]
    edges.update(dict.fromkeys(zip(rng.sample(range(inputs, inputs + middle), sinks), ends, strict=True), 1.0))
    triples = tuple((u, w, value) for (u, w), value in edges.items())
    return ScalarGraph(n + sinks, tuple(range(inputs)), (*range(inputs + middle, n), *ends), triples, tuple(ends))


def slow_count(graph, order, rule):
    """The definitions, edge by edge."""
    edges = {
        (u, w): "free" if w in graph.sinks or (rule == "unit" and x in (1, -1)) else "dear" for u, w, x in graph.edges
    }
    total = 0
    for v in order:
        into = [(u, kind) for (u, w), kind in edges.items() if w == v]
        out = [(w, kind) for (u, w), kind in edges.items() if u == v]
        for (u, a), (w, b) in itertools.product(into, out):
            total += a == b == "dear"
            edges[u, w] = "free" if a == b == "free" and (u, w) not in edges else "dear"
        edges = {(u, w): kind for (u, w), kind in edges.items() if v not in (u, w)}
    return total


@pytest.mark.parametrize("name", PUBLISHED)
def test_classical_orders_cost_what_is_published(name):
    graph = instance(name)
    counts = [multiplications(graph, find(graph)) for find in (forward, reverse, markowitz)]
    assert (*counts, lower_bound(graph)) == (*PUBLISHED[name][:3], PUBLISHED[name][4])
    best = min(multiplications(graph, find(graph), "unit") for find in (forward, reverse, markowitz))
    assert best == UNIT[name][0]


@pytest.mark.parametrize("name", ["human_heart_dipole", "propane_combustion"])
def test_lowest_relative_markowitz_is_optimal_where_it_is_known_to_be(name):
    graph = instance(name)
    assert multiplications(graph, relative_markowitz(graph)) == lower_bound(graph)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("seed", range(6))
def test_counts_are_the_definitions(seed, rule):
    rng = random.Random(seed)
    graph = random_graph(rng, sinks=seed % 3)
    for _ in range(5):
        order = rng.sample(graph.intermediates, len(graph.intermediates))
        assert multiplications(graph, order, rule) == slow_count(graph, order, rule)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("seed", range(6))
def test_bounds_and_search_against_all_orders(seed, rule):
    graph = random_graph(random.Random(seed), middle=5, sinks=seed % 2)
    optimum = min(multiplications(graph, order, rule) for order in itertools.permutations(graph.intermediates))
    best = search(graph, rule)
    assert best.lower_bound == best.multiplications == multiplications(graph, best.order, rule) == optimum
    annealed = search(graph, rule, seconds=0.2, target=optimum, exact=0)
    assert annealed.lower_bound == lower_bound(graph, rule) <= optimum == annealed.multiplications
    assert multiplications(graph, annealed.order, rule) == optimum
    assert annealed.optimal == (annealed.lower_bound == optimum)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("sizes", [None, (3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9)])
def test_moves_keep_the_books(rule, sizes):
    rng = random.Random(0)
    graph = random_graph(rng, middle=8)
    annealer = Annealer(graph, rule, sizes, rng)
    for _ in range(40):
        annealer.restart(rng.sample(graph.intermediates, 8))
        annealer.run(25, 0, float("inf"))
        working = Working(graph, rule, sizes)
        for v in annealer.order:
            assert annealer.costs[v] == working.cost(v)
            assert tuple(side[v] for side in annealer.edges) == (working.predecessors[v], working.successors[v])
            working.eliminate(v)
        assert annealer.total == sum(annealer.costs[v] for v in annealer.order)
        assert annealer.best == multiplications(graph, annealer.best_order, rule, sizes)


@pytest.mark.parametrize("name", PUBLISHED)
def test_search_reaches_the_best_known_counts(name):
    known = PUBLISHED[name][3]
    assert search(instance(name), target=known).multiplications <= known


@pytest.mark.parametrize("name", UNIT)
def test_search_reaches_the_best_known_counts_with_free_units(name):
    known = UNIT[name][2]
    assert search(instance(name, "cse"), "unit", target=known).multiplications <= known


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", PUBLISHED)
def test_search_reaches_all_best_known_counts_in_ten_seconds(name, seed):
    for kind, rule, known in (("raw", "all", PUBLISHED[name][3]), ("cse", "unit", UNIT[name][2])):
        best = search(instance(name, kind), rule, seed=seed, target=known)
        assert best.multiplications <= known
        assert best.seconds <= 11


def test_search_keeps_its_time():
    began = time.process_time()
    best = search(instance("roe_flux_1d"), seconds=0.3)
    assert time.process_time() - began < 1.5
    assert best.multiplications <= min(found.multiplications for found in classical_orders(instance("roe_flux_1d")))
    assert "at least 223" in str(best)


def test_long_chains_need_no_recursion():
    n = 3000
    chain = ScalarGraph(n, (0,), (n - 1,), tuple((k, k + 1, None) for k in range(n - 1)))
    assert multiplications(chain, forward(chain)) == n - 2
    annealer = Annealer(chain, "all", None, random.Random(0))
    annealer.restart(random.Random(0).sample(chain.intermediates, n - 2))
    assert annealer.total == n - 2


def test_nothing_to_eliminate():
    graph = ScalarGraph(2, (0,), (1,), ((0, 1, None),))
    best = search(graph)
    assert (best.order, best.multiplications, best.lower_bound) == ((), 0, 0)


@pytest.mark.parametrize("method", ORDERS)
def test_every_order_accumulates_the_same(method):
    rng = random.Random(4)
    graph = random_graph(rng, sinks=2)
    values = [rng.choice((1, -1, 0.5, 3)) if value is None else value for *_, value in graph.edges]
    derivative = {v: {v: 1} for v in graph.inputs}
    into = {}
    for (u, w, _), value in zip(graph.edges, values, strict=True):
        into.setdefault(w, []).append((u, value))
    for w in graph.topological[len(graph.inputs) :]:
        row = derivative.setdefault(w, {})
        for u, value in into.get(w, []):
            for source, d in derivative[u].items():
                row[source] = row.get(source, 0) + value * d
    wanted = {(w, u): d for w in graph.outputs for u, d in derivative[w].items()}
    assert accumulate(graph, ORDERS[method](graph), values) == pytest.approx(wanted)


def test_bad_orders_and_graphs_are_refused():
    graph = ScalarGraph(4, (0,), (3,), ((0, 1, None), (1, 2, None), (2, 3, None)))
    for order in ([1], [1, 1], [1, 2, 3]):
        with pytest.raises(ValueError, match="exactly once"):
            multiplications(graph, order)
        with pytest.raises(ValueError, match="exactly once"):
            accumulate(graph, order, [1.0, 1.0, 1.0])
    for edges, message in [
        (((0, 1, None), (1, 2, None), (2, 1, None)), "cycle"),
        (((0, 4, None),), "names others"),
        (((0, 1, None), (0, 1, None)), "two edges"),
        (((1, 0, None),), "into an input"),
        (((3, 1, None),), "out of an output"),
    ]:
        with pytest.raises(ValueError, match=message):
            ScalarGraph(4, (0,), (3,), edges)
    with pytest.raises(ValueError, match="sink"):
        ScalarGraph(4, (0,), (3,), graph.edges, (2,))


def test_graphs_go_through_json():
    graph = instance("black_scholes_jacobian")
    assert ScalarGraph.from_json(graph.to_json()) == graph
    assert len(graph.intermediates) == 99
