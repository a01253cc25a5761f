"""Formulas as tables: sums of products, those of one level at a time, as gathers, multiplications and additions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from jax import lax

from admodes.planner.products import KNOWN, Entries, Formulas, Terms

UNROLLED = 8  # sums of up to so many terms are added term by term, longer ones by a reduction


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Run:
    """Consecutive places."""

    start: int = field(metadata={"static": True})
    size: int = field(metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Group:
    """Sums of one number of terms each: number k is the sum over t of ``coef[t][k] V[first[t][k]] V[second[t][k]]``.

    None stands for factors 1. With ``long``, t runs along the second axis of one table each.
    """

    coef: tuple
    first: tuple
    second: tuple
    long: bool = field(metadata={"static": True})

    def __call__(self, values):
        terms = [_term(values, *x) for x in zip(self.coef, self.first, self.second, strict=True)]
        if self.long:
            return lax.reduce_sum(terms[0], (1,))
        total = terms[0]
        for term in terms[1:]:
            total = lax.add(total, term)
        return total


def _term(values, coef, first, second):
    term = _take(values, first)
    if second is not None:
        term = lax.mul(term, _take(values, second))
    return term if coef is None else lax.mul(term, lax.convert_element_type(coef, values.dtype))


def _take(values, places):
    if isinstance(places, Run):
        return lax.slice_in_dim(values, places.start, places.start + places.size)
    return values.at[places].get(mode="promise_in_bounds")


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Tables:
    """How numbers follow from flat arrays of which number ``arrays`` are used: the groups of each level, the results.

    The numbers V are these arrays one after the other, the numbers one and zero, then level by level the groups.
    """

    levels: tuple[tuple[Group, ...], ...]
    last: Group | None
    arrays: tuple[int, ...] = field(metadata={"static": True})

    def __call__(self, arrays: Sequence, dtype):
        """The results."""
        if self.last is None:
            return jax.numpy.zeros(0, dtype)
        used = [lax.convert_element_type(arrays[k], dtype) for k in self.arrays]
        values = lax.concatenate([*used, np.array([1, 0], dtype)], 0)
        for groups in self.levels:
            values = lax.concatenate([values, *(group(values) for group in groups)], 0)
        return self.last(values)


@dataclass(frozen=True, eq=False)
class Schedule:
    """The tables that compute entries, and what they count: products, sums, levels."""

    tables: Tables
    multiplications: int
    additions: int
    levels: int


def schedule(formulas: Formulas, sizes: Sequence[int], entries: Entries) -> Schedule:
    """The tables for these entries; the given numbers of the formulas are flat arrays of these ``sizes``."""
    count = formulas.count
    level, live, used = np.zeros(count + 1, np.int64), np.zeros(count + 1, bool), np.zeros(count + 1, bool)
    live[entries.root] = True
    owners, lengths = [], np.ones(count + 1, np.int64)
    for sums in formulas.sums:
        owner = np.repeat(np.arange(sums.first, sums.first + sums.lengths.size), sums.lengths)
        lengths[sums.first : sums.first + sums.lengths.size] = sums.lengths
        below = np.maximum(level[sums.terms.first], level[sums.terms.second])
        starts = np.cumsum(sums.lengths) - sums.lengths
        level[sums.first : sums.first + sums.lengths.size] = 1 + np.maximum.reduceat(below, starts)
        owners.append(owner)
    for sums, owner in zip(reversed(formulas.sums), reversed(owners), strict=True):
        on = live[owner]
        for factor in (sums.terms.first[on], sums.terms.second[on]):
            live[factor] = used[factor] = True
    live[KNOWN] = used[KNOWN] = False
    terms, owner = _live_terms(formulas, owners, live)
    # a product that is only a result is computed there and then
    in_results = np.bincount(entries.root[entries.root != KNOWN], minlength=count + 1)
    inline = live & ~used & (in_results == 1) & (lengths == 1)
    inline[: formulas.given] = False
    products = int(np.count_nonzero(terms.second != KNOWN))
    scaled = int(np.count_nonzero((np.abs(terms.coef) != 1) & (terms.first != KNOWN)))
    scaled += int(np.count_nonzero((np.abs(entries.coef) != 1) & (entries.root != KNOWN)))
    additions = terms.coef.size - int(np.count_nonzero(live[formulas.given : count]))

    starts = np.cumsum([0, *sizes])
    arrays = tuple(k for k in range(len(sizes)) if live[starts[k] : starts[k + 1]].any())
    place, end = np.zeros(count + 1, np.int64), 0
    for k in arrays:
        place[starts[k] : starts[k + 1]] = np.arange(end, end + sizes[k])
        end += sizes[k]
    one, end = end, end + 2
    place[KNOWN] = one
    levels = []
    heads = np.flatnonzero(np.concatenate([[True], owner[1:] != owner[:-1]])[: owner.size])
    heads_owner = owner[heads]
    padded = 1 << np.ceil(np.log2(lengths[heads_owner])).astype(np.int64)
    for number in range(1, int(level[heads_owner].max(initial=0)) + 1):
        groups = []
        here = (level[heads_owner] == number) & ~inline[heads_owner]
        for width in np.unique(padded[here]).tolist():
            chosen = heads[here & (padded == width)]
            groups.append(_group(terms, chosen, lengths[owner[chosen]], width, place, one))
            place[owner[chosen]] = np.arange(end, end + chosen.size)
            end += chosen.size
        if groups:
            levels.append(tuple(groups))
    last = _last(entries, terms, owner, heads, inline, place, one) if entries.root.size else None
    top = int(level[entries.root[entries.root != KNOWN]].max(initial=0))
    return Schedule(Tables(tuple(levels), last, arrays), products + scaled, additions, top)


def _live_terms(formulas: Formulas, owners: Sequence[np.ndarray], live: np.ndarray) -> tuple[Terms, np.ndarray]:
    """All terms of live numbers and the numbers that they are terms of; products first, known numbers last."""
    nothing = np.zeros(0, np.int64)
    terms = Terms.concatenate(
        [Terms(nothing, np.zeros(0), nothing, nothing)]
        + [Terms(nothing, s.terms.coef, s.terms.first, s.terms.second) for s in formulas.sums]
    )
    owner = np.concatenate([nothing, *owners])
    kept = np.flatnonzero(live[owner])
    terms, owner = Terms(nothing, terms.coef[kept], terms.first[kept], terms.second[kept]), owner[kept]
    order = np.lexsort((terms.first == KNOWN, terms.second == KNOWN, owner))
    return Terms(nothing, terms.coef[order], terms.first[order], terms.second[order]), owner[order]


def _group(terms: Terms, heads, lengths, width: int, place, one: int) -> Group:
    """The sums whose terms start at ``heads``, padded by zeros to ``width`` terms."""
    t = np.arange(width)
    there = t < lengths[:, None]
    at = np.where(there, heads[:, None] + t, 0)
    first = np.where(there, place[terms.first[at]], one + 1)
    second = np.where(there, place[terms.second[at]], one)
    coef = np.where(there, terms.coef[at], 1.0)
    if width > UNROLLED:
        return Group((_factor(coef),), (_places(first),), (_places(second, one),), True)
    columns = [(_factor(c), _places(a), _places(b, one)) for c, a, b in zip(coef.T, first.T, second.T, strict=True)]
    return Group(*zip(*columns, strict=True), False)


def _last(entries: Entries, terms: Terms, owner, heads, inline, place, one: int) -> Group:
    head = np.zeros(inline.size, np.int64)
    head[owner[heads]] = heads
    at, inlined = head[entries.root], inline[entries.root]
    inlined[entries.root == KNOWN] = False
    coef, first = entries.coef, place[entries.root]
    second = np.full(first.size, one)
    if inlined.any():
        at = at[inlined]
        first[inlined], second[inlined] = place[terms.first[at]], place[terms.second[at]]
        coef = coef.copy()
        coef[inlined] *= terms.coef[at]
    return Group((_factor(coef),), (_places(first),), (_places(second, one),), False)


def _factor(coef: np.ndarray) -> np.ndarray | None:
    return None if (coef == 1).all() else np.ascontiguousarray(coef)


def _places(places: np.ndarray, one: int = -1) -> Any:
    """An index table; None if all factors are one, and a run where there are no gaps."""
    if (places == one).all():
        return None
    if places.ndim == 1 and places.size and (np.diff(places) == 1).all():
        return Run(int(places[0]), places.size)
    return np.ascontiguousarray(places, np.int32)
