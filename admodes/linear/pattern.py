"""Sparsity patterns: which entries of a Jacobian can be nonzero, as static index arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    import scipy.sparse as sp

# Nonzeros of a pattern; one that would hold more is taken as full, which costs no memory. Chosen. Four
# times more may fill the memory; fewer make large sparse Jacobians dense.
MOST_ENTRIES = 10**8


def _csr(*args: Any, **kwargs: Any) -> sp.csr_matrix:
    """A boolean CSR matrix with sorted, unique entries (scipy.sparse is slow to import: only on first use)."""
    from scipy.sparse import csr_matrix

    return _canonical(csr_matrix(csr_matrix(*args, **kwargs), dtype=bool))


def _canonical(matrix):
    if not matrix.has_canonical_format:
        matrix.sum_duplicates()
    return matrix


def _raw(indices: np.ndarray, indptr: np.ndarray, shape: tuple[int, int]) -> sp.csr_matrix:
    """A boolean CSR matrix from its index arrays, which are not checked."""
    from scipy.sparse import csr_matrix

    return csr_matrix((np.ones(len(indices), bool), indices, indptr), shape=shape)


@dataclass(frozen=True, eq=False)
class SparsityPattern:
    """The positions of the structural nonzeros of an m x n matrix.

    Rows that are equal may be stored once: row i is row ``labels[i]`` of the boolean scipy CSR matrix ``table`` (row i
    itself, if ``labels`` is None). So a full pattern is one row, and a layer of a network one row for each example.
    """

    table: sp.csr_matrix
    labels: np.ndarray | None = None

    @staticmethod
    def build(rows: ArrayLike, cols: ArrayLike, shape: tuple[int, int]) -> SparsityPattern:
        """From the row and column index of each nonzero (repetitions are merged)."""
        return SparsityPattern(_csr((np.ones(np.size(rows), bool), (rows, cols)), shape=shape))

    @staticmethod
    def choice(sources: ArrayLike, shape: tuple[int, int]) -> SparsityPattern:
        """Row i has one entry, in column ``sources[i]``, or none where that is negative."""
        sources = np.asarray(sources).ravel()
        there = sources >= 0
        indptr = np.concatenate([[0], np.cumsum(there)])
        return SparsityPattern(_raw(sources[there].astype(np.int32), indptr.astype(np.int32), shape))

    @staticmethod
    def shared(labels: ArrayLike, rows: ArrayLike, cols: ArrayLike, shape: tuple[int, int]) -> SparsityPattern:
        """Row i is row ``labels[i]`` of the table of this shape with these nonzeros."""
        labels = np.asarray(labels).ravel()
        return SparsityPattern(SparsityPattern.build(rows, cols, shape).table, labels)

    @staticmethod
    def dense(m: int, n: int) -> SparsityPattern:
        """Every entry can be nonzero."""
        return SparsityPattern(_raw(np.arange(n, dtype=np.int32), np.array([0, n]), (1, n)), np.zeros(m, np.int32))

    @staticmethod
    def identity(n: int, columns: int | None = None, offset: int = 0) -> SparsityPattern:
        """Row i has one entry, in column ``offset + i`` of ``columns``."""
        columns = n if columns is None else columns
        return SparsityPattern(
            _raw(np.arange(offset, offset + n, dtype=np.int32), np.arange(n + 1, dtype=np.int32), (n, columns))
        )

    @staticmethod
    def empty(m: int, n: int) -> SparsityPattern:
        return SparsityPattern(_raw(np.zeros(0, np.int32), np.array([0, 0]), (1, n)), np.zeros(m, np.int32))

    @staticmethod
    def stack(patterns: Iterable[SparsityPattern]) -> SparsityPattern:
        """One below the other."""
        from scipy.sparse import vstack

        patterns = list(patterns)
        if len(patterns) == 1:
            return patterns[0]
        ends = np.cumsum([0, *(p.table.shape[0] for p in patterns)])
        labels = [p.row_labels + a for p, a in zip(patterns, ends, strict=False)]
        plain = all(p.labels is None for p in patterns)
        return SparsityPattern(_csr(vstack([p.table for p in patterns])), None if plain else np.concatenate(labels))

    # -- what it holds -----------------------------------------------------------------------------

    @cached_property
    def matrix(self) -> sp.csr_matrix:
        """The pattern as a boolean CSR matrix with sorted, unique entries."""
        return self.table if self.labels is None else self.table[self.labels]

    @property
    def row_labels(self) -> np.ndarray:
        return np.arange(self.table.shape[0]) if self.labels is None else self.labels

    @property
    def shape(self) -> tuple[int, int]:
        return (self.table.shape[0] if self.labels is None else len(self.labels)), self.table.shape[1]

    @property
    def row_counts(self) -> np.ndarray:
        """The number of nonzeros in each row."""
        counts = np.diff(self.table.indptr)
        return counts if self.labels is None else counts[self.labels]

    @cached_property
    def nnz(self) -> int:
        return int(self.row_counts.sum(dtype=np.int64))

    @property
    def rows(self) -> np.ndarray:
        return np.repeat(np.arange(self.shape[0]), np.diff(self.matrix.indptr))

    @property
    def cols(self) -> np.ndarray:
        columns = self.matrix.indices.view()
        columns.setflags(write=False)  # they are those of the pattern itself
        return columns

    @property
    def is_full(self) -> bool:
        return self.nnz == self.shape[0] * self.shape[1]

    @property
    def is_identity(self) -> bool:
        (m, n), table = self.shape, self.table
        if not (m == n == self.nnz and self.labels is None):
            return False
        return np.array_equal(table.indptr, np.arange(n + 1)) and np.array_equal(table.indices, np.arange(n))

    @cached_property
    def transpose(self) -> SparsityPattern:
        """The pattern of Aᵀ."""
        m, n = self.shape
        return SparsityPattern.dense(n, m) if self.is_full else SparsityPattern(_csr(self.matrix.T))

    @cached_property
    def lower_triangle(self) -> SparsityPattern:
        """The entries on and below the diagonal."""
        rows, cols = self.rows, self.cols
        return SparsityPattern.build(rows[rows >= cols], cols[rows >= cols], self.shape)

    def to_scipy(self) -> sp.csr_matrix:
        return self.matrix.copy()

    def to_dense(self) -> np.ndarray:
        return self.matrix.toarray()

    def take_rows(self, rows: np.ndarray | Sequence[int]) -> SparsityPattern:
        """The pattern of A[rows]."""
        return SparsityPattern(self.table, self.row_labels[rows])

    def equals(self, other: SparsityPattern) -> bool:
        """True if both have the same nonzeros."""
        if self.shape != other.shape or self.nnz != other.nnz:
            return False
        a, b = self.matrix, other.matrix
        return np.array_equal(a.indptr, b.indptr) and np.array_equal(a.indices, b.indices)

    # -- algebra -----------------------------------------------------------------------------------

    def union(self, other: SparsityPattern) -> SparsityPattern:
        """The pattern of A + B."""
        (m, n), a, b = self.shape, self.labels, other.labels
        if not self.nnz or other.is_full:
            return other
        if not other.nnz or self.is_full:
            return self
        same = a is b or (a is not None and b is not None and np.array_equal(a, b))
        if same and self.table.shape == other.table.shape:
            return SparsityPattern(_canonical(self.table + other.table), a)
        if self.nnz + other.nnz > MOST_ENTRIES:
            return SparsityPattern.dense(m, n)
        first, second = self.row_labels, other.row_labels
        if max(len(self.table.indptr), len(other.table.indptr)) > m // 2:
            return SparsityPattern(_canonical(self.matrix + other.matrix))
        pairs, labels = np.unique(first.astype(np.int64) * other.table.shape[0] + second, return_inverse=True)
        left, right = np.divmod(pairs, other.table.shape[0])
        return SparsityPattern(_canonical(self.table[left] + other.table[right]), labels)

    def intersection(self, other: SparsityPattern) -> SparsityPattern:
        """The entries that both have."""
        return SparsityPattern(_canonical(self.matrix.multiply(other.matrix)))

    def compose(self, inner: SparsityPattern) -> SparsityPattern:
        """The pattern of A B, ``self`` being A."""
        if self.is_identity:
            return inner
        if inner.is_identity:
            return self
        a, b = self.table, inner.table
        counts = np.diff(a.indptr)
        if counts.size and counts.max() <= 1:  # each result is at most one entry: only labels move
            labels = np.full(len(counts), b.shape[0])
            labels[counts > 0] = inner.row_labels[a.indices]
            if not counts.all():
                b = _raw(b.indices, np.append(b.indptr, b.indptr[-1]), (b.shape[0] + 1, b.shape[1]))
            return SparsityPattern(b, labels if self.labels is None else labels[self.labels])
        if inner.labels is not None:
            a = _csr((a.data.copy(), inner.labels[a.indices], a.indptr.copy()), shape=(a.shape[0], b.shape[0]))
        if int(np.diff(b.indptr)[a.indices].sum(dtype=np.int64)) > MOST_ENTRIES:
            return SparsityPattern.dense(self.shape[0], inner.shape[1])
        return SparsityPattern(_canonical(a @ b), self.labels)

    # -- pictures ----------------------------------------------------------------------------------

    def spy(self, width: int = 64, axes: Any = None) -> Any:
        """A picture of the nonzeros: as text, or drawn into the matplotlib ``axes``.

        Each character stands for a block of entries: blank if it has none, then ``.:+#`` by the part that is nonzero.

        >>> from admodes.linear.pattern import SparsityPattern
        >>> print(SparsityPattern.build([0, 1, 1, 2], [0, 0, 1, 2], (3, 3)).spy())
        3 x 3, 4 nonzeros
        |#  |
        |## |
        |  #|
        """
        m, n = self.shape
        if axes is not None:
            return axes.spy(self.matrix, markersize=max(0.5, min(8.0, 200 / max(m, n, 1))))
        lines = [f"{m} x {n}, {self.nnz} nonzeros"]
        across = min(n, width)
        down = min(m, max(1, round(m * across / max(n, 1) / (2 if n > width else 1)), 1), width)
        if not across or not down:
            return lines[0]
        at = (self.rows * down // m) * across + self.cols.astype(np.int64) * across // n
        full = np.outer(np.bincount(np.arange(m) * down // m), np.bincount(np.arange(n) * across // n))
        part = np.bincount(at, minlength=down * across).reshape(down, across) / full
        signs = np.array(list(" .:+#"))[np.ceil(part * 4).astype(int)]
        return "\n".join([*lines, *("|" + "".join(line) + "|" for line in signs)])

    def __repr__(self) -> str:
        m, n = self.shape
        return f"SparsityPattern({m} x {n}, {self.nnz} nonzeros)"
