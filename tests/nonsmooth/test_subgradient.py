"""Generalised derivatives: identities through kinks, random programs against exact arithmetic, networks, the API."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import piecewise
import pytest
from jax import lax

import admodes
from admodes.errors import NonsmoothError, UnsupportedPrimitiveError
from admodes.nonsmooth.approach import generic_direction


def compositions(relu):
    """The functions f1..f4, all equal to x."""
    f2 = lambda x: relu(x) - relu(-x)
    return [
        lambda x: x,
        f2,
        lambda x: 10 * x - 9 * f2(x),
        lambda x: relu(relu(x)) - relu(-x),
    ]


RELUS = {
    "nn.relu": jax.nn.relu,
    "maximum": lambda x: jnp.maximum(x, 0.0),
    "lax.max": lambda x: lax.max(x, jnp.zeros_like(x)),
    "where": lambda x: jnp.where(x > 0, x, 0.0),
    "abs": lambda x: (x + jnp.abs(x)) / 2,
    "clip": lambda x: jnp.clip(x, 0.0, None),
    "clamp": lambda x: lax.clamp(0.0, x, np.inf),
    "sort": lambda x: jnp.sort(jnp.stack([x, 0 * x]))[1],
    "reduce_max": lambda x: jnp.max(jnp.stack([x, 0 * x])),
    "top_k": lambda x: lax.top_k(jnp.stack([x, 0 * x]), 1)[0][0],
    "cummax": lambda x: lax.cummax(jnp.stack([0 * x, x]))[1],
    "cond": lambda x: lax.cond(x > 0, lambda: x, lambda: 0 * x),
    "sign": lambda x: x * (1 + jnp.sign(x)) / 2,
    "argmax": lambda x: jnp.stack([0 * x, x])[jnp.argmax(jnp.stack([0 * x, x]))],
    "norm": lambda x: (x + jnp.linalg.norm(x[None])) / 2,
    "sqrt": lambda x: (x + jnp.sqrt(x**2)) / 2,
    "window": lambda x: lax.reduce_window(jnp.stack([x, 0 * x]), -np.inf, lax.max, (2,), (1,), "VALID")[0],
    "python": lambda x: x if x > 0 else 0 * x,
}
ONE_OF_FIVE = dict(list(RELUS.items())[::5])


@pytest.mark.parametrize("name", RELUS)
def test_identities_have_slope_one(name):
    for f in compositions(RELUS[name]):
        for v in (None, -1.0):
            assert float(admodes.subgradient(f, direction=v)(0.0)) == 1.0


@pytest.mark.parametrize("name", ONE_OF_FIVE)
def test_under_jit_and_vmap(name):
    for f in compositions(RELUS[name])[1:]:
        slopes = jax.jit(jax.vmap(admodes.subgradient(f)))(jnp.array([-1.0, 0.0, 2.0]))
        np.testing.assert_array_equal(slopes, 1.0)


def test_random_programs_against_exact_arithmetic():
    rng, count = np.random.default_rng(1), 1500
    codes, registers, points = piecewise.random_programs(rng, count)
    (v,) = generic_direction((points[0],))

    def one(c, r, x):
        return admodes.subgradient(lambda x: piecewise.run(c, r, x))(x)

    found = jax.jit(jax.vmap(one))(codes, registers, points)
    exact = [piecewise.exact_gradient(*args, v) for args in zip(codes, registers, points, strict=True)]
    np.testing.assert_allclose(found, exact, atol=1e-12)
    plain = jax.jit(jax.vmap(lambda c, r, x: jax.grad(lambda x: piecewise.run(c, r, x))(x)))(codes, registers, points)
    right = (np.abs(plain - np.array(exact)) < 1e-6).all(1)
    assert np.mean(right) < 0.6, "the points are too easy"


@pytest.mark.slow
def test_random_identities():
    programs = piecewise.identity_programs(np.random.default_rng(2), 1000)
    one = lambda p: admodes.subgradient(lambda x: piecewise.run_identities(p, x))(0.0)
    np.testing.assert_array_equal(jax.jit(jax.vmap(one))(programs), 1.0)


@pytest.mark.parametrize("depth", [2, 4])
def test_networks_at_zero_preactivations(depth):
    """All biases and inputs are 0, so the network is linear along rays: its gradient at v is that beside 0 along v."""
    rng = np.random.default_rng(depth)
    sizes = [5, *[16] * depth, 1]
    weights = [jnp.array(rng.standard_normal((n, m))) for n, m in itertools.pairwise(sizes)]

    def net(x):
        for w in weights[:-1]:
            x = jax.nn.relu(x @ w)
        return (x @ weights[-1])[0]

    directions = jnp.array(rng.standard_normal((20, 5)))
    beside = jax.vmap(lambda v: admodes.subgradient(net, direction=v)(jnp.zeros(5)))(directions)
    np.testing.assert_allclose(beside, jax.vmap(jax.grad(net))(directions), rtol=1e-12)
    assert not jax.grad(net)(jnp.zeros(5)).any()


def test_gradients_by_weights():
    """Hidden units at 0 because the input is: a gradient with respect to weights and biases."""
    w, b = jnp.array([[1.0, -2.0]]), jnp.zeros(2)
    loss = lambda w, b: jnp.sum(jax.nn.relu(jnp.zeros(1) @ w + b) * jnp.array([3.0, 5.0]))
    direction = (jnp.zeros_like(w), jnp.array([1.0, -1.0]))
    gw, gb = admodes.subgradient(loss, argnums=(0, 1), direction=direction)(w, b)
    np.testing.assert_array_equal(gw, 0.0)
    np.testing.assert_array_equal(gb, [3.0, 0.0])


V = jnp.array([3.0, 0.0, 4.0])
NORMS = {
    "linalg.norm": jnp.linalg.norm,
    "sum of squares": lambda x: jnp.sqrt(jnp.sum(x**2)),
    "dot": lambda x: jnp.sqrt(x @ x),
    "by terms": lambda x: jnp.sqrt(x[0] ** 2 + x[1] ** 2 + jnp.square(x[2])),
    "power": lambda x: jnp.sum(x**2) ** 0.5,
    "double where": lambda x: jnp.where(x @ x == 0, 0.0, jnp.sqrt(jnp.where(x @ x == 0, 1.0, x @ x))),
    "through stop_gradient": lambda x: jnp.linalg.norm(x + 0 * lax.stop_gradient(x @ x)),
    "complex": lambda x: jnp.abs(x[0] + 1j * x[2]),
    "cond": lambda x: lax.cond(x @ x > 0, lambda: jnp.linalg.norm(x), lambda: 0.0),
    "scan": lambda x: lax.scan(lambda c, _: (c, jnp.linalg.norm(c)), x, None, length=2)[1][1],
}


@pytest.mark.parametrize("name", NORMS)
def test_norms_at_zero(name):
    eager = admodes.subgradient(NORMS[name], direction=V)
    for differentiate in (eager, jax.jit(eager)) if name in ("linalg.norm", "scan") else (eager,):
        np.testing.assert_allclose(differentiate(jnp.zeros(3)), [0.6, 0.0, 0.8], rtol=1e-6)
    assert float(admodes.directional(NORMS[name], jnp.zeros(3), V)) == pytest.approx(5.0)
    away = jnp.array([1.0, 0.0, 2.0])
    np.testing.assert_allclose(admodes.subgradient(NORMS[name])(away), jax.grad(NORMS[name])(away), rtol=1e-6)


def test_distances_of_equal_points():
    points = jnp.array([[0.0, 0.0], [3.0, 4.0], [3.0, 4.0]])
    total = lambda x: jnp.sum(jnp.sqrt(jnp.sum((x[:, None] - x[None]) ** 2, -1)))
    assert jnp.isnan(jax.grad(total)(points)).any()
    assert jnp.isfinite(admodes.subgradient(total)(points)).all()


@pytest.mark.parametrize(
    ("f", "x", "right", "left"),
    [
        (jnp.abs, 0.0, 1.0, 1.0),
        (jax.nn.relu, 0.0, 1.0, 0.0),
        (jax.nn.relu6, 6.0, 0.0, -1.0),
        (jax.nn.leaky_relu, 0.0, 1.0, -0.01),
        (jax.nn.hard_tanh, 1.0, 0.0, -1.0),
        (lambda x: lax.clamp(0.0, x, 1.0), 1.0, 0.0, -1.0),
        (lambda x: x - jnp.floor(x) + jnp.floor(x), 2.0, 1.0, -1.0),
        (lambda x: x - jnp.ceil(x) + jnp.ceil(x), 2.0, 1.0, -1.0),
        (lambda x: x - jnp.round(x) + jnp.round(x), 2.5, 1.0, -1.0),
        (lambda x: x.astype(int) + (x - x.astype(int)), 2.0, 1.0, -1.0),
        (lambda x: 2 * (x // 2) + x % 2, 4.0, 1.0, -1.0),
        (lambda x: jnp.where(x == 0, 0.0, 3 * x), 0.0, 3.0, -3.0),
        (lambda x: jnp.where(x**2 > 0, 3 * x, 0.0), 0.0, 3.0, -3.0),
        (lambda x: jnp.max(jnp.stack([x, 2 * x, -x])), 0.0, 2.0, 1.0),
        (lambda x: jnp.median(jnp.stack([x, 2 * x, -x])), 0.0, 1.0, -1.0),
        (lambda x: lax.while_loop(lambda c: c[0] < 0, lambda c: (c[0] + 1, 3 * c[1]), (x, x))[1], 0.0, 1.0, -3.0),
        (lambda x: lax.fori_loop(0, 3, lambda _, c: jax.nn.relu(c) - 2 * jax.nn.relu(-c), x), 0.0, 1.0, -8.0),
        (jax.checkpoint(lambda x: jnp.abs(x) + x), 0.0, 2.0, 0.0),
        (lambda x: jnp.sqrt(x), 0.0, np.inf, -np.inf),
    ],
)
def test_directional(f, x, right, left):
    x = jnp.asarray(x)
    for differentiate in (admodes.directional, jax.jit(admodes.directional, static_argnums=0)):
        np.testing.assert_allclose(differentiate(f, x, jnp.ones_like(x)), right, rtol=1e-6)
        np.testing.assert_allclose(differentiate(f, x, -jnp.ones_like(x)), left, rtol=1e-6)


def test_directional_of_several_arguments():
    f = lambda x, tree: jnp.maximum(x, tree["y"])
    assert float(admodes.directional(f, (1.0, {"y": 1.0}), (2.0, {"y": 3.0}))) == 3.0


@pytest.mark.parametrize(
    ("f", "x", "v"),
    [
        (lambda x: jnp.where(x >= 0, 1.0, 0.0), 0.0, -1.0),
        (lambda x: x % 2, 2.0, -1.0),
        (jnp.sign, 0.0, 1.0),
        (jnp.floor, 1.0, -1.0),
        (lambda x: x / jnp.linalg.norm(jnp.stack([x])), 0.0, 1.0),
        (lambda x: jnp.where(x > 0, x * jnp.log(x), 0.0), 0.0, 1.0),
        (lambda x: jnp.sqrt(x * (x + 0)), 0.0, 1.0),
        (lambda x: jnp.arccos(1 - x**2), 0.0, 1.0),
    ],
)
def test_jumps_and_poles_have_no_directional_derivative(f, x, v):
    with pytest.raises(NonsmoothError, match=r"jumps|cannot be evaluated"):
        admodes.directional(f, x, v)
    assert jnp.isnan(jax.jit(lambda x, v: admodes.directional(f, x, v))(x, v))


def test_one_side_of_a_jump():
    assert float(admodes.directional(lambda x: jnp.where(x >= 0, x, x - 1), 0.0, 1.0)) == 1.0


# -- users' rules ------------------------------------------------------------------------------------------


@jax.custom_jvp
def straight_through(x):
    return jnp.round(x)


straight_through.defjvp(lambda primals, tangents: (straight_through(*primals), tangents[0]))


@jax.custom_vjp
def gated(x):
    return jnp.maximum(x, 0.0)


gated.defvjp(lambda x: (gated(x), x), lambda x, g: (jnp.where(x > 0, g, 0.0),))


def test_custom_rules_are_obeyed_and_evaluated_beside_the_point():
    assert float(admodes.subgradient(straight_through)(0.3)) == 1.0
    assert float(jax.jit(admodes.subgradient(straight_through))(0.3)) == 1.0
    for transform in (lambda f: f, jax.jit):
        f = transform(lambda x: gated(x) - gated(-x))
        assert float(admodes.subgradient(f)(0.0)) == 1.0
        assert float(jax.grad(f)(0.0)) == 0.0
        assert float(admodes.directional(f, 0.0, -2.0)) == -2.0


def test_decisions_follow_the_code_not_the_rule():
    """Beside 0.3 the rounded value does not move, whatever its rule says: the branch is decided at 0."""
    f = lambda x: jnp.where(straight_through(x) > 0, 5 * x, straight_through(x))
    assert float(admodes.subgradient(f, direction=1.0)(0.3)) == 1.0


def test_second_derivatives_of_the_decided_program():
    f = lambda x: jax.nn.relu(x) ** 2
    assert float(admodes.grad(admodes.subgradient(f))(1.0)) == 2.0
    assert float(jax.grad(admodes.subgradient(f))(1.0)) == 2.0


# -- the API -------------------------------------------------------------------------------------------------


def test_structure_aux_and_keywords():
    def f(tree, x, *, scale):
        return scale * jnp.sum(jnp.abs(tree["a"]) + jnp.abs(x)), x + 1

    g, aux = admodes.subgradient(f, argnums=(0, 1), has_aux=True)({"a": jnp.zeros(2)}, 1.0, scale=2.0)
    assert jax.tree_util.tree_structure(g) == jax.tree_util.tree_structure(({"a": 0}, 0))
    assert (float(aux), g[0]["a"].shape) == (2.0, (2,))
    assert admodes.subgradient(f, has_aux=True).__name__ == "f"


def test_the_default_direction_is_reproducible():
    x = jnp.zeros(5)
    np.testing.assert_array_equal(*(admodes.subgradient(lambda x: jnp.sum(jnp.abs(x)))(x) for _ in range(2)))
    assert set(np.asarray(admodes.subgradient(lambda x: jnp.sum(jnp.abs(x)))(jnp.zeros(50)))) == {1.0, -1.0}


def test_ties_along_the_direction_are_broken_by_a_generic_one():
    f = lambda x: jax.nn.relu(x[1]) - jax.nn.relu(-x[1]) + x[0]
    np.testing.assert_array_equal(admodes.subgradient(f, direction=jnp.array([1.0, 0.0]))(jnp.zeros(2)), [1.0, 1.0])


def test_half_precision():
    for f in compositions(jax.nn.relu):
        assert float(admodes.subgradient(f)(jnp.bfloat16(0.0))) == 1.0


def test_guards_of_single_points():
    for slope in (admodes.subgradient(jnp.sinc), jax.jit(admodes.subgradient(jnp.sinc))):
        assert float(slope(0.0)) == 0.0


def test_replaced_rules_of_jax():
    """Beside the point too, softplus' = σ and softplus'' = σ(x) σ(-x), which JAX's own rule loses."""
    f = jax.nn.softplus
    np.testing.assert_allclose(admodes.subgradient(f)(-40.0), np.exp(-40.0), rtol=1e-12)
    np.testing.assert_allclose(admodes.grad(admodes.subgradient(f))(40.0), np.exp(-40.0), rtol=1e-12)
    np.testing.assert_allclose(admodes.subgradient(lambda x: jnp.logaddexp(x, -jnp.inf))(-jnp.inf), 0.0)


def test_subjacobian():
    J = admodes.subjacobian(jnp.sort, direction=jnp.array([3.0, 1.0, 2.0]))(jnp.zeros(3))
    np.testing.assert_array_equal(J, [[0, 1, 0], [0, 0, 1], [1, 0, 0]])
    a, b = admodes.subjacobian(lambda x, y: jnp.maximum(x, y) - jnp.minimum(x, y), argnums=(0, 1))(0.0, 0.0)
    assert (float(a), float(b)) in {(1.0, -1.0), (-1.0, 1.0)}


def test_smooth_functions_are_left_alone():
    x = jnp.array([0.3, -1.2, 2.0])
    f = lambda x: jnp.sum(jax.nn.gelu(x) ** 2) / jnp.linalg.norm(x) + jax.nn.logsumexp(x)
    np.testing.assert_allclose(admodes.subgradient(f)(x), jax.grad(f)(x), rtol=1e-6)
    np.testing.assert_allclose(admodes.subjacobian(jax.nn.softmax)(x), jax.jacrev(jax.nn.softmax)(x), rtol=1e-6)


def test_what_cannot_be_decided_raises():
    with pytest.raises(UnsupportedPrimitiveError, match="scatter-max"):
        admodes.subgradient(lambda x: jnp.zeros(2).at[jnp.array([0, 0])].max(x).sum())(jnp.ones(2))


# -- policies --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("f", "jax_", "first", "average", "lexicographic"),
    [
        (jnp.abs, 1.0, 1.0, 0.0, 1.0),
        (lambda x: jnp.maximum(x, 0.0), 0.5, 1.0, 0.5, 1.0),
        (lambda x: jnp.minimum(x, 0.0), 0.5, 1.0, 0.5, 0.0),
        (lambda x: lax.clamp(0.0, x, 1.0), 0.0, 1.0, 0.5, 1.0),
        (lambda x: jnp.max(jnp.stack([x, 2 * x])), 1.5, 1.0, 1.5, 2.0),
        (lambda x: jnp.min(jnp.stack([3 * x, 2 * x])), 2.5, 3.0, 2.5, 2.0),
        (jax.nn.relu, 0.0, 0.0, 0.0, 1.0),
    ],
)
def test_policies_at_ties(f, jax_, first, average, lexicographic):
    found = [float(admodes.grad(f, ties=p)(0.0)) for p in ("jax", "first", "average", "lexicographic")]
    assert found == [jax_, first, average, lexicographic]
    assert float(jax.grad(f)(0.0)) == jax_


def test_policies_reach_into_loops():
    f = lambda x: lax.scan(lambda c, _: (jnp.maximum(c, 0 * c), None), x, None, length=2)[0]
    assert [float(admodes.grad(f, ties=p)(0.0)) for p in ("average", "first")] == [0.25, 1.0]


def test_an_unknown_policy_is_named():
    with pytest.raises(ValueError, match=r"'best'.*'lexicographic'"):
        admodes.grad(jnp.abs, ties="best")(0.0)


# -- strong zeros --------------------------------------------------------------------------------------------


MASKED = {
    "sqrt": (lambda x: jnp.where(x > 0, jnp.sqrt(x), 0.0), 0.0, 0.0),
    "norm": (lambda x: jnp.where(x @ x > 0, jnp.linalg.norm(x), 0.0), [0.0, 0.0], [0.0, 0.0]),
    "x log x": (lambda x: jnp.where(x > 0, x * jnp.log(x), 0.0), 0.0, 0.0),
    "division": (lambda x: jnp.where(x != 0, 1 / x, 0.0), 0.0, 0.0),
    "atan2": (lambda x: jnp.where(x[0] > 0, jnp.arctan2(x[0], x[1]), 0.0), [0.0, 0.0], [0.0, 0.0]),
    "power": (lambda x: jnp.where(x > 0, x**0.3, x), 0.0, 1.0),
    "logsumexp": (lambda x: jnp.sum(jax.nn.logsumexp(x, 1)), [[0.0, 0.0], [-np.inf] * 2], [[0.5, 0.5], [0.0, 0.0]]),
    "inside a scan": (
        lambda x: lax.scan(lambda c, u: (c + jnp.where(u > 0, jnp.sqrt(u), 0.0), None), 0.0, x)[0],
        [0.0, 4.0],
        [0.0, 0.25],
    ),
}


@pytest.mark.parametrize("name", MASKED)
def test_nan_safe(name):
    f, x, expected = MASKED[name]
    x = jnp.array(x)
    assert jnp.isnan(admodes.grad(f)(x)).any()
    np.testing.assert_allclose(admodes.grad(f, nan_safe=True)(x), expected)
    np.testing.assert_allclose(jax.jit(admodes.grad(f, nan_safe=True))(x), expected)
    forward = [admodes.jvp(f, (x,), (v.reshape(x.shape),), nan_safe=True)[1] for v in np.eye(x.size)]
    np.testing.assert_allclose(forward, np.ravel(expected))


def test_nan_safe_leaves_true_infinities():
    assert float(admodes.grad(jnp.sqrt, nan_safe=True)(0.0)) == np.inf
    assert jnp.isnan(admodes.grad(lambda x: jnp.log(x) * jnp.nan, nan_safe=True)(1.0))
