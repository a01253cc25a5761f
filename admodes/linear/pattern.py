"""Sparsity patterns: which entries of a Jacobian can be nonzero, as static index arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp


@dataclass(frozen=True, eq=False)
class SparsityPattern:
    """The positions of the structural nonzeros of an m x n matrix.

    ``matrix`` is a boolean scipy CSR matrix with sorted, unique entries.
    """

    matrix: sp.csr_matrix

    @staticmethod
    def build(rows, cols, shape) -> SparsityPattern:
        """From the row and column index of each nonzero (repetitions are merged)."""
        data = np.ones(len(rows), bool)
        return SparsityPattern._canonical(sp.csr_matrix((data, (rows, cols)), shape=shape))

    @staticmethod
    def dense(m: int, n: int) -> SparsityPattern:
        """Every entry can be nonzero."""
        return SparsityPattern._canonical(sp.csr_matrix(np.ones((m, n), bool)))

    @staticmethod
    def _canonical(matrix) -> SparsityPattern:
        matrix = sp.csr_matrix(matrix, dtype=bool)
        matrix.sum_duplicates()
        matrix.sort_indices()
        return SparsityPattern(matrix)

    @property
    def shape(self) -> tuple[int, int]:
        return self.matrix.shape

    @property
    def nnz(self) -> int:
        return self.matrix.nnz

    @property
    def rows(self) -> np.ndarray:
        return np.repeat(np.arange(self.shape[0]), np.diff(self.matrix.indptr))

    @property
    def cols(self) -> np.ndarray:
        return self.matrix.indices

    def to_scipy(self) -> sp.csr_matrix:
        return self.matrix.copy()

    def to_dense(self) -> np.ndarray:
        return self.matrix.toarray()

    def union(self, other: SparsityPattern) -> SparsityPattern:
        """The pattern of A + B."""
        return SparsityPattern._canonical(self.matrix + other.matrix)

    def compose(self, inner: SparsityPattern) -> SparsityPattern:
        """The pattern of A B, ``self`` being A."""
        return SparsityPattern._canonical(self.matrix.astype(np.int64) @ inner.matrix.astype(np.int64))

    def __repr__(self) -> str:
        m, n = self.shape
        return f"SparsityPattern({m} x {n}, {self.nnz} nonzeros)"
