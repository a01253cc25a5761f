r"""Elementwise primitives with kinks, where the derivative does not exist and a choice is made.

The choices are JAX's: at a tie of ``max`` or ``min`` both operands get half; |x|' is 1 at 0 for real x, and 0 for
complex x; ``clamp`` has slope 0 on its bounds. With NaN nothing ties: ``max`` has slope 0 there, and |x|' is -1.
"""

from __future__ import annotations

import numpy as np
from jax import lax

from admodes.linear.maps import Compose, Elementwise
from admodes.program import jax_compat as jc
from admodes.rules.table import LocalRule, elementwise, lookup, register


def balanced(out, mine, other):
    """The share of ``mine`` in ``out``, the max or min of two: 1 if it alone attains it, 1/2 at a tie, else 0."""
    attained = lax.select(lax.eq(mine, out), lax.full_like(out, 1), lax.full_like(out, 0))
    return lax.div(attained, lax.select(lax.eq(other, out), lax.full_like(out, 2), lax.full_like(out, 1)))


share = balanced  # what happens at ties of max and min is decided here


class AbsRule(LocalRule):
    """|x|' = ±1; over the complex numbers |z| has the real-linear derivative t ↦ Re(t z̄/|z|)."""

    kind = "elementwise"

    def jacobian(self, interpreter, primitive, outs, primals, active, params):
        (out,), (x,) = outs, primals
        aval = jc.typeof(x)
        if not np.issubdtype(aval.dtype, np.complexfloating):
            slope = lax.select(lax.ge(x, lax.full_like(x, 0)), lax.full_like(x, 1), lax.full_like(x, -1))
            return Elementwise.build((slope,), (aval,), (jc.typeof(out),))
        radius = lax.select(lax.eq(out, lax.full_like(out, 0)), lax.full_like(out, 1), out)
        direction = Elementwise.build(
            (lax.div(lax.conj(x), lax.convert_element_type(radius, x.dtype)),), (aval,), (aval,)
        )
        real_part = lookup(lax.real_p).jacobian(interpreter, lax.real_p, outs, primals, active, {})
        return Compose(real_part, direction)


elementwise(lax.max_p, lambda out, x, y: share(out, x, y), lambda out, x, y: share(out, y, x))
elementwise(lax.min_p, lambda out, x, y: share(out, x, y), lambda out, x, y: share(out, y, x))
elementwise(
    lax.clamp_p,
    lambda out, low, x, high: lax.bitwise_and(lax.gt(low, x), lax.lt(low, high)),
    lambda out, low, x, high: lax.bitwise_and(lax.gt(x, low), lax.lt(x, high)),
    lambda out, low, x, high: lax.lt(high, x),
)
register(lax.abs_p, AbsRule())
