r"""Orders in which a greedy coloring visits the vertices.

All work on the conflict graph: two columns conflict if some row has a nonzero in both.

==================  =================================================================================
``natural``         as they are numbered
``largest_first``   most conflicts first (Welsh and Powell 1967)
``smallest_last``   repeatedly put aside the vertex with the fewest conflicts left; last aside comes first
                    (Matula and Beck 1983)
``incidence``       next comes the vertex with the most conflicts among those that came already
``dynamic``         next comes the vertex whose conflicts have the most colors already (saturation, Brélaz 1979)
==================  =================================================================================

References: Coleman and Moré 1983; Gebremedhin, Manne and Pothen, "What color is your Jacobian?", SIAM Review 47 (2005).
"""

from __future__ import annotations

import heapq

import numpy as np

ORDERS = ("natural", "largest_first", "smallest_last", "dynamic", "incidence")


def conflict_graph(matrix):
    """The pairs of columns that share a row: the pattern of AᵀA without its diagonal."""
    graph = (matrix.T @ matrix).tocsr()
    graph.setdiag(False)
    graph.eliminate_zeros()
    return graph


def natural(graph) -> np.ndarray:
    return np.arange(graph.shape[0])


def largest_first(graph) -> np.ndarray:
    return np.argsort(-np.diff(graph.indptr), kind="stable")


def smallest_last(graph) -> np.ndarray:
    degrees = np.diff(graph.indptr).tolist()
    return np.array(_buckets(graph, degrees, -1)[::-1], np.int64)


def incidence(graph) -> np.ndarray:
    return np.array(_buckets(graph, [0] * graph.shape[0], 1), np.int64)


def dynamic(graph) -> np.ndarray:
    """The order is found while coloring: a vertex's key grows when a color is new among its neighbours."""
    indptr, indices = graph.indptr.tolist(), graph.indices.tolist()
    used, colors = [0] * graph.shape[0], [0] * graph.shape[0]

    def grows(v, neighbours):
        bit = ~used[v] & (used[v] + 1)
        colors[v] = bit
        fresh = [w for w in neighbours if not used[w] & bit]
        for w in fresh:
            used[w] |= bit
        return fresh

    return np.array(_by_key(indptr, indices, grows, np.diff(graph.indptr).tolist()), np.int64)


def _buckets(graph, keys: list, step: int) -> list:
    """Repeatedly take the vertex with the least key (``step`` -1) or the greatest (1); its neighbours' keys move so.

    Vertices are kept in stacks by key; entries that are out of date are skipped when they come up.
    """
    indptr, indices, n = graph.indptr.tolist(), graph.indices.tolist(), graph.shape[0]
    stacks: list[list] = [[] for _ in range(max([*keys, *np.diff(graph.indptr).tolist()], default=0) + 1)]
    for v in range(n - 1, -1, -1):
        stacks[keys[v]].append(v)
    order: list[int] = []
    done, at = [False] * n, 0
    while len(order) < n:
        while not stacks[at]:
            at -= step
        v = stacks[at].pop()
        if done[v] or keys[v] != at:
            continue
        done[v] = True
        order.append(v)
        for w in indices[indptr[v] : indptr[v + 1]]:
            if not done[w]:
                keys[w] = key = keys[w] + step
                stacks[key].append(w)
                if (key - at) * step > 0:
                    at = key
    return order


def _by_key(indptr, indices, grows, degrees) -> list:
    """Take the vertex with the greatest key, ties by degree; ``grows`` tells whose keys grow by one."""
    n = len(degrees)
    keys, done, order = [0] * n, [False] * n, []
    heap = [(0, -d, v) for v, d in enumerate(degrees)]
    heapq.heapify(heap)
    while heap:
        key, _, v = heapq.heappop(heap)
        if done[v] or -key != keys[v]:
            continue
        done[v] = True
        order.append(v)
        for w in grows(v, indices[indptr[v] : indptr[v + 1]]):
            if not done[w]:
                keys[w] += 1
                heapq.heappush(heap, (-keys[w], -degrees[w], w))
    return order


def find_order(name: str, graph) -> np.ndarray:
    """The order of this name as a permutation of the vertices."""
    return {
        "natural": natural,
        "largest_first": largest_first,
        "smallest_last": smallest_last,
        "incidence": incidence,
        "dynamic": dynamic,
    }[name](graph)
