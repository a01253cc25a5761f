r"""Coloring symmetric matrices: an entry H[u, v] may be found in row u or, mirrored, in row v.

* A *star coloring* is proper, and no path of four vertices has two colors only. Then each entry is alone with its
  color in one of the two rows, where it is read off.
* An *acyclic coloring* is proper, and no cycle has two colors only. Then the entries between two colors form trees,
  and are found by substitution from the leaves inwards. It needs fewer colors.

References: Coleman and Moré 1984; Gebremedhin, Tarafdar, Manne and Pothen, "New acyclic and star coloring algorithms
with application to computing Hessians", SIAM J. Sci. Comput. 29 (2007).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from admodes.linear.pattern import SparsityPattern
from admodes.program.agreement import Clock
from admodes.sparse.columns import LARGE, ORDER, color_columns
from admodes.sparse.orders import find_order
from admodes.sparse.result import NEUTRAL, Coloring

STRUCTURES = ("star", "acyclic")
# Passes of recoloring that find no fewer colors, after which it ends. Chosen. More takes longer, fewer may lose a
# color.
PATIENCE = 100
# Steps of the clock for each edge that a star or acyclic coloring takes. Chosen, as ORDER of ``columns.py`` is.
STAR = 10
# Colors above the bound: a large matrix is left with a column coloring that has at most so many. Chosen. More keep
# products that a star coloring would save.
SLACK = 3


def symmetric(pattern: SparsityPattern, orders, budget: float, shapes, structure: str) -> Coloring:
    """The best star (or acyclic) coloring over the orders; pattern must be symmetric."""
    if structure not in STRUCTURES:
        raise ValueError(f"the structure of a symmetric coloring is 'star' or 'acyclic', not {structure!r}")
    matrix = pattern.matrix
    if matrix.shape[0] != matrix.shape[1] or (matrix != matrix.T).nnz:
        raise ValueError("a symmetric coloring needs a symmetric pattern (see hessian_sparsity)")
    clock = Clock()
    end = clock.now() + budget
    diagonal = matrix.diagonal()
    graph = matrix.copy()
    graph.setdiag(False)
    graph.eliminate_zeros()
    lower = _lower_bound(graph, diagonal, structure)
    best: Any = None
    name = ""
    if structure == "star":  # a column coloring determines every entry, too
        best, name, _ = color_columns(matrix, orders, budget / 4, shapes, clock=clock)
    if best is None or graph.shape[0] < LARGE or best.max() + 1 > lower + SLACK:
        color = star_colors if structure == "star" else acyclic_colors
        for which in orders:
            colors = color(graph, find_order(which, graph).tolist())
            clock.worked((ORDER + STAR) * graph.nnz)
            if best is None or colors.max(initial=-1) < best.max(initial=-1):
                best, name = colors, which
            if best.max(initial=-1) + 1 <= lower or (clock.now() > end and len(orders) > 1):
                break
        better = _recolored(graph, color, best, lower, end, clock)
        if better.max(initial=-1) < best.max(initial=-1):
            best, name = better, name + ", recolored"
    if structure == "star":
        best = without_idle_colors(graph, diagonal, best)
    return Coloring(pattern, "symmetric", best, None, name, lower, substitution=structure == "acyclic")


def _recolored(graph, color, colors, lower: int, end: float, clock: Clock) -> np.ndarray:
    """Iterated greedy: colored again and again, color by color in random order, as long as it takes no more of them.

    Reference: Culberson, *Iterated greedy graph coloring and the difficulty landscape*, TR 92-07, University of
    Alberta (1992).
    """
    rng, seconds, left = np.random.default_rng(0), 0.0, PATIENCE
    best = colors
    while best.max(initial=-1) + 1 > lower and left and (start := clock.now()) + seconds < end:
        rank = rng.permutation(best.max() + 2)[best] * graph.shape[0] + rng.permutation(graph.shape[0])
        found = color(graph, np.argsort(rank).tolist())
        left = PATIENCE if found.max() < best.max() else left - 1
        best = found if found.max() <= best.max() else best
        clock.worked(STAR * graph.nnz + graph.shape[0])
        seconds = clock.now() - start
    return best


def _lower_bound(graph, diagonal, structure: str) -> int:
    """Two colors induce a forest, so |E| ≤ Σ (nᵢ + nⱼ - 1) < (k - 1) n; a path of four vertices needs three colors.

    Where the diagonal has zeros, a star coloring can do with neutral vertices; then only the unknowns are counted.
    """
    n, edges = graph.shape[0], graph.nnz // 2
    if not edges or (structure == "star" and not diagonal.all()):
        return math.ceil((edges + int(diagonal.sum())) / max(n, 1))
    degrees = np.diff(graph.indptr)
    inner = np.repeat(degrees, degrees) >= 2
    path = bool((inner & (degrees[graph.indices] >= 2)).any())
    return max(math.ceil(edges / n) + 1, 3 if path and structure == "star" else 2)


def star_colors(graph, order) -> np.ndarray:
    """Greedy star coloring, in time proportional to the number of edges times the number of colors.

    ``single[x][c]`` is the neighbour of x with color c, or -1 if there are several: x is a hub of c then, and its
    color is in ``hubs[w]`` for each of these neighbours w. A vertex v must not get the color of a neighbour w; nor that
    of a hub of w's color next to w (v would end a path of four); nor, if v is a hub of w's color itself, that of a
    neighbour of w (v would be inside one).
    """
    indptr, indices = graph.indptr.tolist(), graph.indices.tolist()
    n = graph.shape[0]
    colors = [-1] * n
    single: list[dict] = [{} for _ in range(n)]
    hubs: list[set] = [set() for _ in range(n)]
    for v in order:
        own = single[v]
        colored = [w for w in indices[indptr[v] : indptr[v + 1]] if colors[w] >= 0]
        forbidden = set(own)
        for w in colored:
            forbidden |= single[w].keys() if own[colors[w]] < 0 else hubs[w]
        color = 0
        while color in forbidden:
            color += 1
        colors[v] = color
        for w in colored:
            if own[colors[w]] < 0:
                hubs[w].add(color)
        for w in indices[indptr[v] : indptr[v + 1]]:
            other = single[w].setdefault(color, v)
            if other != v:
                single[w][color] = -1
                if colors[w] >= 0:
                    hubs[v].add(colors[w])
                    if other >= 0:
                        hubs[other].add(colors[w])
    return np.array(colors, np.int64)


def acyclic_colors(graph, order) -> np.ndarray:
    """Greedy acyclic coloring: v may get color c unless two neighbours, of one color d, are in one tree of c and d."""
    indptr, indices = graph.indptr.tolist(), graph.indices.tolist()
    n = graph.shape[0]
    colors = [-1] * n
    parent: dict = {}

    def root(node):
        while node in parent:
            up = parent[node]
            if up in parent:
                parent[node] = parent[up]
            node = up
        return node

    for v in order:
        groups: dict[int, list] = {}
        for w in indices[indptr[v] : indptr[v + 1]]:
            if colors[w] >= 0:
                groups.setdefault(colors[w], []).append(w)
        several = [(d, ws) for d, ws in groups.items() if len(ws) > 1]
        color = 0
        while color in groups or any(_meet(root, color, d, ws) for d, ws in several):
            color += 1
        colors[v] = color
        for d, ws in groups.items():
            pair = (color, d) if color < d else (d, color)
            for w in ws:
                a, b = root((pair, v)), root((pair, w))
                if a != b:
                    parent[a] = b
    return np.array(colors, np.int64)


def _meet(root, c, d, vertices) -> bool:
    """True if two of the vertices are in one tree of the colors c and d."""
    pair = (c, d) if c < d else (d, c)
    return len({root((pair, w)) for w in vertices}) < len(vertices)


def alone(graph, colors) -> np.ndarray:
    """For each stored entry (u, v): whether v is the only neighbour of u with its color."""
    rows = np.repeat(np.arange(graph.shape[0], dtype=np.int64), np.diff(graph.indptr))
    keys = rows * (int(colors.max(initial=-1)) + 2) + colors[graph.indices] + 1
    _, place, counts = np.unique(keys, return_inverse=True, return_counts=True)
    return (counts[place] == 1) & (colors[graph.indices] >= 0)


def without_idle_colors(graph, diagonal, colors) -> np.ndarray:
    """Drop the colors (make their vertices neutral) that no entry needs to be read from.

    The entry (u, v) is read from the product of the color of v, or of u: a cover of the entries by colors, found
    greedily. Diagonal entries need the color of their own vertex.
    """
    k = int(colors.max(initial=-1)) + 1
    if not k:
        return colors
    rows = np.repeat(np.arange(graph.shape[0]), np.diff(graph.indptr))
    by_column = alone(graph, colors)
    mirror = _mirror(graph, by_column)
    upper = rows < graph.indices
    first, second = colors[graph.indices][upper], colors[rows][upper]
    can_first, can_second = by_column[upper], mirror[upper]
    needed = np.zeros(k, bool)
    needed[colors[diagonal & (colors >= 0)]] = True
    needed[first[~can_second]] = True
    needed[second[~can_first]] = True
    either = can_first & can_second
    pairs = np.stack(np.divmod(np.unique(first[either] * k + second[either]), k))
    while True:
        pairs = pairs[:, ~needed[pairs].any(axis=0)]
        if not pairs.size:
            break
        needed[np.argmax(np.bincount(pairs.ravel(), minlength=k))] = True
    new = np.where(needed, np.cumsum(needed) - 1, NEUTRAL)
    return np.where(colors >= 0, new[colors], NEUTRAL)


def _mirror(graph, marks) -> np.ndarray:
    """The marks of (v, u) at the place of (u, v)."""
    from scipy.sparse import csr_matrix

    numbers = csr_matrix((np.arange(1, graph.nnz + 1), graph.indices, graph.indptr), shape=graph.shape)
    return marks[numbers.T.tocsr().data - 1]
