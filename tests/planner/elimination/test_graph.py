"""Scalar graphs of programs: their structure, and Jacobians by elimination against JAX's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import tree_leaves, tree_structure, tree_unflatten

from admodes import problems
from admodes.planner.elimination.graph import scalar_graph
from admodes.planner.elimination.orders import ORDERS, accumulate, assemble, classical_orders, forward, multiplications
from admodes.planner.elimination.search import search
from admodes.program.trace import trace

# problem: counts that its graph must not exceed (the best known on the literature's graph of the same formulas)
BEST_KNOWN = {
    "roe_flux": (295, 160),
    "robot_arm": (221, 126),
    "human_heart_dipole": (148, 48),
    "propane_combustion": (88, 24),
    "black_scholes_jacobian": (297, 205),
}
SMALL = {**{name: {} for name in [*BEST_KNOWN, "black_scholes"]}, "helmholtz": {"n": 4}, "bratu": {"n": 3}}


def oracle(fun, args):
    """JAX's Jacobian of all leaves of the result with respect to all leaves of ``args``."""
    leaves, tree = tree_leaves(args), tree_structure(args)

    def flat(*xs):
        return jnp.concatenate([jnp.ravel(y) for y in tree_leaves(fun(*tree_unflatten(tree, xs)))])

    blocks = jax.jit(jax.jacobian(flat, argnums=tuple(range(len(leaves)))))(*leaves)
    return np.concatenate(
        [np.reshape(b, (b.shape[0], np.size(x))) for b, x in zip(blocks, leaves, strict=True)], axis=1
    )


def matrix(linear, order, partials):
    """The same by elimination."""
    entries = accumulate(linear.graph, order, partials)
    return assemble(entries, np.concatenate(linear.rows), np.concatenate(linear.columns))


def numbers(linear, args):
    """The partials at ``args``, as Python numbers."""
    return [float(x) for x in jax.jit(linear.partials)(*tree_leaves(args))]


@pytest.mark.parametrize("name", SMALL)
def test_jacobians_of_problems(name):
    fun, args = problems.get(name).make(np.float64, **SMALL[name])
    wanted, linear = oracle(fun, args), scalar_graph(trace(fun, *args))
    partials = numbers(linear, args)
    orders = [find(linear.graph) for find in ORDERS.values()]
    orders.append(search(linear.graph, "unit", seconds=0.2).order)
    for order in orders:
        np.testing.assert_allclose(
            matrix(linear, order, partials), wanted, rtol=1e-10, atol=1e-10 * np.abs(wanted).max()
        )


@pytest.mark.parametrize("name", BEST_KNOWN)
def test_problems_need_no_more_multiplications_than_the_literature(name):
    fun, args = problems.get(name).make(np.float64)
    graph = scalar_graph(trace(fun, *args)).graph
    for rule, known in zip(("all", "unit"), BEST_KNOWN[name], strict=True):
        best = search(graph, rule, target=known)
        assert best.multiplications <= known
        assert best.lower_bound <= best.multiplications == multiplications(graph, best.order, rule)


def test_jacobian_under_jit_and_float32():
    fun, args = problems.get("roe_flux").make(np.float32)

    @jax.jit
    def jacobian(*args):
        linear = scalar_graph(trace(fun, *args))
        order = forward(linear.graph)
        return jnp.array(matrix(linear, order, linear.partials(*tree_leaves(args))))

    found = jacobian(*args)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, oracle(fun, args), rtol=1e-4, atol=1e-5)


x, y = np.array([0.3, -1.2, 2.0]), np.array([1.5, 0.5, -0.7])


@pytest.mark.parametrize(
    ("fun", "args"),
    [
        (lambda x, y: (x * y, x + y, jnp.dot(x, y)), (x, y)),
        (lambda x: jnp.cumsum(x) * x[::-1], (x,)),
        (lambda x: jnp.concatenate([x[:1] ** 2, jnp.ones(2), x[1:]]) * jnp.arange(5.0), (x,)),
        (lambda x: jnp.outer(x, x)[jnp.array([0, 2, 2])], (x,)),
        (lambda x: jnp.where(x > 0, x, x * x) + jax.nn.relu(x), (x,)),
        (lambda x: jax.lax.scan(lambda c, v: (c * v, c + v), 1.0, x), (x,)),
        (lambda x, y: jax.lax.cond(y[0] > 0, jnp.sin, jnp.cos, x * y), (x, y)),
        (lambda x: np.array([[1.0, 0.0, 2.0], [0.0, -1.0, 1.0]]) @ jnp.tanh(x), (x,)),
        (lambda x: jnp.prod(x) / jnp.linalg.norm(x), (x,)),
        (lambda x: (x, x, 2.0 * x, jnp.zeros(2)), (x,)),
        (lambda x: x[:0], (x,)),
        (lambda x: (jnp.exp(x[0]), jnp.sin(jnp.exp(x[0]))), (x,)),
        (lambda x: x - x + jax.lax.stop_gradient(x), (x,)),
        (lambda x: jax.lax.convert_element_type(x, np.float32), (x,)),
    ],
)
def test_jacobians_of_small_programs(fun, args):
    linear = scalar_graph(trace(fun, *args))
    found = np.reshape(matrix(linear, forward(linear.graph), numbers(linear, args)), (-1, sum(map(np.size, args))))
    np.testing.assert_allclose(found, oracle(fun, args), rtol=1e-10, atol=1e-12)


def test_common_subexpressions_are_merged_and_dead_code_dropped():
    def fun(a, b):
        unused = jnp.tan(a) * b
        return jnp.sin(a * b) + jnp.cos(b * a) * (a * b), unused is None

    graph = scalar_graph(trace(lambda a, b: fun(a, b)[0], 0.3, 0.4)).graph
    assert len(graph.intermediates) == 4  # a b, its sine, its cosine, the product
    assert graph.edges[:2] == ((0, 2, None), (1, 2, None))


def test_constants_are_known_and_copies_are_no_vertices():
    def fun(x):
        a, b = (jnp.reshape(x, (2, 1)) + 3.0)[:, 0]
        return 2.0 * (a - b), -a

    graph = scalar_graph(trace(fun, np.array([1.0, 2.0]))).graph
    assert graph.edges == ((0, 2, 1.0), (1, 2, -1.0), (2, 3, 2.0), (0, 4, -1.0))
    assert [found.multiplications for found in classical_orders(graph, "unit")] == [0] * len(ORDERS)


def test_outputs_used_again_have_sinks():
    linear = scalar_graph(trace(lambda x: (jnp.exp(x), jnp.sin(jnp.exp(x)), x), 0.5))
    assert len(linear.graph.sinks) == 2
    assert sorted(linear.rows[0].tolist() + linear.rows[2].tolist()) == sorted(linear.graph.sinks)


def test_inputs_can_be_left_out():
    linear = scalar_graph(trace(lambda x, y: x * y, 2.0, 3.0), active=(False, True))
    assert linear.columns[0].tolist() == [-1]
    (value,) = linear.partials(2.0, 3.0)
    assert float(value) == 2.0


def test_complex_programs_are_refused():
    with pytest.raises(TypeError, match="real numbers"):
        scalar_graph(trace(lambda z: z * z, 1j))
