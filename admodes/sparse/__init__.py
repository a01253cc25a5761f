"""Sparse Jacobians and Hessians: detection, coloring, compression."""

from admodes.sparse.coloring import Coloring, coloring
from admodes.sparse.detect import hessian_sparsity, sparsity

__all__ = ["Coloring", "coloring", "hessian_sparsity", "sparsity"]
