"""Elementwise primitives: each entry gives the partial derivatives.

Formulas are chosen to be finite, infinite or NaN where JAX's derivatives are: d(x/y)/dy is -x y⁻², say, not -(x/y)/y.
"""

from __future__ import annotations

import numpy as np
from jax import lax
from jax import numpy as jnp

from admodes.linear.maps import MINUS_ONE, ONE, Elementwise, Over, collapse
from admodes.program import jax_compat as jc
from admodes.program.traits import SMOOTH
from admodes.rules import host
from admodes.rules.table import ElementwiseRule, elementwise, linear, register, zero

EXACT = lax.AccuracyMode.HIGHEST


def weak(value, like):
    """A constant of the dtype of ``like`` that leaves the weak type of results to ``like``."""
    number = {"f": float, "c": complex}.get(like.dtype.kind, int)(value)
    return number if jc.typeof(like).weak_type and jc.dtype_of(number) == like.dtype else np.array(value, like.dtype)


def c(value, like):
    """A constant of the dtype of ``like``, weakly typed if that is a weakly typed scalar (JAX's habit)."""
    return np.array(value, like.dtype) if np.ndim(like) else weak(value, like)


# -- arithmetic ----------------------------------------------------------------------------------


def _without_zeros(x):
    """x, with 1 in the place of 0: log x is then finite, and what it multiplies (0ʸ) decides."""
    return lax.select(lax.eq(x, c(0, x)), lax.full_like(x, 1), x)


def _pow_base(out, x, y):
    """∂(xʸ)/∂x = y xʸ⁻¹, of strong type; for whole y = 0 it is zero even where x⁻¹ is not finite."""
    x = lax.convert_element_type(x, x.dtype)
    whole = not jc.is_differentiable(jc.typeof(y))
    y = lax.convert_element_type(y, x.dtype) if whole else y
    power = lax.pow(x, lax.sub(y, weak(1, y)))
    if not whole:
        return lax.mul(y, power)
    slope = lax.mul(_without_zeros(y), power)
    is_zero = lax.broadcast_in_dim(lax.eq(y, c(0, y)), slope.shape, range(y.ndim))
    return lax.select(is_zero, lax.full_like(slope, 0), slope)


def _integer_pow(out, x, *, y):
    """∂(xⁿ)/∂x = n xⁿ⁻¹"""
    if y in (0, 1):
        return ONE if y else None
    return lax.mul(c(y, x), x if y == 2 else lax.integer_pow(x, y - 1))


def _rem_divisor(out, x, y):
    """∂(x - trunc(x/y) y)/∂y = -trunc(x/y)"""
    ratio = lax.div(x, y)
    return lax.neg(lax.mul(lax.sign(ratio), lax.floor(lax.abs(ratio))))


elementwise(lax.add_p, ONE, ONE, text="+", commutative=True, host=host.exact(np.add), cost="arithmetic")
elementwise(jc.add_any_p, ONE, ONE, text="+", commutative=True, cost="arithmetic")
elementwise(lax.sub_p, ONE, MINUS_ONE, text="-", host=host.exact(np.subtract), cost="arithmetic")
elementwise(lax.neg_p, MINUS_ONE, text="-", cost="arithmetic", rounds=False)
elementwise(
    lax.mul_p,
    lambda out, x, y, **_: y,
    lambda out, x, y, **_: x,
    text="*",
    commutative=True,
    host=host.exact(np.multiply),
    cost="arithmetic",
    multiplies=True,
)
elementwise(
    lax.div_p,
    lambda out, x, y: Over(y),
    lambda out, x, y: lax.neg(lax.mul(x, lax.integer_pow(y, -2))),
    text="/",
    cost="elementwise",
    multiplies=True,
)
elementwise(lax.rem_p, ONE, _rem_divisor, text="%", cost="transcendental", kink="rest")
elementwise(
    lax.pow_p,
    _pow_base,
    lambda out, x, y: lax.mul(lax.log(_without_zeros(x)), out),  # log x xʸ
    text="**",
    cost="transcendental",
    kink="power",
)
elementwise(lax.integer_pow_p, _integer_pow, text=lambda operands, *, y: f"{operands[0]} ** {y}", cost="arithmetic")
elementwise(lax.square_p, lambda out, x: lax.mul(c(2, x), x), cost="arithmetic")
elementwise(lax.sqrt_p, lambda out, x, **_: lax.div(c(0.5, x), out), cost="transcendental", kink="root")  # 1 / 2√x
elementwise(
    lax.rsqrt_p,
    lambda out, x, **_: lax.mul(c(-0.5, x), lax.div(out, x)),  # -x^(-3/2) / 2
    cost="transcendental",
)
elementwise(
    lax.cbrt_p,
    lambda out, x, **_: lax.mul(c(1 / 3, x), lax.integer_pow(out, -2)),  # x^(-2/3) / 3
    cost="transcendental",
)
elementwise(lax.nextafter_p, ONE, None, cost="elementwise", rounds=False)  # x plus or minus one unit in the last place
elementwise(jc.one_minus_square_p, lambda out, x: lax.mul(c(-2, x), x), cost="arithmetic")


def _polynomial(n_operands: int) -> tuple:
    """p(x; a₀, a₁, ...) = Σ aₖ xᵏ: ∂p/∂x = Σ k aₖ xᵏ⁻¹, ∂p/∂aₖ = xᵏ."""

    def of_x(out, x, *coefficients, **params):
        slopes = [lax.mul(c(k, a), a) for k, a in enumerate(coefficients[1:], 1)]
        return jc.polynomial_p.bind(x, *slopes, **params) if slopes else lax.full_like(x, 0)

    powers = (lambda out, x, *_, k=k, **__: x if k == 1 else lax.integer_pow(x, k) for k in range(1, n_operands - 1))
    return of_x, ONE, *powers


register(jc.polynomial_p, ElementwiseRule(_polynomial), cost="transcendental")

# -- exponentials and logarithms -----------------------------------------------------------------


def _expm1(out, x, *, accuracy):
    """eˣ = out + 1"""
    return lax.exp(x, accuracy=accuracy) if accuracy is EXACT else lax.add(out, weak(1, out))


def _logistic(out, x, *, accuracy):
    """σ' = σ(x) σ(-x) = σ (1 - σ)"""
    return lax.mul(out, lax.logistic(lax.neg(x)) if accuracy is EXACT else lax.sub(weak(1, out), out))


elementwise(lax.exp_p, lambda out, x, **_: out, cost="transcendental")
elementwise(lax.exp2_p, lambda out, x, **_: lax.mul(c(np.log(2), x), out), cost="transcendental")
elementwise(lax.expm1_p, _expm1, cost="transcendental")
elementwise(lax.log_p, lambda out, x, **_: Over(x), cost="transcendental")
elementwise(jc.log2_p, lambda out, x, **_: Over(lax.mul(x, c(np.log(2), x))), cost="transcendental")
elementwise(lax.log1p_p, lambda out, x, **_: Over(lax.add(x, weak(1, x))), cost="transcendental")
elementwise(lax.logistic_p, _logistic, cost="transcendental")

# -- trigonometric and hyperbolic functions ------------------------------------------------------


def _tanh(out, x, *, accuracy):
    """1 - tanh² = (1 + tanh)(1 - tanh), which does not cancel; sech² = 4 σ(2x) σ(-2x) where asked to be exact."""
    if accuracy is not EXACT:
        return lax.mul(lax.add(weak(1, out), out), lax.sub(weak(1, out), out))
    halves = [lax.logistic(lax.mul(c(k, x), x), accuracy=accuracy) for k in (2, -2)]
    return lax.mul(c(4, x), lax.mul(*halves))


def _one_plus_square(x):
    return lax.add(c(1, x), lax.square(x))


def _arcus(out, x):
    """(1 - x²)^(-1/2)"""
    return lax.rsqrt(lax.sub(c(1, x), lax.square(x)))


def _is_complex(x) -> bool:
    return np.issubdtype(x.dtype, np.complexfloating)


def _asinh(out, x):
    """(1 + x²)^(-1/2), without overflow: with s = max(1, |x|) it is ((x/s)² + s⁻²)^(-1/2) / s, which s does not change.

    Complex: (1 + iz)^(-1/2) (1 - iz)^(-1/2), which has the sign of asinh on its branch cuts.
    """
    if _is_complex(x):
        re, im = lax.real(x), lax.imag(x)
        one = lax.full_like(im, 1)
        factors = (lax.complex(lax.sub(one, im), re), lax.complex(lax.add(one, im), lax.neg(re)))
        return lax.mul(*map(lax.rsqrt, factors))
    largest = weak(float(jnp.finfo(x.dtype).max) / 4, x)  # its inverse is no denormal number
    scale = lax.stop_gradient(lax.min(lax.max(lax.abs(x), weak(1, x)), largest))
    inverse = lax.div(weak(1, x), scale)
    return lax.mul(inverse, lax.rsqrt(lax.add(lax.square(lax.mul(x, inverse)), lax.square(inverse))))


def _acosh(out, x):
    """(x - 1)^(-1/2) (x + 1)^(-1/2): NaN where acosh is, without overflow, and right on the branch cuts."""
    one = weak(1, x)
    return lax.mul(lax.rsqrt(lax.sub(x, one)), lax.rsqrt(lax.add(x, one)))


def _atanh(out, x):
    """1 / (1 + x)(1 - x)"""
    one = weak(1, x)
    return lax.mul(lax.div(one, lax.add(one, x)), lax.div(one, lax.sub(one, x)))


def _square_of_radius(x, y):
    return lax.add(lax.square(x), lax.square(y))


elementwise(lax.sin_p, lambda out, x, *, accuracy: lax.cos(x, accuracy=accuracy), cost="transcendental")
elementwise(lax.cos_p, lambda out, x, *, accuracy: lax.neg(lax.sin(x, accuracy=accuracy)), cost="transcendental")
elementwise(lax.tan_p, lambda out, x, **_: _one_plus_square(out), cost="transcendental")
elementwise(lax.asin_p, _arcus, cost="transcendental")
elementwise(lax.acos_p, lambda out, x: lax.neg(_arcus(out, x)), cost="transcendental")
elementwise(lax.atan_p, lambda out, x: Over(_one_plus_square(x)), cost="transcendental")
elementwise(
    lax.atan2_p,
    lambda out, x, y: lax.div(y, _square_of_radius(x, y)),
    lambda out, x, y: lax.div(lax.neg(x), _square_of_radius(x, y)),
    cost="transcendental",
)
elementwise(lax.sinh_p, lambda out, x: lax.cosh(x), cost="transcendental")
elementwise(lax.cosh_p, lambda out, x: lax.sinh(x), cost="transcendental")
elementwise(lax.tanh_p, _tanh, cost="transcendental")
elementwise(lax.asinh_p, _asinh, cost="transcendental", kink=SMOOTH)
elementwise(lax.acosh_p, _acosh, cost="transcendental")
elementwise(lax.atanh_p, _atanh, cost="transcendental")

# -- complex numbers: linear over the reals only; transposes, not adjoints -------------------------


def _pattern(linear_map):
    """Entry k depends on entry k, as for the other primitives here."""
    kinds = tuple(ONE if on else None for on in linear_map.active)
    return Elementwise((None,) * len(kinds), kinds, linear_map.domain, linear_map.codomain).pattern()


def _pull_complex(g, x, y):
    """t₁ + i t₂ pairs with g as Re(g) t₁ - Im(g) t₂."""
    return lambda: collapse(lax.real(g), x.shape), lambda: collapse(lax.neg(lax.imag(g)), y.shape)


def _pull_conj(g, x, *, input_dtype):
    return lax.conj(g) if np.issubdtype(input_dtype, np.complexfloating) else lax.real(g)


linear(lax.real_p, lambda g, z: lax.complex(g, np.zeros((), g.dtype)), pattern=_pattern, cost="arithmetic")
linear(lax.imag_p, lambda g, z: lax.complex(np.zeros((), g.dtype), lax.neg(g)), pattern=_pattern, cost="arithmetic")
linear(lax.complex_p, _pull_complex, places=None, pattern=_pattern, cost="arithmetic")
linear(lax.conj_p, _pull_conj, pattern=_pattern, cost="arithmetic")

# -- piecewise constant functions ----------------------------------------------------------------

zero(lax.floor_p, kink="floor")
zero(lax.ceil_p, kink="ceiling")
zero(lax.round_p, kink="rounding")
zero(lax.is_finite_p)
zero(lax.eq_p, text="==", host=host.exact(np.equal), cost="arithmetic", kink="equal")
zero(lax.ne_p, text="!=", host=host.exact(np.not_equal), cost="arithmetic", kink="unequal")
zero(lax.lt_p, text="<", host=host.exact(np.less), cost="arithmetic", kink="less")
zero(lax.le_p, text="<=", host=host.exact(np.less_equal), cost="arithmetic", kink="not greater")
zero(lax.gt_p, text=">", host=host.exact(np.greater), cost="arithmetic", kink="greater")
zero(lax.ge_p, text=">=", host=host.exact(np.greater_equal), cost="arithmetic", kink="not less")
zero(lax.eq_to_p, lax.le_to_p, lax.lt_to_p)
zero(lax.not_p, host=host.exact(np.invert), cost="arithmetic")
zero(lax.and_p, host=host.exact(np.bitwise_and), cost="arithmetic")
zero(lax.or_p, host=host.exact(np.bitwise_or), cost="arithmetic")
zero(lax.xor_p, host=host.exact(np.bitwise_xor), cost="arithmetic")
zero(lax.reduce_and_p, lax.reduce_or_p, lax.reduce_xor_p, cost="reducing")
zero(lax.shift_left_p, lax.shift_right_arithmetic_p, lax.shift_right_logical_p)
zero(lax.mulhi_p, lax.clz_p, lax.population_count_p)
zero(*jc.random_bits_primitives, cost="transcendental")
