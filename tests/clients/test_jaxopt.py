"""jaxopt: minima and fixed points, differentiated by the implicit function theorem or through the steps."""

import jax
import jax.numpy as jnp

from tests.clients.derivatives import EVERY, REVERSE, Case, client, every_derivative

jaxopt = client("jaxopt")

P = jnp.array([0.8, 1.3])


def bowl(y, p):
    return jnp.sum((y - p) ** 2) + 0.1 * jnp.sum(y**4) + 0.2 * y[0] * y[1]


def minimum(solver):
    return lambda p: solver.run(jnp.array([0.5, 0.5]), p).params


SETTINGS = {"tol": 1e-12, "maxiter": 40, "jit": True}
PLAIN = {"stepsize": 0.2, "acceleration": False, "tol": 0.0, "maxiter": 6}

CASES = [
    Case(
        "gradient-descent-implicit", minimum(jaxopt.GradientDescent(bowl, stepsize=0.2, **SETTINGS)), P, REVERSE, 1e-6
    ),
    Case(
        "gradient-descent-unrolled", minimum(jaxopt.GradientDescent(bowl, implicit_diff=False, unroll=True, **PLAIN)), P
    ),
    Case("BFGS", minimum(jaxopt.BFGS(bowl, **SETTINGS)), P, REVERSE, 1e-6),
    Case(
        "fixed-point",
        lambda p: (
            jaxopt.FixedPointIteration(lambda y, p: 0.3 * jnp.sin(y) * p + p, tol=1e-12, maxiter=40)
            .run(p * 0, p)
            .params
        ),
        P,
        REVERSE,
        1e-6,
    ),
    Case("projection", lambda p: jaxopt.projection.projection_simplex(p * jnp.array([1.0, -0.4])), P, EVERY),
    Case("logistic-loss", lambda p: jax.vmap(jaxopt.loss.binary_logistic_loss, (None, 0))(1, p), P),
]


@every_derivative(CASES)
def test_derivatives(case, way):
    way(case)
