r"""Coloring: which columns (rows) of a sparse matrix can be found together, by one product with a sum of unit vectors.

Columns that share no row can: the entry of their sum in a row belongs to the one that has a nonzero there.

References:
  Curtis, Powell and Reid, "On the estimation of sparse Jacobian matrices", IMA J. Appl. Math. 13 (1974).
  Coleman and Moré, "Estimation of sparse Jacobian matrices and graph coloring problems", SIAM J. Num. Anal. 20 (1983).
  Coleman and Moré, "Estimation of sparse Hessian matrices and graph coloring problems", Math. Prog. 28 (1984).
  Gebremedhin, Manne and Pothen, "What color is your Jacobian? Graph coloring for computing derivatives",
    SIAM Review 47 (2005).
  Gebremedhin, Nguyen, Patwary and Pothen, "ColPack: software for graph coloring and related problems in scientific
    computing", ACM TOMS 40 (2013).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from admodes.linear.pattern import SparsityPattern
from admodes.program.agreement import Clock
from admodes.sparse.greedy import fewer_colors, greedy, greedy_steps, recolor
from admodes.sparse.orders import ORDERS, conflict_graph, find_order
from admodes.sparse.stencils import lattice_colors, seamed_colors

KINDS = ("column", "row", "bidirectional", "symmetric")
NEUTRAL = -1  # the color of rows and columns that take part in no product
MOST_CONFLICTS = 3 * 10**6  # beyond, the conflict graph is not formed: natural order and recoloring only
ORDER = 5  # steps for each conflict that finding an order takes
LARGE = 50_000  # columns from which on arithmetic colorings are tried first and are enough if they are good


@dataclass(frozen=True, eq=False)
class Coloring:
    """Colors of the columns (for products J s), of the rows (for products sᵀ J), or of both.

    ``columns`` and ``rows`` hold a color for each, or -1 where it takes part in no product; None: no such products.
    ``number`` counts the products, ``lower_bound`` is proven, ``optimal`` says that they meet. ``order`` names how the
    colors were found. ``substitution``: entries are found one after the other (acyclic), not each by itself.
    """

    pattern: SparsityPattern
    kind: str
    columns: np.ndarray | None
    rows: np.ndarray | None
    order: str
    lower_bound: int
    substitution: bool = False

    def __post_init__(self):
        for colors in (self.columns, self.rows):
            if colors is not None:
                colors.setflags(write=False)  # a plan keeps them, and its results show them

    @property
    def column_number(self) -> int:
        """How many products J s."""
        return 0 if self.columns is None else int(self.columns.max(initial=-1)) + 1

    @property
    def row_number(self) -> int:
        """How many products sᵀ J."""
        return 0 if self.rows is None else int(self.rows.max(initial=-1)) + 1

    @property
    def number(self) -> int:
        return self.column_number + self.row_number

    @property
    def optimal(self) -> bool:
        return self.number <= self.lower_bound

    def __repr__(self) -> str:
        bound = "optimal" if self.optimal else f"at least {self.lower_bound} needed"
        return f"Coloring({self.kind}, {self.number} colors, {bound}, {self.order})"


def coloring(
    pattern: SparsityPattern,
    kind: str = "column",
    *,
    order: str | Sequence[str] | None = None,
    budget: float = 0.5,
    shapes: Sequence[tuple[int, ...]] = (),
    structure: str = "star",
) -> Coloring:
    r"""Color a sparsity pattern, so that few products determine all nonzeros of a matrix with that pattern.

    Args:
      pattern: of the m x n matrix.
      kind: ``"column"`` (products J s), ``"row"`` (sᵀ J), ``"bidirectional"`` (some of both), or ``"symmetric"``
        (products H s, an entry and its mirror image being one unknown).
      order: of the greedy coloring, one or several of ``admodes.sparse.orders.ORDERS``; by default all, as the size
        allows.
      budget: seconds for trying further orders and for recoloring, once there is a coloring.
      shapes: grids that the columns (rows) may be numbered on, as hints for stencils: the shapes of the input (output).
      structure: for ``"symmetric"``: ``"star"`` (each entry is read off) or ``"acyclic"`` (fewer colors, substitution).

    Returns:
      A :class:`Coloring`.

    >>> from admodes.linear.pattern import SparsityPattern
    >>> from admodes.sparse import coloring
    >>> tridiagonal = SparsityPattern.build([0, 0, 1, 1, 1, 2, 2, 2, 3, 3], [0, 1, 0, 1, 2, 1, 2, 3, 2, 3], (4, 4))
    >>> coloring(tridiagonal)
    Coloring(column, 3 colors, optimal, natural)

    References: Curtis, Powell and Reid 1974; Coleman and Moré 1983, 1984; Gebremedhin, Manne and Pothen 2005.
    """
    check_pattern(pattern)
    if kind not in KINDS:
        raise ValueError(f"the kind of a coloring is one of {', '.join(KINDS)}, not {kind!r}")
    orders = ORDERS if order is None else (order,) if isinstance(order, str) else tuple(order)
    unknown = set(orders) - set(ORDERS)
    if unknown:
        raise ValueError(f"there is no order {', '.join(sorted(unknown))}; orders are {', '.join(ORDERS)}")
    if kind == "bidirectional":
        from admodes.sparse.bidirectional import bidirectional

        return bidirectional(pattern, orders, budget, shapes)
    if kind == "symmetric":
        from admodes.sparse.symmetric import symmetric

        return symmetric(pattern, orders, budget, shapes, structure)
    given = order is not None
    matrix = pattern.matrix if kind == "column" else pattern.transpose.matrix
    colors, name, lower = color_columns(matrix, orders, budget, () if given else shapes, arithmetic=not given)
    columns, rows = (colors, None) if kind == "column" else (None, colors)
    return Coloring(pattern, kind, columns, rows, name, lower)


def check_pattern(pattern) -> None:
    """Raise TypeError unless the argument ``pattern`` is one."""
    if not isinstance(pattern, SparsityPattern):
        raise TypeError(
            f"pattern must be a SparsityPattern, got {type(pattern).__name__}: admodes.sparsity(f, x) detects that of "
            "a Jacobian, admodes.linear.pattern.SparsityPattern.build(rows, cols, shape) makes one."
        )


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
