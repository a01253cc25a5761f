r"""Products with seeds: J S by forward mode and SᵀJ by reverse mode, plain or compressed by a coloring.

Forward mode takes the identity for S, compressed forward mode the sums of the unit vectors of each color, a
bidirectional coloring some of both: one mechanism, with a color for each column (row). Seeds go through in one batch,
or in chunks that are mapped one after the other, or split over the devices of a mesh.

References: Curtis, Powell and Reid, IMA J. Appl. Math. 13 (1974); Coleman and Verma, SIAM J. Sci. Comput. 19 (1998).
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np
from jax import lax

from admodes.compilers.recompute import stored
from admodes.linear.pattern import SparsityPattern
from admodes.planner.cost.work import Work, work
from admodes.planner.matrices import Dense, Nonzeros, joined
from admodes.planner.sweeps.known_seeds import Folding, folding
from admodes.planner.task import Task
from admodes.program import jax_compat as jc
from admodes.program.ir import Program, from_jaxpr
from admodes.sparse.coloring import Coloring
from admodes.sparse.compress import decompression
from admodes.sparse.compress import seeds as indicators


@dataclass(frozen=True, eq=False)
class Seeded:
    """A Jacobian from products: ``columns`` and ``rows`` are the colors of each, an identity's if there is no coloring.

    ``chunk`` is how many seeds are in flight at once (None: all); ``mesh``: they are split over its devices.
    ``as_written``: the sweep is left to the compiler as it is, and nothing is stored for it.
    """

    name: str
    columns: np.ndarray | None
    rows: np.ndarray | None
    coloring: Coloring | None = None
    chunk: int | None = None
    mesh: Any = None
    as_written: bool = False

    @cached_property
    def products(self) -> tuple[int, int]:
        """The numbers of products J s and sᵀ J."""
        return tuple(0 if c is None else int(c.max(initial=-1)) + 1 for c in (self.columns, self.rows))  # type: ignore

    @property
    def passes(self) -> int:
        return sum(self.products)

    @property
    def pattern(self) -> SparsityPattern | None:
        """Of the entries that it gives; None: all of them."""
        return None if self.coloring is None else self.coloring.pattern

    @property
    def detail(self) -> str:
        chunked = f", {self.chunk} at a time" if self.chunk else ""
        shared = f", {math.ceil(self.passes / self.mesh.size)} on each of {self.mesh.size} devices" if self.mesh else ""
        written = ", as written" if self.as_written else ""
        if self.coloring is None:
            return f"{'all columns' if self.rows is None else 'all rows'}{chunked}{shared}{written}"
        pushed, pulled = self.products
        words = [f"{pushed} column colors"] * (pushed > 0) + [f"{pulled} row colors"] * (pulled > 0)
        proof = "proven least" if self.coloring.optimal else f"at least {self.coloring.lower_bound}"
        return f"{' and '.join(words)} ({proof}){chunked}{shared}"

    def work(self, task: Task) -> Work:
        total = Work()
        width = self.chunk or self.passes
        for count, closed, k in zip(self.products, (_pushing, _pulling), (task.in_avals, task.out_avals), strict=True):
            if count:
                batched = (False,) * len(task.active) + (True,) * len(k)
                at_once = min(count, width) if self.mesh is None else math.ceil(min(count, width) / self.mesh.size)
                total += work(closed(task), batched, at_once).times(math.ceil(count / width))
        if self.coloring is None:
            passed = 2 if self.columns is None else 4  # columns come as rows: the matrix is transposed
            return total + Work(bytes=passed * task.n * task.m * task.dtype.itemsize, kernels=1)
        pushed, pulled = self.products
        moved = 4.0 * (pushed * task.m + pulled * task.n) * task.dtype.itemsize  # written, copied and read
        apart = 2.0 if pushed else 1.0  # row by row out of columns, or out of rows
        return total + Work(gathered=apart * self.coloring.pattern.nnz, bytes=moved, kernels=3)

    @cached_property
    def tables(self) -> Any:
        """The index arrays that running it takes; passed as arguments, so that they are not compiled in."""
        return None if self.coloring is None else (self.colors, decompression(self.coloring))

    @property
    def colors(self) -> tuple:
        """Of columns and rows, as index arrays."""
        return tuple(None if c is None else c.astype(np.int32) for c in (self.columns, self.rows))

    def jacobian(self, task: Task, tables, args) -> tuple[list, Dense | Nonzeros]:
        """The outputs, and the Jacobian: nonzeros if there is a coloring."""
        if tables is not None:
            outs, products = self.compressed(task, tables, args)
            return outs, Nonzeros(tables[1](*map(_written, products)))
        outs, (pushed, pulled) = self._products(task, tables, args)
        if not pushed and not pulled:  # no rows, or no columns
            return outs, Dense(jax.numpy.zeros((task.m, task.n), task.dtype))
        return outs, Dense(joined(pulled, task.dtype)) if pushed is None else Dense.of_columns(pushed, task.dtype)

    def compressed(self, task: Task, tables, args) -> tuple[list, tuple]:
        """The outputs, and the products: the rows (J s)ᵀ, and the rows sᵀ J; None where there are none."""
        outs, sides = self._products(task, tables, args)
        if not self.passes:  # no entry can be nonzero
            return outs, (jax.numpy.zeros((0, task.m), task.dtype), None)
        return outs, tuple(None if parts is None else joined(map(jc.whole, parts), task.dtype) for parts in sides)

    def _products(self, task: Task, tables, args) -> tuple[list, list]:
        """The outputs, and the products of both sides, leaf by leaf with a leading axis for the seeds."""
        outs: list = []
        found: list = []
        colors = (None, None) if tables is None else tables[0]
        sides = ((self.columns, _pushing, task.in_avals), (self.rows, _pulling, task.out_avals))
        for color, count, (known, closed, avals) in zip(colors, self.products, sides, strict=True):
            if not count:
                found.append(None)
                continue
            program = from_jaxpr(closed(task))
            columns = tables is None and closed is _pushing
            run = functools.partial(task.sweep, columns=columns, as_written=self.as_written)

            def batch(start, width, color=color, program=program, run=run, avals=avals):
                return run(program, args, self._seeds(color, avals, start, width, task.program.avals))

            if (split := self._folding(program, len(task.active), count)) is not None:
                outs, parts = run(split.rest, args, split.values(known_seeds(known, avals)))
            else:
                outs, parts = self._in_chunks(batch, count)
            found.append(parts)
        return outs if self.passes else jc.jaxpr_as_fun(task.closed)(*args), found

    def _folding(self, program: Program, first_seed: int, count: int) -> Folding | None:
        """The part computed ahead: what a sweep does to the seeds of the coloring alone."""
        in_chunks = self.chunk is not None and self.chunk < count
        return None if self.coloring is None or in_chunks or self.mesh else folding(program, first_seed, count)

    def _in_chunks(self, batch: Callable, count: int):
        width = self.chunk or count
        if self.mesh is not None:
            width = math.ceil(width / self.mesh.size) * self.mesh.size
        if width >= count:
            outs, parts = _whole(*batch(0, width))
        else:
            starts = np.arange(0, count, width, dtype=np.int32)
            outs, parts = lax.map(lambda start: _whole(*batch(start, width)), starts)
            outs = [x[0] for x in outs]
            parts = [lax.reshape(x, (len(starts) * width, *x.shape[2:])) for x in parts]
        return outs, [lax.slice_in_dim(x, 0, count) for x in parts]

    def _seeds(self, colors, avals: Sequence, start, width: int, types: Sequence) -> list:
        """Seeds number start ... start + width - 1, by leaf: the indicator of each color."""
        sizes = [math.prod(a.shape) for a in avals]
        offsets = [0, *itertools.accumulate(sizes)]
        seeds = []
        for aval, size, offset in zip(avals, sizes, offsets, strict=False):
            kind = np.int64 if aval.dtype == np.float64 else np.int32  # of equal width: loops are vectorised
            number = lax.broadcasted_iota(kind, (width, size), 0) + start
            if colors is None:
                color = lax.broadcasted_iota(kind, (width, size), 1) + kind(offset)
            else:
                color = lax.broadcast_in_dim(
                    jax.numpy.asarray(colors, kind)[offset : offset + size], (width, size), (1,)
                )
            flat = lax.convert_element_type(lax.eq(number, color), aval.dtype)
            batch = jc.batch_of(flat, aval)
            seeds.append(batch if self.mesh is None else jc.split_batch(batch, self.mesh, types))
        return seeds


def _whole(outs, parts) -> tuple:
    """(Explicitly split seeds give products that are split.)"""
    return outs, [jc.whole(x, 1) for x in parts]


def known_seeds(colors: np.ndarray | None, avals: Sequence) -> list:
    """The seeds of all colors, by leaf."""
    cuts = np.cumsum([math.prod(a.shape) for a in avals])[:-1]
    parts = np.split(indicators(colors), cuts, axis=1)
    return [p.reshape(len(p), *a.shape).astype(a.dtype) for p, a in zip(parts, avals, strict=True)]


def _written(product):
    """The products in memory: compilers fuse a sweep with the gather of nonzeros, where it is not vectorised."""
    return product if product is None or not product.size else stored([product])[0]


def _pushing(task: Task):
    return task.pushing


def _pulling(task: Task):
    return task.pulling


def forward(task: Task, **options) -> Seeded:
    return Seeded("forward", np.arange(task.n), None, **options)


def reverse(task: Task, **options) -> Seeded:
    return Seeded("reverse", None, np.arange(task.m), **options)


def compressed(coloring: Coloring, **options) -> Seeded:
    """The products that a coloring asks for."""
    names = {"column": "compressed forward", "row": "compressed reverse", "symmetric": "compressed Hessian"}
    name = names.get(coloring.kind, "bidirectional")
    return Seeded(name, coloring.columns, coloring.rows, coloring, **options)
