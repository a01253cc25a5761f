"""Every problem: sizes as declared, finite values, and the same Jacobian as JAX's in both modes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from jax.tree_util import tree_leaves

import admodes
from admodes import problems
from admodes.problems import control, robotics
from admodes.problems.fluids import GAMMA, interface_flux

NAMES = problems.names()


def differentiated(problem, args):
    argnums = (problem.argnums,) if isinstance(problem.argnums, int) else problem.argnums
    return [args[i] for i in argnums]


def count(tree):
    return sum(np.size(x) for x in tree_leaves(tree))


@pytest.mark.parametrize("name", NAMES)
def test_declared_sizes_and_types(name):
    problem = problems.get(name)
    for dtype in (np.float32, np.float64):
        with jax.numpy_dtype_promotion("strict"):
            f, args = problem.make(dtype)
            out = jax.eval_shape(f, *args)
        assert count(differentiated(problem, args)) == problem.inputs
        assert count(out) == problem.outputs
        assert {x.dtype for x in tree_leaves([differentiated(problem, args), out])} == {np.dtype(dtype)}
    assert "Reference: " in problem.description
    assert len(problem.summary) <= 80
    assert not problem.summary.endswith(".")


def as_vector_function(problem, dtype, **sizes):
    """The problem from a vector to a vector, at its point: one Jacobian matrix, which compiles fast."""
    f, args = problem.make(dtype, **sizes)
    argnums = (problem.argnums,) if isinstance(problem.argnums, int) else problem.argnums
    x, unravel = ravel_pytree(differentiated(problem, args))

    def g(x):
        moved = dict(zip(argnums, unravel(x), strict=True))
        return ravel_pytree(f(*(moved.get(i, arg) for i, arg in enumerate(args))))[0]

    return g, x


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.every(2)
def test_jacobian_agrees_with_jax(name):
    problem = problems.get(name)
    oracle = jax.jacfwd if problem.inputs <= problem.outputs else jax.jacrev

    def jacobian(mode, dtype):
        g, x = as_vector_function(problem, dtype)
        return jax.jit(mode(g))(x)

    g, x = as_vector_function(problem, np.float64)
    assert np.isfinite(jax.jit(g)(x)).all()
    expected = jacobian(oracle, np.float64)
    assert expected.shape == (problem.outputs, problem.inputs)
    assert np.isfinite(expected).all()
    scale = float(np.max(np.abs(expected)))
    for mode, dtype, tolerance in (
        (admodes.jacfwd, np.float64, 1e-12),
        (admodes.jacrev, np.float64, 1e-12),
        (admodes.jacrev, np.float32, 2e-3),
    ):
        found = jacobian(mode, dtype)
        assert found.dtype == dtype
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=tolerance * scale)


def test_points_depend_on_the_seed_only():
    problem = problems.get("mlp")
    first, again, other = (problem.make(np.float32, seed)[1] for seed in (3, 3, 4))
    assert all(np.array_equal(a, b) for a, b in zip(tree_leaves(first), tree_leaves(again), strict=True))
    assert not np.array_equal(tree_leaves(first)[0], tree_leaves(other)[0])


def test_sizes():
    f, (x,) = problems.get("arrowhead").make(np.float64, n=5)
    assert problems.get("arrowhead").sizes == {"n": 32}
    pattern = np.asarray(admodes.jacfwd(f)(x)) != 0
    assert np.array_equal(pattern, np.eye(5, dtype=bool) | (np.arange(5) == 0) | (np.arange(5) == 0)[:, None])
    with pytest.raises(TypeError, match=r"'arrowhead' has no size m; it has: n"):
        problems.get("arrowhead").make(m=3)


def tridiagonal(n, reach=1):
    return np.abs(np.subtract.outer(np.arange(n), np.arange(n))) <= reach


def blocks(count, rows, cols):
    return np.kron(np.eye(count, dtype=bool), np.ones((rows, cols), bool))


STRUCTURES = {
    ("burgers", (("n", 7),)): tridiagonal(7),
    ("heat", (("n", 4),)): np.kron(tridiagonal(4), tridiagonal(4)),
    ("elementwise", (("n", 5),)): np.eye(5, dtype=bool),
    ("softmax_rows", (("rows", 3), ("columns", 2))): blocks(3, 2, 2),
    ("per_example_net", (("examples", 3), ("widths", (2, 4, 3)))): blocks(3, 3, 2),
}


@pytest.mark.parametrize(("name", "sizes"), STRUCTURES)
def test_structures(name, sizes):
    g, x = as_vector_function(problems.get(name), np.float64, **dict(sizes))
    nonzero = np.asarray(jax.jacfwd(g)(x)) != 0
    expected = STRUCTURES[name, sizes]
    assert nonzero.shape == expected.shape
    assert not (nonzero & ~expected).any()
    assert (nonzero == expected).mean() > 0.9  # upwind differences look to one side only


@pytest.mark.parametrize(("name", "waist"), [("hourglass", 2), ("double_waist", 2), ("dense_net", 12)])
def test_the_rank_is_that_of_the_waist(name, waist):
    g, x = as_vector_function(problems.get(name), np.float64)
    assert np.linalg.matrix_rank(jax.jacfwd(g)(x), rtol=1e-10) == waist


def test_collocation_is_banded():
    g, x = as_vector_function(problems.get("collocation"), np.float64, n=6)
    nonzero = np.asarray(jax.jacfwd(g)(x)) != 0
    assert nonzero.shape == (32, 35)
    assert nonzero.sum(axis=1).max() <= 10
    rows, cols = np.nonzero(nonzero[:24])
    assert (cols // 5 - rows // 4).tolist() == ((cols // 5 - rows // 4) >= 1).astype(int).tolist()


def test_the_cart_pole_keeps_its_energy_without_a_force():
    state, m1, m2, length = np.array([0.2, 0.7, 0.5, -0.9]), control.CART, control.POLE, control.LENGTH

    def energy(state):
        _, angle, speed, spin = state
        pole = speed**2 + 2 * speed * spin * length * jnp.cos(angle) + (length * spin) ** 2
        return 0.5 * m1 * speed**2 + 0.5 * m2 * pole - m2 * control.GRAVITY * length * jnp.cos(angle)

    slope = control.cart_pole(state[None], jnp.zeros(1))[0]
    assert float(jnp.dot(jax.grad(energy)(state), slope)) == pytest.approx(0.0, abs=1e-14)


def test_three_equal_competitors_stay_equal():
    """With equal rows the sum of A's row s and r give the logistic equation x' = x (r - s x)."""
    f, _ = problems.get("competition").make(np.float64, steps=400)
    parameters = np.concatenate([np.full(3, 2.0), np.tile([1.0, 0.5, 0.5], 3)])
    orbit = f(parameters, np.full(3, 0.1))
    x0, r, s = 0.1, 2.0, 2.0
    growth = np.exp(r * 10.0)
    np.testing.assert_allclose(orbit[-1], r * x0 * growth / (r + s * x0 * (growth - 1)), rtol=1e-7)


@pytest.mark.parametrize("buses", [5, 118])
def test_power_networks_are_connected_and_sparse(buses):
    _, (x, held, conductance, *_) = problems.get("power_network").make(np.float64, buses=buses)
    assert held.shape == (buses,)
    assert x.size == 2 * (buses - 1) - buses // 5
    assert 2 * (buses - 1) <= conductance.size - buses <= 2 * (buses - 1 + buses // 2)


def test_64_bits_must_be_switched_on():
    with jax.enable_x64(False), pytest.raises(ValueError, match="jax_enable_x64"):
        problems.get("mlp").make(np.float64)


def test_unknown_name():
    with pytest.raises(admodes.errors.UnknownProblemError, match=r"'roe_flx'.*'roe_flux'.*admodes list"):
        problems.get("roe_flx")
    with pytest.raises(admodes.errors.UnknownProblemError, match=r"^there is no problem 'zzz'\. `admodes list`"):
        problems.get("zzz")
    assert [p.name for p in problems.all()] == NAMES == sorted(NAMES)


# -- what the literature says about some of them -----------------------------------------------------


def test_lecture_values():
    f, (x,) = problems.get("lecture_softplus").make(np.float64)
    assert float(admodes.grad(f)(x)) == pytest.approx(-5.37883, abs=5e-6)
    g, (x1, x2) = problems.get("lecture_graph").make(np.float64)
    gradient = admodes.grad(g, argnums=(0, 1))(x1, x2)
    np.testing.assert_allclose(gradient, [np.cos(x1) + x2, x1], rtol=1e-15)


def test_roe_flux_is_consistent_and_upwind():
    def state(rho, u, p):
        return rho, rho * u, p / (GAMMA - 1.0) + 0.5 * rho * u * u

    def flux(rho, u, p):
        return rho * u, rho * u * u + p, u * (p / (GAMMA - 1.0) + 0.5 * rho * u * u + p)

    slow, fast, faster = (1.0, 0.3, 1.0), (1.0, 3.0, 1.0), (0.5, 3.5, 0.6)
    np.testing.assert_allclose(interface_flux(state(*slow), state(*slow)), flux(*slow), rtol=1e-14)
    np.testing.assert_allclose(interface_flux(state(*fast), state(*faster)), flux(*fast), rtol=1e-12)


def test_robot_arm_is_the_product_of_its_link_transforms():
    _, (angles,) = problems.get("robot_arm").make(np.float64)
    a = (robotics.A1, robotics.A2, robotics.A3, 0.0, 0.0, 0.0)
    alpha = np.radians((90, 0, 90, -90, 90, 0))
    d = (robotics.D1, 0.0, 0.0, robotics.D4, 0.0, robotics.D6)
    pose = np.eye(4)
    for theta, ai, twist, di in zip(map(float, angles), a, alpha, d, strict=True):
        c, s, ct, st = np.cos(theta), np.sin(theta), np.cos(twist), np.sin(twist)
        link = [[c, -s * ct, s * st, ai * c], [s, c * ct, -c * st, ai * s], [0, st, ct, di], [0, 0, 0, 1]]
        pose = pose @ np.array(link)
    position, (phi, theta, psi) = jax.jit(robotics.pose)(angles)
    np.testing.assert_allclose(position, pose[:3, 3], rtol=1e-12)
    rz = lambda t: np.array([[np.cos(t), -np.sin(t), 0], [np.sin(t), np.cos(t), 0], [0, 0, 1]])
    ry = lambda t: np.array([[np.cos(t), 0, np.sin(t)], [0, 1, 0], [-np.sin(t), 0, np.cos(t)]])
    np.testing.assert_allclose(rz(phi) @ ry(theta) @ rz(psi), pose[:3, :3], atol=1e-12)


def test_greeks_in_closed_form():
    _, (spot, strike, rate, volatility, maturity) = problems.get("black_scholes").make(np.float64)
    greeks, args = problems.get("black_scholes_jacobian").make(np.float64)
    root = volatility * jnp.sqrt(maturity)
    d1 = (jnp.log(spot / strike) + rate * maturity) / root + 0.5 * root
    density = jnp.exp(-0.5 * d1 * d1) / np.sqrt(2 * np.pi)
    cdf = jax.scipy.stats.norm.cdf
    discounted = strike * jnp.exp(-rate * maturity)
    expected = {
        0: cdf(d1),
        1: -discounted / strike * cdf(d1 - root),
        2: maturity * discounted * cdf(d1 - root),
        3: spot * jnp.sqrt(maturity) * density,
    }
    found = jax.jit(greeks)(*args)
    for i, value in expected.items():
        np.testing.assert_allclose(found[i], value, rtol=1e-11)
    gamma = jax.jit(admodes.jacfwd(greeks))(*args)[0]
    np.testing.assert_allclose(gamma, density / (spot * root), rtol=1e-11)


def test_heart_dipole_matches_moments():
    """Real and imaginary parts of Σ (a + ic)(t + iv)^k, k = 0 ... 3, minus the measured moments."""
    f, (x,) = problems.get("human_heart_dipole").make(np.float64)
    a, b, c, d, t, u, v, w = map(float, x)
    moments = [(a + 1j * c) * (t + 1j * v) ** k + (b + 1j * d) * (u + 1j * w) ** k for k in range(4)]
    expected = [part for moment in moments for part in (moment.real, moment.imag)]
    np.testing.assert_allclose(f(x) + np.array(problems.minpack.HEART_MOMENTS), expected, rtol=1e-12, atol=1e-15)


def test_newton_with_our_jacobian_solves_the_power_flow():
    """The published solution of the IEEE 14-bus case: angle of bus 14 -16.0 degrees, voltage 1.036."""
    f, (x, *data) = problems.get("power_flow").make(np.float64)
    jacobian = jax.jit(admodes.jacfwd(f))
    for _ in range(6):
        x = x - jnp.linalg.solve(jacobian(x, *data), f(x, *data))
    assert float(jnp.max(jnp.abs(f(x, *data)))) < 1e-12
    assert np.degrees(x[12]) == pytest.approx(-16.04, abs=0.02)
    assert float(x[-1]) == pytest.approx(1.0355, abs=5e-4)


def test_combustion_newton_converges():
    """Newton with our Jacobian finds positive amounts that balance the elements."""
    f, (x,) = problems.get("propane_combustion").make(np.float64)
    residual = jax.jit(lambda z: jnp.stack(f(tuple(z))))
    jacobian = jax.jit(admodes.jacfwd(residual))
    z = jnp.stack(x)
    for _ in range(60):
        step = jnp.linalg.solve(jacobian(z), residual(z))
        ratio = jnp.max(step / z)
        z = z - jnp.minimum(1.0, 0.9 / jnp.maximum(ratio, 1e-9)) * step
    assert float(jnp.max(jnp.abs(residual(z)))) < 1e-8
    assert float(jnp.min(z)) > 0
