"""Sparse Jacobians and Hessians: detection, coloring, compression."""

from admodes.sparse.coloring import coloring
from admodes.sparse.detect import hessian_sparsity, sparsity
from admodes.sparse.result import Coloring

__all__ = ["Coloring", "coloring", "hessian_sparsity", "sparsity"]
