r"""Vertex elimination on scalar graphs: what an order costs, the classical orders, and carrying an order out.

Eliminating v joins each predecessor u with each successor w: the product of the two partials is added to the edge
(u, w). When no intermediate vertex is left the edges are the Jacobian. Forward mode eliminates in the order of
evaluation, reverse mode in the opposite order; to find the cheapest order is NP-complete.

Two counts of multiplications:

========  ==================================================================================================
``"all"``   count A: every product is one multiplication, those by the edge into a used output's sink aside
``"unit"``  count U: a product is free if a factor is +1 or -1; the product of two such is such again, unless it is
          added to an edge that is there
========  ==================================================================================================

In both, an edge is *free* or not, and eliminating v costs (its edges in that are not free) x (those out). The edges
that there are, and those that are free, depend only on the set S of eliminated vertices: (u, w) is an edge iff some
path leads from u to w through S alone, and it is free iff that is the only one and all its edges are.

References: Griewank and Reese, *On the calculation of Jacobian matrices by the Markowitz rule*, in: Automatic
Differentiation of Algorithms, SIAM 1991, 126-135; Naumann, *Optimal accumulation of Jacobian matrices by elimination
methods on the dual computational graph*, Math. Program. 99 (2004) 399-421; Naumann, *Optimal Jacobian accumulation is
NP-complete*, Math. Program. 112 (2008) 427-441; Griewank and Walther, *Evaluating Derivatives*, 2nd ed., chapters 9
and 10; Lohoff and Neftci, *Optimizing automatic differentiation with deep reinforcement learning*, NeurIPS 2024.
"""

from __future__ import annotations

import functools
import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from admodes.planner.elimination.graph import ScalarGraph
from admodes.planner.elimination.vertex_elimination import Elimination

Rule = Literal["all", "unit"]
Neighbours = tuple[int, int]  # the free ones and the others, as bit masks


def bits(members: int) -> Iterator[int]:
    """The members of a set that is given as a bit mask, ascending.

    >>> from admodes.planner.elimination.orders import bits
    >>> list(bits(0b10110))
    [1, 2, 4]
    """
    while members:
        low = members & -members
        yield low.bit_length() - 1
        members ^= low


def mask(vertices: Iterable[int]) -> int:
    """A set of vertices as a bit mask."""
    return functools.reduce(lambda found, v: found | 1 << v, vertices, 0)


def both(edges: Neighbours) -> int:
    """All neighbours, whether the edge is free or not."""
    return edges[0] | edges[1]


def join(edges: Neighbours, by: Neighbours) -> Neighbours:
    """Add edges to edges: one that is added to another is not free.

    >>> from admodes.planner.elimination.orders import join
    >>> join((0b011, 0b100), (0b010, 0b001))
    (0, 7)
    """
    dear = edges[1] | by[1] | (edges[0] & by[0])
    return (edges[0] | by[0]) & ~dear, dear


def substitute(edges: Neighbours, v: int, by: Neighbours) -> Neighbours:
    """``edges`` of a vertex after its neighbour v, one of them, has been eliminated, whose own edges were ``by``."""
    rest = ~(1 << v)
    if edges[1] >> v & 1:
        by = (0, by[0] | by[1])
    return join((edges[0] & rest, edges[1] & rest), by)


def weigher(sizes: Sequence[int] | None) -> Callable[[int], int]:
    """The size of a set of vertices: how many they are, or the sum of their sizes if they are arrays."""
    if sizes is None:
        return int.bit_count
    return functools.lru_cache(maxsize=1 << 16)(lambda members: sum(sizes[v] for v in bits(members)))


class Working:
    """A graph that is being eliminated: the predecessors and successors of each vertex as bit masks."""

    def __init__(self, graph: ScalarGraph, rule: Rule = "all", sizes: Sequence[int] | None = None):
        self.weigh, self.sizes = weigher(sizes), sizes or (1,) * graph.vertices
        self.predecessors: list[Neighbours] = [(0, 0)] * graph.vertices
        self.successors: list[Neighbours] = [(0, 0)] * graph.vertices
        for u, w, free in free_edges(graph, rule):
            self.predecessors[w] = join(self.predecessors[w], _edge(u, free))
            self.successors[u] = join(self.successors[u], _edge(w, free))

    def cost(self, v: int) -> int:
        """The multiplications that the elimination of v takes now."""
        return self.sizes[v] * self.weigh(self.predecessors[v][1]) * self.weigh(self.successors[v][1])

    def degree(self, v: int) -> int:
        """The Markowitz degree: the number of predecessors times that of successors."""
        return self.sizes[v] * self.weigh(both(self.predecessors[v])) * self.weigh(both(self.successors[v]))

    def eliminate(self, v: int) -> int:
        """Eliminate v; returns the number of multiplications."""
        cost, before, after = self.cost(v), self.predecessors[v], self.successors[v]
        for w in bits(both(after)):
            self.predecessors[w] = substitute(self.predecessors[w], v, before)
        for u in bits(both(before)):
            self.successors[u] = substitute(self.successors[u], v, after)
        return cost


def _edge(v: int, free: bool) -> Neighbours:
    return (1 << v, 0) if free else (0, 1 << v)


def free_edges(graph: ScalarGraph, rule: Rule) -> Iterator[tuple[int, int, bool]]:
    """(source, target, whether multiplying by it is free) of each edge."""
    sinks = set(graph.sinks)
    for u, w, value in graph.edges:
        yield u, w, w in sinks or (rule == "unit" and value in (1, -1))


def multiplications(
    graph: ScalarGraph, order: Sequence[int], rule: Rule = "all", sizes: Sequence[int] | None = None
) -> int:
    """The number of multiplications of an elimination order.

    If the vertices are arrays of ``sizes`` entries and the edges dense matrices, v costs |v| (sum of |u|) (sum of |w|).

    Raises:
      ValueError: ``order`` is not a permutation of the intermediate vertices.

    >>> from admodes.planner.elimination.orders import multiplications
    >>> from admodes.planner.elimination.graph import ScalarGraph
    >>> edges = [(0, 2, None), (1, 2, None), (2, 3, None), (3, 4, None)]    # y = f(g(h(a, b)))
    >>> tall = ScalarGraph(5, (0, 1), (4,), tuple(edges))
    >>> multiplications(tall, [2, 3]), multiplications(tall, [3, 2])        # forward, reverse
    (4, 3)
    """
    check_order(graph, order)
    working = Working(graph, rule, sizes)
    return sum(map(working.eliminate, order))


def check_order(graph: ScalarGraph, order: Sequence[int]) -> None:
    """Raise ValueError unless ``order`` names each intermediate vertex once."""
    if sorted(order) != sorted(graph.intermediates):
        raise ValueError("an elimination order must name each intermediate vertex of the graph exactly once.")


def forward(graph: ScalarGraph) -> tuple[int, ...]:
    """The order of evaluation: forward mode, sparsely."""
    return graph.intermediates


def reverse(graph: ScalarGraph) -> tuple[int, ...]:
    """The opposite order: reverse mode, sparsely."""
    return graph.intermediates[::-1]


def markowitz(graph: ScalarGraph, *, latest: bool = False) -> tuple[int, ...]:
    """Always the vertex of lowest Markowitz degree; among equals the first in the order of evaluation, or the last."""
    return greedy(graph, Working.degree, latest=latest)


def relative_markowitz(graph: ScalarGraph, *, latest: bool = False) -> tuple[int, ...]:
    """Always the vertex of lowest degree less (inputs it depends on) x (outputs that depend on it).

    The product is what its elimination costs at the latest: it is the price of waiting (Griewank and Walther, 9.3).
    """
    working = Working(graph)
    inputs, outputs = mask(graph.inputs), mask(graph.outputs)
    causes = closure(graph.topological, working.predecessors)
    effects = closure(graph.topological[::-1], working.successors)
    last = [(c & inputs).bit_count() * (e & outputs).bit_count() for c, e in zip(causes, effects, strict=True)]
    return greedy(graph, lambda working, v: working.degree(v) - last[v], latest=latest)


def greedy(graph: ScalarGraph, key: Callable[[Working, int], float], *, latest: bool = False) -> tuple[int, ...]:
    """Always the vertex of lowest ``key(working, v)``; among equals the first, or the last, in evaluation order."""
    working, order = Working(graph), []
    rank = {v: k for k, v in enumerate(graph.intermediates[::-1] if latest else graph.intermediates)}
    keys = {v: key(working, v) for v in rank}
    heap = [(found, rank[v], v) for v, found in keys.items()]  # with entries that are out of date
    heapq.heapify(heap)
    while heap:
        found, _, v = heapq.heappop(heap)
        if keys.get(v) != found:
            continue
        del keys[v]
        order.append(v)
        touched = bits(both(working.predecessors[v]) | both(working.successors[v]))
        working.eliminate(v)
        for x in touched:
            if x in keys:
                keys[x] = key(working, x)
                heapq.heappush(heap, (keys[x], rank[x], x))
    return tuple(order)


def closure(order: Sequence[int], neighbours: Sequence[Neighbours]) -> list[int]:
    """All vertices that each vertex leads to along ``neighbours``, as bit masks; ``order`` has these before it."""
    reach = [0] * len(neighbours)
    for v in order:
        direct = both(neighbours[v])
        for u in bits(direct):
            direct |= reach[u]
        reach[v] = direct
    return reach


ORDERS: dict[str, Callable[[ScalarGraph], tuple[int, ...]]] = {
    "forward": forward,
    "reverse": reverse,
    "lowest Markowitz": markowitz,
    "lowest Markowitz, latest": lambda graph: markowitz(graph, latest=True),
    "lowest relative Markowitz": relative_markowitz,
    "lowest relative Markowitz, latest": lambda graph: relative_markowitz(graph, latest=True),
}


@dataclass(frozen=True)
class Counted:
    """An elimination order and the number of multiplications it takes."""

    method: str
    order: tuple[int, ...]
    multiplications: int


def classical_orders(graph: ScalarGraph, rule: Rule = "all", sizes: Sequence[int] | None = None) -> tuple[Counted, ...]:
    """The orders of :data:`ORDERS`, counted."""
    orders = ((method, find(graph)) for method, find in ORDERS.items())
    return tuple(Counted(method, order, multiplications(graph, order, rule, sizes)) for method, order in orders)


def accumulate(graph: ScalarGraph, order: Sequence[int], values: Sequence) -> dict[tuple[int, int], Any]:
    """The Jacobian, by eliminating in this order: (output, input) -> the derivative, where it is not zero.

    ``values`` are the partials on ``graph.edges``, arrays (traced or not) or Python numbers. Products of numbers are
    formed here and now, and multiplying by 1 or -1 costs nothing or a sign.

    >>> from admodes.planner.elimination.orders import accumulate
    >>> from admodes.planner.elimination.graph import ScalarGraph
    >>> chain = ScalarGraph(3, (0,), (2,), ((0, 1, None), (1, 2, None)))
    >>> accumulate(chain, [1], [3.0, 5.0])
    {(2, 0): 15.0}
    """
    check_order(graph, order)
    elimination = Elimination(lambda outer, inner: multiply(inner, outer), lambda w, there, more: there + more)
    for v in range(graph.vertices):
        elimination.vertex(v)
    for (u, w, _), value in zip(graph.edges, values, strict=True):
        elimination.add(u, w, value)
    for v in order:
        elimination.eliminate(v)
    return {(w, u): value for u in graph.inputs for w, value in elimination.successors[u].items()}


def multiply(x, y):
    """x y, without a multiplication if one of them is the number 1 or -1."""
    for a, b in ((x, y), (y, x)):
        if isinstance(a, (int, float)) and a in (1, -1):
            return b if a == 1 else -b
    return x * y


def assemble(entries: Mapping[tuple[int, int], Any], outputs: Sequence, inputs: Sequence) -> list[list]:
    """The entries as rows of a matrix; an index that is ``None`` or a pair that is missing is a zero."""
    return [[entries.get((w, u), 0.0) for u in inputs] for w in outputs]
