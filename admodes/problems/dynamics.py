"""Right-hand sides and integrators of differential equations."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import lax

from admodes.problems.registry import problem


@problem(
    summary="reaction and diffusion of two species on a torus",
    field="partial differential equations",
    inputs=128,
    outputs=128,
)
def brusselator(dtype, rng, n=8):
    r"""The right-hand side of the two-dimensional Brusselator on n × n points with periodic boundaries.

    u' = 1 + u²v − 4.4u + αΔu, v' = 3.4u − u²v + αΔv, α = 0.1, Δ by five-point differences: six nonzeros per row.

    Reference: Hairer and Wanner, *Solving Ordinary Differential Equations II*, 2nd ed., Springer 1996, section IV.10.
    """
    diffusion = 0.1 * n**2

    def laplacian(z):
        return sum(jnp.roll(z, shift, axis) for shift in (1, -1) for axis in (0, 1)) - 4.0 * z

    def f(state):
        u, v = state
        reaction = u * u * v
        return jnp.stack(
            [1.0 + reaction - 4.4 * u + diffusion * laplacian(u), 3.4 * u - reaction + diffusion * laplacian(v)]
        )

    x = np.linspace(0.0, 1.0, n, endpoint=False)
    u = np.broadcast_to(22.0 * x * (1.0 - x) ** 1.5, (n, n))
    v = np.broadcast_to((27.0 * x * (1.0 - x) ** 1.5)[:, None], (n, n))
    return f, ((np.stack([u, v]) + rng.uniform(0.0, 0.1, (2, n, n))).astype(dtype),)


@problem(
    summary="end of a Lotka-Volterra orbit from its four rates (RK4 in a scan)", field="ecology", inputs=4, outputs=2
)
def rk4_ode(dtype, rng, steps=50):
    r"""The populations at time 5 of x' = αx − βxy, y' = δxy − γy, as a function of the rates (α, β, δ, γ).

    The classical Runge-Kutta method of order four in ``lax.scan``.

    Reference: Hairer, Nørsett and Wanner, *Solving Ordinary Differential Equations I*, 2nd ed., Springer 1993,
    section II.1; Lotka (1925), Volterra (1926).
    """
    h = 5.0 / steps

    def f(rates, start):
        alpha, beta, delta, gamma = rates

        def slope(z):
            prey, predator = z
            meetings = prey * predator
            return jnp.stack([alpha * prey - beta * meetings, delta * meetings - gamma * predator])

        def step(z, _):
            k1 = slope(z)
            k2 = slope(z + 0.5 * h * k1)
            k3 = slope(z + 0.5 * h * k2)
            k4 = slope(z + h * k3)
            return z + h / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4), None

        return lax.scan(step, start, None, length=steps)[0]

    rates = np.array([1.1, 0.4, 0.1, 0.4]) * rng.uniform(0.9, 1.1, 4)
    return f, (rates.astype(dtype), np.array([10.0, 5.0], dtype))
