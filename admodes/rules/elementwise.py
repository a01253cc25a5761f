"""Elementwise primitives: each entry gives the partial derivatives.

A slope is computed from the argument where the result is saturated: 1 - tanh² has lost everything where tanh rounds to
1. And it is written so that its own derivative does not cancel. Where several formulas are as good, it is the one that
is finite, infinite or NaN where JAX's derivative is.
"""

from __future__ import annotations

import numpy as np
from jax import lax
from jax import numpy as jnp

from admodes.linear.maps import MINUS_ONE, ONE, Elementwise, Over, collapse, expand
from admodes.program import jax_compat as jc
from admodes.program.traits import SMOOTH
from admodes.rules import host, recurrences
from admodes.rules.table import ElementwiseRule, elementwise, linear, register, zero


def weak(value, like):
    """A constant of the dtype of ``like`` that leaves the weak type of results to ``like``."""
    number = {"f": float, "c": complex}.get(like.dtype.kind, int)(value)
    return number if jc.typeof(like).weak_type and jc.dtype_of(number) == like.dtype else np.array(value, like.dtype)


def c(value, like):
    """A constant of the dtype of ``like``, weakly typed if that is a weakly typed scalar (JAX's habit)."""
    return np.array(value, like.dtype) if np.ndim(like) else weak(value, like)


def _is_complex(x) -> bool:
    return np.issubdtype(x.dtype, np.complexfloating)


# -- arithmetic ----------------------------------------------------------------------------------


def _without_zeros(x):
    """x, with 1 in the place of 0: log x is then finite, and what it multiplies (0ʸ) decides."""
    return lax.select(lax.eq(x, c(0, x)), lax.full_like(x, 1), x)


def _pow_base(out, x, y):
    """∂(xʸ)/∂x = y xʸ⁻¹, of strong type; for y = 0 it is zero, where x = 0 too: x counts as 1 there."""
    x = lax.convert_element_type(x, x.dtype)
    if not jc.is_differentiable(jc.typeof(y)):
        y = lax.convert_element_type(y, x.dtype)
    shape = np.broadcast_shapes(np.shape(x), np.shape(y))
    both = lax.bitwise_and(*(expand(lax.eq(v, c(0, v)), shape) for v in (x, y)))
    x = expand(x, shape)
    base = lax.select(both, lax.full_like(x, 1), x)
    return lax.mul(y, lax.pow(base, lax.sub(y, weak(1, y))))


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
    lambda out, x, y: lax.neg(lax.div(out, y)),  # -x y⁻² may overflow
    text="/",
    cost="elementwise",
    multiplies=True,
    series=recurrences.quotient,
)
elementwise(lax.rem_p, ONE, _rem_divisor, text="%", cost="transcendental", kink="rest")
elementwise(
    lax.pow_p,
    _pow_base,
    lambda out, x, y: lax.mul(lax.log(_without_zeros(x)), out),  # log x xʸ
    text="**",
    cost="transcendental",
    kink="power",
    series=recurrences.power,
)
elementwise(
    lax.integer_pow_p,
    _integer_pow,
    text=lambda operands, *, y: f"{operands[0]} ** {y}",
    cost="arithmetic",
    series=recurrences.whole_power,
)
elementwise(lax.square_p, lambda out, x: lax.mul(c(2, x), x), cost="arithmetic", series=recurrences.square)
elementwise(
    lax.sqrt_p,
    lambda out, x, **_: lax.div(c(0.5, x), out),  # 1 / 2√x
    cost="transcendental",
    kink="root",
    series=recurrences.root,
)
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
        if len(slopes) < 2:  # a polynomial of one coefficient does not take the shape of x when it is compiled
            shape = np.broadcast_shapes(*map(np.shape, (x, *coefficients)))
            return expand(slopes[0], shape) if slopes else lax.full(shape, 0, x.dtype)
        return jc.polynomial_p.bind(x, *slopes, **params)

    powers = (lambda out, x, *_, k=k, **__: x if k == 1 else lax.integer_pow(x, k) for k in range(1, n_operands - 1))
    return of_x, ONE, *powers


register(jc.polynomial_p, ElementwiseRule(_polynomial), cost="transcendental")

# -- exponentials and logarithms -----------------------------------------------------------------


def _with_derivatives_of(exact, rounded):
    """The value of ``exact`` with the derivatives of ``rounded``: they differ by lost digits and a constant."""
    return lax.add(lax.stop_gradient(exact), lax.sub(rounded, lax.stop_gradient(rounded)))


def _tanh(out, x, *, accuracy):
    """1 - y² as e (1 + |y|)², which keeps the tails that y has lost: 1 - |y| is e (1 + |y|), where e = exp(-2|x|)."""
    if _is_complex(x):
        return lax.mul(lax.add(c(1, out), out), lax.sub(c(1, out), out))
    e = lax.exp(lax.mul(c(-2, x), lax.abs(x)), accuracy=accuracy)
    exact = lax.mul(e, lax.square(lax.add(c(1, x), lax.abs(out))))
    return _with_derivatives_of(exact, lax.sub(c(1, out), lax.square(out)))


def _logistic(out, x, *, accuracy):
    """y (1 - y) as e max(y, 1 - y)², which keeps the tail where y rounds to 1: e = exp(-|x|) is their ratio.

    Its derivatives are those of -tanh²(x/2) / 4, which cancel nowhere, as 1 - 2y does near 0.
    """
    if _is_complex(x):
        return lax.mul(out, lax.logistic(lax.neg(x), accuracy=accuracy))
    larger = lax.max(out, lax.sub(c(1, out), out))
    exact = lax.mul(lax.exp(lax.neg(lax.abs(x)), accuracy=accuracy), lax.square(larger))
    return _with_derivatives_of(exact, lax.mul(c(-0.25, x), lax.square(lax.tanh(lax.mul(c(0.5, x), x)))))


elementwise(lax.exp_p, lambda out, x, **_: out, cost="transcendental")
elementwise(lax.exp2_p, lambda out, x, **_: lax.mul(c(np.log(2), x), out), cost="transcendental")
elementwise(lax.expm1_p, lambda out, x, *, accuracy: lax.exp(x, accuracy=accuracy), cost="transcendental")
elementwise(lax.log_p, lambda out, x, **_: Over(x), cost="transcendental")
elementwise(jc.log2_p, lambda out, x, **_: lax.div(c(1 / np.log(2), x), x), cost="transcendental")
elementwise(lax.log1p_p, lambda out, x, **_: Over(lax.add(x, weak(1, x))), cost="transcendental")
elementwise(
    lax.logistic_p,
    _logistic,
    cost="transcendental",
    series=lambda z, x, *, accuracy: recurrences.logistic(z, x, slope=_logistic(z[0], x[0], accuracy=accuracy)),
)

# -- trigonometric and hyperbolic functions ------------------------------------------------------


def _one_plus_square(x):
    return lax.add(c(1, x), lax.square(x))


def _one_minus_square(x):
    """1 - x²: near ±1 as (1 - x)(1 + x), which does not cancel; near 0 as it stands, for the sake of its derivative."""
    one = c(1, x)
    if _is_complex(x):
        return lax.sub(one, lax.square(x))
    near_one = lax.gt(lax.abs(x), c(0.5, x))
    return lax.select(near_one, lax.mul(lax.sub(one, x), lax.add(one, x)), lax.sub(one, lax.square(x)))


def _arcus(out, x):
    """(1 - x²)^(-1/2)"""
    return lax.rsqrt(_one_minus_square(x))


def _scale(size):
    """A number about as large as the given sizes, a constant, whose inverse is no denormal number."""
    info = jnp.finfo(size.dtype)
    return lax.stop_gradient(lax.clamp(weak(float(info.tiny), size), size, weak(float(info.max) / 4, size)))


def _atan(out, x):
    """1 / (1 + x²), without overflow: with s = max(1, |x|) it is s⁻² / (s⁻² + (x/s)²)."""
    if _is_complex(x):
        return Over(_one_plus_square(x))
    inverse = lax.div(weak(1, x), _scale(lax.max(lax.abs(x), weak(1, x))))
    square = lax.square(inverse)
    return lax.div(square, lax.add(square, lax.square(lax.mul(x, inverse))))


def _asinh(out, x):
    """(1 + x²)^(-1/2), without overflow: with s = max(1, |x|) it is ((x/s)² + s⁻²)^(-1/2) / s, which s does not change.

    Complex: (1 + iz)^(-1/2) (1 - iz)^(-1/2), which has the sign of asinh on its branch cuts.
    """
    if _is_complex(x):
        re, im = lax.real(x), lax.imag(x)
        one = lax.full_like(im, 1)
        factors = (lax.complex(lax.sub(one, im), re), lax.complex(lax.add(one, im), lax.neg(re)))
        return lax.mul(*map(lax.rsqrt, factors))
    inverse = lax.div(weak(1, x), _scale(lax.max(lax.abs(x), weak(1, x))))
    return lax.mul(inverse, lax.rsqrt(lax.add(lax.square(lax.mul(x, inverse)), lax.square(inverse))))


def _acosh(out, x):
    """(x - 1)^(-1/2) (x + 1)^(-1/2): NaN where acosh is, without overflow, and right on the branch cuts."""
    one = weak(1, x)
    return lax.mul(lax.rsqrt(lax.sub(x, one)), lax.rsqrt(lax.add(x, one)))


def _atanh(out, x):
    """1 / (1 - x²)"""
    if not _is_complex(x):
        return Over(_one_minus_square(x))
    one = weak(1, x)
    return lax.mul(lax.div(one, lax.add(one, x)), lax.div(one, lax.sub(one, x)))


def _over_square_of_radius(z, x, y):
    """z / (x² + y²) where z is x or y, without overflow: of x, y and z over s = max(|x|, |y|), and s⁻¹ once more."""
    shape = np.broadcast_shapes(np.shape(x), np.shape(y))
    scale = _scale(lax.max(*(lax.abs(expand(v, shape)) for v in (x, y))))
    x, y, z = (lax.div(expand(v, shape), scale) for v in (x, y, z))
    return lax.div(lax.div(z, lax.add(lax.square(x), lax.square(y))), scale)


elementwise(lax.sin_p, lambda out, x, *, accuracy: lax.cos(x, accuracy=accuracy), cost="transcendental")
elementwise(lax.cos_p, lambda out, x, *, accuracy: lax.neg(lax.sin(x, accuracy=accuracy)), cost="transcendental")
elementwise(lax.tan_p, lambda out, x, **_: _one_plus_square(out), cost="transcendental")
elementwise(lax.asin_p, _arcus, cost="transcendental", kink=SMOOTH)
elementwise(lax.acos_p, lambda out, x: lax.neg(_arcus(out, x)), cost="transcendental", kink=SMOOTH)
elementwise(lax.atan_p, _atan, cost="transcendental")
elementwise(
    lax.atan2_p,
    lambda out, x, y: _over_square_of_radius(y, x, y),
    lambda out, x, y: lax.neg(_over_square_of_radius(x, x, y)),
    cost="transcendental",
)
elementwise(lax.sinh_p, lambda out, x: lax.cosh(x), cost="transcendental")
elementwise(lax.cosh_p, lambda out, x: lax.sinh(x), cost="transcendental")
elementwise(lax.tanh_p, _tanh, cost="transcendental")
elementwise(lax.asinh_p, _asinh, cost="transcendental", kink=SMOOTH)
elementwise(lax.acosh_p, _acosh, cost="transcendental")
elementwise(lax.atanh_p, _atanh, cost="transcendental", kink=SMOOTH)

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
