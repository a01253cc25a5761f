"""Solvers with derivatives of their own: iterative linear solvers, in rules too, and roots."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.scipy.sparse.linalg import bicgstab, cg, gmres

import admodes

M = np.array([[7.0, 2.0, 1.0], [2.0, 7.0, 3.0], [1.0, 3.0, 7.0]])
B = np.array([0.3, -1.2, 2.0])
SOLVERS = {
    "cg": partial(cg, tol=1e-12),
    "bicgstab": partial(bicgstab, tol=1e-12),
    "gmres": partial(gmres, tol=1e-12),
    "gmres, incremental": partial(gmres, tol=1e-12, solve_method="incremental"),
}
MODES = ("jacfwd", "jacrev", "jacobian")
OFTEN = [pytest.param(name, marks=pytest.mark.slow if "incremental" in name else ()) for name in SOLVERS]


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["plain", "jit"])
@pytest.mark.parametrize("name", OFTEN)
@pytest.mark.every(3)
def test_solvers_inside_a_rule_are_transposed(name, wrap):
    """Their tolerance depends on the norm of the tangent: that steers the iteration, and has no derivative."""
    inner = wrap(lambda t: SOLVERS[name](M, t)[0])

    @jax.custom_jvp
    def solve(b):
        return jnp.linalg.solve(M, b)

    solve.defjvp(lambda p, t: (solve(*p), inner(*t)))
    for derive in MODES:
        np.testing.assert_allclose(getattr(admodes, derive)(solve)(B), np.linalg.inv(M), atol=1e-9)
    for scale in (1e-15, 1e15):  # a cotangent of another size is solved for as exactly
        g = scale * B
        np.testing.assert_allclose(admodes.vjp(solve, B)[1](g)[0], np.linalg.solve(M.T, g), rtol=1e-9)
    np.testing.assert_array_equal(admodes.vjp(solve, B)[1](0 * B)[0], 0 * B)
    loss, plain = (lambda b, s=s: jnp.sum(jnp.sin(s(b))) for s in (solve, partial(jnp.linalg.solve, M)))
    np.testing.assert_allclose(admodes.hessian(loss)(B), jax.hessian(plain)(B), atol=1e-8)
    batch = jnp.stack([B, 1e-9 * B])
    found = jax.vmap(admodes.grad(loss))(batch)
    np.testing.assert_allclose(found, jax.vmap(jax.grad(plain))(batch), rtol=1e-8)


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.every(2)
def test_solvers(name):
    def f(a, b):
        return jnp.sin(SOLVERS[name](lambda v: a @ v, b)[0])

    plain = lambda a, b: jnp.sin(jnp.linalg.solve(a, b))
    for k in (0, 1):
        expected = jax.jacfwd(plain, k)(M, B)
        for derive in MODES:
            np.testing.assert_allclose(getattr(admodes, derive)(f, k)(M, B), expected, atol=1e-8)
    found = admodes.hessian(lambda b: jnp.sum(f(M, b) ** 2))(B)
    np.testing.assert_allclose(found, jax.hessian(lambda b: jnp.sum(plain(M, b) ** 2))(B), atol=1e-7)


def test_roots():
    def newton(f, x):
        return lax.fori_loop(0, 30, lambda _, x: x - f(x) / jax.jvp(f, (x,), (jnp.ones_like(x),))[1], x)

    def root(a):
        g = lambda x: x**3 + a * x - 1
        return lax.custom_root(g, jnp.ones_like(a), newton, lambda g, y: y / g(jnp.ones_like(y)))

    a = jnp.array(2.0)
    x = root(a)
    slope = -x / (3 * x**2 + a)
    for derive in ("grad", *MODES):
        np.testing.assert_allclose(getattr(admodes, derive)(root)(a), slope, rtol=1e-10)
    np.testing.assert_allclose(admodes.hessian(root)(a), jax.hessian(root)(a), rtol=1e-9)
    np.testing.assert_allclose(admodes.jacrev(admodes.grad(root))(a), jax.hessian(root)(a), rtol=1e-9)
    np.testing.assert_allclose(jax.jit(jax.vmap(admodes.grad(root)))(a * np.ones(2)), [slope, slope], rtol=1e-10)


@pytest.mark.parametrize("mode", ["jvp", "vjp"])
def test_a_rule_that_branches_on_a_value_is_linear_also_in_a_batch(mode):
    """A batched branch becomes a selection, in which JAX stops the derivatives of what is not selected."""
    if mode == "jvp":
        f = jax.custom_jvp(lambda x: jnp.where(x > 0, x**2, x**3))

        @f.defjvp
        def _(primals, tangents):
            (x,), (t,) = primals, tangents
            return f(x), lax.cond(x > 0, lambda t: 2 * x * t, lambda t: 3 * x * x * t, t)
    else:
        f = jax.custom_vjp(lambda x: jnp.where(x > 0, x**2, x**3))

        def bwd(x, g):
            return (lax.cond(x > 0, lambda g: 2 * x * g, lambda g: 3 * x * x * g, g),)

        f.defvjp(lambda x: (f(x), x), bwd)
    x, slopes = np.array([1.5, -2.0]), [3.0, 12.0]
    for g in (jax.vmap(f), jax.jit(jax.vmap(f)), jax.checkpoint(jax.vmap(f))):
        for derive in MODES:
            np.testing.assert_allclose(getattr(admodes, derive)(g)(x), np.diag(slopes), rtol=1e-12)
        np.testing.assert_allclose(admodes.hessian(lambda x, g=g: jnp.sum(g(x)))(x), np.diag([2.0, -12.0]), rtol=1e-12)
    np.testing.assert_allclose(jax.vmap(admodes.grad(f))(x), slopes, rtol=1e-12)


def test_a_rule_that_stops_the_tangent_is_not_linear():
    f = jax.custom_jvp(lambda x: x**2)
    f.defjvp(lambda p, t: (f(*p), lax.stop_gradient(t[0])))
    with pytest.raises(admodes.errors.NotLinearError, match="stop_gradient"):
        admodes.grad(f)(1.0)
