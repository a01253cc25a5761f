"""Special functions: erf, the gamma family, Bessel functions; their derivatives lead to each other."""

from __future__ import annotations

import numpy as np
from jax import lax
from jax import numpy as jnp

from admodes.linear.maps import expand
from admodes.program import jax_compat as jc
from admodes.program.traits import SLOPE, SMOOTH
from admodes.rules.elementwise import c, weak
from admodes.rules.table import elementwise

# -- the error function --------------------------------------------------------------------------


def _gauss(scale):
    """The partial ``scale`` exp(-x²)."""
    return lambda out, x, **_: lax.mul(c(scale, x), lax.exp(lax.neg(lax.square(x))))


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


elementwise(lax.lgamma_p, lambda out, x: lax.digamma(x), cost="transcendental")
elementwise(lax.digamma_p, lambda out, x: lax.polygamma(c(1, x), x), cost="transcendental")
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
    """How a sample z of Gamma(a, 1) moves with a along its quantile, dz/da = -∂ₐP / p; in log space, over z."""
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


_beta_shape = _not_differentiable("betainc(a, b, x) is differentiated in x only, not in its shapes a and b.")
elementwise(lax.regularized_incomplete_beta_p, _beta_shape, _beta_shape, _beta_density, cost="series")

# -- exponentially scaled Bessel functions ---------------------------------------------------------


def _bessel_i1e(out, x):
    """I₁' = I₀ - I₁/x gives d(e⁻ˣ I₁)/dx = e⁻ˣ I₀ - e⁻ˣ I₁ (sign x + 1/x), and 1/2 at 0."""
    eps = lax.full_like(x, jnp.finfo(x.dtype).eps)
    large = lax.gt(lax.abs(x), eps)
    safe = lax.select(large, x, eps)
    slope = lax.sub(lax.bessel_i0e(safe), lax.mul(out, lax.add(lax.sign(safe), lax.div(weak(1, x), safe))))
    return lax.select(large, slope, lax.full_like(x, 0.5))


elementwise(
    lax.bessel_i0e_p,
    lambda out, x: lax.sub(lax.bessel_i1e(x), lax.mul(lax.sign(x), out)),
    cost="transcendental",
    kink=SLOPE,
)
elementwise(lax.bessel_i1e_p, _bessel_i1e, cost="transcendental", kink=SMOOTH)
