"""Elementwise primitives: each entry gives the partial derivatives."""

from __future__ import annotations

import numpy as np
from jax import lax

from admodes.linear.maps import MINUS_ONE, ONE
from admodes.program import jax_compat as jc
from admodes.rules.table import elementwise, zero


def c(value, like):
    """A constant of the dtype of ``like``."""
    return np.array(value, like.dtype)


elementwise(lax.add_p, ONE, ONE)
elementwise(jc.add_any_p, ONE, ONE)
elementwise(lax.sub_p, ONE, MINUS_ONE)
elementwise(lax.neg_p, MINUS_ONE)
elementwise(lax.mul_p, lambda out, x, y, **_: y, lambda out, x, y, **_: x)
elementwise(lax.div_p, lambda out, x, y: lax.div(c(1, y), y), lambda out, x, y: lax.neg(lax.div(out, y)))
elementwise(lax.exp_p, lambda out, x, **_: out)
elementwise(lax.log_p, lambda out, x, **_: lax.div(c(1, x), x))
elementwise(lax.tanh_p, lambda out, x, **_: lax.sub(c(1, out), lax.square(out)))
elementwise(lax.sin_p, lambda out, x, **_: lax.cos(x))
elementwise(lax.cos_p, lambda out, x, **_: lax.neg(lax.sin(x)))
elementwise(lax.integer_pow_p, lambda out, x, y: lax.mul(c(y, x), lax.integer_pow(x, y - 1)) if y else None)
elementwise(lax.square_p, lambda out, x: lax.mul(c(2, x), x))
zero(lax.floor_p, lax.sign_p)
