"""Elimination of whole arrays: the counts of the literature through ``admodes.plan``, and right numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import admodes
from admodes import problems
from admodes.planner.calls.request import request
from admodes.planner.elimination.search import search
from admodes.planner.ways.network import network, whole_arrays
from admodes.problems.layers import R2_EDGES, R2_SIZES


def r2(activation):
    """The network R2 as a function with known weights."""
    f, (x, weights) = problems.get("array_network").make("float64")

    def linear(x):
        arrays = [x]
        for k in range(1, len(R2_SIZES)):
            arrays.append(sum(weights[u, w] @ arrays[u] for u, w in R2_EDGES if w == k))
        return arrays[-1]

    return (lambda x: f(x, weights)) if activation else linear, x


def task_of(f, *args, argnums=0):
    return request("plan", f, argnums, False, False).call(args, {}).task()


def eliminated(task):
    return network(task, lambda graph, sizes: search(graph, "unit", sizes=sizes, seconds=0.2))


def test_plan_reaches_the_published_count_of_r2():
    f, x = r2(activation=False)
    plan = admodes.plan(f, x, objective="multiplications")
    assert plan.best.name == "network"
    assert plan.best.multiplications == 769_044
    counts = {c.name: c.multiplications for c in plan.candidates}
    assert counts["forward"] == 2_143_732
    assert counts["reverse"] == 1_607_799
    assert plan.best.method.search.optimal
    assert np.abs(plan.jacobian(x) - jax.jacrev(f)(x)).max() < 1e-12


@pytest.mark.parametrize("objective", ["time", "flops", "multiplications"])
def test_activations_are_scaled_as_late_as_can_be(objective):
    f, x = r2(activation=True)
    plan = admodes.plan(f, x, objective=objective)
    assert plan.best.name == "network"
    # one multiplication for each entry of the smaller factor of each product, and of the result
    assert 769_044 < plan.best.multiplications < 1.05 * 769_044
    expected = jax.jacrev(f)(x)
    assert np.abs(plan.jacobian(x) - expected).max() < 1e-12 * np.abs(expected).max()
    assert "eliminated as number 6" in plan.draw()


def test_saved_and_loaded(tmp_path):
    f, x = r2(activation=True)
    plan = admodes.plan(f, x, objective="multiplications")
    plan.save(tmp_path / "p.npz")
    again = admodes.load_plan(tmp_path / "p.npz", f)
    assert again.best.name == "network"
    assert again.best.multiplications == plan.best.multiplications
    assert np.array_equal(again.jacobian(x), plan.jacobian(x))


def dense(z, size, k):
    """A product with a matrix, written in one of several ways."""
    w = np.random.default_rng(k).normal(size=(z.size, size))
    ways = [lambda: z @ w, lambda: w.T @ z, lambda: (z[None] @ w)[0], lambda: jnp.einsum("i,ij->j", z, w)]
    return ways[k % 4]()


LAYERS = [
    lambda a, b, size, k: jnp.tanh(dense(a, size, k)),
    lambda a, b, size, k: jax.nn.relu(dense(a, size, k)) - dense(b, size, k + 1),
    lambda a, b, size, k: jax.nn.gelu(a) * 2,
    lambda a, b, size, k: jnp.concatenate([a, jnp.sin(b)])[::2],
    lambda a, b, size, k: a * (dense(b, a.size, k) @ a),
    lambda a, b, size, k: jax.nn.softmax(a),
    lambda a, b, size, k: a / (1 + jnp.linalg.norm(a)) + a,
    lambda a, b, size, k: jnp.outer(a, b)[0] - jnp.flip(b),
    lambda a, b, size, k: jnp.where(a > 0, jnp.sum(b), -a),
    lambda a, b, size, k: -jnp.cumsum(a) + a[0],
    lambda a, b, size, k: jnp.minimum(a, 0.5) ** 2,
    lambda a, b, size, k: dense(a.astype(np.float32), size, k).astype(a.dtype),
]


def random_network(seed):
    """A function of vectors made of everything that has an edge of its own kind."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(3, 7))
    x, y = rng.normal(size=n), rng.normal(size=n + 1)
    chosen = [(*rng.integers(0, k + 2, 2), rng.integers(2, 7), rng.integers(len(LAYERS))) for k in range(12)]

    def f(x, y):
        arrays = [x, y]
        for k, (a, b, size, layer) in enumerate(chosen):
            arrays.append(LAYERS[layer](arrays[a], arrays[b], size, 1000 * seed + k))
        return arrays[-1], jnp.stack([a.sum() for a in arrays[-4:]]), arrays[2], x, jnp.ones(2)

    return f, jnp.asarray(x), jnp.asarray(y)


@pytest.mark.parametrize("seed", [*range(2), *(pytest.param(k, marks=pytest.mark.slow) for k in range(2, 12))])
def test_random_networks_against_jax(seed):
    f, x, y = random_network(seed)
    task = task_of(f, x, y, argnums=(0, 1))
    method = eliminated(task)
    assert method is not None
    outs, matrix = jax.jit(lambda x, y: method.jacobian(task, None, (x, y)))(x, y)
    found = np.asarray(matrix.rows)
    blocks = jax.jacrev(f, argnums=(0, 1))(x, y)
    expected = np.concatenate([np.concatenate([np.asarray(b) for b in row], 1) for row in blocks], 0)
    single = np.abs(expected).max()  # some products are of single precision
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6 * single)
    for out, ref in zip(outs, jax.tree_util.tree_leaves(f(x, y)), strict=True):
        np.testing.assert_allclose(out, ref, rtol=1e-5, atol=1e-6)


def test_a_mask_hides_what_is_not_finite():
    w = np.array([[1.0, np.inf], [2.0, 3.0]])

    def f(x):
        z = w @ jnp.tanh(x)
        return jnp.where(z > 1e9, 0.0, z)

    x = jnp.array([1.0, 1.0])
    task = task_of(f, x)
    _, matrix = eliminated(task).jacobian(task, None, (x,))
    np.testing.assert_allclose(matrix.rows, [[0.0, 0.0], w[1] / np.cosh(1.0) ** 2])


def test_no_network_where_a_map_may_have_one_direction_only():
    w = np.eye(4)
    loop = lambda x: jax.lax.fori_loop(0, 3, lambda _, x: jnp.tanh(w @ x), x)
    assert eliminated(task_of(loop, jnp.ones(4))) is None
    waves = lambda x: jnp.imag((1 + 1j) * w @ jnp.exp(1j * (w @ x)))  # the real part alone is no matrix
    assert eliminated(task_of(waves, jnp.ones(4))) is None


def test_maps_that_multiply_must_save_multiplications():
    small, large = np.ones((4, 30)), np.ones((30, 30))
    chain = task_of(lambda x: large @ jnp.tanh(small.T @ jnp.tanh(small @ x)), jnp.ones(30))
    assert whole_arrays(chain, "time").multiplications < 30 * 30 * 40
    queries = np.ones((6, 5))
    attention = task_of(lambda k: jax.nn.softmax(queries @ k.T) @ k, jnp.ones((6, 5)))
    assert whole_arrays(attention, "time") is None
    assert not whole_arrays(attention, "multiplications").is_of_matrices


def test_scalars_are_left_to_the_elimination_of_numbers():
    assert eliminated(task_of(lambda x: jnp.sin(x) * jnp.cos(x), 1.0)) is None
