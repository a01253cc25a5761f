"""Right-hand sides and integrators of differential equations."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax import lax

from admodes.problems.registry import problem


def _runge_kutta_step(slope, z, h):
    """z after a step of length h from z' = slope(z): the classical method of order four."""
    k1 = slope(z)
    k2 = slope(z + 0.5 * h * k1)
    k3 = slope(z + 0.5 * h * k2)
    k4 = slope(z + h * k3)
    return z + h / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4)


def _runge_kutta(slope, start, h, steps):
    """z after ``steps`` steps, and after each."""

    def step(z, _):
        z = _runge_kutta_step(slope, z, h)
        return z, z

    return lax.scan(step, start, None, length=steps)


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
    summary="a step of heat conduction by a 9-point stencil, as a convolution",
    field="partial differential equations",
    inputs=64,
    outputs=64,
)
def heat(dtype, rng, n=8):
    r"""One explicit Euler step of u' = Δu on n × n points, u = 0 outside, by the compact nine-point stencil.

    u + τ/(6h²) [1 4 1; 4 −20 4; 1 4 1] ∗ u with τ = h²/10, as ``lax.conv_general_dilated``: at most nine nonzeros per
    row, the same numbers in each.

    Reference: Collatz, *The Numerical Treatment of Differential Equations*, 3rd ed., Springer 1960, appendix table VI.
    """
    kernel = np.array([[1.0, 4.0, 1.0], [4.0, -20.0, 4.0], [1.0, 4.0, 1.0]], dtype)[None, None] / dtype.type(60.0)

    def f(u, kernel):
        return u + lax.conv_general_dilated(u[None, None], kernel, (1, 1), "SAME")[0, 0]

    return f, (rng.uniform(0.0, 1.0, (n, n)).astype(dtype), kernel)


@problem(
    summary="end of a Lotka-Volterra orbit from its four rates (RK4 in a scan)", field="ecology", inputs=4, outputs=2
)
def rk4_ode(dtype, rng, steps=50):
    r"""The populations at time 5 of x' = αx − βxy, y' = δxy − γy, as a function of the rates (α, β, δ, γ).

    The classical Runge-Kutta method of order four in ``lax.scan``.

    Reference: Hairer, Nørsett and Wanner, *Solving Ordinary Differential Equations I*, 2nd ed., Springer 1993,
    section II.1; Lotka (1925), Volterra (1926).
    """

    def f(rates, start):
        alpha, beta, delta, gamma = rates

        def slope(z):
            prey, predator = z
            meetings = prey * predator
            return jnp.stack([alpha * prey - beta * meetings, delta * meetings - gamma * predator])

        return _runge_kutta(slope, start, 5.0 / steps, steps)[0]

    rates = np.array([1.1, 0.4, 0.1, 0.4]) * rng.uniform(0.9, 1.1, 4)
    return f, (rates.astype(dtype), np.array([10.0, 5.0], dtype))


@problem(summary="orbit of three competing species from their 12 parameters", field="ecology", inputs=12, outputs=60)
def competition(dtype, rng, steps=20):
    r"""The populations over the time 10 of xᵢ' = xᵢ (rᵢ − Σⱼ aᵢⱼ xⱼ), as a function of r (3) and A (3 x 3).

    The classical Runge-Kutta method in ``lax.scan``, all steps returned: few inputs, many outputs.

    Reference: May and Leonard, *Nonlinear aspects of competition between three species*, SIAM J. Appl. Math. 29 (1975)
    243-253.
    """

    def f(parameters, start):
        r, a = parameters[:3], jnp.reshape(parameters[3:], (3, 3))
        return _runge_kutta(lambda x: x * (r - a @ x), start, 10.0 / steps, steps)[1]

    parameters = np.array([1.0, 1.0, 1.0, 1.0, 0.8, 1.3, 1.3, 1.0, 0.8, 0.8, 1.3, 1.0]) * rng.uniform(0.95, 1.05, 12)
    return f, (parameters.astype(dtype), np.array([0.4, 0.3, 0.2], dtype))


@problem(
    summary="mean square of the ends of 16 Lorenz orbits of 10,000 steps (RK4 in a scan)",
    field="meteorology",
    inputs=51,
    outputs=1,
    argnums=(0, 1),
)
def lorenz_long(dtype, rng, steps=10_000, orbits=16):
    r"""The mean of |z(2)|² over orbits z' = (σ(y − x), x(ρ − w) − y, xy − βw), of their z(0) = (x, y, w) and σ, ρ, β.

    The classical Runge-Kutta method in ``lax.scan``: reverse mode keeps a tape for each step, or keeps less of it and
    computes the rest again (:func:`admodes.checkpoint`). Over the time 2 errors grow about sixfold.

    Reference: Lorenz, *Deterministic nonperiodic flow*, J. Atmos. Sci. 20 (1963) 130-141.
    """

    def f(starts, parameters):
        sigma, rho, beta = parameters

        def slope(z):
            x, y, w = z
            return jnp.stack([sigma * (y - x), x * (rho - w) - y, x * y - beta * w])

        ends, _ = lax.scan(lambda z, _: (_runge_kutta_step(slope, z, 2.0 / steps), None), starts, None, length=steps)
        return jnp.sum(ends**2) / orbits

    starts = np.array([1.0, 1.0, 20.0])[:, None] + rng.uniform(-1.0, 1.0, (3, orbits))
    return f, (starts.astype(dtype), np.array([10.0, 28.0, 8.0 / 3.0], dtype))
