r"""Bidirectional coloring: some entries from products J s, the others from products sᵀ J.

A few dense rows make every product J s necessary (their columns all conflict), a few dense columns every sᵀ J; taking
the dense rows by sᵀ J and all the rest by J s needs few products of either kind. Two ways are tried:

* *splitting*: the rows with more than t nonzeros are found by row colors, the rest of the matrix by column colors;
  and the same for columns. All thresholds t that separate, the promising ones first.
* *star bicoloring*: a star coloring of the bipartite graph of rows and columns, the adjacency matrix [0 J; Jᵀ 0] of
  which is symmetric, less the colors that no entry is read from.

References: Hossain and Steihaug, "Computing a sparse Jacobian matrix by rows and columns", Optim. Methods Softw. 10
(1998); Coleman and Verma, "The efficient computation of sparse Jacobian matrices using automatic differentiation",
SIAM J. Sci. Comput. 19 (1998); Gebremedhin, Manne and Pothen 2005, section 7; Montoison, Dalle and Gebremedhin,
"Revisiting sparse matrix coloring and bicoloring" (2025).
"""

from __future__ import annotations

import math

import numpy as np

from admodes.linear.pattern import SparsityPattern
from admodes.program.agreement import Clock
from admodes.sparse.columns import ORDER, color_columns
from admodes.sparse.orders import find_order
from admodes.sparse.result import NEUTRAL, Coloring
from admodes.sparse.symmetric import STAR, star_colors, without_idle_colors

# Splits into dense and sparse sides that are colored. Chosen. Four times fewer may miss a split with fewer colors;
# more take as much longer.
THRESHOLDS = 12
# Nonzeros up to which star bicoloring is tried. Chosen, for its time. Beyond, a few colors may be lost.
STAR_ENTRIES = 10**5
# Steps up to which it is tried: the sum of the squared degrees. Chosen, as above.
STAR_WORK = 10**7


def bidirectional(pattern: SparsityPattern, orders, budget: float, shapes) -> Coloring:
    """The best of splitting by rows, splitting by columns, star bicoloring, and either kind of product alone."""
    matrix, transposed = pattern.matrix, pattern.transpose.matrix
    m, n = pattern.shape
    lower = math.ceil(pattern.nnz / max(m, n, 1))  # a product gives at most max(m, n) numbers
    clock = Clock()
    end = clock.now() + budget
    best: tuple = (np.inf, None, None, "")

    def consider(columns, rows, name):
        nonlocal best
        number = int(columns.max(initial=-1) + rows.max(initial=-1)) + 2
        if number < best[0]:
            best = (number, columns, rows, name)

    def enough():
        return best[0] == lower or clock.now() > end

    sides = ((pattern.row_counts, matrix, transposed), (np.diff(transposed.indptr), transposed, matrix))

    def one_kind(side, seconds):
        counts, direct, _ = sides[side]
        colors, name, _ = color_columns(direct, orders, seconds, shapes, clock=clock)
        nothing = np.full(counts.size, NEUTRAL)
        columns, rows = (nothing, colors) if side else (colors, nothing)
        consider(columns, rows, name)

    for side in (0, 1):
        one_kind(side, budget / 4)
    for swap, (counts, direct, other) in enumerate(sides):
        for threshold in _thresholds(counts):
            if enough():
                break
            few, many, name = _split(direct, other, counts > threshold, orders, budget / 8, shapes, clock)
            columns, rows = (many, few) if swap else (few, many)
            consider(columns, rows, name)
    degrees = np.concatenate([np.diff(matrix.indptr), np.diff(transposed.indptr)]).astype(np.int64)
    if not enough() and pattern.nnz <= STAR_ENTRIES and int((degrees**2).sum()) <= STAR_WORK:
        from scipy.sparse import bmat

        graph = bmat([[None, matrix], [transposed, None]], format="csr")
        for order in orders:
            colors = star_colors(graph, find_order(order, graph).tolist())
            clock.worked((ORDER + STAR) * graph.nnz)
            columns, rows = _separate(graph, colors, m)
            consider(columns, rows, f"star, {order}")
            if enough():
                break
    for side in (0, 1):
        if best[0] > lower and best[2 - side].max(initial=NEUTRAL) == NEUTRAL:  # one kind is best: all time for it
            one_kind(side, budget)
    _, columns, rows, name = best
    return Coloring(pattern, "bidirectional", columns, rows, name, lower)


def _thresholds(counts) -> list[int]:
    """Where to cut the counts of nonzeros, the widest gaps first."""
    values = np.unique(counts)[::-1]
    ratios = (values[:-1] + 1) / (values[1:] + 1)
    return [int(values[k + 1]) for k in np.argsort(-ratios, kind="stable")[:THRESHOLDS]]


def _split(matrix, transposed, dense, orders, budget, shapes, clock):
    """Colors of the columns for the rows that are not ``dense``, and colors of the rows that are."""
    orders = orders[:2]
    few, name, _ = color_columns(matrix[np.flatnonzero(~dense)], orders, budget, shapes, clock=clock)
    many = np.full(matrix.shape[0], NEUTRAL)
    places = np.flatnonzero(dense)
    if places.size:
        many[places], _, _ = color_columns(transposed[:, places].tocsr(), orders, budget, clock=clock)
        name = f"{places.size} dense apart, {name}"
    return few, many, name


def _separate(graph, colors, m):
    """Colors of columns and rows, numbered separately, from those of the bipartite graph."""
    used = colors.copy()
    used[m:] = np.where(colors[m:] >= 0, colors[m:] + colors.max() + 1, NEUTRAL)  # rows and columns share no color
    used = without_idle_colors(graph, np.zeros(graph.shape[0], bool), used)
    return tuple(_compact(part) for part in (used[m:], used[:m]))


def _compact(colors) -> np.ndarray:
    values, compact = np.unique(colors, return_inverse=True)
    return compact - int(values.size > 0 and values[0] == NEUTRAL)
