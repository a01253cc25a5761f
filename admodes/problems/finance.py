"""Option pricing."""

from __future__ import annotations

import math

import jax.numpy as jnp
from jax import lax

from admodes.problems.registry import problem
from admodes.transforms.reverse import grad


def _normal_cdf(x):
    return 0.5 * (1.0 + lax.erf(x * math.sqrt(0.5)))


def call_price(spot, strike, rate, volatility, maturity):
    spread = volatility * jnp.sqrt(maturity)
    d1 = (jnp.log(spot / strike) + (rate + 0.5 * volatility * volatility) * maturity) / spread
    discounted = strike * jnp.exp(-rate * maturity)
    return spot * _normal_cdf(d1) - discounted * _normal_cdf(d1 - spread)


def _contract(dtype, rng):
    spot, strike = rng.uniform(90.0, 110.0, 2)
    values = (spot, strike, rng.uniform(0.01, 0.05), rng.uniform(0.15, 0.35), rng.uniform(0.5, 2.0))
    return tuple(dtype.type(v) for v in values)


@problem(
    summary="price of a European call; its gradient holds the greeks",
    field="finance",
    inputs=5,
    outputs=1,
    argnums=(0, 1, 2, 3, 4),
)
def black_scholes(dtype, rng):
    r"""C = S Φ(d₁) − K e^{−rT} Φ(d₂), d₁ = (log(S/K) + (r + σ²/2) T) / (σ√T), d₂ = d₁ − σ√T.

    The arguments are (S, K, r, σ, T); the gradient holds delta Φ(d₁), the dual delta −e^{−rT} Φ(d₂),
    rho, vega S√T φ(d₁) and minus theta.

    Reference: Black and Scholes, *The pricing of options and corporate liabilities*, J. Political Economy 81 (1973)
    637-654.
    """
    return call_price, _contract(dtype, rng)


@problem(
    summary="the five first-order greeks of a call; its Jacobian holds the second-order ones",
    field="finance",
    inputs=5,
    outputs=5,
    argnums=(0, 1, 2, 3, 4),
)
def black_scholes_jacobian(dtype, rng):
    r"""The gradient of the Black-Scholes price with respect to (S, K, r, σ, T), itself found by reverse mode.

    Its Jacobian is the symmetric Hessian of the price: gamma φ(d₁)/(Sσ√T), vanna, volga, charm ... A derivative of a
    derivative, and one of the functions in the literature on Jacobian accumulation.

    Reference: Black and Scholes (1973); Lohoff and Neftci, *Optimizing automatic differentiation with deep
    reinforcement learning*, NeurIPS 2024.
    """
    return grad(call_price, argnums=(0, 1, 2, 3, 4)), _contract(dtype, rng)
