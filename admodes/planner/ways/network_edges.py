"""The edges of a network of arrays: diagonal matrices, matrices, and maps that are applied instead of formed.

Reference: Griewank and Naumann, *Accumulating Jacobians as chained sparse matrix products*, Math. Program. 95 (2003)
555-571.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from admodes.linear.maps import Elementwise, Linear, LinearMap, Over, Sum, expand
from admodes.planner.elimination.local_nonzeros import only_moves
from admodes.planner.matrices import Dense
from admodes.planner.ways.chain_of_cuts import carry
from admodes.planner.ways.matrix_product import matrix_of
from admodes.program import jax_compat as jc
from admodes.program.folding import is_known
from admodes.program.traits import traits

Scaling = Any  # 1, -1, a vector, or a mask (what it does not select is zero, even if it is not finite)


@dataclass(frozen=True, eq=False)
class Block:
    """∂(result ``j``)/∂(operand ``i``) of a map, which is applied, not formed."""

    map: LinearMap
    j: int
    i: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.map.codomain[self.j].size, self.map.domain[self.i].size

    def push(self, columns):
        """The map of each column; columns are rows of the arrays."""
        given, wanted = self._sides
        return carry(self.map.push, columns, given, wanted, columns=True)

    def pull(self, rows):
        """The transpose of the map of each row."""
        wanted, given = self._sides
        return carry(self.map.pull, rows, given, wanted)

    @property
    def _sides(self) -> tuple[tuple, tuple]:
        domain, codomain = self.map.domain, self.map.codomain
        given = tuple(k == self.i for k in range(len(domain)))
        return (domain, given), (codomain, tuple(k == self.j for k in range(len(codomain))))

    def matrix(self) -> Dense:
        m, n = self.shape
        if n <= m:
            return Dense(self.push(jnp.eye(n, dtype=self.map.domain[self.i].dtype)), transposed=True)
        return Dense(self.pull(jnp.eye(m, dtype=self.map.codomain[self.j].dtype)))


@dataclass(frozen=True, eq=False)
class Edge:
    """∂w/∂u = diag(``left``) ``core`` diag(``right``); the core None is the identity, which has no ``right``."""

    core: Dense | Block | None
    left: Scaling = 1
    right: Scaling = 1

    @property
    def is_free(self) -> bool:
        """True if a product with it takes (next to) no multiplications."""
        return self.core is None or (isinstance(self.core, Block) and _moves(self.core.map))

    def matrix(self, size: int, dtype) -> Dense:
        """All entries; ``size`` and ``dtype`` are those of w."""
        core: Any = self.core
        if core is None:
            core = Dense(jnp.eye(size, dtype=dtype))
        elif isinstance(core, Block):
            core = core.matrix()
        found = _scaled(core, self.left, self.right)
        return Dense(lax.convert_element_type(found.array, dtype), found.transposed)

    def times(self, inner: Edge) -> Edge:
        """The product of two edges.

        The scalings between them go to the factor with fewer entries; one outside of them to its factor, if that has
        fewer entries than the result.
        """
        if self.core is None:
            return Edge(inner.core, _product(self.left, inner.left), inner.right)
        middle = _product(self.right, inner.left)
        if inner.core is None:
            return Edge(self.core, self.left, middle)
        first, last, left, right = inner.core, self.core, self.left, inner.right
        if isinstance(first, Block) and isinstance(last, Block):
            first = first.matrix()
        if isinstance(first, Block):
            core = Dense(first.pull(_scaled(last, 1, middle).rows))  # type: ignore[arg-type]
        elif isinstance(last, Block):
            core = Dense(last.push(_scaled(first, middle, 1).columns), transposed=True)
        else:
            (m, k), n = last.shape, first.shape[1]  # type: ignore[union-attr]
            last = _scaled(last, left if n > k else 1, middle if n > m else 1)  # type: ignore[arg-type]
            first = _scaled(first, middle if n <= m else 1, right if m > k else 1)  # type: ignore[arg-type]
            left, right = 1 if n > k else left, 1 if m > k else right
            core = _multiplied(last, first)
        return Edge(core, left, right)

    def plus(self, other: Edge, size: int, dtype) -> Edge:
        """The sum of two edges between the same vertices."""
        if self.core is None and other.core is None:
            return Edge(None, lax.add(*(_vector(e.left, size, dtype) for e in (self, other))))
        a, b = self.matrix(size, dtype), other.matrix(size, dtype)
        return Edge(Dense(lax.add(a.array, b.columns if a.transposed else b.rows), a.transposed))


def _moves(linear: LinearMap) -> bool:
    return isinstance(linear, Linear) and only_moves(linear)


def _product(a: Scaling, b: Scaling) -> Scaling:
    """One scaling after the other."""
    if isinstance(b, int):
        a, b = b, a
    return b * a if isinstance(a, int) and isinstance(b, int) else _scale(b, a)


def _scale(array, d: Scaling, axis: int = 0):
    """An array whose entries along an axis are multiplied by those of a scaling."""
    if isinstance(d, int):
        return array if d == 1 else lax.neg(_numbers(array))
    if array.dtype == bool and d.dtype != bool:  # the array is a mask of its own
        return _scale(d, array)
    d = lax.broadcast_in_dim(d, array.shape, (axis,))
    if array.dtype == bool:
        return lax.bitwise_and(array, d)
    return Elementwise.scale(d, None, array, jnp.result_type(array, d) if d.dtype != bool else array.dtype)


def _numbers(array):
    """A mask as numbers."""
    return array.astype(np.float32) if array.dtype == bool else array


def _multiplied(outer: Dense, inner: Dense) -> Dense:
    """The product, here and now if both factors are known: XLA takes seconds for that while it compiles."""
    dtype = jnp.result_type(outer.array, inner.array)
    with _now(outer.array, inner.array):
        last, first = (Dense(lax.convert_element_type(x.array, dtype), x.transposed) for x in (outer, inner))
        return last.times(first)


def _now(*arrays) -> AbstractContextManager:
    """Where operations on these arrays are carried out at once, if all of them are known."""
    return jax.ensure_compile_time_eval() if all(map(is_known, arrays)) else nullcontext()


def _vector(d: Scaling, size: int, dtype):
    return lax.full((size,), d, dtype) if isinstance(d, int) else lax.convert_element_type(d, dtype)


def _scaled(matrix: Dense, left: Scaling, right: Scaling) -> Dense:
    """diag(left) matrix diag(right)."""
    rows, cols = (1, 0) if matrix.transposed else (0, 1)
    return Dense(_scale(_scale(matrix.array, left, rows), right, cols), matrix.transposed)


KINDS = (Elementwise, Linear, Sum)  # of maps that can be taken in both directions


def edges(jacobian: LinearMap) -> Iterator[tuple[int, int, Edge]]:
    """(result, operand, edge) of the blocks of a map."""
    if isinstance(jacobian, Sum):
        for term in jacobian.terms:
            yield from edges(term)
    elif isinstance(jacobian, Elementwise):
        (out,) = jacobian.codomain
        for i, (d, kind, aval) in enumerate(zip(jacobian.partials, jacobian.kinds, jacobian.domain, strict=True)):
            if d is None and kind is None:
                continue
            if aval.size not in (1, out.size):  # an operand that is broadcast
                yield 0, i, Edge(Block(jacobian, 0, i))
                continue
            core = None if aval.size == out.size else Dense(jnp.ones((1, out.size), out.dtype), transposed=True)
            vector = kind if d is None else lax.reshape(expand(d, out.shape), (out.size,))
            yield 0, i, Edge(core, lax.div(lax.full_like(vector, 1), vector) if kind is Over else vector)
    elif isinstance(jacobian, Linear):
        for j, out in enumerate(jacobian.codomain):
            for i, on in enumerate(jacobian.active):
                if on and jc.is_differentiable(out):
                    yield j, i, _of_linear(jacobian, j, i)


def _of_linear(jacobian: Linear, j: int, i: int) -> Edge:
    if traits(jacobian.primitive).in_order and jacobian.domain[i].size == jacobian.codomain[j].size:
        return Edge(None)
    if jacobian.primitive is lax.dot_general_p:
        numbers, x = dict(jacobian.params)["dimension_numbers"], jacobian.domain[i]
        if 0 < x.size == math.prod(x.shape[a] for a in numbers[0][i]):
            other = jacobian.operands[1 - i]
            with _now(other):
                return Edge(matrix_of(other, numbers, i, jacobian.codomain[0].dtype))
    return Edge(Block(jacobian, j, i))
