"""Fluid dynamics and thermodynamics."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from admodes.problems.registry import problem

GAMMA = 1.4  # ratio of the specific heats of air


def _pressure(rho, momentum, energy):
    return (GAMMA - 1.0) * (energy - 0.5 * momentum * momentum / rho)


def _flux(rho, momentum, energy):
    """The flux of the Euler equations, (ρu, ρu² + p, u(E + p))."""
    u, p = momentum / rho, _pressure(rho, momentum, energy)
    return momentum, momentum * u + p, u * (energy + p)


def interface_flux(left, right):
    (rho_l, m_l, e_l), (rho_r, m_r, e_r) = left, right
    p_l, p_r = _pressure(*left), _pressure(*right)
    u_l, u_r = m_l / rho_l, m_r / rho_r
    h_l, h_r = (e_l + p_l) / rho_l, (e_r + p_r) / rho_r

    w_l, w_r = jnp.sqrt(rho_l), jnp.sqrt(rho_r)
    u = (w_l * u_l + w_r * u_r) / (w_l + w_r)
    h = (w_l * h_l + w_r * h_r) / (w_l + w_r)
    c2 = (GAMMA - 1.0) * (h - 0.5 * u * u)
    c = jnp.sqrt(c2)

    dp, drho, du = p_r - p_l, rho_r - rho_l, w_l * w_r * (u_r - u_l)
    slow = jnp.abs(u - c) * (dp - c * du) / (2.0 * c2)
    contact = jnp.abs(u) * (drho - dp / c2)
    fast = jnp.abs(u + c) * (dp + c * du) / (2.0 * c2)
    jump = (
        slow + contact + fast,
        slow * (u - c) + contact * u + fast * (u + c),
        slow * (h - u * c) + contact * (0.5 * u * u) + fast * (h + u * c),
    )
    return tuple(0.5 * (fl + fr - d) for fl, fr, d in zip(_flux(*left), _flux(*right), jump, strict=True))


@problem(
    summary="Roe's numerical flux between two states of a gas (1-D Euler equations)",
    field="fluid dynamics",
    inputs=6,
    outputs=3,
    argnums=(0, 1),
)
def roe_flux(dtype, rng):
    r"""Roe's approximate Riemann solver for the 1-D Euler equations of an ideal gas.

    For states U = (ρ, ρu, E) on the left and right of a cell face, F = ½(F_l + F_r) − ½ Σ_k |λ_k| α_k r_k, where the
    speeds λ = (û − ĉ, û, û + ĉ) and waves r_k belong to the √ρ-weighted means û and Ĥ, ĉ² = (γ − 1)(Ĥ − û²/2), and the
    strengths are α = ((Δp − ρ̂ĉΔu)/2ĉ², Δρ − Δp/ĉ², (Δp + ρ̂ĉΔu)/2ĉ²) with ρ̂ = √(ρ_l ρ_r). All operations are scalar.

    Reference: Roe, *Approximate Riemann solvers, parameter vectors, and difference schemes*, J. Comput. Phys. 43
    (1981) 357-372.
    """

    def state(rho, u, p):
        rho, u, p = np.array([rho, u, p]) * rng.uniform(0.95, 1.05, 3)
        return tuple(dtype.type(v) for v in (rho, rho * u, p / (GAMMA - 1.0) + 0.5 * rho * u * u))

    return interface_flux, (state(1.0, 0.3, 1.0), state(0.125, 0.2, 0.1))


@problem(summary="upwind differences for Burgers' equation", field="fluid dynamics", inputs=32, outputs=32)
def burgers(dtype, rng, n=32):
    r"""The right-hand side of u_t + (u²/2)_x = ν u_xx on n points of (0, 1), u = 0 at both ends, ν = 0.01.

    uᵢ' = −(Fᵢ₊½ − Fᵢ₋½)/h + ν (uᵢ₊₁ − 2uᵢ + uᵢ₋₁)/h² with the upwind flux F(a, b) = max(a, 0)²/2 + min(b, 0)²/2:
    tridiagonal.

    Reference: Engquist and Osher, *One-sided difference approximations for nonlinear conservation laws*, Math. Comp. 36
    (1981) 321-351.
    """
    h, viscosity = 1.0 / (n + 1), 0.01

    def f(u):
        left, right = jnp.pad(u, (1, 0)), jnp.pad(u, (0, 1))
        flux = 0.5 * (jnp.maximum(left, 0.0) ** 2 + jnp.minimum(right, 0.0) ** 2)
        diffusion = viscosity / h * (right - left)
        return jnp.diff(diffusion - flux) / h

    x = h * np.arange(1, n + 1)
    return f, ((np.sin(2.0 * np.pi * x) + 0.1 * rng.normal(size=n)).astype(dtype),)


@problem(
    summary="Helmholtz energy of a mixed fluid: scalar, dense Hessian", field="thermodynamics", inputs=10, outputs=1
)
def helmholtz(dtype, rng, n=10):
    r"""The Helmholtz energy of a mixture of n fluids in a unit volume (Peng-Robinson equation of state).

    f(x) = Σᵢ xᵢ log(xᵢ / (1 − bᵀx)) − xᵀAx / (√8 bᵀx) · log((1 + (1 + √2) bᵀx) / (1 + (1 − √2) bᵀx)), with RT = 1.

    Reference: Griewank, *On automatic differentiation*, in: Mathematical Programming, Kluwer 1989, 83-108.
    """
    root2 = float(np.sqrt(2.0))

    def f(x, a, b):
        bx = jnp.dot(b, x)
        ideal = jnp.sum(x * jnp.log(x / (1.0 - bx)))
        excess = jnp.dot(x, a @ x) / (2.0 * root2 * bx)
        return ideal - excess * jnp.log((1.0 + (1.0 + root2) * bx) / (1.0 + (1.0 - root2) * bx))

    factor = rng.uniform(0.0, 1.0, (n, n))
    x, b = rng.uniform(0.5, 1.5, n) / n, rng.uniform(0.1, 0.5, n)
    return f, (x.astype(dtype), (factor @ factor.T / n).astype(dtype), b.astype(dtype))
