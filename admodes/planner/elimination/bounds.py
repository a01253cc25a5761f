r"""Lower bounds: the costs that no elimination order can go below.

At the moment of its elimination the predecessors of v separate v from the inputs: every path from an input enters the
eliminated vertices through one of them, or is an edge from one. So they are at least as many as the smallest vertex
cut between the inputs and v, which may contain inputs but not v; the same holds for successors and outputs, and

    multiplications >= sum over v of  mincut(inputs -> v) * mincut(v -> outputs).

A neighbour can be joined by a free edge only if a path of free edges leads to it: such vertices are in the cut for
nothing. By Menger's theorem a cut is a maximal flow in the graph in which each vertex u is split into u_in -> u_out
with its size as capacity.

References: Ford and Fulkerson, *Flows in Networks*, Princeton 1962; Naumann, *Optimal accumulation of Jacobian
matrices by elimination methods on the dual computational graph*, Math. Program. 99 (2004) 399-421.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from admodes.planner.elimination.graph import ScalarGraph
from admodes.planner.elimination.orders import Rule, bits, closure, free_edges, mask
from admodes.program.agreement import Clock

UNLIMITED = 2**30
# Steps of the clock for each edge and vertex that a pair of cuts takes. Chosen, as the rounds of a Python loop. Four
# times off, the bounds get so much more or less of the time of a search.
CUT = 20


def lower_bound(
    graph: ScalarGraph,
    rule: Rule = "all",
    sizes: Sequence[int] | None = None,
    *,
    seconds: float = 2.0,
    clock: Clock | None = None,
) -> int:
    """A proven lower bound of the multiplications of every elimination order.

    ``sizes`` are the numbers of entries, if the vertices are arrays. Vertices for whose cuts there is no time left in
    ``seconds`` of CPU time count as 0.

    >>> from admodes.planner.elimination.bounds import lower_bound
    >>> from admodes.planner.elimination.graph import ScalarGraph
    >>> edges = [(0, 2, None), (1, 2, None), (2, 3, None), (3, 4, None)]    # y = f(g(h(a, b)))
    >>> lower_bound(ScalarGraph(5, (0, 1), (4,), tuple(edges)))             # y = f(...): 1 x 1, a and b: 2 x 1
    3
    """
    edges = list(free_edges(graph, rule))
    weights = np.ones(graph.vertices, np.int32) if sizes is None else np.asarray(sizes, np.int32)
    before = _Cuts(edges, graph.inputs, graph.topological, weights)
    after = _Cuts([(w, u, free) for u, w, free in edges], graph.outputs, graph.topological[::-1], weights)
    clock = clock or Clock(time.process_time)
    total, end = 0, clock.now() + seconds
    for v in graph.intermediates:
        if clock.now() > end:
            break
        clock.worked(CUT * (len(edges) + graph.vertices))
        into = before.smallest(v)
        total += int(weights[v]) * into * after.smallest(v) if into else 0
    return total


class _Cuts:
    """The smallest cuts between ``sources`` and each vertex, along ``edges``."""

    def __init__(self, edges, sources: Sequence[int], order: Sequence[int], weights: np.ndarray):
        from scipy.sparse import csr_array  # slow to import: only on first use

        n = len(weights)
        ends = np.array([(u, w) for u, w, _ in edges], np.int32).reshape(-1, 2)
        vertices, sources_ = np.arange(n, dtype=np.int32), np.array(sources, np.int32)
        rows = np.concatenate([2 * vertices, 2 * ends[:, 0] + 1, np.full(len(sources), 2 * n)])  # u_in = 2u, u_out
        cols = np.concatenate([2 * vertices + 1, 2 * ends[:, 1], 2 * sources_])
        numbers = np.arange(1, len(rows) + 1, dtype=np.int32)
        self.network = csr_array((numbers, (rows, cols)), shape=(2 * n + 1, 2 * n + 1))
        places = np.argsort(self.network.data)  # where each edge of the list went
        self.within = places[:n]
        self.capacity = np.full(len(rows), UNLIMITED, np.int32)
        self.capacity[self.within] = weights
        neighbours = [0] * n
        for u, w, free in edges:
            neighbours[w] |= (1 << u) * free
        self.free = closure(order, [(found, 0) for found in neighbours])
        self.reached = closure(order, _all_neighbours(edges, n))
        self.sources = mask(sources)

    def smallest(self, v: int) -> int:
        """The weight of the smallest cut between the sources and v."""
        from scipy.sparse.csgraph import maximum_flow

        if not self.reached[v] & self.sources:
            return 0
        self.network.data[:] = self.capacity
        self.network.data[self.within[list(bits(self.free[v]))]] = 0
        return int(maximum_flow(self.network, self.network.shape[0] - 1, 2 * v).flow_value)


def _all_neighbours(edges, n: int) -> list[tuple[int, int]]:
    found = [0] * n
    for u, w, _ in edges:
        found[w] |= 1 << u
    return [(neighbours, 0) for neighbours in found]
