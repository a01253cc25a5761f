"""Special functions: erf, the gamma family, Bessel functions; their derivatives lead to each other."""

from __future__ import annotations

import numpy as np
from jax import lax
from jax import numpy as jnp

from admodes.program import jax_compat as jc
from admodes.rules.elementwise import c, weak
from admodes.rules.table import elementwise

# -- the error function --------------------------------------------------------------------------


def _gauss(scale):
    """The partial ``scale`` exp(-x²)."""
    return lambda out, x: lax.mul(c(scale, x), lax.exp(lax.neg(lax.square(x))))


elementwise(lax.erf_p, _gauss(2 / np.sqrt(np.pi)))
elementwise(lax.erfc_p, _gauss(-2 / np.sqrt(np.pi)))
elementwise(lax.erf_inv_p, lambda out, x: lax.mul(c(np.sqrt(np.pi) / 2, x), lax.exp(lax.square(out))))

# -- gamma and its logarithmic derivatives ---------------------------------------------------------


def _not_differentiable(message):
    def partial(*_, **__):
        raise ValueError(message)

    return partial


elementwise(lax.lgamma_p, lambda out, x: lax.digamma(x))
elementwise(lax.digamma_p, lambda out, x: lax.polygamma(c(1, x), x))
elementwise(
    lax.polygamma_p,
    _not_differentiable("polygamma(m, x) has no derivative in m: it is defined for whole m only."),
    lambda out, m, x: lax.polygamma(lax.add(m, c(1, m)), x),
)
elementwise(
    lax.zeta_p,
    _not_differentiable("the derivative of zeta(x, q) in its exponent x is not supported; that in q is."),
    lambda out, x, q: lax.neg(lax.mul(x, lax.zeta(lax.add(x, c(1, x)), q))),  # ∂ζ(s, q)/∂q = -s ζ(s + 1, q)
)

# -- incomplete gamma functions: P(a, x) = ∫₀ˣ p(t; a) dt, p(t; a) = tᵃ⁻¹ e⁻ᵗ / Γ(a), and Q = 1 - P -------


def _density(a, x):
    """p(x; a) = exp(-x + (a - 1) log x - log Γ(a)) = ∂P/∂x"""
    power = lax.mul(lax.sub(a, weak(1.0, a)), lax.log(x))
    return lax.exp(lax.sub(lax.add(lax.neg(x), power), lax.lgamma(a)))


def _score(a, x):
    """∂ log p/∂a = log x - ψ(a)"""
    return lax.sub(lax.log(x), lax.digamma(a))


elementwise(
    lax.igamma_p,
    lambda out, a, x: lax.igamma_grad_a(a, x),
    lambda out, a, x: _density(a, x),
)
elementwise(
    lax.igammac_p,
    lambda out, a, x: lax.neg(lax.igamma_grad_a(a, x)),
    lambda out, a, x: lax.neg(_density(a, x)),
)


def _gamma_sample(out, key, a, *, log_space):
    """How a sample z of Gamma(a, 1) moves with a along its quantile, dz/da = -∂ₐP / p; in log space, over z."""
    if not log_space:
        return lax.random_gamma_grad(a, out)
    z = lax.exp(out)
    z = lax.select(lax.eq(z, c(0, z)), lax.full_like(z, jnp.finfo(z.dtype).tiny), z)
    return lax.div(lax.random_gamma_grad(a, z), z)


elementwise(jc.random_gamma_p, None, _gamma_sample)

# -- incomplete beta: Iₓ(a, b), whose density in x is xᵃ⁻¹ (1 - x)ᵇ⁻¹ / B(a, b) -----------------------


def _beta_density(out, a, b, x):
    log_beta = lax.sub(lax.add(lax.lgamma(a), lax.lgamma(b)), lax.lgamma(lax.add(a, b)))
    one = weak(1.0, x)
    left = lax.mul(lax.sub(b, one), lax.log1p(lax.neg(x)))
    right = lax.mul(lax.sub(a, one), lax.log(x))
    return lax.exp(lax.sub(lax.add(left, right), log_beta))


_beta_shape = _not_differentiable("betainc(a, b, x) is differentiated in x only, not in its shapes a and b.")
elementwise(lax.regularized_incomplete_beta_p, _beta_shape, _beta_shape, _beta_density)

# -- exponentially scaled Bessel functions ---------------------------------------------------------


def _bessel_i1e(out, x):
    """I₁' = I₀ - I₁/x gives d(e⁻ˣ I₁)/dx = e⁻ˣ I₀ - e⁻ˣ I₁ (sign x + 1/x), and 1/2 at 0."""
    eps = lax.full_like(x, jnp.finfo(x.dtype).eps)
    large = lax.gt(lax.abs(x), eps)
    safe = lax.select(large, x, eps)
    slope = lax.sub(lax.bessel_i0e(safe), lax.mul(out, lax.add(lax.sign(safe), lax.div(weak(1.0, x), safe))))
    return lax.select(large, slope, lax.full_like(x, 0.5))


elementwise(lax.bessel_i0e_p, lambda out, x: lax.sub(lax.bessel_i1e(x), lax.mul(lax.sign(x), out)))
elementwise(lax.bessel_i1e_p, _bessel_i1e)
