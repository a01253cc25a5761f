"""Sparsity patterns: which entries of a Jacobian can be nonzero, as static index arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import scipy.sparse as sp


def _csr(*args, **kwargs) -> sp.csr_matrix:
    """A boolean CSR matrix with sorted, unique entries (scipy.sparse is slow to import: only on first use)."""
    from scipy.sparse import csr_matrix

    matrix = csr_matrix(csr_matrix(*args, **kwargs), dtype=bool)
    matrix.sum_duplicates()
    matrix.sort_indices()
    return matrix


@dataclass(frozen=True, eq=False)
class SparsityPattern:
    """The positions of the structural nonzeros of an m x n matrix.

    ``matrix`` is a boolean scipy CSR matrix with sorted, unique entries.
    """

    matrix: sp.csr_matrix

    @staticmethod
    def build(rows, cols, shape) -> SparsityPattern:
        """From the row and column index of each nonzero (repetitions are merged)."""
        return SparsityPattern(_csr((np.ones(len(rows), bool), (rows, cols)), shape=shape))

    @staticmethod
    def dense(m: int, n: int) -> SparsityPattern:
        """Every entry can be nonzero."""
        return SparsityPattern(_csr(np.ones((m, n), bool)))

    @property
    def transpose(self) -> SparsityPattern:
        """The pattern of Aᵀ."""
        return SparsityPattern(_csr(self.matrix.T))

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
        return SparsityPattern(_csr(self.matrix + other.matrix))

    def compose(self, inner: SparsityPattern) -> SparsityPattern:
        """The pattern of A B, ``self`` being A."""
        return SparsityPattern(_csr(self.matrix.astype(np.int64) @ inner.matrix.astype(np.int64)))

    def __repr__(self) -> str:
        m, n = self.shape
        return f"SparsityPattern({m} x {n}, {self.nnz} nonzeros)"
