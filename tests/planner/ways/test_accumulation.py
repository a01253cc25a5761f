"""Accumulation entry by entry: Jacobians against JAX's, what is folded, what is counted, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from jax import lax
from jax.tree_util import tree_leaves, tree_structure, tree_unflatten
from programs import programs

from admodes import problems
from admodes.errors import PlanningError
from admodes.planner.elimination.graph import scalar_graph
from admodes.planner.elimination.search import search
from admodes.planner.ways.accumulation import TooLarge, accumulation
from admodes.program.trace import trace

x, y = np.array([0.3, -1.2, 2.0]), np.array([1.5, 0.5, -0.7])
matrix = np.linspace(-1.0, 1.0, 6).reshape(2, 3)


def oracle(fun, args, active):
    """JAX's Jacobian of all leaves of the result with respect to the active leaves of ``args``."""
    leaves, tree = tree_leaves(args), tree_structure(args)

    def flat(*xs):
        return jnp.concatenate([jnp.ravel(y) for y in tree_leaves(fun(*tree_unflatten(tree, xs)))])

    chosen = tuple(np.flatnonzero(active).tolist())
    blocks = jax.jit(jax.jacfwd(flat, argnums=chosen))(*leaves)
    parts = [np.reshape(b, (b.shape[0], np.size(leaves[i]))) for b, i in zip(blocks, chosen, strict=True)]
    return np.concatenate(parts, axis=1)


def floating(args):
    return [jnp.issubdtype(jnp.result_type(leaf), jnp.floating) for leaf in tree_leaves(args)]


def dense(found, values):
    full = np.zeros(found.pattern.shape, np.asarray(values).dtype)
    full[found.pattern.rows, found.pattern.cols] = values
    return full


def check(fun, args, active=None, tolerance=1e-12, compiled=True, **options):
    """Compare with JAX; returns the accumulation."""
    active = floating(args) if active is None else active
    program = trace(fun, *args)
    found = accumulation(program, active, **options)
    evaluate = (
        jax.jit(lambda tables, leaves: found(program, tables, leaves))
        if compiled
        else (lambda tables, leaves: found(program, tables, leaves))
    )
    outputs, values = evaluate(found.tables, [jnp.asarray(leaf) for leaf in tree_leaves(args)])
    wanted = oracle(fun, args, active)
    scale = max(1.0, np.abs(wanted).max(initial=0.0))
    np.testing.assert_allclose(dense(found, values), wanted, rtol=0, atol=tolerance * scale)
    for output, result in zip(outputs, tree_leaves(fun(*args)), strict=True):
        np.testing.assert_allclose(output, result, rtol=tolerance, atol=tolerance)
    return found


SPARSE = ("arrowhead", "brusselator", "burgers", "heat", "power_flow", "softmax_rows", "per_example_net")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in SPARSE else pytest.mark.slow) for name in problems.names()]
)
def test_problems(name):
    problem = problems.get(name)
    fun, args = problem.make(np.float64)
    chosen = np.atleast_1d(problem.argnums).tolist()
    active = [i in chosen and on for i, arg in enumerate(args) for on in floating(arg)]
    check(fun, args, active)


SMALL = {
    "several inputs": (lambda x, y: (x * y, x + y, jnp.dot(x, y)), (x, y)),
    "prefixes": (lambda x: jnp.cumsum(x) * x[::-1], (x,)),
    "stencil by roll": (lambda x: jnp.roll(x, 1) * x - 2 * jnp.roll(x, -1) + jnp.pad(x[1:] ** 2, (0, 1)), (x,)),
    "constant factor": (lambda x: matrix @ jnp.tanh(x), (x,)),
    "two active factors": (lambda x: jnp.einsum("i,jk,k->ij", x, jnp.outer(jnp.sin(x), x), x), (x,)),
    "two active matrices": (lambda x, y: jnp.outer(x, jnp.sin(y)) @ jnp.outer(y, x), (x, y)),
    "batched factor": (lambda x: jax.vmap(lambda u: jnp.tanh(matrix @ u))(jnp.outer(x, y)), (x,)),
    "convolution": (lambda x: jnp.convolve(x, jnp.sin(x), mode="same"), (x,)),
    "gather, scatter": (lambda x: jnp.zeros(4).at[jnp.array([0, 2, 2])].add(x[jnp.array([1, 1, 0])] ** 2), (x,)),
    "overwriting": (lambda x: jnp.asarray(x).at[jnp.array([0, 1, 0])].add(x**2).at[1].set(jnp.sin(x[2])), (x,)),
    "sorting": (lambda x: jnp.sort(x) * x, (x,)),
    "softmax": (lambda x: jax.nn.softmax(jnp.outer(x, y)), (x,)),
    "custom rules": (lambda x: jax.nn.relu(x) * jax.nn.softplus(x) + jax.nn.silu(x), (x,)),
    "products": (lambda x: jnp.prod(x) / jnp.linalg.norm(x), (x,)),
    "scan": (lambda x: lax.scan(lambda c, v: (c * v, c + v), 1.0, x), (x,)),
    "cond": (lambda x, y: lax.cond(y[0] > 0, jnp.sin, jnp.cos, x * y), (x, y)),
    "while": (lambda x: lax.while_loop(lambda c: jnp.sum(c * c) < 40.0, lambda c: c * 1.5 + 0.1, x), (x,)),
    "map": (lambda x: lax.map(lambda u: jnp.cos(u) * u, x), (x,)),
    "checkpoint": (lambda x: jax.checkpoint(lambda x: jnp.sin(x) * x[0])(x), (x,)),
    "solve": (lambda x: jnp.linalg.solve(jnp.eye(3) * 4 + jnp.outer(jnp.sin(x), x), x), (x,)),
    "where, max": (lambda x: jnp.where(x > 0, x, x * x) / jnp.log(5 + jnp.maximum(x, 0.5)), (x,)),
    "outputs that are inputs, constants, the same": (lambda x: (x, 2.0 * x, x, jnp.zeros(2), 1.0, jnp.tan(x)), (x,)),
    "an output used again": (lambda x: (jnp.exp(x), jnp.sin(jnp.exp(x))), (x,)),
    "cancelling": (lambda x: x - x + lax.stop_gradient(x), (x,)),
    "empty": (lambda x: (x[:0], jnp.zeros((0, 2))), (x,)),
    "integers": (lambda x, n: (x * n, n), (x, np.arange(3))),
    "scalars": (lambda a, b: jnp.sin(a) + a * b, (0.3, 0.7)),
    "no derivative": (lambda x: jnp.sign(x) * (x == 0), (x,)),
}


@pytest.mark.parametrize("name", SMALL)
def test_small_programs(name):
    check(*SMALL[name])


SEARCHED = (
    "several inputs",
    "prefixes",
    "convolution",
    "gather, scatter",
    "products",
    "cond",
    "where, max",
    "outputs that are inputs, constants, the same",
    "an output used again",
    "cancelling",
    "empty",
    "integers",
    "no derivative",
)


@pytest.mark.parametrize("name", SEARCHED)
def test_small_programs_in_a_searched_order(name):
    fun, args = SMALL[name]
    program, leaves = trace(fun, *args), list(map(jnp.asarray, tree_leaves(args)))
    wanted = accumulation(program, floating(args))
    found = accumulation(program, floating(args), order="scalar", seconds=0.05)
    values = [dense(a, a(program, a.tables, leaves)[1]) for a in (found, wanted)]
    np.testing.assert_allclose(*values, rtol=1e-10, atol=1e-12)


@pytest.mark.slow
@settings(max_examples=20, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(programs(modes=("jvp",), max_steps=8))
def test_random_programs(program):
    names = {step.name for step in program.steps}
    if "complex" not in names and "fft" not in names:
        args = (np.float64(0.3), np.array([0.2, -0.7, 1.1]), np.array([[0.5, -0.2, 0.9], [1.3, 0.1, -0.6]]))
        check(program, args, tolerance=1e-5 if "float32" in names else 1e-12, compiled=False)


# -- what is worked out when planning -------------------------------------------------------------------------


def burgers(u):
    ahead, behind = jnp.concatenate([u[1:], jnp.zeros(1)]), jnp.concatenate([jnp.ones(1), u[:-1]])
    return -u * (ahead - behind) * 50.0 + (ahead - 2 * u + behind) * 100.0


def test_linear_programs_are_constants():
    found = check(lambda u: matrix @ (2.0 * jnp.roll(u, 1) - jnp.sum(u)), (x,))
    assert (found.multiplications, found.additions, found.levels) == (0, 0, 0)
    assert found.constants == found.pattern.nnz == 6


def test_copies_cost_nothing_and_constants_are_folded():
    n = 40
    found = check(burgers, (np.sin(np.arange(n)),))
    assert (found.pattern.nnz, found.levels) == (3 * n - 2, 1)
    assert found.multiplications == 2 * n  # 50 u and 50 (ahead - behind)
    assert found.additions == found.pattern.nnz  # c + V for each entry
    brusselator, args = problems.get("brusselator").make(np.float64)
    found = check(brusselator, args)
    assert found.constants == 4 * args[0].size  # the neighbours in the Laplacian
    assert sum(np.size(t) for t in tree_leaves(found.tables)) < 3 * found.pattern.nnz


def test_large_programs_are_planned_in_vectorised_steps():
    n = 20_000
    u = np.sin(np.arange(n) * 0.01)
    program = trace(burgers, u)
    found = accumulation(program, [True])
    assert found.pattern.nnz == 3 * n - 2
    _, values = found(program, found.tables, [jnp.asarray(u)])
    _, wanted = jax.jvp(burgers, (u,), (np.ones(n),))
    np.testing.assert_allclose(np.bincount(found.pattern.rows, values), wanted, rtol=1e-10, atol=1e-10)


def test_elimination_is_cross_country():
    funnel = np.ones((1, 30)) / 30, np.linspace(-1, 1, 30)[:, None]

    def hourglass(u):
        return jnp.sin(funnel[1] @ jnp.tanh(funnel[0] @ jnp.sin(u)))

    found = check(hourglass, (np.linspace(0, 1, 30),))
    assert found.multiplications <= 2 * 30 * 30 + 60  # a scaled outer product: forward mode takes 30 times 120


@pytest.mark.parametrize("name", ["robot_arm", "propane_combustion"])
@pytest.mark.parametrize("rule", ["all", "unit"])
def test_searched_orders_count_as_the_search_does(name, rule):
    fun, args = problems.get(name).make(np.float64)
    found = check(fun, args, order="scalar", seconds=0.3, rule=rule)
    assert found.multiplications == found.search.multiplications
    linearised = scalar_graph(trace(fun, *args))
    assert found.search.lower_bound == search(linearised.graph, rule, seconds=0.0).lower_bound


# -- at run time ------------------------------------------------------------------------------------------------


def test_float32():
    fun, args = problems.get("power_network").make(np.float32)
    active = [True] + [False] * (len(tree_leaves(args)) - 1)
    program = trace(fun, *args)
    found = accumulation(program, active)
    _, values = found(program, found.tables, tree_leaves(args))
    assert values.dtype == np.float32
    wanted = oracle(fun, args, active)
    np.testing.assert_allclose(dense(found, values), wanted, atol=1e-4 * np.abs(wanted).max())


def test_vmap_and_derivatives_of_the_nonzeros():
    program = trace(burgers, x)
    found = accumulation(program, [True])

    def values(u):
        return found(program, found.tables, [u])[1]

    batch = np.stack([x, y])
    np.testing.assert_allclose(jax.vmap(values)(batch), [values(u) for u in batch], rtol=1e-12)
    places = found.pattern.rows, found.pattern.cols
    wanted = jax.jacrev(lambda u: jax.jacfwd(burgers)(u)[places])(x)
    np.testing.assert_allclose(jax.jacrev(values)(x), wanted, rtol=1e-12, atol=1e-12)


def test_constants_of_a_later_trace_are_used_where_they_are_not_known():
    def values(weights, u):
        program = trace(lambda u: jnp.tanh(weights * u), u)
        found = accumulation(program, [True])
        return found(program, found.tables, [u])[1]

    np.testing.assert_allclose(jax.jit(values)(y, x), y / np.cosh(y * x) ** 2, rtol=1e-12)


def test_planning_leaks_no_tracers():
    def values(u):
        program = trace(burgers, u)
        found = accumulation(program, [True])
        return found(program, found.tables, [u])[1]

    with jax.checking_leaks():
        jax.jit(values)(x)


def test_entries_outside_of_the_pattern_are_zero_and_others_as_in_jax():
    def fun(u):
        return jnp.sqrt(u) * jnp.array([1.0, 0.0, 2.0]), jnp.sqrt(u[0]) * u[1]

    point = np.array([0.0, 0.0, 4.0])
    program = trace(fun, point)
    found = accumulation(program, [True])
    _, values = found(program, found.tables, [point])
    entries = dict(zip(zip(found.pattern.rows.tolist(), found.pattern.cols.tolist(), strict=True), values, strict=True))
    assert sorted(entries) == [(0, 0), (2, 2), (3, 0), (3, 1)]
    assert (entries[0, 0], entries[2, 2], entries[3, 1]) == (np.inf, 0.5, 0.0)
    assert np.isnan(entries[3, 0])  # the infinite slope times zero, as in JAX


# -- what is refused --------------------------------------------------------------------------------------------


def test_too_many_products():
    full = np.ones((200, 200))
    program = trace(lambda u: full @ jnp.sin(full @ u), np.ones(200))
    with pytest.raises(TooLarge, match="at least") as caught:
        accumulation(program, [True], most_products=100_000)
    assert caught.value.count > 100_000
    with pytest.raises(TooLarge):  # before anything of that size is made
        accumulation(trace(lambda u: jnp.outer(u, u) @ jnp.outer(u, u), np.ones(3000)), [True])


def test_complex_numbers():
    with pytest.raises(PlanningError, match="real numbers"):
        accumulation(trace(lambda u: jnp.abs(jnp.fft.fft(u)), x), [True])
