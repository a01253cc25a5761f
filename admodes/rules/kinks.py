r"""Primitives with kinks, where the derivative does not exist and a choice is made: the policy ``interpreter.ties``.

===========  ===============================  ==================  =========================  ====================
policy       max, min at a tie                \|x\| at 0          clamp on a bound           max, min of an array
===========  ===============================  ==================  =========================  ====================
"jax"        half to each operand             slope 1             slope 0                    the mean of the tied
"average"    half to each operand             slope 0             half to x and the bound    the mean of the tied
"first"      all to the first operand         slope 1             all to x                   the first of the tied
===========  ===============================  ==================  =========================  ====================

Each is a choice per primitive; choices that are reasonable one by one need not add up to a derivative of anything.
Choices that do are made by the lexicographic evaluation (``nonsmooth/lexicographic.py``). \|z\| has slope 0 at a
complex 0. With NaN nothing ties: ``max`` has slope 0 there, and \|x\|' is -1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jax import lax

from admodes.linear.maps import Compose, Elementwise
from admodes.program import jax_compat as jc
from admodes.rules import host
from admodes.rules.table import FunctionRule, LocalRule, lookup, register

POLICIES = ("jax", "first", "average")


def first_along(mask, axes):
    """The mask that keeps only the first hit along ``axes``, counted in their order."""
    shape, axes = mask.shape, sorted(axes)
    count = math.prod(shape[a] for a in axes)
    large = count > np.iinfo(np.int32).max
    dtype, last = (
        (np.dtype(np.int64), np.iinfo(np.int64).max) if large else (np.dtype(np.int32), np.iinfo(np.int32).max)
    )
    places = lax.broadcast_in_dim(lax.reshape(lax.iota(dtype, count), [shape[a] for a in axes]), shape, axes)
    first = lax.reduce_min(lax.select(mask, places, lax.full_like(places, last)), axes)
    return lax.bitwise_and(mask, lax.eq(places, lax.expand_dims(first, axes)))


def _balanced(out, mine, other):
    """The share of ``mine`` in ``out``, the max or min of two: 1 if it alone attains it, 1/2 at a tie, else 0."""
    attained = lax.select(lax.eq(mine, out), lax.full_like(out, 1), lax.full_like(out, 0))
    return lax.div(attained, lax.select(lax.eq(other, out), lax.full_like(out, 2), lax.full_like(out, 1)))


def _extreme_slopes(ties, out, x, y) -> tuple:
    if ties == "first":
        return lambda: lax.eq(x, out), lambda: lax.bitwise_and(lax.eq(y, out), lax.ne(x, out))
    return lambda: _balanced(out, x, y), lambda: _balanced(out, y, x)


def _clamp_slopes(ties, out, low, x, high) -> tuple:
    if ties == "first":
        return (
            lambda: lax.bitwise_and(lax.gt(low, x), lax.lt(low, high)),
            lambda: lax.bitwise_and(lax.ge(x, low), lax.le(x, high)),
            lambda: lax.lt(high, x),
        )
    if ties == "average":
        # clamp = min(max(x, low), high); the share of one in the other's favour, at each of the two
        inner = lax.max(x, low)
        passes = lambda: _balanced(out, inner, high)
        return (
            lambda: lax.mul(passes(), _balanced(inner, low, x)),
            lambda: lax.mul(passes(), _balanced(inner, x, low)),
            lambda: _balanced(out, high, inner),
        )
    return (
        lambda: lax.bitwise_and(lax.gt(low, x), lax.lt(low, high)),
        lambda: lax.bitwise_and(lax.gt(x, low), lax.lt(x, high)),
        lambda: lax.lt(high, x),
    )


def slope_of_abs(ties, x):
    """The derivative of the absolute value of a real x."""
    zero, one = lax.full_like(x, 0), lax.full_like(x, 1)
    right = lax.select(lax.ge(x, zero), one, lax.full_like(x, -1))
    return lax.select(lax.eq(x, zero), zero, right) if ties == "average" else right


def _abs_slopes(ties, out, x) -> tuple:
    return (lambda: slope_of_abs(ties, x),)


@dataclass(frozen=True)
class KinkRule(LocalRule):
    """``slopes(ties, out, *operands)`` returns a function for each operand's partial derivative."""

    slopes: Callable
    kind = "elementwise"

    def jacobian(self, interpreter, primitive, outs, primals, active, params):
        partials = self.slopes(interpreter.ties, *outs, *primals)
        found = tuple(d() if on else None for d, on in zip(partials, active, strict=True))
        return Elementwise.build(found, tuple(map(jc.typeof, primals)), tuple(map(jc.typeof, outs)))

    def is_linear(self, primitive, avals, active, params):
        return False


class AbsRule(KinkRule):
    """|x|' = ±1; over the complex numbers |z| has the real-linear derivative t ↦ Re(t z̄/|z|)."""

    def jacobian(self, interpreter, primitive, outs, primals, active, params):
        (out,), (x,) = outs, primals
        aval = jc.typeof(x)
        if not np.issubdtype(aval.dtype, np.complexfloating):
            return super().jacobian(interpreter, primitive, outs, primals, active, params)
        radius = lax.select(lax.eq(out, lax.full_like(out, 0)), lax.full_like(out, 1), out)
        direction = Elementwise.build(
            (lax.div(lax.conj(x), lax.convert_element_type(radius, x.dtype)),), (aval,), (aval,)
        )
        real_part = lookup(lax.real_p).jacobian(interpreter, lax.real_p, outs, primals, active, {})
        return Compose(real_part, direction)


class SignRule(LocalRule):
    """sign' = 0; over the complex numbers z/|z| turns: t ↦ i s Im(s̄ t) / |z| for s = z/|z|, and 0 at z = 0."""

    kind = "elementwise"

    def is_zero(self, operands):
        return not np.issubdtype(operands[0].dtype, np.complexfloating)

    def jacobian(self, interpreter, primitive, outs, primals, active, params):
        if self.is_zero(primals):
            return None
        return FunctionRule(_turn).jacobian(interpreter, primitive, outs, primals, active, params)

    def is_linear(self, primitive, avals, active, params):
        return False


def _turn(outs, primals, tangents):
    (s,), (z,), (t,) = outs, primals, tangents
    radius = lax.abs(z)
    radius = lax.select(lax.eq(radius, lax.full_like(radius, 0)), lax.full_like(radius, 1), radius)
    angle = lax.div(lax.imag(lax.mul(lax.conj(s), t)), radius)
    return (lax.mul(s, lax.complex(lax.full_like(angle, 0), angle)),)


register(
    lax.max_p,
    KinkRule(_extreme_slopes),
    commutative=True,
    host=host.exact(np.maximum),
    cost="arithmetic",
    kink="larger",
    rounds=False,
)
register(
    lax.min_p,
    KinkRule(_extreme_slopes),
    commutative=True,
    host=host.exact(np.minimum),
    cost="arithmetic",
    kink="smaller",
    rounds=False,
)
register(lax.clamp_p, KinkRule(_clamp_slopes), cost="elementwise", kink="between", rounds=False)
register(lax.abs_p, AbsRule(_abs_slopes), cost="arithmetic", kink="modulus", rounds=False)
register(lax.sign_p, SignRule(), cost="arithmetic", kink="sign", rounds=False)
