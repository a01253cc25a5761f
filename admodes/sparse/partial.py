r"""Coloring for some entries only: a diagonal, or the blocks of a batch.

To read the entries ``wanted`` of a matrix with the nonzeros ``pattern`` off products J s, two columns conflict if a row
has a wanted nonzero in one and any nonzero in the other; entries that nobody asks for may fall together.

Reference: Gebremedhin, Manne and Pothen, "What color is your Jacobian?", SIAM Review 47 (2005), section 8 (partial
matrix estimation).
"""

from __future__ import annotations

import numpy as np

from admodes.linear.pattern import SparsityPattern
from admodes.sparse.columns import LARGE
from admodes.sparse.greedy import first_fit
from admodes.sparse.orders import find_order
from admodes.sparse.result import NEUTRAL, Coloring
from admodes.sparse.stencils import SLACK, lattice_colors

# Colors by arithmetic at most, for vertices of which there are LARGE. Chosen. More are left to the greedy coloring.
MOST_COLORS = 17
MOST_EDGES = 4 * 10**5  # conflicts, each counted twice: an order by degrees takes half a microsecond for each


def color_for(pattern: SparsityPattern, wanted: SparsityPattern, kind: str = "column") -> Coloring:
    """Colors of the columns (rows) of ``pattern`` from whose products the nonzeros of ``wanted`` can be read.

    ``wanted`` must be a part of ``pattern``. The coloring's own pattern is ``wanted``.

    >>> from admodes.linear.pattern import SparsityPattern
    >>> from admodes.sparse.partial import color_for
    >>> dense, diagonal = SparsityPattern.dense(3, 3), SparsityPattern.identity(3)
    >>> color_for(dense, diagonal).number, color_for(diagonal, diagonal).number
    (3, 1)
    """
    given, chosen = (pattern, wanted) if kind == "column" else (pattern.transpose, wanted.transpose)
    n = given.shape[1]
    counts = np.bincount(chosen.cols, minlength=n)
    if given.is_full and not (counts == 0).any():
        colors, name = np.arange(n), "natural"
    else:
        meeting = (chosen.matrix.T @ given.matrix).tocsr()
        graph = (meeting + meeting.T).tocsr()
        graph.setdiag(False)
        graph.eliminate_zeros()
        colors, name = _greedy(graph)
        # columns without wanted entries still must not disturb: they take part in no product
        colors = np.where(counts > 0, colors, NEUTRAL)
    columns, rows = (colors, None) if kind == "column" else (None, colors)
    return Coloring(wanted, kind, columns, rows, name, 1 if wanted.nnz else 0)


def _greedy(graph) -> tuple[np.ndarray, str]:
    """The first color that no neighbour has, vertex by vertex, in the better of two orders.

    The second is tried where it may save a color, and its search is not longer than the rest of a plan.
    """
    if not graph.nnz:
        return np.zeros(graph.shape[0], np.int64), "natural"
    if graph.shape[0] >= LARGE and (found := _arithmetic(graph)) is not None:
        return found, "arithmetic"
    indptr, indices = graph.indptr.tolist(), graph.indices.tolist()
    colors, name = first_fit(indptr, indices, range(graph.shape[0])), "natural"
    if colors.max() > 1 and graph.nnz <= MOST_EDGES:
        again = first_fit(indptr, indices, find_order("smallest_last", graph).tolist())
        if again.max() < colors.max():
            return again, "smallest_last"
    return colors, name


def _arithmetic(graph) -> np.ndarray | None:
    """Colors by arithmetic on the places of a grid, if the conflicts are those of a stencil: no vertex is looked at."""
    from scipy.sparse import csr_array, triu

    edges = triu(graph, 1).tocoo()
    pairs = np.stack([edges.row, edges.col], 1)
    ends = np.arange(0, pairs.size + 1, 2)
    matrix = csr_array((np.ones(pairs.size, bool), pairs.ravel(), ends), shape=(len(pairs), graph.shape[0]))
    for least in range(2, MOST_COLORS, SLACK + 1):
        for colors in lattice_colors(matrix, (), least):
            if (colors[edges.row] != colors[edges.col]).all():
                return colors
    return None
