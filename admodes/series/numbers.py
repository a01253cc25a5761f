r"""Taylor numbers: a value and the coefficients of its power series, computed one after the other on demand.

x(t) = x₀ + x₁ t + x₂ t² + ... is a :class:`Series`: x₀ is its ``primal``, the others are its :class:`Terms`, not
multiplied by factorials. A coefficient that is None is zero by its structure, and costs nothing.

Terms are lazy. So the series of y = φ(x) may be defined by its own slope, y' = φ'(x, y) x': coefficient k of y needs
those below k of the right side, and these only those below k of y (McIlroy, "Power series, power serious", Journal of
Functional Programming 9, 1999).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


class CircularTermsError(Exception):
    """A coefficient was asked for while it is being computed: more of a series than can be known yet."""


class Terms:
    """The coefficients x₁, x₂, ... of a series; ``rule(k)`` computes number k after those below it.

    ``beside`` is what a decision is just beside the point, of a mask: it has no coefficients, but moves.
    """

    __slots__ = ("beside", "busy", "known", "rule")

    def __init__(self, known: Sequence = (), rule: Callable[[int], Any] | None = None, beside=None):
        self.known = list(known)
        self.rule = rule
        self.beside = beside
        self.busy = False

    def __getitem__(self, k: int):
        while self.rule is not None and len(self.known) < k:
            if self.busy:
                raise CircularTermsError
            self.busy = True
            try:
                self.known.append(self.rule(len(self.known) + 1))
            finally:
                self.busy = False
        return self.known[k - 1] if k <= len(self.known) else None

    def upto(self, order: int) -> list:
        """The coefficients 1, ..., order."""
        return [self[k] for k in range(1, order + 1)]


@dataclass(frozen=True, eq=False)
class Series:
    """A Taylor number; with ``tangent`` None it is a constant."""

    primal: Any
    tangent: Terms | None = None

    def __getitem__(self, k: int):
        """Coefficient k; that of order 0 is the value."""
        if k == 0:
            return self.primal
        return None if self.tangent is None else self.tangent[k]

    @property
    def moves(self) -> bool:
        """True if there are coefficients that may be nonzero."""
        return self.tangent is not None and (self.tangent.rule is not None or any(c is not None for c in self.known))

    @property
    def known(self) -> list:
        """The coefficients of order 1 and more that have been computed."""
        return [] if self.tangent is None else self.tangent.known

    @property
    def germ(self):
        """The value just beside the point, of a mask; of others the value."""
        beside = None if self.tangent is None else self.tangent.beside
        return self.primal if beside is None else beside


def fixed(primal, coefficients: Sequence) -> Series:
    """A series with these coefficients from order 1 on, a constant if all are None."""
    return Series(primal, None if all(c is None for c in coefficients) else Terms(coefficients))


def forced(series: Series, order: int) -> Series:
    """The series with its coefficients up to ``order`` computed, and no others."""
    if series.tangent is None or series.tangent.beside is not None:
        return series
    return fixed(series.primal, series.tangent.upto(order))


def jointly(primals: Sequence, rule: Callable[[int], Sequence]) -> list[Series]:
    """Several series whose coefficients number k are computed together."""
    found: dict[int, Sequence] = {}

    def coefficient(j):
        def at(k):
            if k not in found:
                found[k] = rule(k)
            return found[k][j]

        return at

    return [Series(p, Terms(rule=coefficient(j))) for j, p in enumerate(primals)]
