r"""Regions of elementwise operations: their partials, multiplied as arrays before any index is looked at.

Between two operations that move or add entries, ∂w/∂u is one array of partials for each pair of an input u and a result
w of a region. A value v inside of it is eliminated by ∂w/∂u += ∂w/∂v ⊙ ∂v/∂u as long as that makes no more arrays than
there were, so that compilers compute the partials of a region in the kernels of its values, without a gather.

Reference: Griewank and Walther, *Evaluating Derivatives*, 2nd ed., section 10.2 (preaccumulation of statements).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax import lax

from admodes.linear.maps import Elementwise, Linear, LinearMap, Over, expand
from admodes.modes.tape import Tape
from admodes.program.folding import is_known

Partial = Any  # 1 or -1, an array, or Over(array)


def joined(tape: Tape) -> tuple[list[LinearMap], list[tuple], int, int]:
    """The maps of a tape and their wiring, and how many multiplications and additions it took to make them fewer."""
    regions = _Regions(tape)
    return *regions.maps(), regions.count("multiplications"), regions.count("additions")


class _Regions:
    """The elementwise maps of a tape: ``partials[w][u]`` is ∂w/∂u, ``readers[u]`` are the slots w that have one."""

    def __init__(self, tape: Tape):
        self.tape, self.all = tape, [_masks(jacobian) for jacobian in tape.maps]
        self.partials: dict[int, dict[int, Partial]] = {}
        self.readers: dict[int, set[int]] = {}
        self.avals: dict[int, Any] = {}
        self.changed: set[int] = set()
        self.counts: Counter = Counter()  # of operations, by what they are and the slot w
        fixed = {s for s in tape.outputs if s is not None}
        for jacobian, (reads, writes) in zip(self.all, tape.wiring, strict=True):
            self.avals.update((s, a) for s, a in zip(reads, jacobian.domain, strict=True) if s is not None)
            if not isinstance(jacobian, Elementwise):
                fixed.update(s for s in reads if s is not None)
                continue
            (w,) = writes
            self.avals[w] = jacobian.codomain[0]
            self.partials[w] = {}
            for u, d, kind in zip(reads, jacobian.partials, jacobian.kinds, strict=True):
                if u is not None and not (d is None and kind is None):
                    self._add(w, u, kind if d is None else Over(d) if kind is Over else d)
        self.inside = {v: None for v in self.partials if v not in fixed and v in self.readers}
        count = len(self.inside) + 1
        while len(self.inside) < count:
            count = len(self.inside)
            for v in filter(self._is_worth, list(self.inside)):
                self._eliminate(v)

    def _is_worth(self, v: int) -> bool:
        """True if there would be no more arrays to compute without v, and no pattern of known zeros gets lost.

        Products with known factors cost nothing in index lists; they are left to these unless there would be fewer
        arrays, or others follow here.

        ::

            u1 --a--+      +--c--> w1        edges in x edges out are made, edges in + edges out go:
                    +-> v -+                 2 x 2 - (2 + 2) = 0 more, v is worth it
            u2 --b--+      +--d--> w2        (an edge u1 -> w1 that is there already is not made anew)

        Of sin(x) y only one edge in and one out are computed: 1 x 1 - 2 = -1. Three in and two out would make 6 of 5.
        A known edge is no array: it does not count as gone, nor a product of two such as made.
        """
        before, after = self.partials[v], {w: self.partials[w][v] for w in self.readers[v]}
        edges = [*before.values(), *after.values()]
        types = {(self.avals[x].shape, self.avals[x].dtype) for x in (v, *after)}
        made = sum(
            (_is_computed(inner) or _is_computed(outer)) and not _is_computed(self.partials[w].get(u, 1))
            for u, inner in before.items()
            for w, outer in after.items()
        )
        more = made - sum(map(_is_computed, edges))
        if more > 0 or len(types) > 1 or not all(map(_is_full, edges)):
            return False
        both = any(map(_is_computed, before.values())) and any(map(_is_computed, after.values()))
        free = all(isinstance(d, int) or _is_computed(d) for d in edges)
        return more < 0 or both or free or not self.inside.keys().isdisjoint((*before, *after))

    def _eliminate(self, v: int) -> None:
        before = self.partials.pop(v)
        del self.inside[v]
        for w in self.readers.pop(v):
            outer = self.partials[w].pop(v)
            for u, inner in before.items():
                self._add(w, u, self._product(outer, inner, w))
            self.changed.add(w)
        for u in before:
            self.readers[u].discard(v)

    def _add(self, w: int, u: int, partial: Partial) -> None:
        known = self.partials[w].get(u)
        self.readers.setdefault(u, set()).add(w)
        self.partials[w][u] = partial if known is None else self._sum(known, partial, w)

    def _product(self, outer: Partial, inner: Partial, w: int) -> Partial:
        if isinstance(inner, int) or isinstance(outer, int):
            sign, other = (inner, outer) if isinstance(inner, int) else (outer, inner)
            return other if sign == 1 else self._negative(other, w)
        for mask, other in ((outer, inner), (inner, outer)):
            if _is_mask(mask):
                return _apply(lambda mask, d: lax.select(mask, d, lax.full_like(d, 0)), mask, self._value(other, w))
        if isinstance(inner, Over):
            outer, inner = inner, outer
        inner = self._value(inner, w)
        if isinstance(outer, Over):
            return self._counted("multiplications", w, _apply(lax.div, inner, self._typed(outer.d, w)))
        return self._counted("multiplications", w, _apply(lax.mul, self._typed(outer, w), inner))

    def _sum(self, a: Partial, b: Partial, w: int) -> Partial:
        return self._counted("additions", w, _apply(lax.add, self._value(a, w), self._value(b, w)))

    def _negative(self, d: Partial, w: int) -> Partial:
        return -d if isinstance(d, int) else _apply(lax.neg, self._value(d, w))

    def _value(self, d: Partial, w: int):
        """A partial as an array of the type of the results."""
        if isinstance(d, int):
            return np.asarray(d, self.avals[w].dtype)
        if isinstance(d, Over):
            return _apply(lambda d: lax.div(lax.full_like(d, 1), d), self._typed(d.d, w))
        return self._typed(d, w)

    def _typed(self, d, w: int):
        dtype = self.avals[w].dtype
        return d if d.dtype == dtype else _apply(lambda d: lax.convert_element_type(d, dtype), d)

    def _counted(self, what: str, w: int, d):
        self.counts[what, w] += 0 if is_known(d) else d.size
        return d

    def count(self, what: str) -> int:
        """The number of operations of a kind that it took, but for those of maps that are left as they were."""
        kept = self.partials.keys() - self.changed
        return sum(count for (kind, w), count in self.counts.items() if kind == what and w not in kept)

    def maps(self) -> tuple[list[LinearMap], list[tuple]]:
        """The maps that are left, and their wiring."""
        found: list[LinearMap] = []
        wiring: list[tuple] = []
        for jacobian, (reads, writes) in zip(self.all, self.tape.wiring, strict=True):
            if isinstance(jacobian, Elementwise):
                (w,) = writes
                if w not in self.partials:
                    continue
                if w in self.changed:
                    reads = tuple(self.partials[w])
                    domain = tuple(self.avals[u] for u in reads)
                    jacobian = Elementwise.build(tuple(self.partials[w].values()), domain, jacobian.codomain)
            found.append(jacobian)
            wiring.append((reads, writes))
        return found, wiring


def _apply(op: Callable, *arrays):
    """An operation on arrays that are broadcast against each other: now, if all of them are known."""
    shape = np.broadcast_shapes(*(np.shape(x) for x in arrays))
    if all(map(is_known, arrays)):
        with jax.ensure_compile_time_eval():
            return np.asarray(op(*(expand(x, shape) for x in arrays)))
    return op(*(expand(x, shape) for x in arrays))


def _masks(jacobian: LinearMap) -> LinearMap:
    """A selection by a value that is found at run time, with the masks for its partials; other maps as they are."""
    if not isinstance(jacobian, Linear) or jacobian.primitive is not lax.select_n_p or is_known(jacobian.operands[0]):
        return jacobian
    which = jacobian.operands[0]
    if which.dtype == bool:
        masks = [lax.bitwise_not(which), which]
    else:
        masks = [lax.eq(which, lax.full_like(which, k)) for k in range(len(jacobian.domain) - 1)]
    partials = [mask if on else None for mask, on in zip(masks, jacobian.active[1:], strict=True)]
    return Elementwise.build((None, *partials), jacobian.domain, jacobian.codomain)


def _is_mask(d: Partial) -> bool:
    return not isinstance(d, (int, Over)) and d.dtype == bool


def _is_computed(d: Partial) -> bool:
    """True if a partial is an array that is found at run time."""
    return not isinstance(d, int) and not is_known(d.d if isinstance(d, Over) else d)


def _is_full(d: Partial) -> bool:
    """True if no entry is known to be zero."""
    return isinstance(d, (int, Over)) or not is_known(d) or bool(np.all(np.asarray(d) != 0))
