"""lineax: its solvers are primitives with rules of their own, and iterations behind custom rules."""

import jax.numpy as jnp
import numpy as np

from tests.clients.derivatives import EVERY, Case, client, every_derivative

lx = client("lineax")

RNG = np.random.default_rng(0)
A = jnp.asarray(RNG.normal(size=(3, 3)) + 4 * np.eye(3))
TALL = jnp.asarray(RNG.normal(size=(4, 2)))
B = jnp.asarray(RNG.normal(size=3))
D = jnp.asarray([2.0, 3.0, 4.0])


def solve(operator, solver, vector=lambda x: x["b"]):
    return lambda x: lx.linear_solve(operator(x), vector(x), solver).value


def matrix(x):
    return lx.MatrixLinearOperator(x["A"])


def positive(x):
    return lx.MatrixLinearOperator(x["A"] @ x["A"].T, lx.positive_semidefinite_tag)


def jacobian_operator(x):
    return lx.JacobianLinearOperator(lambda y, a: a @ jnp.sin(y) + y**3, x["b"], args=x["A"])


def function_operator(x):
    return lx.FunctionLinearOperator(lambda y: x["A"] @ y, x["b"])


CASES = [
    Case("LU", solve(matrix, lx.LU()), {"A": A, "b": B}, EVERY),
    Case("QR", solve(matrix, lx.QR(), lambda x: x["b"]), {"A": TALL, "b": jnp.asarray(RNG.normal(size=4))}),
    Case("SVD", solve(matrix, lx.SVD()), {"A": A, "b": B}),
    Case("Cholesky", solve(positive, lx.Cholesky()), {"A": A, "b": B}),
    Case("CG", solve(positive, lx.CG(1e-12, 1e-12)), {"A": A, "b": B}, rtol=1e-6),
    Case("GMRES", solve(matrix, lx.GMRES(1e-12, 1e-12)), {"A": A, "b": B}, rtol=1e-6),
    Case("BiCGStab", solve(matrix, lx.BiCGStab(1e-12, 1e-12)), {"A": A, "b": B}, rtol=1e-6),
    Case("diagonal", solve(lambda x: lx.DiagonalLinearOperator(x["d"]), lx.Diagonal()), {"d": D, "b": B}, EVERY),
    Case(
        "tridiagonal",
        solve(lambda x: lx.TridiagonalLinearOperator(x["d"], x["l"], x["u"]), lx.Tridiagonal()),
        {"d": D, "l": jnp.array([0.3, -0.2]), "u": jnp.array([0.5, 0.1]), "b": B},
    ),
    Case("JacobianLinearOperator", solve(jacobian_operator, lx.LU(), lambda x: x["b"] ** 2), {"A": A, "b": B}),
    Case("FunctionLinearOperator", solve(function_operator, lx.AutoLinearSolver(well_posed=True)), {"A": A, "b": B}),
]


@every_derivative(CASES)
def test_derivatives(case, way):
    way(case)
