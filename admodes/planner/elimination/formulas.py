r"""Products of sparse matrices whose entries are formulas: what can be worked out before the numbers are there.

An entry is ``coef`` (a number that is known) or ``coef * V[root]``, V being the numbers that are found at run time. A
product of two known entries is known, that of a known one with another is a multiple of the same V[root]; only the
product of two entries that are not known, or a sum, makes a new number of V.

Reference: Gustavson, *Two fast algorithms for sparse matrices: multiplication and permuted transposition*, ACM TOMS 4
(1978) 250-269.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

KNOWN = -1  # the root of an entry that is a known number


@dataclass(frozen=True, eq=False)
class Entries:
    """The nonzeros of a matrix: ``coef`` where ``root`` is KNOWN, else ``coef * V[root]``, at ``rows`` and ``cols``."""

    rows: np.ndarray
    cols: np.ndarray
    coef: np.ndarray
    root: np.ndarray
    shape: tuple[int, int]

    @staticmethod
    def known(rows, cols, values, shape) -> Entries:
        return Entries(rows, cols, values, np.full(len(rows), KNOWN), shape)

    @staticmethod
    def identity(n: int) -> Entries:
        return Entries.known(np.arange(n), np.arange(n), np.ones(n), (n, n))

    @cached_property
    def starts(self) -> np.ndarray:
        """Where the rows start (if the entries are sorted by rows)."""
        return np.concatenate([[0], np.cumsum(np.bincount(self.rows, minlength=self.shape[0]))])

    @cached_property
    def row_counts(self) -> np.ndarray:
        """The number of entries in each row; and below it, of those that are not known."""
        return self._counts(self.rows, self.shape[0])

    @cached_property
    def col_counts(self) -> np.ndarray:
        return self._counts(self.cols, self.shape[1])

    def _counts(self, places, size) -> np.ndarray:
        unknown = places[self.root != KNOWN]
        return np.stack([np.bincount(places, minlength=size), np.bincount(unknown, minlength=size)])

    def terms(self) -> Terms:
        return Terms(
            self.rows.astype(np.int64) * self.shape[1] + self.cols, self.coef, self.root, np.full(self.root.size, KNOWN)
        )


@dataclass(frozen=True, eq=False)
class Terms:
    """The terms that are to be added up: ``coef * V[first] * V[second]`` at entry ``places`` = row * columns + column.

    ``second``, or both, may be KNOWN, which stands for a factor 1; ``second <= first``.
    """

    places: np.ndarray
    coef: np.ndarray
    first: np.ndarray
    second: np.ndarray

    def take(self, which) -> Terms:
        return Terms(self.places[which], self.coef[which], self.first[which], self.second[which])

    @staticmethod
    def concatenate(parts: Sequence[Terms]) -> Terms:
        if len(parts) == 1:
            return parts[0]
        names = ("places", "coef", "first", "second")
        return Terms(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def product(outer: Entries, inner: Entries) -> Terms:
    """The products of matching nonzeros of two matrices."""
    starts = inner.starts[outer.cols]
    counts = inner.starts[outer.cols + 1] - starts
    left = np.repeat(np.arange(counts.size), counts)
    right = np.arange(left.size) - np.repeat(np.cumsum(counts) - counts - starts, counts)
    places = outer.rows[left].astype(np.int64) * inner.shape[1] + inner.cols[right]
    a, b = outer.root[left], inner.root[right]
    return Terms(places, outer.coef[left] * inner.coef[right], np.maximum(a, b), np.minimum(a, b))


@dataclass(frozen=True, eq=False)
class Sums:
    """Numbers of V: number ``first + k`` is the sum of the ``lengths[k]`` next ``terms`` (their places aside)."""

    first: int
    lengths: np.ndarray
    terms: Terms


class Formulas:
    """The numbers of V and how they follow from each other; the first ``count`` are given."""

    def __init__(self, count: int):
        self.given = self.count = count
        self.sums: list[Sums] = []

    def enter(self, lengths: np.ndarray, terms: Terms) -> np.ndarray:
        """New numbers, each the sum of some terms."""
        self.sums.append(Sums(self.count, lengths, terms))
        self.count += lengths.size
        return np.arange(self.count - lengths.size, self.count)

    def collect(self, parts: Sequence[Terms], shape: tuple[int, int]) -> Entries:
        """The matrix of these terms, sorted by rows and columns."""
        terms = _sorted(Terms.concatenate(parts))
        new = np.concatenate([[True], terms.places[1:] != terms.places[:-1]])[: terms.places.size]
        alone = new & np.append(new[1:], True)[: new.size]
        single = terms if alone.all() else terms.take(alone)
        coef, root = self._roots(single)
        places = single.places
        if single is not terms:
            several = self._added(_merged(terms.take(~alone)))
            places = np.concatenate([places, several[0]])
            order = np.argsort(places, kind="stable")
            places = places[order]
            coef, root = (np.concatenate(pair)[order] for pair in zip((coef, root), several[1:], strict=True))
        rows, cols = np.divmod(places, max(shape[1], 1))
        return Entries(rows, cols, coef, root, shape)

    def _roots(self, terms: Terms) -> tuple[np.ndarray, np.ndarray]:
        """(coef, root) of terms that stand alone: equal products are one number of V."""
        products = np.flatnonzero(terms.second != KNOWN)
        root = terms.first
        if products.size:
            codes = terms.first[products] * np.int64(self.count) + terms.second[products]
            codes, which = np.unique(codes, return_inverse=True)
            first, second = np.divmod(codes, self.count)
            ones = np.ones(codes.size)
            numbers = self.enter(ones.astype(np.int64), Terms(codes, ones, first, second))
            root = root.copy()
            root[products] = numbers[which]
        return terms.coef, root

    def _added(self, terms: Terms) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(places, coef, root) of the sums of the terms of each place."""
        starts = np.flatnonzero(np.concatenate([[True], terms.places[1:] != terms.places[:-1]])[: terms.places.size])
        lengths = np.diff(np.append(starts, terms.places.size))
        places, alone = terms.places[starts], lengths == 1
        coef, root = np.ones(starts.size), np.full(starts.size, KNOWN)
        coef[alone], root[alone] = self._roots(terms.take(starts[alone]))
        if not alone.all():
            root[~alone] = self.enter(lengths[~alone], terms.take(np.repeat(~alone, lengths)))
        return places, coef, root


class Formula:
    """One number that is worked out with: a sum of products, ``terms[first, second]`` being their coefficients.

    It becomes a number of V when it is multiplied by another, or read off.
    """

    def __init__(self, formulas: Formulas, terms: dict[tuple[int, int], float]):
        self.formulas, self.terms = formulas, terms

    @cached_property
    def entry(self) -> tuple[float, int]:
        """(coef, root), as in a matrix."""
        terms = {key: coef for key, coef in self.terms.items() if coef != 0}
        keys, coefs = np.array(list(terms), np.int64).reshape(-1, 2), np.array(list(terms.values()))
        if len(terms) == 1 and keys[0, 1] == KNOWN:
            return float(coefs[0]), int(keys[0, 0])
        if not terms:
            return 0.0, KNOWN
        scale = float(coefs[0]) if len(terms) == 1 else 1.0
        sums = Terms(keys[:, 0], coefs / scale, keys[:, 0], keys[:, 1])
        return scale, int(self.formulas.enter(np.array([len(terms)]), sums)[0])

    def __mul__(self, other: Formula | float) -> Formula:
        if not isinstance(other, Formula):
            return Formula(self.formulas, {key: coef * other for key, coef in self.terms.items()})
        (a, first), (b, second) = self.entry, other.entry
        return Formula(self.formulas, {(max(first, second), min(first, second)): a * b})

    def __add__(self, other: Formula | float) -> Formula:
        total = dict(self.terms)
        for key, coef in (other.terms if isinstance(other, Formula) else {(KNOWN, KNOWN): other}).items():
            total[key] = total.get(key, 0.0) + coef
        return Formula(self.formulas, total)

    def __neg__(self) -> Formula:
        return self * -1.0

    __rmul__, __radd__ = __mul__, __add__


def _sorted(terms: Terms) -> Terms:
    if (terms.places[1:] > terms.places[:-1]).all():
        return terms
    return terms.take(np.argsort(terms.places, kind="stable"))


def _merged(terms: Terms) -> Terms:
    """Add the coefficients of equal terms, and drop what cancels; sorted by places."""
    terms = terms.take(np.lexsort((terms.second, terms.first, terms.places)))
    keys = (terms.places, terms.first, terms.second)
    new = np.concatenate([[True], np.any([k[1:] != k[:-1] for k in keys], axis=0)])[: terms.places.size]
    starts = np.flatnonzero(new)
    merged = terms.take(starts)
    coef = np.add.reduceat(terms.coef, starts) if starts.size else terms.coef
    kept = coef != 0
    return Terms(merged.places[kept], coef[kept], merged.first[kept], merged.second[kept])
