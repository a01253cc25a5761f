r"""Greedy coloring, and making a coloring better.

The sets of colors that are used in a row are bits of one integer: the first free color of a column is the lowest zero
bit of the union over its rows, so that a greedy coloring takes time proportional to the number of nonzeros, not to
the number of conflicts, which may be its square.
"""

from __future__ import annotations

import random

import numpy as np

from admodes.program.agreement import Clock

# Steps without a gain after which the search for fewer colors ends. Chosen. More takes longer at the end, fewer may
# stop a step before a gain.
PATIENCE = 1000
# Edges beyond which setting up the search takes longer than the time that there is. Chosen. Beyond, the greedy
# coloring stands.
MOST_EDGES = 2 * 10**6


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
    return _numbers(colors)


def first_fit(indptr: list, near: list, order) -> np.ndarray:
    """Give each vertex of a graph, in this order, the first color that no neighbour has.

    Vertex v has the neighbours ``near[indptr[v]:indptr[v + 1]]``, itself not among them.
    """
    colors = [0] * (len(indptr) - 1)
    for v in order:
        taken = 0
        for w in near[indptr[v] : indptr[v + 1]]:
            taken |= colors[w]
        colors[v] = ~taken & (taken + 1)
    return _numbers(colors)


def _numbers(bits: list) -> np.ndarray:
    """The place of the bit that is set, in each of these integers."""
    lengths: dict = {}
    return np.array([lengths.get(bit) or lengths.setdefault(bit, bit.bit_length()) for bit in bits], np.int64) - 1


def greedy_steps(indptr: list) -> int:
    """The cost of a greedy coloring (see :class:`~admodes.program.agreement.Clock`)."""
    return 2 * indptr[-1] + 5 * len(indptr)


def recolor(
    indptr: list, rows: list, n_rows: int, colors: np.ndarray, lower: int, end: float, clock: Clock
) -> np.ndarray:
    """Iterated greedy: color again, one color class after the other, in a new order of classes; it never gets worse.

    Reference: Culberson, "Iterated greedy graph coloring and the difficulty landscape" (1992).
    """
    rng, best, k, still = np.random.default_rng(0), colors, 0, 0
    started = clock.now()
    while best.max() + 1 > lower and still < 30:
        sizes = np.bincount(best)
        key = (-np.arange(len(sizes)), -sizes, sizes, rng.permutation(len(sizes)))[k % 4]
        place = np.argsort(np.argsort(key, kind="stable"))  # classes of one size must not be mixed
        again = greedy(indptr, rows, np.argsort(place[best], kind="stable").tolist(), n_rows)
        still = 0 if again.max() < best.max() else still + 1
        best, k = again, k + 1
        clock.worked(greedy_steps(indptr))
        if clock.now() + (clock.now() - started) / k > end:
            break
    return best


def fewer_colors(
    graph, colors: np.ndarray, lower: int, end: float, clock: Clock, start: np.ndarray | None = None
) -> np.ndarray:
    """Tabu search for a coloring with one color less, again and again until the time is over.

    It begins at ``start``, which may have conflicts, or else by spreading the last class over the others. Then the
    conflicting vertex and color that leave the fewest conflicts are chosen, and the vertex may not go back for a while.
    Every now and then it begins anew, each time with twice the patience.

    Reference: Hertz and de Werra, "Using tabu search techniques for graph coloring", Computing 39 (1987).
    """
    rng, best = random.Random(0), colors
    while best.max() + 1 > lower and best.max() > 0 and graph.nnz + graph.shape[0] * best.max() <= MOST_EDGES:
        found, patience = None, PATIENCE
        while found is None and clock.now() < end:
            found = _tabu(graph, best if start is None else start, int(best.max()), rng, patience, end, clock)
            patience *= 2
        if found is None:
            break
        best = found
    return best


def _tabu(graph, colors, k: int, rng: random.Random, steps: int, end: float, clock: Clock):
    """A coloring with k colors, or None when so many steps are made or the time is over."""
    n = graph.shape[0]
    indptr, indices = graph.indptr.tolist(), graph.indices.tolist()
    near = [indices[indptr[v] : indptr[v + 1]] for v in range(n)]
    current = [c if c < k else rng.randrange(k) for c in colors.tolist()]
    counts = [[0] * k for _ in range(n)]  # neighbours of each vertex that have each color
    for v, row in enumerate(counts):
        for w in near[v]:
            row[current[w]] += 1
    bad = {v for v in range(n) if counts[v][current[v]]}
    conflicts = fewest = sum(counts[v][current[v]] for v in bad) // 2
    forbidden = [[0] * k for _ in range(n)]
    clock.worked(graph.nnz + n)
    step = 0
    while bad:
        if step == steps or (not step % 64 and clock.now() > end):
            return None
        clock.worked(len(bad) * k)
        least, ties, move = n, 0, None
        for v in bad:
            row, until, old = counts[v], forbidden[v], current[v]
            most = least + row[old]
            for c in range(k):
                if row[c] > most or c == old:
                    continue
                change = row[c] - row[old]
                if until[c] > step and conflicts + change >= fewest:
                    continue
                ties = ties + 1 if change == least else 1
                if rng.random() * ties < 1:
                    move = v, c
                least, most = change, row[c]
        step += 1
        if move is None:
            continue
        v, new = move
        old, current[v] = current[v], new
        conflicts += least
        fewest = min(fewest, conflicts)
        forbidden[v][old] = step + rng.randrange(10) + len(bad) * 3 // 5
        for w in near[v]:
            row, mine = counts[w], current[w]
            row[old] -= 1
            row[new] += 1
            if mine == new:
                bad.add(w)
            elif mine == old and not row[old]:
                bad.discard(w)
        if not counts[v][new]:
            bad.discard(v)
    return np.array(current, np.int64)
