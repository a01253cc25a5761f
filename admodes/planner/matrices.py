"""Jacobians as candidates leave them, and as users want them.

A method returns the entries that it has (all, or the nonzeros); the formats follow from those.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.tree_util import tree_unflatten

from admodes.compilers.recompute import stored
from admodes.compilers.workarounds import RUNS, TRANSPOSED_COLUMNS
from admodes.linear.pattern import SparsityPattern
from admodes.program import jax_compat as jc

FORMATS = ("dense", "bcoo", "scipy", "compressed")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Dense:
    """All entries: an array of shape (m, n), or of shape (n, m) if it is ``transposed``, as columns come.

    A transposed one is in memory, or XLA would fold a transposition into the product that it comes from.
    """

    array: Any
    transposed: bool = field(default=False, metadata={"static": True})

    @staticmethod
    def of_columns(parts: Sequence, dtype) -> Dense:
        """From columns: parts of some rows each, with the columns along a leading axis."""
        if len(parts) == 1 and parts[0].ndim == 2:
            return Dense(lax.convert_element_type(parts[0], dtype), transposed=True)
        # the axes are exchanged as they are: kernels that number them anew divide for each entry
        rows = [lax.transpose(x, (*range(1, x.ndim), 0)) for x in parts]
        rows = [lax.convert_element_type(lax.reshape(x, (x.size // x.shape[-1], x.shape[-1])), dtype) for x in rows]
        return Dense(lax.concatenate(rows, 0) if len(rows) > 1 else rows[0])

    @property
    def shape(self) -> tuple[int, int]:
        return self.array.shape[::-1] if self.transposed else self.array.shape

    @property
    def transpose(self) -> Dense:
        return Dense(self.array, not self.transposed)

    @property
    def rows(self):
        return lax.transpose(self.array, (1, 0)) if self.transposed else self.array

    @property
    def columns(self):
        return self.array if self.transposed else lax.transpose(self.array, (1, 0))

    def times(self, inner: Dense) -> Dense:
        """The product of two matrices: as rows, or by (A B)ᵀ = Bᵀ Aᵀ as columns.

        XLA's CPU products are slow where the left factor comes transposed, which is written anew, and where a large
        right one does; and a result that is larger than both factors had better not be transposed.
        """
        own, others, size = self.array.size, inner.array.size, self.shape[0] * inner.shape[1]
        by_rows = self.transposed * own + inner.transposed * others
        by_columns = (not self.transposed) * own + (not inner.transposed) * others + (size > max(own, others)) * size
        if by_rows <= by_columns or not TRANSPOSED_COLUMNS.on:
            return Dense(self._dot(inner))
        (columns,) = stored([inner.transpose._dot(self.transpose)])
        return Dense(columns, transposed=True)

    def _dot(self, inner: Dense):
        left = self.array
        if self.transposed:
            left = lax.transpose(left, (1, 0))
            (left,) = stored([left]) if TRANSPOSED_COLUMNS.on else (left,)
        return lax.dot_general(left, inner.array, (((1,), (1,) if inner.transposed else (0,)), ((), ())))

    def at(self, places):
        """The entries with these positions in the flat matrix."""
        return lax.reshape(jc.whole(self.rows), (self.array.size,)).at[places].get(mode="promise_in_bounds")

    def full(self, shape, places):
        return self.rows


def joined(parts: Iterable, dtype):
    """Arrays with the same leading axis as one matrix with so many rows."""
    flat = [lax.convert_element_type(lax.reshape(x, (x.shape[0], math.prod(x.shape[1:]))), dtype) for x in parts]
    return lax.concatenate(flat, 1) if len(flat) > 1 else flat[0]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Nonzeros:
    """The entries of a sparsity pattern, in its order."""

    values: Any

    def at(self, places):
        """The entries of a pattern that has more of them, if ``places`` tells where these are in it."""
        if places is None:
            return self.values
        return jax.numpy.zeros(places.size, self.values.dtype).at[places.numbers].set(self.values, mode="drop")

    def full(self, shape, places):
        """The m x n array with these entries. (XLA's CPU scatter is twice as fast into a flat array.)"""
        if isinstance(places, OneEach):
            there = lax.eq(lax.broadcasted_iota(np.int32, shape, 1), lax.broadcast_in_dim(places.columns, shape, (0,)))
            values = lax.broadcast_in_dim(self.values, shape, (0,))
            return lax.select(there, values, lax.full_like(values, 0))
        if isinstance(places, Runs):
            return lax.reshape(places.written(self.values, math.prod(shape)), shape)
        flat = jax.numpy.zeros(math.prod(shape), self.values.dtype).at[places]
        filled = flat.set(self.values, indices_are_sorted=True, unique_indices=True, mode="promise_in_bounds")
        return lax.reshape(filled, shape)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class OneEach:
    """Where the nonzeros of a matrix are that has one in each row: their columns."""

    columns: Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Inside:
    """The number of each nonzero among the ``size`` nonzeros of a larger pattern."""

    numbers: Any
    size: int = field(metadata={"static": True})

    @staticmethod
    def of(pattern: SparsityPattern, larger: SparsityPattern) -> Inside:
        """(An entry that the larger pattern does not have is 0, and left out.)"""
        own, others = (np.asarray(p.rows, np.int64) * p.shape[1] + p.cols for p in (pattern, larger))
        numbers = np.searchsorted(others, own)
        found = np.isin(own, others, assume_unique=True)
        return Inside(np.where(found, numbers, larger.nnz).astype(np.int32), larger.nnz)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Runs:
    """Where the nonzeros are that come in runs of ``width`` entries side by side: the places of the first of each."""

    first: Any
    width: int = field(metadata={"static": True})

    def written(self, values, size: int):
        """The flat array with these entries, each run being copied as a whole."""
        numbers = lax.ScatterDimensionNumbers((1,), (), (0,))
        runs = lax.reshape(values, (values.size // self.width, self.width))
        return lax.scatter(
            jax.numpy.zeros(size, values.dtype),
            lax.expand_dims(self.first, (1,)),
            runs,
            numbers,
            indices_are_sorted=True,
            unique_indices=True,
            mode="promise_in_bounds",
        )


# Nonzeros in a row from which on runs are copied at once, rather than number by number. Chosen. An error costs where
# all runs are about that long.
SHORTEST = 4
LARGEST = 2**31 - 1  # entries of a dense matrix whose places are 32-bit numbers


def positions(pattern: SparsityPattern) -> np.ndarray:
    """The place of each nonzero in the flat matrix."""
    kind = np.int32 if math.prod(pattern.shape) <= LARGEST else np.int64
    return np.asarray(pattern.rows, kind) * pattern.shape[1] + np.asarray(pattern.cols, kind)


def places(pattern: SparsityPattern) -> np.ndarray | OneEach | Runs:
    """Where the nonzeros go when the whole matrix is written: in one pass, if there is one in each row; or in runs."""
    if pattern.nnz and (pattern.row_counts == 1).all():
        return OneEach(pattern.cols.astype(np.int32))
    flat = positions(pattern)
    ends = np.flatnonzero(np.diff(flat) != 1) + 1
    width = int(np.gcd.reduce(np.diff(ends, prepend=0, append=flat.size)))
    return Runs(flat[::width], width) if width >= SHORTEST and RUNS.on else flat


def blocks(matrix, out_avals: Sequence, in_avals: Sequence, out_tree, in_tree, pulled: bool):
    """An m x n array as JAX gives Jacobians: the structure of the outputs, in each leaf that of the inputs.

    Blocks have the dtype of the input if they are to be as if ``pulled``, else that of the output. Integers have no
    columns; their blocks are 0.
    """
    row_cuts = [0, *itertools.accumulate(math.prod(a.shape) for a in out_avals)]
    widths = (math.prod(a.shape) if jc.is_differentiable(a) else 0 for a in in_avals)
    col_cuts = [0, *itertools.accumulate(widths)]
    leaves = []
    for out, (a, b) in zip(out_avals, itertools.pairwise(row_cuts), strict=True):
        rows = lax.slice_in_dim(matrix, a, b)
        parts = [lax.slice_in_dim(rows, c, d, axis=1) for c, d in itertools.pairwise(col_cuts)]
        parts = [
            p if jc.is_differentiable(x) else jax.numpy.zeros((p.shape[0], math.prod(x.shape)), x.dtype)
            for p, x in zip(parts, in_avals, strict=True)
        ]
        # (one axis after the other: how each is laid out over devices can then be followed)
        apart = [lax.reshape(p, (p.shape[0], *x.shape)) for p, x in zip(parts, in_avals, strict=True)]
        shaped = [lax.reshape(p, (*out.shape, *x.shape)) for p, x in zip(apart, in_avals, strict=True)]
        own = [x if pulled and _holds(x, out) else out for x in in_avals]
        leaves.append(tree_unflatten(in_tree, [jc.convert_like(p, a) for p, a in zip(shaped, own, strict=True)]))
    return tree_unflatten(out_tree, leaves)


def _holds(x, out) -> bool:
    """True if derivatives of ``out`` keep their imaginary part in the type of ``x``."""
    return jax.dtypes.issubdtype(x.dtype, np.complexfloating) or not jax.dtypes.issubdtype(
        out.dtype, np.complexfloating
    )
