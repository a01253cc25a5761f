"""Coloring the columns of a matrix: greedy in several orders, by arithmetic on grids, and recolored.

Columns that share no row can have one color: the entry of their sum in a row belongs to the one that has a nonzero
there. The rows of a matrix are colored as the columns of its transpose.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from admodes.program.agreement import Clock
from admodes.sparse.greedy import fewer_colors, greedy, greedy_steps, recolor
from admodes.sparse.orders import conflict_graph, find_order
from admodes.sparse.result import NEUTRAL
from admodes.sparse.stencils import lattice_colors, seamed_colors

# Conflicts of columns, beyond which their graph is not formed: natural order and recoloring only. Chosen, for its
# memory. Four times more take that much more; with fewer, colors may be lost.
MOST_CONFLICTS = 3 * 10**6
# Steps of the clock for each conflict that finding an order takes. Chosen. Four times off, colorings that are counted
# rather than timed are so much longer or shorter.
ORDER = 5
# Columns from which on arithmetic colorings are tried first and are enough if they are good. Chosen. Larger, stencils
# take longer to color; smaller, small matrices are left with a good coloring that is not the best.
LARGE = 50_000


def color_columns(
    matrix, orders, budget=0.5, shapes=(), arithmetic=True, clock: Clock | None = None
) -> tuple[np.ndarray, str, int]:
    """Colors of the columns of a CSR matrix, how they were found, and a lower bound.

    Columns without nonzeros are neutral.
    """
    lower = _lower_bound(matrix)
    taken = np.zeros(matrix.shape[1], bool)
    taken[matrix.indices] = True

    def done(colors, name):
        return np.where(taken, colors, NEUTRAL), name, lower

    if lower <= 1:
        return done(np.zeros(matrix.shape[1], np.int64), "natural")
    if lower == matrix.shape[1]:
        return done(np.arange(lower), "natural")
    clock = clock or Clock()
    end = clock.now() + budget
    large = matrix.shape[1] >= LARGE
    best: Any = None
    name = ""
    if arithmetic and large:
        best, name = _arithmetic(matrix, shapes, lower)
        if best is not None and best.max() + 1 <= lower + 1:
            return done(best, name)
    transposed = matrix.T.tocsr()
    rows_of = (transposed.indptr.tolist(), transposed.indices.tolist())
    graph: Any = None
    for which in orders:
        if which != "natural" and graph is None:
            if int((np.diff(matrix.indptr).astype(np.int64) ** 2).sum()) > MOST_CONFLICTS:
                break
            graph = conflict_graph(matrix)
            clock.worked(graph.nnz)
        visit = range(matrix.shape[1]) if which == "natural" else find_order(which, graph).tolist()
        colors = greedy(*rows_of, visit, matrix.shape[0])
        clock.worked(greedy_steps(rows_of[0]) + (0 if which == "natural" else ORDER * graph.nnz))
        if best is None or colors.max() < best.max():
            best, name = colors, which
        if best.max() + 1 == lower or (clock.now() > end and len(orders) > 1):
            break
    if arithmetic and best.max() + 1 > lower and not large:
        found, how = _arithmetic(matrix, shapes, lower)
        if found is not None and found.max() < best.max():
            best, name = found, how
    if best.max() + 1 > lower and clock.now() < end:
        better = recolor(*rows_of, matrix.shape[0], best, lower, end, clock)
        if better.max() < best.max():
            best, name = better, name + ", recolored"
    if graph is not None and best.max() + 1 > lower and clock.now() < end:
        start = seamed_colors(matrix, shapes) if arithmetic else None
        better = fewer_colors(graph, best, lower, end, clock, start)
        if better.max() < best.max():
            best, name = better, name.removesuffix(", recolored") + ", recolored"
    return done(best, name)


def _lower_bound(matrix) -> int:
    """The size of a clique (the columns of the longest row conflict), or one more.

    If all m rows have L nonzeros, then of L colors each has one nonzero in each row: the lengths of its columns add up
    to m. That cannot be if they have a common divisor that m has not.
    """
    widths = np.diff(matrix.indptr)
    longest = int(widths.max(initial=0))
    if longest > 1 and widths.min() == longest:
        lengths = np.bincount(matrix.indices, minlength=matrix.shape[1])
        return longest + (matrix.shape[0] % int(np.gcd.reduce(lengths)) != 0)
    return longest


def _arithmetic(matrix, shapes, lower):
    for colors in lattice_colors(matrix, shapes, lower):
        if columns_are_apart(matrix, colors):
            values, compact = np.unique(colors, return_inverse=True)
            return compact, f"arithmetic mod {len(values)}"
    return None, ""


def columns_are_apart(matrix, colors) -> bool:
    """True if no row has two nonzeros in columns of one color (neutral columns aside)."""
    k = int(colors.max(initial=-1)) + 1
    color = colors[matrix.indices]
    row = np.repeat(np.arange(matrix.shape[0], dtype=np.int64), np.diff(matrix.indptr))
    keys = (row * k + color)[color >= 0]
    if matrix.shape[0] * k > 20 * keys.size + 10**6:
        return np.unique(keys).size == keys.size
    return keys.size == 0 or bool(np.bincount(keys, minlength=1).max() <= 1)
