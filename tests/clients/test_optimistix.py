"""optimistix: solvers, differentiated by the implicit function theorem or through their steps."""

import jax.numpy as jnp

from tests.clients.derivatives import EVERY, FIRST, REVERSE, Case, client, every_derivative

optx = client("optimistix")

X = jnp.array([0.8, 1.3])
TOLERANCES = {"rtol": 1e-11, "atol": 1e-11}
IMPLICIT = optx.ImplicitAdjoint()
STEPS = optx.RecursiveCheckpointAdjoint()


def equations(y, p):
    return jnp.stack([y[0] ** 3 + y[1] - p[0], y[1] ** 3 - y[0] * p[1] + y[1]])


def contraction(y, p):
    return 0.3 * jnp.sin(y) * p + 0.2 * y[::-1] + p


def residuals(y, p):
    return jnp.stack([y[0] - p[0], y[1] - jnp.sin(p[1]), y[0] * y[1] - 1.0, jnp.exp(0.1 * y[0]) - p[1]])


def bowl(y, p):
    return jnp.sum((y - p) ** 2) + 0.1 * jnp.sum(y**4) + 0.2 * y[0] * y[1]


def solved(find, fun, solver, adjoint=IMPLICIT, steps=64):
    return lambda p: find(fun, solver, jnp.array([0.5, 0.5]), p, adjoint=adjoint, max_steps=steps).value


CASES = [
    Case("Newton", solved(optx.root_find, equations, optx.Newton(**TOLERANCES)), X, EVERY, 1e-6),
    Case("Chord", solved(optx.root_find, equations, optx.Chord(**TOLERANCES)), X, FIRST, rtol=1e-6),
    Case("fixed-point", solved(optx.fixed_point, contraction, optx.FixedPointIteration(**TOLERANCES)), X, rtol=1e-6),
    Case(
        "Levenberg-Marquardt",
        solved(optx.least_squares, residuals, optx.LevenbergMarquardt(**TOLERANCES)),
        X,
        FIRST,
        rtol=1e-5,
    ),
    Case("BFGS", solved(optx.minimise, bowl, optx.BFGS(rtol=1e-6, atol=1e-6)), X, FIRST, rtol=1e-4),
    Case("Newton-by-steps", solved(optx.root_find, equations, optx.Newton(**TOLERANCES), STEPS, 16), X, REVERSE, 1e-6),
    Case(
        "fixed-point-by-steps",
        solved(optx.fixed_point, contraction, optx.FixedPointIteration(**TOLERANCES), STEPS, 64),
        X,
        REVERSE,
        1e-6,
    ),
]


@every_derivative(CASES)
def test_derivatives(case, way):
    way(case)
