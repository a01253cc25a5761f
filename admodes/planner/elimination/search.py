r"""Searching for a cheap elimination order: dynamic programming over sets for small graphs, simulated annealing.

The cost of eliminating v depends on the order only through the set of vertices eliminated before it, and of those
only on the ones that are connected to v through eliminated vertices. So the best order of a few vertices is found by
way of the best order of each set of them. In larger graphs a move takes one vertex v past the next few vertices that
are neighbours of v when their turn comes (all others it can pass without any effect), and only those and v change their
costs. Their edges follow from each other by substitution, and where they do not (a vertex that must now go while v is
there still), from the set of eliminated vertices, remembered in a table. A move takes a few microseconds in plain
Python, and none is without effect. Runs start in turn from the cheapest classical order and from greedy ones with ties
broken at random; on large graphs one of the two may be hopeless, and is given up.

References: Kirkpatrick, Gelatt and Vecchi, *Optimization by simulated annealing*, Science 220 (1983) 671-680;
Naumann and Gottschling, *Simulated annealing for optimal pivot selection in Jacobian accumulation*, in: Stochastic
Algorithms: Foundations and Applications, LNCS 2827 (2003) 83-97; the counts to beat are those of Lohoff and Neftci,
*Optimizing automatic differentiation with deep reinforcement learning*, NeurIPS 2024.
"""

from __future__ import annotations

import itertools
import math
import operator
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from admodes.planner.elimination.bounds import lower_bound
from admodes.planner.elimination.graph import ScalarGraph
from admodes.planner.elimination.orders import (
    Counted,
    Neighbours,
    Rule,
    Working,
    bits,
    both,
    classical_orders,
    closure,
    greedy,
    join,
    mask,
    multiplications,
    substitute,
    weigher,
)
from admodes.program.agreement import Clock

# Multiplications: the temperature falls from one to the other, geometrically. Chosen. Four times hotter, a run
# wanders for most of its moves; four times colder, it stays near its start.
HOT, COLD = 1.5, 0.3
# Multiplications: the temperature at which a run from the best order starts. Chosen, below HOT, so that the order is
# not forgotten at once.
WARM = 0.8
# Multiplications of a vertex, for which the temperatures above are; where one costs more they are higher in
# proportion. An error is one of these temperatures.
USUAL = 4.0
# Neighbours that a move passes at most, and the part of the moves that pass up to FAR. Chosen. Longer moves cost more
# and are refused more often; without some, orders stay in groups.
FARTHEST, SELDOM, FAR = 3, 0.1, 12
# Moves per vertex of the first run, and the factor of each run to the last. Chosen. Runs that are four times longer
# cool better and are fewer; the time is that of the search in any case.
FIRST_RUN, GROWTH = 500, 1.2
# Randomised greedy orders, the best of which starts a run. Chosen. More take time from annealing, fewer start it
# worse.
RESTARTS = 8
# Result of a run in terms of the best from which on no other one starts where it did. Chosen: 5% are hardly made up.
# A larger one wastes runs on a hopeless start.
BEHIND = 1.05
# Entries of the table of edges, after which it is emptied. Chosen. Four times fewer look up less, and compute more.
REMEMBERED = 200_000
# Steps of the clock that a move takes, and each vertex in a greedy order. Chosen, as rounds of a Python loop. Four
# times off, searches that are counted rather than timed are so much longer or shorter.
MOVE, GREEDY = 200, 1000
# Vertices up to which the best order is found, over at most 2^12 sets. Each more doubles the time.
EXACT = 12


@dataclass(frozen=True)
class Found(Counted):
    """The best order found, what it costs, a proven lower bound of that, and the CPU seconds spent."""

    lower_bound: int
    seconds: float

    @property
    def optimal(self) -> bool:
        """True if the order is proven to be the cheapest."""
        return self.multiplications == self.lower_bound

    def __str__(self) -> str:
        proof = "optimal" if self.optimal else f"at least {self.lower_bound}"
        return f"{self.multiplications} multiplications ({proof}) by {self.method} in {self.seconds:.1f} s"


def search(
    graph: ScalarGraph,
    rule: Rule = "all",
    *,
    sizes: Sequence[int] | None = None,
    seconds: float = 10.0,
    seed: int = 0,
    target: int | None = None,
    exact: int = EXACT,
) -> Found:
    """The cheapest elimination order that can be found in a time budget.

    Args:
      graph: the vertices to eliminate are ``graph.intermediates``.
      rule: how multiplications are counted (:mod:`admodes.planner.elimination.orders`).
      sizes: the number of entries of each vertex, if they are arrays and the edges dense matrices.
      seconds: CPU time. The search ends before that if it meets the lower bound.
      seed: of the random numbers; the result depends on it, and on the speed of the machine.
      target: a count that is good enough.
      exact: up to how many vertices the best order of all is found, however long it takes.

    >>> from admodes.planner.elimination.graph import ScalarGraph
    >>> from admodes.planner.elimination.search import search
    >>> edges = [(0, 2, None), (1, 2, None), (2, 3, None), (3, 4, None)]
    >>> best = search(ScalarGraph(5, (0, 1), (4,), tuple(edges)), seconds=1.0)
    >>> best.order, best.multiplications, best.optimal
    ((3, 2), 3, True)
    """
    clock = Clock(time.process_time)
    start = clock.now()
    if len(graph.intermediates) <= exact:
        return _cheapest(graph, rule, sizes)
    end = start + seconds
    bound = lower_bound(graph, rule, sizes, clock=clock)
    enough = max(bound, target or 0)
    best = min(classical_orders(graph, rule, sizes), key=lambda found: found.multiplications)
    rng, n = random.Random(seed), len(graph.intermediates)
    moves, speed = FIRST_RUN * n, 20_000.0  # moves, and how many a second: a guess
    annealer = Annealer(graph, rule, sizes, rng, clock)
    cheapest = best.order
    reached: dict[str, int] = {}  # by runs from there
    for start_from in itertools.cycle(("classical", "greedy", "best")):
        left = end - clock.now()
        if best.multiplications <= enough or left <= 0:
            break
        if reached.get(start_from, 0) > BEHIND * best.multiplications:
            continue
        began = clock.now()
        again = {"classical": cheapest, "best": best.order}.get(start_from)
        annealer.restart(again or _randomised_greedy(graph, rule, sizes, rng, end, clock))
        moves = min(moves, max(1, int(left * speed)))
        done = annealer.run(moves, enough, end, WARM if start_from == "best" else HOT)
        reached[start_from] = min(annealer.best, reached.get(start_from, annealer.best))
        if annealer.best < best.multiplications:
            best = Counted("simulated annealing", tuple(annealer.best_order), annealer.best)
        speed, moves = done / max(clock.now() - began, 1e-3), int(GROWTH * moves)
    return Found(best.method, best.order, best.multiplications, bound, clock.now() - start)


def _cheapest(graph: ScalarGraph, rule: Rule, sizes: Sequence[int] | None) -> Found:
    """The cheapest order of all: that of each set of vertices, from those of the sets that have one less."""
    clock = Clock(time.process_time)
    start = clock.now()
    working, vertices = Working(graph, rule, sizes), mask(graph.intermediates)
    before = Boundary(graph.topological, working.predecessors, vertices)
    after = Boundary(graph.topological[::-1], working.successors, vertices)
    cheapest: dict[int, tuple[int, tuple[int, ...]]] = {0: (0, ())}  # the sets of k vertices that are gone
    for _ in graph.intermediates:
        larger: dict[int, tuple[int, tuple[int, ...]]] = {}
        for gone, (cost, order) in cheapest.items():
            for v in graph.intermediates:
                if not gone >> v & 1:
                    into, out = working.weigh(before(v, gone)[1]), working.weigh(after(v, gone)[1])
                    candidate = cost + working.sizes[v] * into * out, (*order, v)
                    known = larger.get(gone | 1 << v)
                    larger[gone | 1 << v] = candidate if known is None else min(known, candidate)
        cheapest = larger
    cost, order = cheapest[vertices]
    return Found("dynamic programming over sets", order, cost, cost, clock.now() - start)


def _randomised_greedy(graph, rule, sizes, rng, end: float, clock: Clock) -> tuple[int, ...]:
    """The best of a few orders of lowest Markowitz degree, ties broken at random; a single one late in the day."""
    orders: list[tuple[int, ...]] = []
    while not orders or (len(orders) < RESTARTS and clock.now() < end):
        orders.append(greedy(graph, lambda working, v: working.degree(v) + rng.random()))
        clock.worked(GREEDY * len(graph.intermediates))
    return min(orders, key=lambda order: multiplications(graph, order, rule, sizes))


class Boundary:
    """The neighbours of a vertex on one side, when a given set of vertices has been eliminated."""

    def __init__(self, order: Sequence[int], neighbours: Sequence[Neighbours], intermediates: int):
        self.relevant = [reach & intermediates for reach in closure(order, neighbours)]
        self.direct = [[(u, bool(edges[0] >> u & 1)) for u in bits(both(edges))] for edges in neighbours]
        self.table: list[dict[int, Neighbours]] = [{} for _ in neighbours]
        self.entries = 0

    def __call__(self, v: int, eliminated: int) -> Neighbours:
        known = self.table[v].get(eliminated & self.relevant[v])
        return self._find(v, eliminated) if known is None else known

    def _find(self, v: int, eliminated: int) -> Neighbours:
        """The edges of v itself, the eliminated ones among them replaced by their own (found first, without
        recursion)."""
        if self.entries > REMEMBERED:
            self.entries = 0
            for entries in self.table:
                entries.clear()
        stack = [v]
        while stack:
            x = stack[-1]
            edges, missing = (0, 0), False
            for u, free in self.direct[x]:
                if not eliminated >> u & 1:
                    edges = join(edges, (1 << u, 0) if free else (0, 1 << u))
                    continue
                by = self.table[u].get(eliminated & self.relevant[u])
                if by is None:
                    stack.append(u)
                    missing = True
                elif not missing:
                    edges = join(edges, by if free else (0, by[0] | by[1]))
            if not missing:
                stack.pop()
                self.table[x][eliminated & self.relevant[x]] = edges
                self.entries += 1
        return edges


BEFORE, AFTER = 0, 1  # the two sides of a vertex


class Annealer:
    """An order, what it costs, and how it changes by moves.

    ``edges[side][v]`` are the edges of v on that side at the moment of its elimination, ``prefix[k]`` the set of the
    first k vertices of the order.
    """

    def __init__(
        self,
        graph: ScalarGraph,
        rule: Rule,
        sizes: Sequence[int] | None,
        rng: random.Random,
        clock: Clock | None = None,
    ):
        working, vertices = Working(graph, rule), mask(graph.intermediates)
        self.boundary = (
            Boundary(graph.topological, working.predecessors, vertices),
            Boundary(graph.topological[::-1], working.successors, vertices),
        )
        self.weigh, self.sizes = weigher(sizes), sizes or (1,) * graph.vertices
        self.scaled, self.rng = sizes is not None, rng
        self.clock = clock or Clock(time.process_time)

    def restart(self, order: Sequence[int]) -> None:
        """Take up another order."""
        self.order = list(order)
        self.prefix = list(itertools.accumulate((1 << v for v in order), operator.or_, initial=0))
        self.edges: tuple[list[Neighbours], ...] = tuple([(0, 0)] * len(self.sizes) for _ in (BEFORE, AFTER))
        self.costs = [0] * len(self.sizes)
        for v, eliminated in zip(order, self.prefix, strict=False):
            for side in (BEFORE, AFTER):
                self.edges[side][v] = self.boundary[side](v, eliminated)
            self.costs[v] = self._cost(v, self.edges[BEFORE][v], self.edges[AFTER][v])
        self.best = self.total = sum(self.costs)
        self.best_order = self.order[:]

    def _cost(self, v: int, before: Neighbours, after: Neighbours) -> int:
        return self.sizes[v] * self.weigh(before[1]) * self.weigh(after[1])

    def run(self, moves: int, enough: int, end: float, hot: float = HOT) -> int:
        """Cool down in so many moves, unless ``enough`` is reached or the CPU clock shows ``end``; the moves made."""
        unit = self.total / (USUAL * len(self.order))
        unit = unit if self.scaled else max(1.0, unit)
        temperature, rate = hot, math.log(COLD / hot) / moves
        uniform, log, n = self.rng.random, math.log, len(self.order)
        for move in range(moves):
            if not move & 127:
                if self.best <= enough or self.clock.now() > end:
                    return move
                temperature = hot * unit * math.exp(rate * move)
            self.clock.worked(MOVE)
            propose = self._later if uniform() < 0.5 else self._earlier
            farthest = FAR if uniform() < SELDOM else FARTHEST
            proposal = propose(int(uniform() * n), 1 + int(uniform() * farthest))
            if proposal is not None:
                delta = proposal[-1]
                if delta <= 0 or delta < -temperature * log(1.0 - uniform()):
                    self._accept(*proposal)
        return moves

    def _later(self, i: int, passes: int):
        """Let the vertex at i go after the next few of its neighbours; None if it has none left.

        While v stays, its edges to x are replaced by those of x when x goes. The edges of x on the side of v are what
        they are without the elimination of v; those on the other side do not know of v.

        ::

            u --> v --> x --> w        v goes before x: v costs 1·1 (it makes u -> x), x then costs 1·1
                                       v goes after x:  x costs 1·1 (it makes v -> w), v then costs 1·1

        So ``mine``, the edges of v, loses x and gains w; ``back``, the edges of x on its other side, was u and is v.
        """
        v = self.order[i]
        mine, changes, delta, j = [self.edges[BEFORE][v], self.edges[AFTER][v]], [], -self.costs[v], i
        around = both(mine[BEFORE]) | both(mine[AFTER])
        for k in range(i + 1, len(self.order)):
            x = self.order[k]
            if around >> x & 1:
                side = AFTER if both(mine[AFTER]) >> x & 1 else BEFORE
                theirs, back = self.edges[side][x], self.boundary[1 - side](x, self.prefix[k] ^ 1 << v)
                mine[side] = substitute(mine[side], x, theirs)
                cost = self._cost(x, theirs, back)
                changes.append((x, 1 - side, back, cost))
                delta, j, passes = delta + cost - self.costs[x], k, passes - 1
                if not passes:
                    break
                around = both(mine[BEFORE]) | both(mine[AFTER])
        if j == i:
            return None
        cost = self._cost(v, *mine)
        return i, j, (*mine, cost), changes, delta + cost

    def _earlier(self, i: int, passes: int):
        """Let the vertex at i go before the last few vertices that went before it as its neighbours; None without any.

        The edges of v at its new place come from the table. From there on, in each x passed v is replaced by the edges
        that v would have had when x went.
        """
        v, passed = self.order[i], []
        before, after = self.edges
        for k in range(i - 1, -1, -1):
            x = self.order[k]
            if (both(before[x]) | both(after[x])) >> v & 1:
                passed.append(x)
                if len(passed) == passes:
                    break
        if not passed:
            return None
        j = k if len(passed) == passes else self.order.index(passed[-1])
        mine = [boundary(v, self.prefix[j]) for boundary in self.boundary]
        cost = self._cost(v, *mine)
        moved, changes, delta = (*mine, cost), [], cost - self.costs[v]
        for x in reversed(passed):
            side = BEFORE if both(before[x]) >> v & 1 else AFTER  # of x, where v is
            theirs = self.edges[1 - side][x]
            back = substitute(self.edges[side][x], v, mine[side])
            mine[1 - side] = substitute(mine[1 - side], x, theirs)
            cost = self._cost(x, theirs, back)
            changes.append((x, side, back, cost))
            delta += cost - self.costs[x]
        return i, j, moved, changes, delta

    def _accept(self, i: int, j: int, moved, changes, delta: int) -> None:
        v = self.order.pop(i)
        self.order.insert(j, v)
        self.edges[BEFORE][v], self.edges[AFTER][v], self.costs[v] = moved
        for x, side, edges, cost in changes:
            self.edges[side][x], self.costs[x] = edges, cost
        for k in range(min(i, j), max(i, j)):
            self.prefix[k + 1] = self.prefix[k] | 1 << self.order[k]
        self.total += delta
        if self.total < self.best:
            self.best, self.best_order = self.total, self.order[:]
