r"""Block diagonal matrices between the cuts of a chain: the Jacobians of a batch of examples, all blocks at once.

If the Jacobian of f = g ∘ h has a block for each example, and no value between g and h belongs to two of them, the
Jacobians of g and h have the same blocks. One seed for each entry of a block goes through all of the blocks, and the
product of two matrices is that of their blocks.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jax import lax

from admodes.linear.pattern import SparsityPattern
from admodes.planner.cost.machine import Machine
from admodes.planner.cost.work import Work
from admodes.planner.matrices import Nonzeros
from admodes.planner.task import Task
from admodes.planner.ways.chain_of_cuts import Chained, Matrices, bracketed, part, pulling_work, pushing_work
from admodes.planner.ways.cuts import Split, split
from admodes.planner.ways.seeded import Seeded
from admodes.sparse.detect import pattern_of_program

AXES = {"columns": "ibo", "rows": "obi", "blocks": "boi"}  # entries inside and outside, of each block


@dataclass(frozen=True, eq=False)
class Arrangement:
    """The entries of a cut in blocks: number i of block b is ``entries[b, i]``."""

    entries: np.ndarray

    @staticmethod
    def of(labels: np.ndarray) -> Arrangement | None:
        """From the block of each entry; None if they are not of equal size."""
        sizes = np.bincount(labels)
        if not sizes.size or (sizes != sizes[0]).any():
            return None
        return Arrangement(np.argsort(labels, kind="stable").reshape(len(sizes), -1))

    @property
    def size(self) -> int:
        """Of a block."""
        return self.entries.shape[1]

    @cached_property
    def numbers(self) -> np.ndarray:
        """The number of each entry in its block."""
        return self.inverse % self.size

    @cached_property
    def inverse(self) -> np.ndarray:
        """Where each entry is, block after block."""
        return np.argsort(self.entries.ravel())

    @property
    def is_plain(self) -> bool:
        """True if the blocks come one after the other."""
        return bool((self.inverse[:-1] < self.inverse[1:]).all())

    def apart(self, rows):
        """From one axis of entries to two, blocks and what is in them."""
        ordered = rows if self.is_plain else _columns_of(rows, self.entries.ravel())
        return lax.reshape(ordered, (len(rows), *self.entries.shape))

    def together(self, rows):
        """From two axes to one."""
        flat = lax.reshape(rows, (len(rows), self.entries.size))
        return flat if self.is_plain else _columns_of(flat, self.inverse)


def _columns_of(rows, places):
    return rows.at[:, places.astype(np.int32)].get(mode="promise_in_bounds", unique_indices=True)


@dataclass(frozen=True, eq=False)
class BlockDiagonal:
    """A matrix with blocks from ``inner`` to ``outer`` entries.

    ``array``: by columns, a row for each inner number with all outer entries; by rows, a row for each outer number
    with all inner entries; or the blocks.
    """

    array: Any
    form: str
    inner: Arrangement
    outer: Arrangement

    def _turned(self, axes: str):
        """The blocks with their axes in this order."""
        turn = {"columns": self.outer.apart, "rows": self.inner.apart, "blocks": lambda x: x}[self.form]
        return lax.transpose(turn(self.array), [AXES[self.form].index(a) for a in axes])

    @property
    def columns(self):
        return self.array if self.form == "columns" else self.outer.together(self._turned(AXES["columns"]))

    @property
    def rows(self):
        return self.array if self.form == "rows" else self.inner.together(self._turned(AXES["rows"]))

    def times(self, inner: BlockDiagonal) -> BlockDiagonal:
        """The product of two matrices."""
        left, right = self._turned(AXES["blocks"]), inner._turned(AXES["blocks"])
        product = lax.dot_general(left, right, (((2,), (1,)), ((0,), (0,))))
        return BlockDiagonal(product, "blocks", inner.inner, self.outer)


@dataclass(frozen=True, eq=False)
class Blocks(Matrices):
    """The arrangements of the cuts of a chain, inputs first; all entries of the blocks of ``pattern`` are nonzeros."""

    cuts: tuple[Arrangement, ...]
    pattern: SparsityPattern

    @property
    def count(self) -> int:  # type: ignore[override]
        return len(self.cuts[0].entries)

    def work(self, method: Seeded, inner: Task) -> Work:
        return _seeds_work(inner, method.columns is None, method.passes)

    def tables(self, method: Seeded) -> Any:
        return method.colors

    def stage(self, k: int, method: Seeded, tables, inner: Task, values) -> tuple[list, BlockDiagonal]:
        outs, (columns, rows) = method.compressed(inner, (tables, None), values)
        form, array = ("columns", columns) if rows is None else ("rows", rows)
        return outs, self.matrix(array, form, k, k + 1)

    def matrix(self, array, form: str, start: int, stop: int) -> BlockDiagonal:
        return BlockDiagonal(array, form, self.cuts[start], self.cuts[stop])

    def result_tables(self, form: str) -> Any:
        """Where the nonzeros are in the array; None if they are in order."""
        rows, cols = self.pattern.rows, self.pattern.cols.astype(np.int64)
        inner, outer = self.cuts[0], self.cuts[-1]
        if form == "columns":
            found = inner.numbers[cols] * outer.entries.size + rows
        elif form == "rows":
            found = outer.numbers[rows] * inner.entries.size + cols
        else:
            found = outer.inverse[rows] * inner.size + inner.numbers[cols]
        return None if (np.diff(found) == 1).all() else found.astype(np.int32 if found.max() < 2**31 else np.int64)

    def result(self, matrix: BlockDiagonal, dtype, tables) -> Nonzeros:
        values = lax.reshape(matrix.array, (matrix.array.size,))
        values = values if tables is None else values.at[tables].get(mode="promise_in_bounds", unique_indices=True)
        return Nonzeros(lax.convert_element_type(values, dtype))


def blocked(task: Task, machine: Machine) -> Chained | None:
    """The cheapest chain of parts of a task that has the same blocks on the diagonal in each; None if there is none."""
    labels = blocks_of(task.pattern) if task.rows_allowed and not task.is_laid_out else None
    found = None if labels is None else split(task.program, task.active, task.differentiated, product=False)
    if labels is None or found is None:
        return None
    parts = tuple(part(task.program, stage) for stage in found.stages)
    cuts = _arranged(task, found, *labels)
    if cuts is None:
        return None
    blocks = Blocks(cuts, task.pattern)
    options = [_seeded(inner, *sides, machine) for inner, sides in zip(parts, itertools.pairwise(cuts), strict=True)]
    return bracketed(found, parts, options, tuple(cut.size for cut in cuts), blocks, machine)


def _seeded(inner: Task, domain: Arrangement, codomain: Arrangement, machine: Machine) -> tuple[float, Seeded]:
    """Seconds and method: a seed for each entry of a block on the narrower side, or where it is cheaper."""
    ways = (Seeded("forward", domain.numbers, None), Seeded("reverse", None, codomain.numbers))
    costs = [machine.seconds(_seeds_work(inner, w.columns is None, w.passes)) for w in ways]
    return min(zip(costs, ways, strict=True), key=lambda found: found[0])


def _seeds_work(inner: Task, pulled: bool, seeds: int) -> Work:
    done = (pulling_work if pulled else pushing_work)(inner, seeds)
    return done + Work(bytes=2.0 * seeds * (inner.n if pulled else inner.m) * inner.dtype.itemsize)


def blocks_of(pattern: SparsityPattern) -> tuple[np.ndarray, np.ndarray] | None:
    """The block of each row and of each column, if the pattern is some full blocks of equal size and nothing else."""
    (m, n), counts = pattern.shape, pattern.row_counts
    width = int(counts[0]) if m and n else 0
    if width < 2 or n % width or m % (n // width) or (counts != width).any():
        return None  # (a block of one column has no waist)
    from scipy.sparse import bmat
    from scipy.sparse.csgraph import connected_components

    lines = pattern.table.shape[0]
    count, labels = connected_components(bmat([[None, pattern.table], [pattern.table.T, None]]), directed=False)
    if count != n // width:
        return None
    return labels[:lines][pattern.row_labels], labels[lines:]


def _arranged(task: Task, chain: Split, rows, columns) -> tuple[Arrangement, ...] | None:
    """The cuts of a chain in the blocks of the whole; None if an entry of them is in no block, or in several."""
    slots = [s for stage in chain.stages for s in stage.results]
    reached = pattern_of_program(dataclasses.replace(task.program, outputs=tuple(slots)), task.active)
    table = reached.table
    if not np.diff(table.indptr).all():
        return None
    seen = columns[table.indices]
    least, most = (reduce.reduceat(seen, table.indptr[:-1]) for reduce in (np.minimum, np.maximum))
    if not np.array_equal(least, most):
        return None
    sizes = [sum(math.prod(task.program.avals[s].shape) for s in stage.results) for stage in chain.stages]
    labels = [columns, *np.split(least[reached.row_labels], np.cumsum(sizes[:-1]))]
    cuts = [Arrangement.of(found) for found in labels]
    there = tuple(cut for cut in cuts if cut is not None)
    return there if len(there) == len(cuts) and np.array_equal(labels[-1], rows) else None
