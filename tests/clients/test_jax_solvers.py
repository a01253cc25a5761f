"""What JAX itself brings with custom rules: odeint, custom_root, custom_linear_solve, and its Krylov solvers."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental.ode import odeint
from jax.scipy.sparse.linalg import bicgstab, cg, gmres

from tests.clients.derivatives import EVERY, REVERSE, Case, every_derivative

A = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3)) + 4 * np.eye(3))
X = {"A": A, "b": jnp.array([0.4, -0.7, 1.1])}
TIMES = jnp.linspace(0.0, 0.5, 3)


def krylov(solver, positive=False):
    def fun(x):
        a = x["A"] @ x["A"].T if positive else x["A"]
        return solver(lambda y: a @ y, x["b"], tol=1e-12, atol=1e-12)[0]

    return fun


def linear_solve(symmetric, transposed):
    def fun(x):
        a = x["A"] @ x["A"].T if symmetric else x["A"]
        return lax.custom_linear_solve(
            lambda y: a @ y,
            x["b"],
            lambda matvec, b: jnp.linalg.solve(jax.jacobian(matvec)(b), b),
            (lambda vecmat, b: jnp.linalg.solve(jax.jacobian(vecmat)(b), b)) if transposed else None,
            symmetric=symmetric,
        )

    return fun


def root(x):
    def newton(f, y):
        return lax.fori_loop(0, 8, lambda i, y: y - jnp.linalg.solve(jax.jacfwd(f)(y), f(y)), y)

    def tangent_solve(g, y):
        return jnp.linalg.solve(jax.jacobian(g)(y), y)

    return lax.custom_root(lambda y: x["A"] @ y + y**3 - x["b"], jnp.zeros(3), newton, tangent_solve)


def explicit(x):
    return odeint(
        lambda y, t, a, c: a @ y * c - jnp.sin(t) * y, x["b"], TIMES, -0.2 * x["A"], 0.5, rtol=1e-6, atol=1e-6
    )


def closed(x):
    return odeint(lambda y, t: -0.1 * x["A"] @ y - jnp.sin(t) * y, x["b"], TIMES, rtol=1e-6, atol=1e-6)


def hoisted(x):
    """A function whose closure is made arguments, for a custom rule (jax.closure_convert)."""

    def energy(y):
        return jnp.sum(jnp.sin(x["A"] @ y))

    converted, constants = jax.closure_convert(energy, x["b"])

    @jax.custom_vjp
    def doubled(y, *constants):
        return converted(y, *constants)

    def backward(kept, g):
        return tuple(2 * g * ct for ct in jax.grad(converted, tuple(range(len(kept))))(*kept))

    doubled.defvjp(lambda y, *constants: (converted(y, *constants), (y, *constants)), backward)
    return doubled(x["b"], *constants)


CASES = [
    Case("cg", krylov(cg, positive=True), X, EVERY, 1e-6),
    Case("gmres", krylov(gmres), X, rtol=1e-6),
    Case("bicgstab", krylov(bicgstab), X, rtol=1e-6),
    Case("custom-linear-solve", linear_solve(False, True), X),
    Case("custom-linear-solve-symmetric", linear_solve(True, False), X),
    Case("custom-root", root, X, EVERY),
    Case("odeint", explicit, X, REVERSE, 1e-6),
    Case("odeint-closure", closed, X, REVERSE, 1e-6),
    Case("closure-convert", hoisted, X, REVERSE),
]


@every_derivative(CASES)
def test_derivatives(case, way):
    way(case)
