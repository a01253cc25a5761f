"""Formulas as tables: sums of products, those of one level at a time, as gathers, multiplications and additions.

The numbers are kept as *parts*, flat arrays: those given first, then those of each group of sums. Numbers that are
computed alike make one group, so that its operands come from one part each (often without gaps, so that no index table
is needed) and its coefficients are one number.

The two parts (V₀, V₁) and (V₂, V₃) are given, and V₀ V₂ + 2 V₁ V₃ is wanted:

>>> import jax.numpy as jnp
>>> from admodes.planner.elimination.gather_tables import schedule
>>> from admodes.planner.elimination.formulas import Formulas, Terms
>>> formulas = Formulas(4)
>>> terms = Terms(np.array([0, 0]), np.array([1.0, 2.0]), first=np.array([2, 3]), second=np.array([0, 1]))
>>> found = schedule(formulas, (2, 2), formulas.collect([terms], (1, 1)))
>>> found.tables([jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0])], np.dtype("float32")).tolist()  # 1·3 + 2·2·4
[19.0]
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax import lax

from admodes.compilers.recompute import stored
from admodes.linear.maps import static
from admodes.planner.elimination.formulas import KNOWN, Entries, Formulas, Terms
from admodes.program.derived import keep

# Terms: sums of up to so many are added term by term, longer ones by a reduction. Chosen. Four times more make
# programs longer to compile; one term alone makes reductions of two.
UNROLLED = 4
# Terms: fewer are not worth a kernel of their own, and are computed with others. Chosen. Four times less starts more
# kernels; four times more gathers where slices would do.
SMALL = 16384
# Single products for each number in them, from which on they are multiplied where the results are gathered. Chosen.
# Larger, more products are stored first; smaller, more results are gathered as two factors.
MANY = 4
# Numbers that are worth a kernel without index tables, at least. Chosen. Four times less makes more kernels, four
# times more longer tables.
FEW = 1024
GATHER = lax.GatherDimensionNumbers(offset_dims=(), collapsed_slice_dims=(0,), start_index_map=(0,))


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Places:
    """Numbers out of ``parts``, these taken as one array: at ``table``; or ``size`` of them from ``start`` on."""

    table: Any
    parts: tuple[int, ...] = static()
    start: int = static()
    size: int = static()

    def take(self, pools: Pools):
        pool = pools.joined(self.parts)
        if self.table is None:
            return pool if self.size == pool.size else lax.slice_in_dim(pool, self.start, self.start + self.size)
        indices = lax.expand_dims(self.table, (1,))
        return lax.gather(pool, indices, GATHER, (1,), mode=lax.GatherScatterMode.PROMISE_IN_BOUNDS)


class Pools:
    """The parts there are so far, and joined ones. Gathers would compute anew what is not stored."""

    def __init__(self):
        self.parts: list = []
        self._joined: dict = {}

    def append(self, parts: Sequence, on: Sequence[bool]) -> None:
        """Take up parts; those that are ``on`` are stored."""
        found = iter(stored(keep(on, parts)))
        self.parts += [next(found) if keep_it else x for keep_it, x in zip(on, parts, strict=True)]

    def joined(self, numbers: tuple[int, ...]):
        """Some parts as one array, in which they are stored."""
        if len(numbers) == 1:
            return self.parts[numbers[0]]
        if numbers not in self._joined:
            parts = [self.parts[k] for k in numbers]
            (whole,) = stored([lax.concatenate(parts, 0)])
            ends = itertools.accumulate(x.size for x in parts)
            for k, x, end in zip(numbers, parts, ends, strict=True):
                self.parts[k] = lax.slice_in_dim(whole, end - x.size, end)
            self._joined[numbers] = whole
        return self._joined[numbers]


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Group:
    """Sums of one number of terms each: the k-th is the sum over t of ``coef[t] V[first[t]] V[second[t]]``.

    None stands for factors 1, a ``coef`` of shape () is the same for all. If ``length`` is given there is one table
    each, the terms of a sum one after the other.
    """

    coef: tuple
    first: tuple
    second: tuple
    length: int | None = static(default=None)

    def __call__(self, pools: Pools, dtype):
        total: Any = None
        for coef, *places in zip(self.coef, self.first, self.second, strict=True):
            term = None if coef is None else lax.convert_element_type(coef, dtype)
            for place in places:
                if place is not None:
                    factor = place.take(pools)
                    term = factor if term is None else lax.mul(factor, _spread(term, factor.shape))
            total = term if total is None else lax.add(total, _spread(term, total.shape))
        if self.length is None:
            return total
        rows = lax.reshape(total, (total.size // self.length, self.length))
        return lax.dot(rows, np.ones(self.length, dtype), precision=lax.Precision.HIGHEST)  # faster than a reduction


def _spread(x, shape):
    return x if np.shape(x) == shape else lax.broadcast(x, shape)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Tables:
    """The parts are the arrays that are given, the ``constants``, and level by level the groups."""

    constants: Any
    levels: tuple[tuple[Group, ...], ...]
    results: Group | None
    stored: tuple[bool, ...] = static()

    def __call__(self, arrays: Sequence, dtype):
        """The results."""
        if self.results is None:
            return jax.numpy.zeros(0, dtype)
        pools, on = Pools(), iter(self.stored)
        given = [lax.convert_element_type(x, dtype) for x in (*arrays, self.constants)]
        pools.append(given, list(itertools.islice(on, len(given))))
        for groups in self.levels:
            pools.append([group(pools, dtype) for group in groups], list(itertools.islice(on, len(groups))))
        return self.results(pools, dtype)


@dataclass(frozen=True, eq=False)
class Schedule:
    """The tables that compute entries, and what they count."""

    tables: Tables
    multiplications: int
    additions: int
    levels: int


def schedule(formulas: Formulas, sizes: Sequence[int], entries: Entries) -> Schedule:
    """The tables for these entries; the given numbers of the formulas are flat arrays of these ``sizes``."""
    return _Scheduler(formulas, sizes).run(entries)


class _Scheduler:
    """``part`` and ``offset`` say where each number is; those of the constants, one and zero follow the formulas'.

    ``sizes`` are those of the parts so far, ``reads`` and ``tables`` how many entries are gathered from each alone, and
    by how many tables; those ``shared`` are joined for a level, as there are columns that need several of them.
    """

    def __init__(self, formulas: Formulas, sizes: Sequence[int]):
        self.formulas, self.sizes = formulas, list(sizes)
        self.part = self.offset = np.zeros(0, np.int64)
        self.reads = self.tables = self.shared = np.zeros(0, np.int64)  # of each part

    def run(self, entries: Entries) -> Schedule:
        constants, results = self._named(entries)
        terms, lengths, numbers = self._live_terms(results)
        scaled = np.count_nonzero((terms.first != KNOWN) & (np.abs(terms.coef) != 1))
        products = np.count_nonzero(terms.second != KNOWN) + scaled
        additions = terms.coef.size - numbers.size
        results, factors, kept = self._in_place(results, terms, lengths, numbers)
        terms, lengths, numbers = terms.take(np.repeat(kept, lengths)), lengths[kept], numbers[kept]
        self._place_given(constants.size)
        heads = np.cumsum(lengths) - lengths
        rank = np.full(self.part.size, results.size)  # numbers in the order of the results, if possible
        rank[results[::-1]] = np.arange(results.size)[::-1]
        level = self._levels()[numbers]
        levels = []
        for k in range(1, int(level.max(initial=0)) + 1):
            found: list[tuple] = []
            for width, rows in _by_width(np.flatnonzero(level == k), lengths):
                rows = rows[np.lexsort((numbers[rows], rank[numbers[rows]]))]
                found += self._groups(terms, heads[rows], lengths[rows], numbers[rows], width)
            self._share([x for _, _, *factors, _ in found for x in factors])
            levels.append(tuple(itertools.starmap(self._group, found)))
            for made, *_ in found:
                self.part[made], self.offset[made] = len(self.sizes), np.arange(made.size)
                self.sizes.append(made.size)
            self.reads = np.append(self.reads, np.zeros(len(found), np.int64))
            self.tables = np.append(self.tables, np.zeros(len(found), np.int64))
        self._share([])
        last = Group((None,), (self._factor(results),), (self._factor(factors),)) if results.size else None
        stored = tuple(((self.tables > 1) | (self.reads > np.asarray(self.sizes))).tolist())
        tables = Tables(constants, tuple(levels), last, stored)
        return Schedule(tables, int(products), additions, len(levels))

    def _named(self, entries: Entries) -> tuple[np.ndarray, np.ndarray]:
        """The constants, and the number of each entry: a multiple of a number is a new number."""
        results = entries.root.copy()
        known = results == KNOWN
        scaled = np.flatnonzero(~known & (entries.coef != 1))
        if scaled.size:
            order = np.lexsort((entries.coef[scaled], results[scaled]))
            root, coef = results[scaled][order], entries.coef[scaled][order]
            new = np.concatenate([[True], (root[1:] != root[:-1]) | (coef[1:] != coef[:-1])])
            nothing = np.full(np.count_nonzero(new), KNOWN)
            terms = Terms(nothing, coef[new], root[new], nothing)
            numbers = self.formulas.enter(np.ones(nothing.size, np.int64), terms)
            results[scaled[order]] = numbers[np.cumsum(new) - 1]
        constants, which = np.unique(entries.coef[known], return_inverse=True)
        results[known] = self.formulas.count + which
        self.one = self.formulas.count + constants.size
        return np.append(constants, [1.0, 0.0]), results

    def _live_terms(self, results: np.ndarray) -> tuple[Terms, np.ndarray, np.ndarray]:
        """The terms of the numbers that the results need, how many each of these has, and the numbers."""
        live = np.zeros(self.one + 3, bool)  # the last one: KNOWN
        live[results] = True
        none = np.zeros(0, np.int64)
        kept: list = [(Terms(none, np.zeros(0), none, none), none, none)]
        for sums in reversed(self.formulas.sums):
            on = live[sums.first : sums.first + sums.lengths.size]
            terms = sums.terms.take(np.repeat(on, sums.lengths))
            live[terms.first] = live[terms.second] = True
            kept.append((terms, sums.lengths[on], sums.first + np.flatnonzero(on)))
        parts, lengths, numbers = zip(*kept[::-1], strict=True)
        return Terms.concatenate(parts), np.concatenate(lengths), np.concatenate(numbers)

    def _in_place(self, results, terms: Terms, lengths, numbers) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The results as products of two numbers (or one, and KNOWN), and which numbers are still to be computed.

        Products that are results and no more are computed where they are wanted, if they are many of few factors.
        """
        heads = np.cumsum(lengths) - lengths
        used = np.zeros(self.one + 3, bool)
        used[terms.first] = used[terms.second] = True
        times = np.bincount(results, minlength=used.size)[numbers]
        single = (lengths == 1) & ~used[numbers] & (times == 1)
        single[single] = (terms.second[heads[single]] != KNOWN) & (terms.coef[heads[single]] == 1)
        at = heads[single]
        first, second = np.arange(used.size), np.full(used.size, KNOWN)
        factors = np.zeros(used.size, bool)
        factors[terms.first[at]] = factors[terms.second[at]] = True
        if MANY * np.count_nonzero(factors) > at.size:
            return results, second[results], np.ones(numbers.size, bool)
        first[numbers[single]], second[numbers[single]] = terms.first[at], terms.second[at]
        return first[results], second[results], ~single

    def _levels(self) -> np.ndarray:
        """The number of sums, one after the other, that a number takes."""
        level = np.zeros(self.formulas.count + 1, np.int64)
        for sums in self.formulas.sums:
            below = np.maximum(level[sums.terms.first], level[sums.terms.second])
            starts = np.cumsum(sums.lengths) - sums.lengths
            level[sums.first : sums.first + sums.lengths.size] = 1 + np.maximum.reduceat(below, starts)
        return level

    def _place_given(self, constants: int) -> None:
        starts = [*np.cumsum([0, *self.sizes])[:-1], self.formulas.count]
        self.sizes.append(constants)
        self.reads, self.tables = np.zeros((2, len(self.sizes)), np.int64)
        self.part = np.full(self.formulas.count + constants, -1)
        self.offset = np.zeros(self.part.size, np.int64)
        for k, (start, size) in enumerate(zip(starts, self.sizes, strict=True)):
            self.part[start : start + size] = k
            self.offset[start : start + size] = np.arange(size)

    def _groups(self, terms: Terms, heads, lengths, numbers, width: int) -> list[tuple]:
        """The sums of up to ``width`` terms that start at ``heads``, those that are computed alike in one group.

        For each group the numbers it makes, and by row and column its coefficients, factors, and which terms are there.
        """
        t = np.arange(width)
        there = t < lengths[:, None]
        at = np.where(there, heads[:, None] + t, 0)
        first, second = terms.first[at], terms.second[at]
        if width > 1:  # products first, then multiples, then known terms, then what is not there
            count = self.formulas.count
            rank = (second == KNOWN) + (first == KNOWN) + 3 * ~there
            at = np.take_along_axis(at, np.argsort((rank * count + second) * count + first, axis=1), axis=1)
        coef, first, second = (
            np.where(there, x[at], y)
            for x, y in ((terms.coef, 0.0), (terms.first, self.one + 1), (terms.second, KNOWN))
        )
        groups = []
        for rows in self._alike(coef, first, second):
            columns = range(int(lengths[rows].max()))
            groups.append((numbers[rows], *(x[rows][:, columns] for x in (coef, first, second, there))))
        return groups

    def _alike(self, coef, first, second) -> list[np.ndarray]:
        """Row numbers: large sets of rows with equal coefficients whose factors are in the same parts, and the rest."""
        rows = np.arange(coef.shape[0])
        if rows.size < 2 * FEW or coef.shape[1] > UNROLLED:
            return [rows]
        code = np.zeros(rows.size, np.int64)
        for column in np.concatenate([coef, *(np.where(x == KNOWN, -1, self.part[x]) for x in (first, second))], 1).T:
            if (column != column[0]).any():
                number = np.unique(column, return_inverse=True)[1]
                code = np.unique(code * (number.max() + 1) + number, return_inverse=True)[1]
        sets = [np.flatnonzero(code == k) for k in np.flatnonzero(np.bincount(code) >= max(FEW, rows.size // 16))]
        large = [s for s in sets if s.size * coef.shape[1] >= SMALL or self._are_runs(first[s], second[s])]
        left = np.ones(rows.size, bool)
        for chosen in large:
            left[chosen] = False
        return [*large, rows[left]] if left.any() else large

    def _are_runs(self, *factors) -> bool:
        """True if the numbers in each column are consecutive ones of a part, or known."""
        offsets = (np.where(x == KNOWN, 0, self.offset[x] - np.arange(x.shape[0])[:, None]) for x in factors)
        return all((x == x[0]).all() for x in offsets)

    def _group(self, numbers, coef, first, second, there) -> Group:
        coef = np.where(there, coef, np.where(np.isfinite(coef[0]), coef[0], 0.0))  # what is not there is zero times it
        length = coef.shape[1] if coef.shape[1] > UNROLLED else None
        columns = zip(*(x.T if length is None else [x.ravel()] for x in (coef, first, second)), strict=True)
        factors = [(_coefficient(c, a), self._factor(a), self._factor(b)) for c, a, b in columns]
        coefs, firsts, seconds = zip(*factors, strict=True)
        return Group(coefs, firsts, seconds, length)

    def _factor(self, numbers: np.ndarray) -> Places | None:
        if (numbers == KNOWN).all():
            return None
        return self._places(np.where(numbers == KNOWN, self.one, numbers))

    def _share(self, columns: Sequence[np.ndarray]) -> None:
        """Let columns with factors in several parts be taken from one array that holds all of these."""
        self.shared = np.zeros(len(self.sizes), bool)
        for numbers in columns:
            counts = np.bincount(self.part[numbers[numbers != KNOWN]], minlength=self.shared.size)
            if np.count_nonzero(counts) > 1:
                self.shared |= counts > 0

    def _places(self, numbers: np.ndarray) -> Places:
        counts = np.bincount(self.part[numbers], minlength=len(self.sizes))
        parts = np.flatnonzero(counts)
        together = self.shared[parts].all()
        if together:
            parts = np.flatnonzero(self.shared)
        starts = np.zeros(len(self.sizes), np.int64)
        starts[parts] = np.cumsum([0, *(self.sizes[k] for k in parts)])[:-1]
        places = starts[self.part[numbers]] + self.offset[numbers]
        chosen = tuple(map(int, parts))
        if (np.diff(places) == 1).all():
            return Places(None, chosen, int(places[0]), places.size)
        if parts.size == 1:
            self.reads += counts
            self.tables += counts > 0
        return Places(places.astype(np.int32), chosen, 0, places.size)


def _by_width(rows: np.ndarray, lengths: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Sums by the number of terms, rounded up to a power of two; a few are taken to be as long as the next longer."""
    padded = 1 << np.ceil(np.log2(lengths[rows])).astype(np.int64)
    widths = np.unique(padded).tolist()
    for width, longer in itertools.zip_longest(widths, widths[1:]):
        chosen = padded == width
        if longer and np.count_nonzero(chosen) * longer < SMALL:
            padded[chosen] = longer
        else:
            yield width, rows[chosen]


def _coefficient(coef: np.ndarray, first: np.ndarray) -> np.ndarray | None:
    if (coef != coef.flat[0]).any():
        return np.ascontiguousarray(coef)
    if coef.flat[0] == 1 and (first != KNOWN).any():
        return None
    return np.asarray(coef.flat[0])
