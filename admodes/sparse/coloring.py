r"""Coloring: which columns (rows) of a sparse matrix can be found together, by one product with a sum of unit vectors.

Columns that share no row can: the entry of their sum in a row belongs to the one that has a nonzero there.

A problem is a pattern and a kind of products; :func:`coloring` hands it to the algorithm for that kind (``columns``,
``bidirectional``, ``symmetric``), which gives a :class:`Coloring` (``result``).

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

from admodes.linear.pattern import SparsityPattern
from admodes.sparse.bidirectional import bidirectional
from admodes.sparse.columns import color_columns
from admodes.sparse.orders import ORDERS
from admodes.sparse.result import Coloring
from admodes.sparse.symmetric import symmetric

__all__ = ["KINDS", "Coloring", "check_pattern", "coloring"]

KINDS = ("column", "row", "bidirectional", "symmetric")


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
        return bidirectional(pattern, orders, budget, shapes)
    if kind == "symmetric":
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
