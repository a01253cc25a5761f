"""Jacobians as candidates leave them, and as users want them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.tree_util import tree_unflatten

from admodes.linear.pattern import SparsityPattern
from admodes.program import jax_compat as jc

FORMATS = ("dense", "bcoo", "scipy", "compressed")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Dense:
    """All entries: an m x n array."""

    matrix: Any

    def at(self, indices):
        """The entries at rows and columns ``indices[:, 0]``, ``indices[:, 1]``."""
        return self.matrix[indices[:, 0], indices[:, 1]]

    def full(self, shape, indices):
        return self.matrix


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Nonzeros:
    """The entries of a sparsity pattern, in its order."""

    values: Any

    def at(self, indices):
        return self.values

    def full(self, shape, indices):
        """The m x n array with these entries."""
        zeros = jax.numpy.zeros(shape, self.values.dtype)
        places = zeros.at[indices[:, 0], indices[:, 1]]
        return places.set(self.values, indices_are_sorted=True, unique_indices=True, mode="promise_in_bounds")


def positions(pattern: SparsityPattern) -> np.ndarray:
    """(row, column) of each nonzero."""
    return np.stack([pattern.rows.astype(np.int32), pattern.cols.astype(np.int32)], 1)


def blocks(matrix, out_avals: Sequence, in_avals: Sequence, out_tree, in_tree):
    """An m x n array as JAX gives Jacobians: the structure of the outputs, in each leaf that of the inputs."""
    row_cuts = [0, *itertools.accumulate(math.prod(a.shape) for a in out_avals)]
    col_cuts = [0, *itertools.accumulate(math.prod(a.shape) for a in in_avals)]
    leaves = []
    for out, (a, b) in zip(out_avals, itertools.pairwise(row_cuts), strict=True):
        rows = lax.slice_in_dim(matrix, a, b)
        parts = [lax.slice_in_dim(rows, c, d, axis=1) for c, d in itertools.pairwise(col_cuts)]
        shaped = [lax.reshape(p, (*out.shape, *x.shape)) for p, x in zip(parts, in_avals, strict=True)]
        leaves.append(tree_unflatten(in_tree, [jc.convert_like(p, out) for p in shaped]))
    return tree_unflatten(out_tree, leaves)
