"""Gradients within a limit of memory: the limit holds for the compiled program, and the error says what would."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import admodes
from admodes.errors import MemoryLimitError, PlanningError
from admodes.memory.block_choice import Costs, Schedules
from admodes.program.blocks import chain
from admodes.program.trace import trace
from tests.oracle import sample

WEIGHTS = [sample((64, 64), np.float32, -0.2, 0.2, seed=k) for k in range(24)]
X = sample((2048, 64), np.float32)


def net(ws, x):
    for w in ws:
        x = jnp.tanh(x @ w)
    return jnp.mean(x**2), {"last": x[0]}


def compiled(**options):
    return jax.jit(admodes.grad(net, has_aux=True, **options)).lower(WEIGHTS, X).compile()


def temporaries(program):
    return program.memory_analysis().temp_size_in_bytes


@pytest.fixture(scope="module")
def plain():
    return compiled()


@pytest.mark.parametrize("part", [2.0, pytest.param(0.7, marks=pytest.mark.slow), 0.5])
def test_limit_holds_and_the_gradient_is_the_same(plain, part):
    limit = int(part * temporaries(plain))
    limited = compiled(memory_limit=limit)
    assert temporaries(limited) <= limit
    (ours, aux), (theirs, their_aux) = limited(WEIGHTS, X), plain(WEIGHTS, X)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-6), ours, theirs)
    np.testing.assert_array_equal(aux["last"], their_aux["last"])


@pytest.mark.slow
def test_a_limit_that_cannot_be_met_names_one_that_can(plain):
    with pytest.raises(MemoryLimitError, match=r"Set memory_limit=\d+") as error:
        compiled(memory_limit="10 kB")
    least = int(str(error.value).rpartition("memory_limit=")[2].split()[0])
    assert 10_000 < least < 0.5 * temporaries(plain)
    assert temporaries(compiled(memory_limit=least)) <= least


@pytest.mark.parametrize("limit", [0, -1, True, "much", "3 parsecs"], ids=str)
def test_bad_limits(limit):
    with pytest.raises(ValueError, match="memory_limit must be"):
        admodes.grad(net, memory_limit=limit)
    with pytest.raises(ValueError, match="lexicographic"):
        admodes.grad(net, memory_limit=1000, ties="lexicographic")


def test_functions_that_a_limit_cannot_be_for():
    with pytest.raises(PlanningError, match=r"lax\.cond .*without memory_limit"):
        admodes.grad(lambda x: x if x > 0 else -x, memory_limit="1MB")(1.0)
    with pytest.raises(TypeError, match=r"has_aux=True.* returned 'text', of type str.* without memory_limit"):
        admodes.grad(lambda x: (x, "text"), has_aux=True, memory_limit="1MB")(1.0)


def test_loops_keep_less_where_the_blocks_do_not_do():
    def f(x):
        return jnp.sum(lax.scan(lambda c, _: (jnp.sin(c) * 1.1, None), x, None, length=1000)[0])

    x = jnp.linspace(0.0, 1.0, 1000, dtype=jnp.float32)
    program = jax.jit(admodes.value_and_grad(f, memory_limit="1 MB")).lower(x).compile()
    assert temporaries(program) <= 10**6
    value, gradient = program(x)
    np.testing.assert_allclose(value, f(x), rtol=1e-6)
    np.testing.assert_allclose(gradient, jax.grad(f)(x), rtol=1e-4)


def test_loops_get_as_many_slots_as_fit():
    """Less than for √l states and tapes, more than for the fewest slots."""
    f = lambda x: jnp.sum(lax.scan(lambda c, _: (jnp.sin(c) * 1.1, None), x, None, length=900)[0])
    x, limit = jnp.linspace(0.0, 1.0, 1000, dtype=jnp.float32), 120_000
    program = jax.jit(admodes.grad(f, memory_limit=limit)).lower(x).compile()
    assert 0.7 * limit < temporaries(program) <= limit
    np.testing.assert_allclose(program(x), jax.grad(f)(x), rtol=1e-4)


@pytest.mark.slow
def test_the_limit_is_made_use_of(plain):
    """The more is kept, the less is computed again."""
    limit = int(0.6 * temporaries(plain))
    assert 0.7 * limit < temporaries(compiled(memory_limit=limit))


def test_what_is_fused_is_not_counted():
    """Of y |y| the factor y is kept; its slope, from |y| and sign y, is computed where it is used."""
    ws, x = [jnp.eye(8)] * 12, jnp.ones((100, 8))
    f = lambda *ws: jnp.sum(functools.reduce(lambda x, w: (y := x @ w) * jnp.abs(y), ws, x))
    costs = Costs.of(chain(trace(f, *ws), most=12))
    assert max(costs.tapes) <= x.nbytes


def test_eager_gradients_use_the_schedule_again():
    f = lambda x: jnp.sum(jnp.sin(jnp.cos(x)) ** 2)
    gradient = admodes.grad(f, memory_limit="1MiB")
    for x in (jnp.ones(3), jnp.zeros(3)):
        np.testing.assert_allclose(gradient(x), jax.grad(f)(x), rtol=1e-12)


def brute_force(costs, start, stop, memory, held=True):
    """H and N by their recurrences, in exact bytes."""
    if start == stop:
        return 0.0 if memory >= 0 else np.inf
    fits = costs.working[start] <= memory
    tape = costs.tapes[start]
    if not held:
        fresh = brute_force(costs, start + 1, stop, memory - tape - costs.reads[start], False) if fits else np.inf
        fresh = 0.0 if fits and stop == start + 1 else fresh
        return min(fresh, brute_force(costs, start, stop, memory - costs.entering[start]))
    if stop == start + 1:
        return 0.0 if fits else np.inf
    best = brute_force(costs, start + 1, stop, memory - tape, False) if fits else np.inf
    for j in range(start + 1, stop):
        right = brute_force(costs, j, stop, memory, False)
        best = min(best, costs.times[start:j].sum() + right + brute_force(costs, start, j, memory))
    return best


def blocks(item):
    return [k for part in item for k in blocks(part)] if isinstance(item, tuple) else [item]


def rerun(costs, nest):
    """The time of the forward sweeps that a nest runs again."""
    segments = [item for item in nest if isinstance(item, tuple)]
    return sum(costs.times[blocks(item)].sum() + rerun(costs, item) for item in segments)


@pytest.mark.parametrize("seed", range(3))
def test_schedules_are_optimal_for_their_costs(seed):
    """Unequal sizes and times against the recurrence, up to the levels of memory."""
    rng = np.random.default_rng(seed)
    n = 6
    tapes, reads, entering = (rng.integers(1, 9, n) * 8.0 for _ in range(3))
    costs = Costs(tapes, reads, entering, tapes + 8.0, rng.integers(1, 5, n) * 1.0)
    schedules = Schedules(costs)
    again = []
    for part in (0.2, 0.3, 0.4, 0.5, 0.7):
        memory = schedules.most * part
        nest = schedules.nest(memory)
        assert blocks(nest) == list(range(n))
        if memory >= schedules.least():
            again.append(rerun(costs, nest))
            assert brute_force(costs, 0, n, memory) <= again[-1] <= brute_force(costs, 0, n, 0.97 * memory)
    assert again[0] > again[-1]
    assert schedules.nest(schedules.most) == tuple(range(n))


def test_blocks_are_cut_where_little_crosses():
    def f(x):
        for _ in range(4):
            x = jnp.sum(jnp.outer(jnp.sin(x), jnp.cos(x)) ** 2, axis=0)
        return jnp.sum(x)

    steps = chain(trace(f, jnp.ones(50)), most=4)
    crossing = [sum(steps.program.avals[s].size for s in steps.entering(k)) for k in range(1, len(steps))]
    assert max(crossing) <= 100
    x, last = sample((50,), np.float64), tuple(range(2, len(steps)))
    for nest in (tuple(range(len(steps))), ((0, (1,)), last)):
        np.testing.assert_allclose(steps.evaluate(nest, [x])[0], f(x))


def test_programs_of_one_text_that_do_different_things():
    def make(c):
        @jax.custom_jvp
        def g(x):
            return jnp.sin(x)

        g.defjvp(lambda primals, tangents: (g(primals[0]), c * tangents[0]))
        return lambda x: jnp.sum(g(x))

    for c in (1.0, 5.0):
        gradient = admodes.grad(make(c), memory_limit="1MiB")(jnp.ones(2))
        np.testing.assert_allclose(gradient, c * np.ones(2))


def test_blocks_of_unknown_cost_are_planned():
    """XLA counts what a triangular solve does as -1."""

    def f(x):
        for k in range(6):
            x = jnp.exp(jnp.sin(x + k) / 8)
        x = jax.scipy.linalg.solve_triangular(
            jnp.eye(64) + 0.01 * jnp.tril(jnp.outer(x[:64], x[:64])), x.reshape(64, -1)
        )
        for k in range(6):
            x = jnp.exp(jnp.sin(x + k) / 8)
        return jnp.sum(x)

    x = jnp.linspace(0.0, 1.0, 64 * 64)
    steps = chain(trace(f, x))
    costs = Costs.of(steps)
    assert (costs.times >= 0).all()
    schedules = Schedules(costs)
    assert 0 < schedules.least() <= schedules.everything()
    np.testing.assert_allclose(admodes.grad(f, memory_limit="1MB")(x), jax.grad(f)(x), rtol=1e-9)
