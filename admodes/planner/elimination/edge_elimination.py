r"""Edge elimination: a vertex that goes in parts, with some of its edges now and with the others later.

To eliminate the edge (u, v) at its end is to join u with each successor of v while v keeps its other predecessors; at
its start, to join v with the predecessors of u alone. Both are vertex eliminations in a graph in which the vertex is
split: a copy takes over the one edge, has all the edges on the other side as well, and is eliminated by itself. So
what searches orders of vertices searches these too. On most graphs they save nothing; on the lion graph of Naumann
they take 11 multiplications where every order of vertices takes 12.

References: Naumann, *Optimal accumulation of Jacobian matrices by elimination methods on the dual computational
graph*, Math. Program. 99 (2004) 399-421; Griewank and Walther, *Evaluating Derivatives*, 2nd ed., section 9.2.
"""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass

from admodes.planner.elimination.bounds import lower_bound
from admodes.planner.elimination.graph import ScalarGraph
from admodes.planner.elimination.orders import Rule
from admodes.planner.elimination.search import COLD, EXACT, GREEDY, Annealer, Found
from admodes.program.agreement import Clock

# Moves of the annealing after a split. Chosen. Fewer judge a split too early; more try fewer splits in the same time.
MOVES = 500


@dataclass(frozen=True)
class Split:
    """A graph some of whose vertices are copies: ``origin[v]`` is the vertex that v was split from, or v itself."""

    graph: ScalarGraph
    origin: tuple[int, ...]

    @staticmethod
    def none(graph: ScalarGraph) -> Split:
        return Split(graph, tuple(range(graph.vertices)))

    def off(self, u: int, w: int, v: int) -> Split:
        """A copy of v, an end of the edge (u, w), takes over this edge; v keeps its others on that side.

        >>> from admodes.planner.elimination.edge_elimination import Split
        >>> from admodes.planner.elimination.graph import ScalarGraph
        >>> edges = (0, 2, None), (1, 2, None), (2, 3, None)
        >>> Split.none(ScalarGraph(4, (0, 1), (3,), edges)).off(0, 2, 2).graph.edges
        ((0, 4, None), (1, 2, None), (2, 3, None), (4, 3, None))
        """
        copy, edges = self.graph.vertices, []
        for a, b, value in self.graph.edges:
            if (a, b) == (u, w):
                edges.append((copy, b, value) if a == v else (a, copy, value))
                continue
            edges.append((a, b, value))
            if v == w and a == v:
                edges.append((copy, b, value))
            if v == u and b == v:
                edges.append((a, copy, value))
        graph = dataclasses.replace(self.graph, vertices=copy + 1, edges=tuple(edges))
        return Split(graph, (*self.origin, self.origin[v]))

    def single(self) -> Iterator[tuple[int, int, int]]:
        """The edges (u, w) to eliminate at their end v, those aside that are all that v has on a side."""
        into, out = [0] * self.graph.vertices, [0] * self.graph.vertices
        for u, w, _ in self.graph.edges:
            into[w], out[u] = into[w] + 1, out[u] + 1
        for u, w, _ in self.graph.edges:
            if into[w] > 1 and out[w]:
                yield u, w, w
            if out[u] > 1 and into[u]:
                yield u, w, u


def search_edges(graph: ScalarGraph, found: Found, rule: Rule = "all", *, seconds: float = 1.0, seed: int = 0):
    """Look for edge eliminations that are cheaper than an order of vertices: (:class:`Split`, order in its graph).

    Edges are split off one at a time, each kept if a short annealing then finds an order that is cheaper.

    Args:
      graph: the vertices to eliminate are ``graph.intermediates``.
      found: the order of vertices to beat; it comes back, with the graph as it is, if nothing is cheaper.
      rule: how multiplications are counted (:mod:`admodes.planner.elimination.orders`).
      seconds: CPU time.
      seed: of the random numbers.

    >>> from admodes.planner.elimination.edge_elimination import search_edges
    >>> from admodes.planner.elimination.graph import ScalarGraph
    >>> from admodes.planner.elimination.search import search
    >>> ends = (0, 2), (0, 6), (0, 7), (1, 2), (1, 4), (1, 5), (2, 3), (2, 5), (3, 4), (3, 5), (3, 6), (3, 7)
    >>> lion = ScalarGraph(8, (0, 1), (4, 5, 6, 7), tuple((u, w, None) for u, w in ends))
    >>> vertices = search(lion, seconds=0.1)
    >>> split, edges = search_edges(lion, vertices)
    >>> vertices.multiplications, edges.multiplications, split.origin[8:]
    (12, 11, (3,))
    """
    clock, rng = Clock(time.process_time), random.Random(seed)
    start = clock.now()
    split, end = Split.none(graph), start + seconds
    choices = split.single()
    small = len(graph.intermediates) <= EXACT  # the bound of these holds for orders of vertices only
    bound = lower_bound(graph, rule) if small else found.lower_bound
    while found.multiplications > bound and clock.now() < end:
        edge = next(choices, None)
        if edge is None:
            break
        parted, at = split.off(*edge), found.order.index(edge[-1])
        annealer = Annealer(parted.graph, rule, None, rng, clock)
        clock.worked(GREEDY * parted.graph.vertices)
        annealer.restart((*found.order[:at], parted.graph.vertices - 1, *found.order[at:]))
        annealer.run(MOVES, bound, end, hot=2 * COLD)
        if annealer.best < found.multiplications:
            split, choices = parted, parted.single()
            took = found.seconds + clock.now() - start
            order = tuple(annealer.best_order)
            found = Found("simulated annealing of edges", order, annealer.best, bound, took)
    return split, found
