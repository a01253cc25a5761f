r"""Greedy coloring, and making a coloring better.

The sets of colors that are used in a row are bits of one integer: the first free color of a column is the lowest zero
bit of the union over its rows, so that a greedy coloring takes time proportional to the number of nonzeros, not to
the number of conflicts, which may be its square.
"""

from __future__ import annotations

import time

import numpy as np


def greedy(indptr: list, rows: list, order, n_rows: int) -> np.ndarray:
    """Give each column, in this order, the first color that its rows do not use yet.

    Column j has its nonzeros in ``rows[indptr[j]:indptr[j + 1]]``.

    Reference: Gebremedhin, Manne and Pothen 2005, algorithm 3.2 (greedy partial distance-2 coloring).
    """
    used = [0] * n_rows
    colors = [0] * (len(indptr) - 1)
    for j in order:
        mine = rows[indptr[j] : indptr[j + 1]]
        taken = 0
        for r in mine:
            taken |= used[r]
        bit = ~taken & (taken + 1)
        colors[j] = bit
        for r in mine:
            used[r] |= bit
    lengths: dict = {}
    return np.array([lengths.get(bit) or lengths.setdefault(bit, bit.bit_length()) for bit in colors], np.int64) - 1


def recolor(indptr: list, rows: list, n_rows: int, colors: np.ndarray, lower: int, end: float) -> np.ndarray:
    """Iterated greedy: color again, one color class after the other, in a new order of classes; it never gets worse.

    Reference: Culberson, "Iterated greedy graph coloring and the difficulty landscape" (1992).
    """
    rng, best, k, still = np.random.default_rng(0), colors, 0, 0
    started = time.perf_counter()
    while best.max() + 1 > lower and still < 30:
        sizes = np.bincount(best)
        key = (np.arange(len(sizes))[::-1], -sizes, sizes, rng.permutation(len(sizes)))[k % 4]
        again = greedy(indptr, rows, np.argsort(key[best], kind="stable").tolist(), n_rows)
        still = 0 if again.max() < best.max() else still + 1
        best, k = again, k + 1
        if time.perf_counter() + (time.perf_counter() - started) / k > end:
            break
    return best


def fewer_colors(graph, colors: np.ndarray, lower: int, end: float) -> np.ndarray:
    """Tabu search for a coloring with one color less, again and again until the time is over.

    The last class is spread over the others; then the conflicting vertex and color that leave the fewest conflicts are
    chosen, and the vertex may not go back for a while.

    Reference: Hertz and de Werra, "Using tabu search techniques for graph coloring", Computing 39 (1987).
    """
    rng, best = np.random.default_rng(0), colors
    while best.max() + 1 > lower and best.max() > 0 and graph.shape[0] * (best.max() + 1) <= 2 * 10**6:
        found = _tabu(graph, best, rng, end)
        if found is None:
            break
        best = found
    return best


def _tabu(graph, colors, rng, end):
    n, k = graph.shape[0], int(colors.max())
    current = colors.copy()
    counts = np.zeros((n, k), np.int64)  # neighbours of each vertex that have each color
    last = current == k
    current[last] = rng.integers(0, k, int(last.sum()))
    rows = np.repeat(np.arange(n), np.diff(graph.indptr))
    np.add.at(counts, (rows, current[graph.indices]), 1)
    forbidden = np.zeros((n, k), np.int64)
    step, everyone = 0, np.arange(n)
    while time.perf_counter() < end:
        own = counts[everyone, current]
        bad = np.flatnonzero(own)
        if not bad.size:
            return current
        change = counts[bad] - own[bad, None]
        blocked = (forbidden[bad] > step) & (change + own.sum() // 2 > 0)
        change = np.where(blocked, n, change).astype(float) + rng.random(change.shape) * 0.5
        change[np.arange(bad.size), current[bad]] = 2 * n
        at, to = divmod(int(np.argmin(change)), k)
        v, old = bad[at], current[bad[at]]
        current[v] = to
        forbidden[v, old] = step + int(rng.integers(10)) + bad.size * 3 // 5
        neighbours = graph.indices[graph.indptr[v] : graph.indptr[v + 1]]
        counts[neighbours, old] -= 1
        counts[neighbours, to] += 1
        step += 1
    return None
