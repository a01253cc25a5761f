r"""Linear maps and their algebra: the contract, products, sums, multiples and transposes.

A :class:`LinearMap` J goes from a tuple of arrays (the operands of an equation) to a tuple of
arrays (its results). Whatever a mode wants of a local Jacobian it asks through this contract:

======================  =====================================================================
``push(tangents)``      J t, the forward mode
``pull(cotangents)``    Jᵀ g, the reverse mode (a transpose, never a conjugate transpose)
``pattern()``           which entries of J can be nonzero (static)
======================  =====================================================================

``None`` stands for a zero tangent or cotangent, so that zeros stay symbolic: an operand that is not
differentiated has tangent ``None`` and its cotangent is ``None``. Maps are pytrees whose leaves are
the *residuals* and whose static part is their kind; that is what lets a tape be returned from
``jit``, stacked by ``scan`` or rebuilt by a checkpoint.

Operators make maps of maps and form no matrix: what applies a product applies its factors, one after the other.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, dataclass_transform, overload

import jax
import numpy as np
from jax import lax

from admodes.linear.materialise import materialise
from admodes.linear.pattern import SparsityPattern
from admodes.program import jax_compat as jc
from admodes.text_tables import clipped

Arrays = tuple[Any, ...]  # of jax.Array or None
SHOWN = 20  # characters of the types of all operands, or results, that a repr shows: two sides fit a line


def static(**kwargs: Any) -> Any:
    return field(metadata={"static": True}, **kwargs)


@dataclass_transform(frozen_default=True, eq_default=False, field_specifiers=(field, static))
def linear_map(cls):
    """Make a class a frozen dataclass and a pytree: fields marked ``static`` are its kind, the others residuals."""
    return jax.tree_util.register_dataclass(dataclass(frozen=True, eq=False, repr=False)(cls))


class LinearMap:
    r"""A linear map between tuples of arrays, or between pytrees; ``domain`` and ``codomain`` are their (primal) types.

    ======================  ==============================================================================
    ``A @ v``               A v for an array, or a tuple with an array for each operand (a pytree, if it
                            has structures; None for a zero); so is the result
    ``A @ B``               v ↦ A(B v)
    ``A + B``, ``A - B``    v ↦ A v ± B v
    ``c * A``, ``-A``       v ↦ c A v, for a number c
    ``A.T``                 the transpose (not the conjugate transpose), so that ``g @ A`` is ``A.T @ g``
    ``A.materialise()``     the matrix, of shape ``A.shape``
    ======================  ==============================================================================

    :func:`admodes.linearize` and :func:`admodes.vjp` hand out that of a function at a point.

    >>> import admodes, jax.numpy as jnp
    >>> _, push = admodes.linearize(lambda x: jnp.stack([x[0] * x[1], x[1], x[0]]), jnp.array([2, 3], jnp.float32))
    >>> J = push.map
    >>> J
    Structured(float32[2] -> float32[3])
    >>> normal = J.T @ J
    >>> (normal @ jnp.array([1, 0], jnp.float32)).tolist()
    [10.0, 6.0]
    >>> (0.5 * normal).materialise().tolist()
    [[5.0, 3.0], [3.0, 2.5]]
    """

    domain: Any
    codomain: Any
    trees: Any = (None, None)  # the structures of v and of A v; None: an array, or a tuple of them

    __array_ufunc__ = None  # numpy leaves ``c * A`` and ``g @ A`` to the map

    def push(self, tangents: Arrays) -> Arrays:
        """J t, a tangent (or None) for each result."""
        raise NotImplementedError

    def pull(self, cotangents: Arrays) -> Arrays:
        """Jᵀ g, a cotangent (or None) for each operand."""
        raise NotImplementedError

    def pattern(self) -> dict[tuple[int, int], SparsityPattern]:
        """For each (result j, operand i): which entries of the block can be nonzero; dense unless a kind knows better.

        It holds for every value of the residuals that are tracers, and for the given values of the others.
        """
        return {
            (j, i): SparsityPattern.dense(size(out), size(arg))
            for j, out in enumerate(self.codomain)
            if jc.is_differentiable(out)
            for i, arg in enumerate(self.domain)
            if jc.is_differentiable(arg)
        }

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n), the numbers of entries of all results and of all operands that carry derivatives."""
        m, n = (sum(size(a) for a in avals if jc.is_differentiable(a)) for avals in (self.codomain, self.domain))
        return m, n

    @property
    def T(self) -> LinearMap:
        """The transpose."""
        return Transposed(self)

    def materialise(self) -> jax.Array:
        """The m x n matrix, by n pushes or m pulls, whichever are fewer; operands and results one after the other.

        Of a map of complex arrays it is the matrix if the map is linear over the complex numbers.
        """
        m, n = self.shape
        blocks = materialise(self, "push" if n <= m else "pull")
        results, operands = (
            [k for k, a in enumerate(avals) if jc.is_differentiable(a)] for avals in (self.codomain, self.domain)
        )
        dtypes = [a.dtype for a in (*self.domain, *self.codomain) if jc.is_differentiable(a)]
        dtype = functools.reduce(np.promote_types, dtypes) if dtypes else np.dtype(np.float32)
        rows = [lax.concatenate([blocks[j, i].astype(dtype) for i in operands], 1) for j in results if operands]
        return lax.concatenate(rows, 0) if rows else jax.numpy.zeros((m, n), dtype)

    @overload
    def __matmul__(self, other: LinearMap) -> LinearMap: ...

    @overload
    def __matmul__(self, other: Any) -> Any: ...

    def __matmul__(self, other: Any) -> Any:
        if not isinstance(other, LinearMap):
            return self._apply(other)
        if not _alike(self.domain, other.codomain) or _differ(self.trees[0], other.trees[1]):
            raise ValueError(f"the results of {other!r} are not what {self!r} is applied to, so that there is no A @ B")
        return Compose(self, other)

    def __rmatmul__(self, other: Any) -> Any:
        return self.T @ other

    def __add__(self, other: LinearMap) -> LinearMap:
        if not isinstance(other, LinearMap):
            return NotImplemented
        same = _alike(self.domain, other.domain) and _alike(self.codomain, other.codomain)
        if not same or any(map(_differ, self.trees, other.trees)):
            raise ValueError(f"{self!r} and {other!r} go between different spaces, so that there is no A + B")
        return Sum((self, other), self.domain, self.codomain)

    def __sub__(self, other: LinearMap) -> LinearMap:
        return self + -other if isinstance(other, LinearMap) else NotImplemented

    def __neg__(self) -> LinearMap:
        return Scaled(np.array(-1, np.int8), self)

    def __mul__(self, factor: Any) -> LinearMap:
        if isinstance(factor, LinearMap) or np.ndim(factor):
            raise TypeError(
                f"a map is multiplied by numbers, not by {factor!r}: A @ B is the product of maps, A @ v is A v"
            )
        factor = jax.numpy.asarray(factor)
        if np.issubdtype(factor.dtype, np.complexfloating) and not all(
            a.dtype.kind == "c" for a in self.codomain if jc.is_differentiable(a)
        ):
            raise TypeError(f"{self!r} has real results: it cannot be multiplied by a complex number")
        return Scaled(factor, self)

    __rmul__ = __mul__

    @property
    def types(self) -> str:
        """The types of operands and results, such as ``float32[3], float32 -> float32[2]``."""
        return f"{_types(self.domain)} -> {_types(self.codomain)}"

    def __repr__(self) -> str:
        return clipped(f"{type(self).__name__}({self.types})")

    def _apply(self, vector: Any) -> Any:
        given = [None if t is None else jc.canonicalize(t) for t in _leaves(self, vector)]
        for aval, t in zip(self.domain, given, strict=True):
            if t is not None and not jc.same_type(jc.typeof(t), jc.tangent_aval(aval)):
                raise TypeError(f"{self!r} was applied to a vector with an array of type {_type(jc.typeof(t))}")
        on = map(jc.is_differentiable, self.domain)
        outs = self.push(tuple(t if active else None for t, active in zip(given, on, strict=True)))
        dense = [jc.zeros(a) if t is None else jc.untyped(t) for a, t in zip(self.codomain, outs, strict=True)]
        if self.trees[1] is not None:
            return self.trees[1].unflatten(dense)
        return dense[0] if len(dense) == 1 else tuple(dense)


def _leaves(linear: LinearMap, vector: Any) -> Sequence:
    """The part of a vector that belongs to each operand."""
    if linear.trees[0] is not None:
        return linear.trees[0].flatten_up_to(vector)
    leaves = vector if isinstance(vector, (tuple, list)) else (vector,)
    if len(leaves) != len(linear.domain):
        raise ValueError(f"{linear!r} has {len(linear.domain)} operands, but was applied to {len(leaves)}")
    return leaves


def _alike(first: Sequence, second: Sequence) -> bool:
    """True if the types have the same shapes and dtypes, one by one."""
    return [(a.shape, a.dtype) for a in first] == [(b.shape, b.dtype) for b in second]


def _differ(first: Any, second: Any) -> bool:
    """True if two structures are known and are not one."""
    return first is not None and second is not None and first != second


def _type(aval: Any) -> str:
    return f"{aval.dtype}[{','.join(map(str, aval.shape))}]" if aval.shape else f"{aval.dtype}"


def _types(avals: Sequence) -> str:
    """Such as ``float32[3], float32``; of many, the first few and how many more."""
    names = [_type(a) for a in avals]
    ends = itertools.accumulate(len(name) + 2 for name in names)
    shown = names[: max(1, sum(end <= SHOWN for end in ends))]
    more = [f"{len(names) - len(shown)} more"] if len(names) > len(shown) else []
    return ", ".join([*shown, *more]) or "()"


def size(aval: Any) -> int:
    """The number of entries of an array of this type."""
    return math.prod(aval.shape)


def add(x, y):
    """x + y where ``None`` is zero."""
    if x is None or y is None:
        return x if y is None else y
    return jc.add_any(x, y)


@linear_map
class Compose(LinearMap):
    """t ↦ J₂ J₁ t."""

    outer: LinearMap
    inner: LinearMap

    @property
    def domain(self):
        return self.inner.domain

    @property
    def codomain(self):
        return self.outer.codomain

    @property
    def trees(self):
        return self.inner.trees[0], self.outer.trees[1]

    def push(self, tangents):
        return self.outer.push(self.inner.push(tangents))

    def pull(self, cotangents):
        return self.inner.pull(self.outer.pull(cotangents))

    def pattern(self):
        inner = self.inner.pattern()
        return _united(
            ((j, i), after.compose(before))
            for (j, k), after in self.outer.pattern().items()
            for (k2, i), before in inner.items()
            if k == k2
        )


@linear_map
class Sum(LinearMap):
    """t ↦ Σ Jₖ t, for maps with one domain and codomain."""

    terms: tuple[Any, ...]
    domain: tuple = static()
    codomain: tuple = static()

    @property
    def trees(self):
        sides = zip(*(term.trees for term in self.terms), strict=True)
        return tuple(next((tree for tree in side if tree is not None), None) for side in sides)

    def push(self, tangents):
        return _sum(term.push(tangents) for term in self.terms)

    def pull(self, cotangents):
        return _sum(term.pull(cotangents) for term in self.terms)

    def pattern(self):
        return _united(block for term in self.terms for block in term.pattern().items())


def _sum(tuples: Iterable[Arrays]) -> Arrays:
    return functools.reduce(lambda total, values: tuple(map(add, total, values)), tuples)


def _united(blocks: Iterable[tuple[tuple[int, int], SparsityPattern]]) -> dict[tuple[int, int], SparsityPattern]:
    """The patterns of blocks, those of one place united."""
    united: dict = {}
    for key, block in blocks:
        united[key] = united[key].union(block) if key in united else block
    return united


class Around(LinearMap):
    """A map made of another one, between the same spaces."""

    map: LinearMap

    @property
    def domain(self):
        return self.map.domain

    @property
    def codomain(self):
        return self.map.codomain

    def push(self, tangents):
        return self.map.push(tangents)

    def pull(self, cotangents):
        return self.map.pull(cotangents)

    def pattern(self):
        return self.map.pattern()


@linear_map
class Scaled(Around):
    """t ↦ c J t, for a number c."""

    factor: Any
    map: LinearMap

    @property
    def trees(self):
        return self.map.trees

    def push(self, tangents):
        return tuple(map(self._times, self.map.push(tangents)))

    def pull(self, cotangents):
        return self.map.pull(tuple(map(self._times, cotangents)))

    def _times(self, t):
        return None if t is None else lax.mul(t, lax.convert_element_type(self.factor, t.dtype))


@linear_map
class Structured(Around):
    """A map between pytrees: its operands and results are their leaves."""

    map: LinearMap
    trees: tuple[Any, Any] = static()


@linear_map
class Transposed(LinearMap):
    """g ↦ Jᵀ g."""

    map: LinearMap

    @property
    def domain(self):
        return self.map.codomain

    @property
    def codomain(self):
        return self.map.domain

    @property
    def trees(self):
        return self.map.trees[::-1]

    @property
    def T(self) -> LinearMap:
        return self.map

    def push(self, tangents):
        return self.map.pull(tangents)

    def pull(self, cotangents):
        return self.map.push(cotangents)

    def pattern(self):
        return {(i, j): block.transpose for (j, i), block in self.map.pattern().items()}


def structured(linear: LinearMap, arguments: Any, results: Any) -> LinearMap:
    """A map of the leaves of arguments as one of their structure: of the argument itself, if there is but one."""
    children = arguments.children()
    return Structured(linear, (children[0] if len(children) == 1 else arguments, results))
