r"""Compression: the products that a coloring asks for, and the way back from them to the entries.

A product J s with the sum s of the unit vectors of one color measures, in each row, the sum of the entries in columns
of that color. A measurement of a single unknown entry gives it; subtracting what is known by then makes more
measurements single, and so on. If the first round is enough the method is *direct*, otherwise it is *by
substitution*. All of this is worked out once, as static index arrays.

References: Curtis, Powell and Reid 1974; Powell and Toint, "On the estimation of sparse Hessian matrices", SIAM J.
Numer. Anal. 16 (1979); Gebremedhin, Pothen, Tarafdar and Walther, "Efficient computation of sparse Hessians using
coloring and automatic differentiation", INFORMS J. Comput. 21 (2009).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import jax
import numpy as np
from jax import lax

from admodes.errors import ColoringError
from admodes.sparse.result import Coloring


def seeds(colors: np.ndarray | None, dtype=np.float64) -> np.ndarray:
    """The sums of unit vectors, one row for each color.

    >>> import numpy as np
    >>> from admodes.sparse.compress import seeds
    >>> seeds(np.array([0, 1, 0])).tolist()
    [[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]
    """
    if colors is None:
        return np.zeros((0, 0), dtype)
    count = int(colors.max(initial=-1)) + 1
    matrix = np.zeros((count, colors.size), dtype)
    there = np.flatnonzero(colors >= 0)
    matrix[colors[there], there] = 1
    return matrix


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Round:
    """Unknowns ``targets`` are measurements ``sources`` less the unknowns ``known``, those subtracted at ``places``."""

    targets: np.ndarray
    sources: np.ndarray
    known: np.ndarray
    places: np.ndarray


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Decompression:
    """From products to entries: ``direct`` holds, for each nonzero of the pattern (row by row), its measurement.

    By substitution, ``direct`` is None; then ``rounds`` find the unknowns, and ``entries`` says which one a nonzero is.
    A pytree, so that the index arrays can be arguments of a compiled function.
    """

    direct: np.ndarray | None
    rounds: tuple[Round, ...] = ()
    entries: np.ndarray | None = None
    unknowns: int = field(default=0, metadata={"static": True})

    def __call__(self, columns=None, rows=None):
        """The values of the nonzeros, in the order of the pattern's rows and columns.

        ``columns`` stacks the products J s (one row each, of length m), ``rows`` the products sᵀ J (of length n).
        """
        parts = [lax.reshape(p, (p.size,)) for p in map(_array, (columns, rows)) if p is not None]
        measured = lax.concatenate(parts, 0)
        if self.direct is not None:
            return _take(measured, self.direct)
        values = jax.numpy.zeros(self.unknowns, measured.dtype)
        for step in self.rounds:
            found = _take(measured, step.sources)
            if step.known.size:
                found = found.at[step.places].add(-_take(values, step.known))
            values = values.at[step.targets].set(found)
        return _take(values, self.entries)


def _take(values, indices):
    return jax.numpy.asarray(values).at[indices].get(mode="promise_in_bounds")


def _array(x):
    return None if x is None else jax.numpy.asarray(x)


def decompression(coloring: Coloring) -> Decompression:
    """The way back from the products of a coloring to the nonzeros of its pattern.

    Raises:
      ColoringError: the products do not determine all nonzeros; the message names one that is lost.

    >>> import jax.numpy as jnp
    >>> from admodes.linear.pattern import SparsityPattern
    >>> from admodes.sparse import coloring
    >>> from admodes.sparse.compress import decompression, seeds
    >>> J = jnp.array([[1.0, 2.0, 0.0], [0.0, 3.0, 4.0]])
    >>> found = coloring(SparsityPattern.build(*J.nonzero(), J.shape))
    >>> decompression(found)(seeds(found.columns) @ J.T).tolist()
    [1.0, 2.0, 3.0, 4.0]
    """
    pattern = coloring.pattern
    (m, n), rows, cols = pattern.shape, pattern.rows.astype(np.int64), pattern.cols.astype(np.int64)
    none = np.full(rows.size, -1, np.int64)
    if coloring.kind == "symmetric":
        colors = np.asarray(coloring.columns)
        by_row = np.where(colors[cols] >= 0, colors[cols] * m + rows, -1)
        by_mirror = np.where(colors[rows] >= 0, colors[rows] * m + cols, -1)
        by_mirror[rows == cols] = -1
        lower, entries = np.unique(np.maximum(rows, cols) * n + np.minimum(rows, cols), return_inverse=True)
        first_place = np.full(lower.size, -1)
        first_place[entries[::-1]] = np.arange(rows.size)[::-1]
        ways = (by_row[first_place], by_mirror[first_place])
    else:
        by_row = none if coloring.columns is None else _number(coloring.columns[cols], m, rows, 0)
        start = coloring.column_number * m
        by_column = none if coloring.rows is None else _number(coloring.rows[rows], n, cols, start)
        ways, entries, first_place = (by_row, by_column), np.arange(rows.size), np.arange(rows.size)
    rounds, lost = _peel(*ways)
    if lost.size:
        place = first_place[lost[0]]
        raise ColoringError(f"the coloring does not determine entry ({rows[place]}, {cols[place]}) of the matrix")
    if not rounds:
        return Decompression(np.zeros(0, np.int64))
    if len(rounds) == 1:
        sources = np.empty(ways[0].size, np.int64)
        sources[rounds[0].targets] = rounds[0].sources
        return Decompression(sources[entries])
    return Decompression(None, tuple(rounds), entries, ways[0].size)


def _number(colors, size, places, start):
    return np.where(colors >= 0, start + colors * size + places, -1)


def _peel(first, second) -> tuple[list[Round], np.ndarray]:
    """Find unknowns round by round; unknown e is in the measurements ``first[e]`` and ``second[e]`` (-1: none)."""
    size = int(max(first.max(initial=-1), second.max(initial=-1))) + 1
    everything = np.concatenate([first, second])
    count = np.bincount(everything[everything >= 0], minlength=size + 1)
    solved = np.zeros(first.size, bool)
    incidence = None
    rounds: list[Round] = []
    open_ = np.arange(first.size)
    while open_.size:
        by_first = (first[open_] >= 0) & (count[first[open_]] == 1)
        ready = by_first | ((second[open_] >= 0) & (count[second[open_]] == 1))
        targets = open_[ready]
        if not targets.size:
            return rounds, open_
        sources = np.where(by_first, first[open_], second[open_])[ready]
        known = places = np.zeros(0, np.int64)
        if rounds:
            incidence = _incidence(first, second, size) if incidence is None else incidence
            members = incidence[sources]
            places = np.repeat(np.arange(targets.size), np.diff(members.indptr))
            others = members.indices != targets[places]
            known, places = members.indices[others], places[others]
        rounds.append(Round(targets, sources, known, places))
        solved[targets] = True
        for ids in (first[targets], second[targets]):
            np.subtract.at(count, ids[ids >= 0], 1)
        open_ = open_[~ready]
    return rounds, open_


def _incidence(first, second, size):
    """The unknowns that each measurement adds up, as a CSR matrix."""
    from scipy.sparse import csr_matrix

    number = np.arange(first.size)
    there = [ids >= 0 for ids in (first, second)]
    ids = np.concatenate([first[there[0]], second[there[1]]])
    members = np.concatenate([number[there[0]], number[there[1]]])
    return csr_matrix((np.ones(ids.size, bool), (ids, members)), shape=(size, first.size))
