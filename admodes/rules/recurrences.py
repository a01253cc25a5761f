r"""Recurrences for the coefficients of power series, of primitives whose slope alone would give longer ones.

Each is ``recurrence(out, *operands, **params)``, which returns the function k -> coefficient k of the result; ``out``
and the operands are read by ``[k]``, None being zero. It is the trait ``series`` of an entry. A primitive needs none:
its slope defines its series, y' = φ'(x, y) x' (``admodes/series/expand.py``). These divide, halve a convolution by its
symmetry, or avoid 0/0.

Reference: Griewank and Walther, *Evaluating Derivatives*, 2nd ed., table 13.2.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jax import lax

from admodes.linear.maps import expand
from admodes.program import jax_compat as jc


def scaled(x, factor):
    """``factor`` x for a number; None is zero."""
    if x is None or factor == 1:
        return x
    return lax.neg(x) if factor == -1 else lax.mul(x, np.array(factor, x.dtype))


def plus(x, y):
    """x + y, None being zero."""
    if x is None or y is None:
        return y if x is None else x
    return lax.add(x, y)


def minus(x, y):
    """x - y, None being zero."""
    if x is None or y is None:
        return scaled(y, -1) if x is None else x
    return lax.sub(x, y)


def convolution(x, y, k: int, first: int = 0, last: int | None = None, times: Callable = lax.mul):
    """Σ x_i y_{k-i} for i from ``first`` to ``last`` (k); None if all terms are zero."""
    total = None
    for i in range(first, (k if last is None else last) + 1):
        a, b = x[i], y[k - i]
        if a is not None and b is not None:
            total = plus(total, times(a, b))
    return total


def half_convolution(x, k: int, first: int = 0, times: Callable = lax.mul):
    """Σ x_i x_{k-i} for i from ``first`` to k - ``first``: each pair of factors once, twice."""
    total = scaled(convolution(x, x, k, first, (k - 1) // 2, times), 2)
    middle = x[k // 2] if k % 2 == 0 and k // 2 >= first else None
    return total if middle is None else plus(total, times(middle, middle))


def by_slope(slope, x) -> Callable:
    """y' = s x' for a series ``slope``: y_k = Σ j x_j s_{k-j} / k."""

    def coefficient(k):
        total = None
        for j in range(1, k + 1):
            if x[j] is not None and slope[k - j] is not None:
                total = plus(total, scaled(lax.mul(x[j], slope[k - j]), j / k))
        return total

    return coefficient


def divider(x) -> Callable:
    """(numerator, k) -> numerator / x. From order 2 on by the inverse, which compilers do not hesitate to fuse; where
    that overflows the quotient of second order does too."""
    inverse: list = []

    def divide(numerator, k: int):
        if numerator is None:
            return None
        if k < 2:
            return lax.div(numerator, x)
        if not inverse:
            inverse.append(lax.div(lax.full_like(x, 1), x))
        return lax.mul(numerator, inverse[0])

    return divide


class Coefficients:
    """The coefficients that ``rule(k)`` computes, each once."""

    def __init__(self, rule: Callable):
        self.rule = rule
        self.found: dict = {}

    def __getitem__(self, k: int):
        if k not in self.found:
            self.found[k] = self.rule(k)
        return self.found[k]


def quotient(z, x, y) -> Callable:
    """y z = x: z_k = (x_k - Σ_{i<k} z_i y_{k-i}) / y₀."""
    shape, divide = np.shape(z[0]), divider(y[0])

    def coefficient(k):
        own = None if x[k] is None else expand(x[k], shape)
        return divide(minus(own, convolution(z, y, k, 0, k - 1)), k)

    return coefficient


def square(z, x) -> Callable:
    """z = x²"""
    return lambda k: half_convolution(x, k)


def root(z, x, **_) -> Callable:
    """z² = x: z_k = (x_k - Σ_{0<i<k} z_i z_{k-i}) / 2 z₀."""
    divide = divider(scaled(z[0], 2))
    return lambda k: divide(minus(x[k], half_convolution(z, k, 1)), k)


def whole_power(z, x, *, y: int) -> Callable:
    """xⁿ by repeated squares; for n < 0 by x⁻ⁿ z = 1. No slope: it would take n products, or divide by x."""
    positive = Coefficients(_product_of_squares(x, abs(y)))
    one = Coefficients(lambda k: lax.full_like(x[0], 1) if k == 0 else None)
    return (lambda k: positive[k]) if y >= 0 else quotient(z, one, positive)


def _product_of_squares(x, n: int) -> Callable:
    if n == 0:
        return lambda k: lax.full_like(x[0], 1) if k == 0 else None
    if n == 1:
        return lambda k: x[k]
    half = Coefficients(_product_of_squares(x, n // 2))
    if n % 2 == 0:
        return lambda k: half_convolution(half, k)
    even = Coefficients(lambda k: half_convolution(half, k))
    return lambda k: convolution(even, x, k)


def logistic(z, x, *, slope) -> Callable:
    """z' = (z - z²) x', with the value of the slope from outside: z - z² has lost it where z is 1."""
    rate = Coefficients(lambda k: slope if k == 0 else minus(z[k], half_convolution(z, k)))
    return by_slope(rate, x)


def power(z, x, y) -> Callable | None:
    """x^a for a number a: a whole power, or x z' = a z x'; None for other exponents.

    There z_k = Σ_j ((a + 1) j/k - 1) x_j z_{k-j} / x₀. At x = 0, zᵏ for k < a is 0.
    """
    exponent = y[0]
    if isinstance(exponent, jc.Tracer) or np.ndim(exponent) or np.iscomplexobj(exponent):
        return None
    a = float(exponent)
    if a == int(a) and abs(a) <= 64:
        return whole_power(z, x, y=int(a))

    def coefficient(k):
        total = None
        for j in range(1, k + 1):
            if x[j] is not None and z[k - j] is not None:
                total = plus(total, scaled(lax.mul(x[j], z[k - j]), (a + 1) * j / k - 1))
        if total is None:
            return None
        found = lax.div(total, x[0])
        if k < a:
            zero = lax.full_like(found, 0)
            found = lax.select(lax.eq(x[0], zero), zero, found)
        return found

    return coefficient
