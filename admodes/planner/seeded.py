r"""Products with seeds: J S by forward mode and SᵀJ by reverse mode, plain or compressed by a coloring.

Forward mode takes the identity for S, compressed forward mode the sums of the unit vectors of each color, a
bidirectional coloring some of both: one mechanism, with a color for each column (row). Seeds go through in one batch,
or in chunks that are mapped one after the other, or split over the devices of a mesh.

References: Curtis, Powell and Reid, IMA J. Appl. Math. 13 (1974); Coleman and Verma, SIAM J. Sci. Comput. 19 (1998).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import numpy as np
from jax import lax

from admodes.linear.pattern import SparsityPattern
from admodes.planner.result import Dense, Nonzeros
from admodes.planner.task import Task
from admodes.planner.work import Work, work
from admodes.program import jax_compat as jc
from admodes.rules.again import stored
from admodes.sparse.coloring import Coloring
from admodes.sparse.compress import decompression


@dataclass(frozen=True, eq=False)
class Seeded:
    """A Jacobian from products: ``columns`` and ``rows`` are the colors of each, an identity's if there is no coloring.

    ``chunk`` is how many seeds are in flight at once (None: all); ``mesh``: they are split over its devices.
    """

    name: str
    columns: np.ndarray | None
    rows: np.ndarray | None
    coloring: Coloring | None = None
    chunk: int | None = None
    mesh: Any = None

    @cached_property
    def products(self) -> tuple[int, int]:
        """How many J s, how many sᵀ J."""
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
        if self.coloring is None:
            return f"{'all columns' if self.rows is None else 'all rows'}{chunked}{shared}"
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
            return total + Work(bytes=2 * task.n * task.m * task.dtype.itemsize, kernels=1)
        return total + Work(elements=8.0 * self.coloring.pattern.nnz, kernels=1)

    @cached_property
    def tables(self) -> Any:
        """The index arrays that running it takes; passed as arguments, so that they are not compiled in."""
        if self.coloring is None:
            return None
        colors = tuple(None if c is None else c.astype(np.int32) for c in (self.columns, self.rows))
        return colors, decompression(self.coloring)

    def jacobian(self, task: Task, tables, args) -> tuple[list, Dense | Nonzeros]:
        """The outputs, and the Jacobian: nonzeros if there is a coloring."""
        outs, (pushed, pulled) = self.compressed(task, tables, args)
        if tables is not None:
            return outs, Nonzeros(tables[1](*map(_written, (pushed, pulled))))
        if not self.passes:
            return outs, Dense(jax.numpy.zeros((task.m, task.n), task.dtype))
        return outs, Dense(pulled) if pushed is None else Dense(pushed, transposed=True)

    def compressed(self, task: Task, tables, args) -> tuple[list, tuple]:
        """The outputs, and the products: the rows (J s)ᵀ, and the rows sᵀ J; None where there are none."""
        outs: list = []
        found: list = []
        colors = (None, None) if tables is None else tables[0]
        sides = ((task.push, task.in_avals), (task.pull, task.out_avals))
        for color, count, (apply, avals) in zip(colors, self.products, sides, strict=True):

            def batch(start, width, color=color, apply=apply, avals=avals):
                outputs, results = apply(args, self._seeds(color, avals, start, width))
                return outputs, joined(results, width)

            if count:
                outs, product = self._in_chunks(batch, count)
                found.append(lax.convert_element_type(product, task.dtype))
            else:
                found.append(None)
        if not self.passes:  # no entry can be nonzero
            outs = jc.jaxpr_as_fun(task.closed)(*args)
            found[0] = jax.numpy.zeros((0, task.m), task.dtype)
        return outs, tuple(found)

    def _in_chunks(self, batch: Callable, count: int):
        width = self.chunk or count
        if self.mesh is not None:
            width = math.ceil(width / self.mesh.size) * self.mesh.size
        if width >= count:
            outs, product = batch(0, width)
        else:
            starts = np.arange(0, count, width, dtype=np.int32)
            outs, product = lax.map(lambda start: batch(start, width), starts)
            outs = [x[0] for x in outs]
            product = lax.reshape(product, (len(starts) * width, product.shape[2]))
        return outs, lax.slice_in_dim(product, 0, count)

    def _seeds(self, colors, avals: Sequence, start, width: int) -> list:
        """Seeds number start ... start + width - 1, by leaf: the indicator of each color."""
        sizes = [math.prod(a.shape) for a in avals]
        offsets = [0, *itertools.accumulate(sizes)]
        seeds = []
        for aval, size, offset in zip(avals, sizes, offsets, strict=False):
            number = lax.broadcasted_iota(np.int32, (width, size), 0) + start
            if colors is None:
                color = lax.broadcasted_iota(np.int32, (width, size), 1) + np.int32(offset)
            else:
                color = lax.broadcast_in_dim(jax.numpy.asarray(colors)[offset : offset + size], (width, size), (1,))
            flat = lax.convert_element_type(lax.eq(number, color), aval.dtype)
            seeds.append(self._shared(jc.batch_of(flat, aval)))
        return seeds

    def _shared(self, seeds):
        if self.mesh is None:
            return seeds
        spec = jax.sharding.PartitionSpec(self.mesh.axis_names)
        return lax.with_sharding_constraint(seeds, jax.sharding.NamedSharding(self.mesh, spec))


def _written(product):
    """The products in memory: compilers fuse a sweep with the gather of nonzeros, where it is not vectorised."""
    return product if product is None or not product.size else stored([product], product)[0]


def _pushing(task: Task):
    return task.pushing


def _pulling(task: Task):
    return task.pulling


def joined(parts: Sequence, width: int):
    """Arrays with a leading axis of length ``width`` as one matrix with so many rows."""
    dtype = jax.dtypes.result_type(*parts) if parts else np.float32
    flat = [lax.convert_element_type(lax.reshape(x, (width, x.size // max(width, 1))), dtype) for x in parts]
    return lax.concatenate(flat, 1) if len(flat) != 1 else flat[0]


def forward(task: Task, **options) -> Seeded:
    return Seeded("forward", np.arange(task.n), None, **options)


def reverse(task: Task, **options) -> Seeded:
    return Seeded("reverse", None, np.arange(task.m), **options)


def compressed(coloring: Coloring, **options) -> Seeded:
    """The products that a coloring asks for."""
    names = {"column": "compressed forward", "row": "compressed reverse", "symmetric": "compressed Hessian"}
    name = names.get(coloring.kind, "bidirectional")
    return Seeded(name, coloring.columns, coloring.rows, coloring, **options)
