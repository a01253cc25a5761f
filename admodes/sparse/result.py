"""The result of a coloring: the colors, and how good they are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from admodes.linear.pattern import SparsityPattern

NEUTRAL = -1  # the color of rows and columns that take part in no product


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
        """The number of products J s."""
        return 0 if self.columns is None else int(self.columns.max(initial=-1)) + 1

    @property
    def row_number(self) -> int:
        """The number of products sᵀ J."""
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
