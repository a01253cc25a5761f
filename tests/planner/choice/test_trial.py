"""Trials: close predictions are settled by running the candidates once."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import admodes
from admodes.planner.calls.request import request
from admodes.planner.choice import decision, trial
from admodes.planner.choice.decision import Settings, compiled, decide
from admodes.program.kept import Kept

X = np.linspace(0.5, 1.5, 30)


def f(x):
    return jnp.outer(jnp.sin(x), jnp.cos(x))


@pytest.fixture(autouse=True)
def fresh(monkeypatch, tmp_path):
    monkeypatch.setenv("ADMODES_CACHE", str(tmp_path))
    monkeypatch.setattr(trial, "WITHIN", 3.0)
    new_process(monkeypatch)


def new_process(monkeypatch):
    monkeypatch.setattr(decision, "_DECISIONS", Kept(64))


def task_of(fun, x=X):
    return request("jacobian", fun, 0, False, False).call((x,), {}).task()


def timed_as(monkeypatch, seconds):
    """Pretend that candidates take as long as ``seconds(candidate)``; returns the names of those that were tried."""
    tried = []

    def times(candidates, compiled, leaves):
        tried.extend(c.name for c in candidates)
        return {k: seconds(c) for k, c in enumerate(candidates)}

    monkeypatch.setattr(trial, "times", times)
    return tried


def test_the_fastest_of_close_candidates_is_chosen_and_remembered(monkeypatch):
    before = decide(task_of(f), Settings(measure=False)).candidates
    close = [c for c in before if c.seconds <= 3 * before[0].seconds]
    assert 2 <= len(close) < len(before)
    second = close[1].name
    tried = timed_as(monkeypatch, lambda c: 1e-6 if c.name == second else 1e-3)
    jacobian = admodes.jacobian(f)
    np.testing.assert_allclose(jacobian(X), jax.jacfwd(f)(X), rtol=1e-12)
    assert tried == [c.name for c in close[: trial.MOST]]
    plan = admodes.plan(f, X)
    assert plan.best.name == second
    assert "measured 1 µs" in plan.why
    new_process(monkeypatch)
    assert decide(task_of(f), Settings()).best.name == second  # without arguments to run anything with
    admodes.jacobian(lambda x: f(x))(X)
    assert len(tried) == len(close[: trial.MOST])  # not tried again


def test_where_nothing_is_tried(monkeypatch):
    tried = timed_as(monkeypatch, lambda c: 1.0)
    admodes.jacobian(f, measure=False)(X)
    admodes.jacobian(f, objective="flops")(X)
    jax.jit(admodes.jacobian(f))(X)
    admodes.jacobian(lambda x: jnp.sum(jnp.sin(x) * jnp.prod(x)))(
        np.ones(5000)
    )  # a gradient: predictions are far apart
    monkeypatch.setattr(trial, "EQUATIONS", 2)
    admodes.jacobian(f)(X)
    assert not tried

    def printing(x):
        jax.experimental.io_callback(lambda: None, None)
        return f(x)

    monkeypatch.undo()
    monkeypatch.setattr(trial, "WITHIN", 3.0)
    task = task_of(printing)
    assert not trial.close(decide(task, Settings(measure=False)).candidates, task)


def test_times_are_those_of_runs_in_turn():
    task = task_of(f)
    near = decide(task, Settings(measure=False)).candidates[:2]
    order = []

    def made(c):
        run = compiled(task, c, "dense")

        def called(leaves):
            order.append(c.name)
            return run(leaves)

        return called

    found = trial.times(near, made, [X])
    assert found.keys() == {0, 1}
    assert all(0 < s < 1 for s in found.values())
    first, second = (c.name for c in near)
    assert order[:2] == [first, second]
    assert order[2::2] == [first] * len(order[2::2])


def test_loops_as_written_are_candidates():
    def g(x):
        return lax.scan(lambda y, _: (jnp.sin(y) * x[:4], y), x[4:8], None, length=20)[1]

    task = task_of(g)
    found = {c.method.detail: c for c in decide(task, Settings(measure=False)).candidates}
    expected = jax.jacfwd(g)(X)
    for side in ("columns", "rows"):
        run = compiled(task, found[f"all {side}, as written"], "dense")
        np.testing.assert_allclose(run([X]), expected.reshape(task.m, task.n), rtol=1e-10, atol=1e-14)
    assert not any("as written" in c.method.detail for c in decide(task_of(f), Settings(measure=False)).candidates)
