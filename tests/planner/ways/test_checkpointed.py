"""Reverse mode that keeps a part of its tape, in plans: when it is offered, what it is expected and found to cost."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import io_callback

import admodes
from admodes.checkpointing.binomial import fewest_steps
from admodes.checkpointing.policies import Checkpoints
from admodes.errors import PlanningError, StalePlanError
from admodes.planner.calls.picture import picture
from admodes.planner.calls.request import request
from admodes.planner.choice import decision
from admodes.planner.cost.work import Work
from admodes.planner.ways.checkpointed import Checkpointed, Steps, by_policy, checkpointed, depths, restored
from admodes.planner.ways.seeded import reverse

STEPS = 2000
X = jnp.linspace(0.0, 1.0, 30)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ADMODES_CACHE", str(tmp_path))


def orbit(x, rows=1):
    """The tape of each step is 240 bytes, as is the state: 480 kB."""
    y, _ = lax.scan(lambda y, _: (y + 0.001 * jnp.sin(jnp.roll(y, 1)), None), x, None, length=STEPS)
    return jnp.sum(y**2) if rows == 1 else y[:rows] * y[1 : rows + 1]


def newton(x):
    return jnp.sum(
        lax.while_loop(lambda y: jnp.any(jnp.abs(y * y - x - 2) > 1e-12), lambda y: (y + (x + 2) / y) / 2, x + 9)
    )


WEIGHTS = [jnp.cos(jnp.arange(64 * 64.0) + k).reshape(64, 64) / 8 for k in range(12)]


def layered(weights):
    x = jnp.ones((400, 64))
    for w in weights:
        x = jnp.tanh(x @ w)
    return jnp.sum(x**2)


def task_of(fun, *args, argnums=0):
    return request("test", fun, argnums, False, False).call(args, {}).task()


def as_rows(fun, x):
    task = task_of(fun, x)
    return reverse(task), task


def schedules(fun, x, **options):
    return {m.name: m for m in checkpointed(*as_rows(fun, x), **options)}


def assert_same(found, expected):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("limit", [60_000, 2_500])
def test_a_limit_that_the_whole_tape_misses(limit):
    plan = admodes.plan(orbit, X, memory_limit=limit)
    assert isinstance(plan.best.method, Checkpointed)
    assert plan.best.measured_bytes <= limit
    assert next(c for c in plan.candidates if c.name == "reverse").measured_bytes > 8 * STEPS * X.size
    assert_same(plan.jacobian(X), jax.jacrev(orbit)(X))
    compiled = jax.jit(plan.jacobian).lower(X).compile()
    assert compiled.memory_analysis().temp_size_in_bytes <= limit
    assert plan.why.startswith(f"{plan.best.name} wins within")
    assert "needs 481 kB" in plan.why


@pytest.mark.slow
def test_the_limit_that_is_named_would_change_the_choice(monkeypatch):
    monkeypatch.setattr("admodes.planner.ways.checkpointed.SLOTS", (30, 3))
    plan = admodes.plan(orbit, X, memory_limit=12_000)
    limit = int(plan.otherwise.split("memory_limit=")[1].split()[0])
    winner = plan.otherwise.split("more, ")[1].split(" would")[0]
    assert admodes.plan(orbit, X, memory_limit=limit).best.name == winner
    with pytest.raises(PlanningError, match="memory_limit=") as refused:
        admodes.plan(orbit, X, memory_limit=100)
    least = int(str(refused.value).split("memory_limit=")[1].split()[0])
    assert admodes.plan(orbit, X, memory_limit=least).best.measured_bytes <= least


def test_blocks_of_a_program_without_loops():
    whole = admodes.plan(layered, WEIGHTS, memory_limit="1GB")
    assert whole.best.name == "reverse"
    plan = admodes.plan(layered, WEIGHTS, memory_limit=int(0.7 * whole.best.measured_bytes))
    assert isinstance(plan.best.method, Checkpointed)
    assert plan.best.measured_bytes <= 0.7 * whole.best.measured_bytes
    assert_same(plan.jacobian(WEIGHTS), jax.grad(layered)(WEIGHTS))
    assert "blocks computed again" in str(plan)
    assert "blocks" in plan.draw()


@pytest.mark.parametrize(
    ("fun", "x", "nests"),
    [
        (lambda x: orbit(x, rows=3), X, False),
        (newton, X, False),
        pytest.param(layered, WEIGHTS, True, marks=pytest.mark.slow),
    ],
)
def test_every_schedule_gives_the_jacobian(fun, x, nests):
    task = task_of(fun, x)
    oracle = jax.jacfwd if fun is newton else jax.jacrev
    expected = np.concatenate([np.reshape(e, (task.m, -1)) for e in jax.tree.leaves(oracle(fun)(x))], axis=1)
    methods = list(schedules(fun, x, nests=nests).values())
    assert len(methods) >= 3
    for method in (*methods, dataclasses.replace(methods[-1], chunk=1)):
        found = jax.jit(lambda leaves, method=method: method.jacobian(task, None, leaves)[1].rows)(jax.tree.leaves(x))
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


def test_predictions_are_those_of_the_schedules():
    methods = schedules(orbit, X)
    again = [k * fewest_steps(-(-STEPS // k), s) for s, k in ((100, 25), (30, 7), (10, 2), (3, 1))]
    assert [m.steps for m in methods.values()] == [STEPS, *again]
    task = task_of(orbit, X)
    costs = [decision.candidate(m, task, decision.machine(), "dense") for m in (reverse(task), *methods.values())]
    by_time = sorted(costs, key=lambda c: c.seconds)
    assert by_time == [costs[0], *sorted(costs[1:], key=lambda c: c.method.steps)]
    run = {c.name: decision.temporary_bytes(decision.compiled(task, c, "dense"), [X]) for c in costs}
    for c in costs:  # the least are dominated by the working memory of a step
        assert 0.7 * c.temp_bytes - 2000 < run[c.name] < 1.3 * c.temp_bytes + 2000


def test_what_steps_keep_and_run_again():
    loop = Steps(10_000, 8.0, 80.0, Work())
    assert [loop.kept(Checkpoints(p)) for p in ("none", "sqrt")] == [800_000, 8_800]
    assert (loop.kept(Checkpoints("revolve", 10)), loop.again(Checkpoints("revolve", 10))) == (
        168,
        fewest_steps(10_000, 10),
    )
    assert [loop.again(Checkpoints(p)) for p in ("none", "sqrt")] == [0, 10_000]
    for tapes, policy in ((20, Checkpoints("revolve", 10, 20)), (2, Checkpoints("revolve", 100))):
        slots = policy.slots
        assert (loop.kept(policy), loop.again(policy)) == (
            8 * (slots + 1) + 80 * tapes,
            tapes * fewest_steps(10_000 // tapes, slots),
        )
    assert dict(depths((0, (1, (2, 3)), 4))) == {0: 0, 1: 1, 2: 2, 3: 2, 4: 0}


def test_they_are_offered_where_memory_matters():
    def offered(fun, *args, **options):
        return [c.name for c in admodes.plan(fun, *args, **options).candidates if isinstance(c.method, Checkpointed)]

    assert not offered(orbit, X)
    assert not offered(lambda x: jnp.sum(jnp.sin(x)), X, objective="memory")
    assert offered(orbit, X, objective="memory")[0] == "reverse (revolve 3)"
    large = lambda x: orbit(jnp.tile(x, 200))
    assert len(offered(large, X)) == 5
    assert "With a memory_limit below about 96 MB, reverse (revolve 100) would win" in admodes.plan(large, X).otherwise
    calling = lambda x: lax.scan(lambda y, _: (io_callback(lambda z: z, y, y) * y, None), x, None, length=STEPS)[0][0]
    assert list(checkpointed(*as_rows(orbit, X)))
    assert not list(checkpointed(*as_rows(calling, X)))  # what has side effects is not run twice


def test_hessians_stay_right_within_a_limit():
    x = X[:3]
    found = admodes.hessian(orbit, memory_limit="1MB")(x)
    assert_same(found, jax.jit(jax.hessian(orbit))(x))
    assert_same(
        admodes.hessian(lambda x: orbit(x) ** 2, objective="memory")(x), jax.hessian(lambda x: orbit(x) ** 2)(x)
    )


def test_pictures():
    plan = admodes.plan(orbit, X, memory_limit=12_000)
    head, line = plan.draw().splitlines()
    assert plan.best.name in head
    assert line.endswith("2,000 steps")
    assert 2 < line.count("|") <= 30


def test_steps_that_nobody_knows_are_not_drawn_as_a_number():
    x = X[:3]
    task = task_of(newton, x)
    policy = Checkpoints("revolve", 3)
    method = by_policy(reverse(task), task, policy)
    assert f"; about {method.steps} steps computed again" in method.detail
    head, line = picture(method, None).splitlines()
    assert "about" in head
    assert line == "steps: known at run time only"
    both = lambda x: newton(x) + orbit(x)
    task = task_of(both, x)
    method = by_policy(reverse(task), task, policy)
    assert "; about " in method.detail
    assert [line.split()[-2] for line in picture(method, None).splitlines()[1:]] == ["time", "2,000"]
    saved = json.loads(json.dumps(method.plain_schedule))
    assert restored(reverse(task), task, saved, method.saved, method.name).lengths == method.lengths == (None, STEPS)


def test_saved_and_loaded(tmp_path):
    for fun, x, limit in ((orbit, X, 12_000), (layered, WEIGHTS, "3MB")):
        plan = admodes.plan(fun, x, memory_limit=limit)
        assert isinstance(plan.best.method, Checkpointed)
        plan.save(tmp_path / "p.npz")
        again = admodes.load_plan(tmp_path / "p.npz", fun, x)
        assert again.best.method.schedule == plan.best.method.schedule
        assert again.best.name == plan.best.name
        assert_same(again.jacobian(x), plan.jacobian(x))
    assert plan.to_dict()["candidates"][0]["name"] == plan.best.name
    with pytest.raises(StalePlanError):
        admodes.load_plan(tmp_path / "p.npz", orbit, X)


@pytest.mark.slow
def test_rows_by_colors_and_several_devices(tmp_path):
    """Independent orbits of which each row reads one: a row coloring, of which the tape is then kept in part."""

    def ends(x):
        return lax.scan(lambda y, _: (y + 0.01 * jnp.sin(y) * y, None), x, None, length=STEPS)[0].reshape(10, 3).sum(1)

    task = task_of(ends, X)
    found = [c for c in decision.candidates(task, decision.machine(), "bcoo", {}) if c.name == "compressed reverse"]
    plan = admodes.plan(ends, X, format="bcoo", memory_limit=int(found[0].temp_bytes / 20), objective="time")
    assert plan.best.measured_bytes <= found[0].temp_bytes / 20
    np.testing.assert_allclose(plan.jacobian(X).todense(), jax.jacrev(ends)(X), rtol=1e-11)
    base = found[0].method

    def products(method):
        tables = jax.tree.map(jnp.asarray, method.tables)
        return jax.jit(lambda x: method.compressed(task, tables, [x])[1][1])(X)

    for method in checkpointed(base, task):
        np.testing.assert_allclose(products(method), products(base), rtol=1e-11)
    several, mesh = lambda x: orbit(x, rows=8), jax.sharding.Mesh(np.array(jax.devices()), ("seeds",))
    split = admodes.plan(several, X, memory_limit=100_000, mesh=mesh)
    assert split.best.measured_bytes <= 100_000
    kept = next(c for c in split.candidates if isinstance(c.method, Checkpointed))
    assert f"on each of {mesh.size} devices" in kept.method.detail
    run = decision.compiled(task_of(several, X), kept, "dense", lambda outs, entries: entries)
    assert decision.temporary_bytes(run, [X]) <= 100_000
    assert_same(run([X]), jax.jacrev(several)(X))
