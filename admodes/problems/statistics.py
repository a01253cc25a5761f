"""Statistics."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from jax import lax

from admodes.problems.registry import problem


@problem(
    summary="log marginal likelihood of a Gaussian process in its three hyperparameters",
    field="statistics",
    inputs=3,
    outputs=1,
)
def gaussian_process(dtype, rng, n=12):
    r"""log p(y) = −½ yᵀK⁻¹y − ½ log det K − ½ n log 2π by a Cholesky factor K = LLᵀ.

    K = σ² exp(−(xᵢ − xⱼ)² / 2ℓ²) + τ² I; the parameters are (log ℓ, log σ, log τ).

    Reference: Rasmussen and Williams, *Gaussian Processes for Machine Learning*, MIT Press 2006, algorithm 2.1.
    """

    def f(logs, x, y):
        length, scale, noise = jnp.exp(logs)
        distance = (x[:, None] - x[None, :]) / length
        kernel = scale**2 * jnp.exp(-0.5 * distance**2) + noise**2 * jnp.eye(x.size, dtype=x.dtype)
        factor = jnp.linalg.cholesky(kernel)
        whitened = lax.linalg.triangular_solve(factor, y[:, None], left_side=True, lower=True)
        log_det = 2.0 * jnp.sum(jnp.log(jnp.diagonal(factor)))
        return -0.5 * (jnp.sum(whitened**2) + log_det + x.size * math.log(2.0 * math.pi))

    x = np.sort(rng.uniform(-2.0, 2.0, n))
    y = np.sin(2.0 * x) + 0.1 * rng.normal(size=n)
    logs = np.log([0.8, 1.1, 0.3])
    return f, (logs.astype(dtype), x.astype(dtype), y.astype(dtype))
