r"""Functions of JAX whose own derivative rule, or program, loses the digits of the derivative; what takes their place.

Everybody else's custom rules are the derivative, by definition. These few belong to functions of ``jax.numpy``,
``jax.nn`` and ``jax.scipy`` that have one derivative, which JAX computes from a saturated value or by a difference that
cancels. A function is known by where its code stands. With ``ADMODES_REPLACE=0`` in the environment, before admodes is
imported, JAX's are taken.

================================  ===============================================================================
function                          weakness of JAX's
================================  ===============================================================================
``logaddexp``, ``softplus``       exp(x - log(eˣ + eʸ)) is 1 for large x - y; NaN where both are -∞
``logaddexp2``                    the same
``i0`` (before jax 0.12)          the second derivative is 0 at 0, where it is 1/2
``sinc`` (before jax 0.12)        cos(y)/y - sin(y)/y² near 0
``i1`` (since jax 0.12)           a difference of Bessel functions near 0
``hypot`` (since jax 0.12)        (ẋ - u ṙ)/r cancels for large x
``soft_sign``                     1/(1 + |x|) - x/(1 + |x|)² for large x
``sqrtm``                         none at all (``square_root.py``)
================================  ===============================================================================
"""

from __future__ import annotations

import os
from collections.abc import Callable

import jax
import numpy as np
from jax import lax

from admodes.program import jax_compat as jc
from admodes.rules.elementwise import c
from admodes.rules.special import i1_over_x, slope_of_i1
from admodes.rules.square_root import square_root
from admodes.rules.table import ElementwiseRule, FunctionRule, LocalRule

_RULES: dict[str, LocalRule] = {}


def replacement(params) -> LocalRule | None:
    """The rule that takes the place of a custom_jvp function's, if there is one."""
    return _RULES.get(jc.source_of_custom(params) or "")


def _share(x, y):
    """eˣ / (eˣ + eʸ) = σ(x - y): of equal infinities one half, and of -∞ nothing."""
    distance = lax.sub(x, y)
    both_infinite = lax.bitwise_and(lax.eq(x, y), lax.eq(lax.abs(x), lax.full_like(x, np.inf)))
    distance = lax.select(both_infinite, lax.full_like(distance, 0), distance)
    share = lax.logistic(distance)
    return lax.select(lax.eq(x, lax.full_like(x, -np.inf)), lax.full_like(share, 0), share)


def _shares(log_base: float) -> ElementwiseRule:
    """The shares of two operands for powers of a base."""

    def share(x, y):
        if np.issubdtype(x.dtype, np.complexfloating):
            return lax.logistic(lax.mul(c(log_base, x), lax.sub(x, y)))
        return _share(*(lax.mul(c(log_base, v), v) for v in (x, y)) if log_base != 1 else (x, y))

    return ElementwiseRule((lambda out, x, y: share(x, y), lambda out, x, y: share(y, x)))


def _i1(out, x):
    """I₀' = I₁, near 0 as a polynomial: no |x| takes part."""
    near = lax.lt(lax.abs(x), c(1, x))
    inside, outside = lax.select(near, x, lax.full_like(x, 0)), lax.select(near, lax.full_like(x, 1), x)
    large = lax.mul(lax.exp(lax.abs(outside)), lax.bessel_i1e(outside))
    return lax.select(near, lax.mul(inside, i1_over_x(inside)), large)


def _sinc(x) -> list:
    """sin(y)/y for y = πx, near 0 as a polynomial in y²."""
    y = lax.mul(c(np.pi, x), x)
    near = lax.lt(lax.abs(y), lax.full_like(lax.abs(y), 1))
    square = lax.square(lax.select(near, y, lax.full_like(y, 0)))
    series, term = lax.full_like(y, 0), 1.0
    terms = [term := (term if k == 0 else -term / (2 * k * (2 * k + 1))) for k in range(10)]
    for a in reversed(terms):
        series = lax.add(lax.mul(series, square), c(a, y))
    far = lax.select(near, lax.full_like(y, 1), y)
    return [lax.select(near, series, lax.div(lax.sin(far), far))]


def _soft_sign(x) -> list:
    """x / (1 + |x|), which moves as -s / (1 + |x|) for the sign s of x."""
    side = lax.select(lax.ge(x, c(0, x)), lax.full_like(x, 1), lax.full_like(x, -1))
    size = lax.add(lax.mul(side, x), c(1, x))
    moving = lax.div(lax.neg(side), size)
    return [lax.add(moving, lax.stop_gradient(lax.sub(lax.div(x, size), moving)))]


def _push_hypot(outs, primals, tangents):
    """With u = x/r and v = y/r: ṙ = u ẋ + v ẏ, u̇ = v w and v̇ = -u w for w = (v ẋ - u ẏ)/r, the turn."""
    r, u, v = outs
    dx, dy = (lax.full_like(r, 0) if t is None else t for t in tangents)
    turn = lax.div(lax.sub(lax.mul(v, dx), lax.mul(u, dy)), r)
    return lax.add(lax.mul(u, dx), lax.mul(v, dy)), lax.mul(v, turn), lax.neg(lax.mul(u, turn))


def _replace(fun: Callable | None, rule: LocalRule) -> None:
    if fun is not None:
        _RULES[jc.source_of(fun)] = rule


if os.environ.get("ADMODES_REPLACE", "1") != "0":
    _replace(jc.logaddexp, _shares(1))
    _replace(jc.logaddexp2, _shares(float(np.log(2))))
    _replace(jc.i1_core, ElementwiseRule((slope_of_i1,)))
    _replace(jc.hypot_parts, FunctionRule(_push_hypot))
    jc.substitute(jc.sqrtm, square_root)
    jc.substitute(jax.nn.soft_sign, _soft_sign)
    if not jc.is_accurate_sinc:
        _replace(jc.i0_core, ElementwiseRule((_i1,)))
        jc.substitute(jc.sinc, _sinc)
