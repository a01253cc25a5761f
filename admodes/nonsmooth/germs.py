r"""Values just beside a point: x + εv for an infinitesimal ε > 0.

A :class:`Germ` holds the value at x and its rate of change along v, and stands for x + ε ẋ. Two germs are compared
lexicographically: by value, at a tie by rate of change. So every comparison has an answer that holds on a whole
stretch (0, ε₀) of the ray, not only at its start. Along more directions germs are nested: the tangents of the outer
level come first.

A sum of squares has rate 0 where it is 0, and still is positive beside x (unless it is 0 there too). Its next term is
kept in a :class:`Square`; that makes the square root of it, a norm, a piecewise smooth function.

References: Nesterov, "Lexicographic differentiation of nonsmooth functions", Mathematical Programming 104 (2005);
Khan and Barton, "A vector forward mode of automatic differentiation for generalized derivative evaluation",
Optimization Methods and Software 30 (2015).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax import lax

from admodes.linear.maps import expand
from admodes.modes.dual import Dual
from admodes.program import jax_compat as jc


@dataclass(frozen=True)
class Square:
    """s = Σ yₖ², valid where that is 0: ``second`` is Σ ẏₖ², the coefficient of ε²; ``half`` is Σ yₖ ẏₖ.

    Only ``half`` is a differentiable function of x: its gradient is that of √s, times √second.
    """

    second: Any
    half: Any


@dataclass(frozen=True)
class Germ(Dual):
    """A value x and its rate of change along v, through which no derivative is taken; None: it does not move."""

    square: Square | None = None

    def map(self, move: Callable) -> Germ:
        """The germ with its entries moved, by a linear function."""
        return Germ(move(self.primal), None if self.tangent is None else move(self.tangent))


def detach(x):
    """``x`` as a constant: what decides a branch is not differentiated."""
    if isinstance(x, jc.Tracer) and jc.is_differentiable(jc.typeof(x)):
        return jc.stop_gradient_p.bind(x)
    return x


def freeze(rate):
    """``rate`` as a constant for an outer level of germs too: what it is beside x is of second order."""
    if rate is None or not jc.is_real(rate):
        return rate
    bits = np.dtype(f"uint{8 * rate.dtype.itemsize}")
    return lax.bitcast_convert_type(lax.bitcast_convert_type(rate, bits), rate.dtype)


def order(a: Germ, b: Germ, shape) -> tuple:
    """Two masks of this shape: where a > b beside x, and where a and b remain equal."""
    greater, equal = _level(expand(detach(a.primal), shape), expand(detach(b.primal), shape))
    for x, y in _rates(a, b):
        more, same = _level(_spread(x, y, shape), _spread(y, x, shape))
        greater = lax.bitwise_or(greater, lax.bitwise_and(equal, more))
        equal = lax.bitwise_and(equal, same)
    return greater, equal


def same(x, y):
    """Where x = y, by comparisons that are decided beside the point even if a guard's ``==`` is not."""
    return lax.bitwise_and(lax.ge(x, y), lax.le(x, y))


def _level(x, y):
    return lax.gt(x, y), same(x, y)


def _spread(x, like, shape):
    return lax.full(shape, 0, like.dtype) if x is None else expand(x, shape)


def _rates(a: Germ, b: Germ) -> list:
    """Pairs of first and of known second rates of change, None for zero."""
    rates = []
    if a.tangent is not None or b.tangent is not None:
        rates.append((a.tangent, b.tangent))
    known = all(g.square is not None or g.tangent is None for g in (a, b))
    if known and (a.square is not None or b.square is not None):
        rates.append((_second(a), _second(b)))
    return rates


def _second(a: Germ):
    if a.square is None:
        return None
    zero = lax.full_like(a.primal, 0)
    return lax.select(same(detach(a.primal), zero), a.square.second, lax.full_like(a.square.second, 0))


def side(a: Germ) -> tuple:
    """Two masks: where a > 0 and where a < 0 beside x."""
    zero = Germ(lax.full_like(detach(a.primal), 0))
    shape = zero.primal.shape
    positive, _ = order(a, zero, shape)
    negative, _ = order(zero, a, shape)
    return positive, negative
