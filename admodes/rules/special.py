"""Special functions: erf, the gamma family, Bessel functions; their derivatives lead to each other."""

from __future__ import annotations

import math

import numpy as np
from jax import lax
from jax import numpy as jnp

from admodes.linear.maps import expand
from admodes.program import jax_compat as jc
from admodes.program.traits import SLOPE, SMOOTH
from admodes.rules.elementwise import c, weak
from admodes.rules.kinks import KinkRule, slope_of_abs
from admodes.rules.table import elementwise, register

# -- the error function --------------------------------------------------------------------------


def _exp_of_minus_square(x):
    """exp(-x²) without the rounding of x²: with h² exact, x² = h² + (x - h)(x + h), and each part has its exponential.

    The parts are constants; how the result moves is in a factor 1 = exp(-(x - x₀)(x + x₀)) for x₀ = x. Where the result
    is zero x is bounded, so that its derivatives are zero too.
    """
    info = jnp.finfo(x.dtype)
    end = weak(float(np.sqrt(-1.1 * np.log(float(info.smallest_subnormal)))), x)
    x = lax.clamp(lax.neg(end), x, end)
    fixed = lax.stop_gradient(x)
    half = lax.reduce_precision(fixed, info.nexp, (info.nmant - 1) // 2)
    rest = lax.mul(lax.sub(fixed, half), lax.add(fixed, half))
    value = lax.mul(lax.exp(lax.neg(lax.square(half))), lax.exp(lax.neg(rest)))
    return lax.mul(value, lax.exp(lax.neg(lax.mul(lax.sub(x, fixed), lax.add(x, fixed)))))


def _gauss(scale):
    """The partial ``scale`` exp(-x²)."""
    return lambda out, x, **_: lax.mul(c(scale, x), _exp_of_minus_square(x))


elementwise(lax.erf_p, _gauss(2 / np.sqrt(np.pi)), cost="transcendental")
elementwise(lax.erfc_p, _gauss(-2 / np.sqrt(np.pi)), cost="transcendental")
elementwise(
    lax.erf_inv_p, lambda out, x: lax.mul(c(np.sqrt(np.pi) / 2, x), lax.exp(lax.square(out))), cost="transcendental"
)

# -- gamma and its logarithmic derivatives ---------------------------------------------------------


def _not_differentiable(message):
    def partial(*_, **__):
        raise ValueError(message)

    return partial


def _trigamma(out, x):
    """ψ' = ψ₁, whose series is for positive arguments; at others by reflection, (π / sin πx)² - ψ₁(1 - x)."""
    left = lax.le(x, c(0, x))
    to_integer = lax.sub(x, lax.round(x, lax.RoundingMethod.TO_NEAREST_EVEN))
    to_integer = lax.select(left, to_integer, lax.full_like(x, 0.5))
    right_side = lax.select(left, lax.sub(c(1, x), x), x)
    far = lax.gt(right_side, c(2 / float(jnp.finfo(x.dtype).eps), x))  # 1/x + 1/(2x²) + ... is 1/x
    near = lax.select(far, lax.full_like(x, 1), right_side)
    series = lax.select(far, lax.div(c(1, x), right_side), lax.polygamma(c(1, x), near))
    reflected = lax.square(lax.div(c(np.pi, x), lax.sin(lax.mul(c(np.pi, x), to_integer))))
    return lax.select(left, lax.sub(reflected, series), series)


elementwise(lax.lgamma_p, lambda out, x: lax.digamma(x), cost="transcendental")
elementwise(lax.digamma_p, _trigamma, cost="transcendental", kink=SMOOTH)
elementwise(
    lax.polygamma_p,
    _not_differentiable("polygamma(m, x) has no derivative in m: it is defined for whole m only."),
    lambda out, m, x: lax.polygamma(lax.add(m, c(1, m)), x),
    cost="series",
)
elementwise(
    lax.zeta_p,
    _not_differentiable("the derivative of zeta(x, q) in its exponent x is not supported; that in q is."),
    lambda out, x, q: lax.neg(lax.mul(x, lax.zeta(lax.add(x, c(1, x)), q))),  # ∂ζ(s, q)/∂q = -s ζ(s + 1, q)
    cost="series",
)

# -- incomplete gamma functions: P(a, x) = ∫₀ˣ p(t; a) dt, p(t; a) = tᵃ⁻¹ e⁻ᵗ / Γ(a), and Q = 1 - P -------


def _density(a, x):
    """p(x; a) = exp(-x + (a - 1) log x - log Γ(a)) = ∂P/∂x"""
    power = lax.mul(lax.sub(a, weak(1, a)), lax.log(x))
    return lax.exp(lax.sub(lax.add(lax.neg(x), power), lax.lgamma(a)))


def _half_line(step=0.0625, first=-4.2, last=3.2):
    """Nodes and weights for ∫₀^∞ f(v) dv by the exp-sinh rule, v = exp(π/2 sinh u) (Takahasi and Mori 1974)."""
    u = np.arange(first, last, step)
    v = np.exp(np.pi / 2 * np.sinh(u))
    return v, step * np.pi / 2 * np.cosh(u) * v


NODES, WEIGHTS = _half_line()


def _igamma_curvature(out, a, x):
    r"""∂²P/∂a² = ∫₀ˣ p(t; a) (s(t)² - ψ₁(a)) dt with the score s = log t - ψ(a); there is no closed form.

    Over all t > 0 the integral is zero, so that for x > a the upper tail, with the opposite sign, is what is summed.
    Below, t = x exp(-L v); above, t = x + L v, with L about the width of p on the side in question.
    """
    dtype = out.dtype
    narrow = jnp.finfo(dtype).bits < 32
    a, x = (expand(lax.convert_element_type(y, np.float32) if narrow else y, out.shape) for y in (a, x))
    at_zero, lower = lax.eq(x, c(0, x)), lax.le(x, a)
    x = lax.select(at_zero, a, x)
    root = lax.sqrt(a)
    width = lax.select(lower, lax.add(lax.div(c(1, a), root), lax.div(c(1, a), a)), lax.add(c(1, a), root))
    width, log_x, log_gamma, shift = lax.stop_gradient(width), lax.log(x), lax.lgamma(a), lax.digamma(a)
    information = lax.polygamma(c(1, a), a)

    def add_node(total, node):
        v, weight = node
        log_t = lax.select(lower, lax.sub(log_x, lax.mul(width, v)), lax.log(lax.add(x, lax.mul(width, v))))
        t = lax.exp(log_t)
        mass = lax.exp(lax.sub(lax.sub(lax.mul(a, log_t), t), log_gamma))  # p(t; a) t
        mass = lax.mul(mass, lax.select(lower, width, lax.neg(lax.div(width, t))))
        slope = lax.sub(lax.square(lax.sub(log_t, shift)), information)
        return lax.add(total, lax.mul(weight, lax.mul(mass, slope))), None

    total, _ = lax.scan(add_node, lax.full_like(x, 0), (NODES.astype(x.dtype), WEIGHTS.astype(x.dtype)))
    return lax.convert_element_type(lax.select(at_zero, lax.full_like(total, 0), total), dtype)


elementwise(
    lax.igamma_p,
    lambda out, a, x: lax.igamma_grad_a(a, x),
    lambda out, a, x: _density(a, x),
    cost="iterated",
)
elementwise(
    lax.igammac_p,
    lambda out, a, x: lax.neg(lax.igamma_grad_a(a, x)),
    lambda out, a, x: lax.neg(_density(a, x)),
    cost="iterated",
)
elementwise(
    lax.igamma_grad_a_p,
    _igamma_curvature,
    lambda out, a, x: lax.mul(_density(a, x), lax.sub(lax.log(x), lax.digamma(a))),  # p s
    cost="iterated",
    kink=SMOOTH,
)


def _gamma_sample(out, key, a, *, log_space):
    """The motion of a sample z of Gamma(a, 1) with a along its quantile, dz/da = -∂ₐP / p; in log space, over z."""
    if not log_space:
        return lax.random_gamma_grad(a, out)
    z = lax.exp(out)
    z = lax.select(lax.eq(z, c(0, z)), lax.full_like(z, jnp.finfo(z.dtype).tiny), z)
    return lax.div(lax.random_gamma_grad(a, z), z)


elementwise(jc.random_gamma_p, None, _gamma_sample, cost="iterated", kink=SMOOTH)

# -- incomplete beta: Iₓ(a, b), whose density in x is xᵃ⁻¹ (1 - x)ᵇ⁻¹ / B(a, b) -----------------------


def _beta_density(out, a, b, x):
    log_beta = lax.sub(lax.add(lax.lgamma(a), lax.lgamma(b)), lax.lgamma(lax.add(a, b)))
    one = weak(1, x)
    left = lax.mul(lax.sub(b, one), lax.log1p(lax.neg(x)))
    right = lax.mul(lax.sub(a, one), lax.log(x))
    return lax.exp(lax.sub(lax.add(left, right), log_beta))


def _beta_shape_slope(place):
    r"""∂I/∂a = ∫₀ˣ p(t) (log t - ψ(a) + ψ(a + b)) dt, and ∂I/∂b with log(1 - t) and ψ(b); there is no closed form.

    Over all of (0, 1) the integral is zero, so that for x above the mean the upper tail, with the opposite sign, is
    what is summed. Below, t = x exp(-L v); above, 1 - t = (1 - x) exp(-L v), with L about the width of p in such units.
    """

    def slope(out, a, b, x):
        dtype = out.dtype
        narrow = jnp.finfo(dtype).bits < 32
        a, b, x = (expand(lax.convert_element_type(y, np.float32) if narrow else y, out.shape) for y in (a, b, x))
        inside = lax.bitwise_and(lax.gt(x, c(0, x)), lax.lt(x, c(1, x)))
        x = lax.select(inside, x, lax.full_like(x, 0.5))
        both = lax.add(a, b)
        lower = lax.le(x, lax.div(a, both))
        near, far = lax.select(lower, a, b), lax.select(lower, b, a)  # the shape at the end that is summed up to
        spread = lax.sqrt(lax.div(far, lax.mul(near, lax.add(both, c(1, x)))))
        width = lax.stop_gradient(lax.add(spread, lax.div(c(1, a), near)))
        start = lax.select(lower, lax.log(x), lax.log1p(lax.neg(x)))
        log_beta = lax.sub(lax.add(lax.lgamma(a), lax.lgamma(b)), lax.lgamma(both))
        shift = lax.sub(lax.digamma(b if place else a), lax.digamma(both))

        def add_node(total, node):
            v, weight = node
            log_near = lax.sub(start, lax.mul(width, v))
            log_far = lax.log1p(lax.neg(lax.exp(log_near)))
            mass = lax.add(lax.mul(near, log_near), lax.mul(lax.sub(far, c(1, far)), log_far))
            mass = lax.mul(lax.exp(lax.sub(mass, log_beta)), width)
            logs = (log_near, log_far) if place == 0 else (log_far, log_near)
            score = lax.sub(lax.select(lower, *logs), shift)
            return lax.add(total, lax.mul(weight, lax.mul(mass, score))), None

        total, _ = lax.scan(add_node, lax.full_like(x, 0), (NODES.astype(x.dtype), WEIGHTS.astype(x.dtype)))
        total = lax.select(lower, total, lax.neg(total))
        return lax.convert_element_type(lax.select(inside, total, lax.full_like(total, 0)), dtype)

    return slope


elementwise(
    lax.regularized_incomplete_beta_p,
    _beta_shape_slope(0),
    _beta_shape_slope(1),
    _beta_density,
    cost="series",
    kink=SMOOTH,
)

# -- exponentially scaled Bessel functions ---------------------------------------------------------


# With S = |x|' and D = e^-|x| (I₀ - S I₁), which is even, I₀' = I₁ and I₁' = I₀ - I₁/x give
# (e^-|x| I₀)' = -S D and (e^-|x| I₁)' = D - e^-|x| I₁/x.

# beyond these, by the bits of the format, D is summed without its leading terms, which cancel; and by how many others
FAR = {16: (6, 8), 32: (16, 8), 64: (30, 20)}


def _far_terms(n):
    """The coefficients of D √(2π|x|) in powers of 1/|x|, from those of I₀ and I₁ (DLMF 10.40.1)."""
    terms = [1.0, 1.0]
    for k in range(1, n + 1):
        terms = [-t * (order - (2 * k - 1) ** 2) / (8 * k) for t, order in zip(terms, (0, 4), strict=True)]
        yield terms[0] - terms[1]


def _near_terms(n=10):
    """The coefficients of I₁/x in powers of x²/4."""
    return [0.5 / (math.factorial(k) * math.factorial(k + 1)) for k in range(n)]


def _horner(coefficients, x):
    total = lax.full_like(x, 0)
    for a in reversed(list(coefficients)):
        total = lax.add(lax.mul(total, x), c(a, x))
    return total


def _difference(x, side):
    size = lax.mul(side, x)
    start, number = FAR[jnp.finfo(x.dtype).bits]
    far = lax.gt(size, c(start, x))
    inverse = lax.div(c(1, x), lax.select(far, size, lax.full_like(x, start)))
    series = lax.mul(
        lax.sqrt(lax.mul(c(0.5 / np.pi, x), inverse)),
        lax.mul(inverse, _horner(_far_terms(number), inverse)),
    )
    near = lax.select(far, lax.full_like(x, start), x)
    return lax.select(far, series, lax.sub(lax.bessel_i0e(near), lax.mul(side, lax.bessel_i1e(near))))


def _i1e_over_x(x, side):
    near = lax.lt(lax.mul(side, x), c(1, x))
    inside, outside = lax.select(near, x, lax.full_like(x, 0)), lax.select(near, lax.full_like(x, 1), x)
    series = lax.mul(lax.exp(lax.neg(lax.mul(side, inside))), i1_over_x(inside))
    return lax.select(near, series, lax.div(lax.bessel_i1e(outside), outside))


def i1_over_x(x):
    """I₁(x)/x for |x| ≤ 1."""
    return _horner(_near_terms(), lax.square(lax.mul(c(0.5, x), x)))


def slope_of_i1(out, x):
    """I₁' = I₀ - I₁/x, near 0 as a polynomial."""
    near = lax.lt(lax.abs(x), c(1, x))
    inside, outside = lax.select(near, x, lax.full_like(x, 0)), lax.select(near, lax.full_like(x, 1), x)
    terms = [(2 * k + 1) * a for k, a in enumerate(_near_terms())]
    series = _horner(terms, lax.square(lax.mul(c(0.5, x), inside)))
    scaled = lax.sub(lax.bessel_i0e(outside), lax.div(lax.bessel_i1e(outside), outside))
    return lax.select(near, series, lax.mul(lax.exp(lax.abs(outside)), scaled))


def _bessel_i0e(ties, out, x):
    side = slope_of_abs(ties, x)
    return (lambda: lax.neg(lax.mul(side, _difference(x, side))),)


def _bessel_i1e(ties, out, x):
    side = slope_of_abs(ties, x)
    return (lambda: lax.sub(_difference(x, side), _i1e_over_x(x, side)),)


register(lax.bessel_i0e_p, KinkRule(_bessel_i0e), cost="transcendental", kink=SLOPE)
register(lax.bessel_i1e_p, KinkRule(_bessel_i1e), cost="transcendental", kink=SMOOTH)
