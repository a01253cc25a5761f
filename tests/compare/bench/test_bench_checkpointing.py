"""The benchmark of gradients in bounded memory: its contenders agree, steps are counted, small cases of each part."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import admodes
from admodes.checkpointing.binomial import fewest_steps
from admodes.compare.bench import checkpointing as bench
from admodes.compare.bench.checkpointing import Case, CheckpointingBenchmark, bench_checkpointing, steps_run
from tests.oracle import sample


@pytest.mark.parametrize(("length", "slots"), [(10, 3), (24, 3), (7, 100)])
def test_steps_that_run_again_are_counted(length, slots):
    assert steps_run(length, slots) == fewest_steps(length, slots) - (length - 1)


def test_the_nets_are_one_net():
    row = [(sample((4, 4), np.float64, seed=k), sample((4, 4), np.float64, seed=k + 9)) for k in range(6)]
    stack, x = jax.tree.map(lambda *ws: jnp.stack(ws), *row), sample((3, 4), np.float64, seed=1)
    expected = bench.in_a_row(row, x)
    for value in (
        bench.in_segments(row, x, width=3),
        bench.stacked(stack, x),
        bench.stacked_in_segments(stack, x, width=2),
        bench.stacked(stack, x, jax.checkpoint),
    ):
        np.testing.assert_allclose(value, expected, rtol=1e-12)


@pytest.mark.slow
def test_a_net_at_given_memory():
    cases = list(bench.nets(1, layers=16, batch=256, units=16, part=4))
    assert [case.part for case in cases].count("net at equal memory") == 4
    assert all(case.memory_ratio <= 1 and case.time_ratio > 0 and case.error < 1e-4 for case in cases)
    assert min(case.memory_ratio for case in cases) <= 0.25


def test_loops_beside_others(monkeypatch):
    for case in bench.stored(1, lengths=(20,), sizes=(3,)):
        assert case.error < 1e-12
        assert case.temp_bytes[0] > 0
    if bench.equinox_is_installed():
        (case,) = bench.whiles(1, {3: 100})
        assert case.error < 1e-12
    monkeypatch.setattr(bench, "equinox_is_installed", lambda: False)
    lines = []
    assert bench_checkpointing(["whiles"], progress=lines.append).cases == ()
    assert "not installed" in lines[0]


def test_goals_are_worst_cases():
    cases = (
        Case("steps", "table", steps_beyond=0),
        Case("while", "a", "equinox", (1.0, 2.0), (1, 2), 0.5),
        Case("while", "b", "equinox", (3.0, 2.0), (1, 2), 1.5),
        Case("long", "c", temp_bytes=(2**20, math.nan), compile=1.0),
    )
    result = CheckpointingBenchmark(cases)
    found = {goal.name: (goal.value, goal.met) for goal in result.goals()}
    assert found["steps: steps beyond, worst"] == (0, True)
    assert found["while: time ratio, worst"] == (1.5, False)
    assert found["while: memory ratio, worst"] == (0.5, True)
    assert found["long: mebibytes, worst"] == (1.0, True)
    assert len(found) == 5
    assert "while: b" in str(result)
    assert result.to_dict()["cases"][1]["beside"] == "equinox"


def test_a_limit_that_is_not_met_is_reported(monkeypatch):
    def refuse(rounds):
        raise admodes.errors.MemoryLimitError("too little")

    monkeypatch.setitem(bench.PARTS, "long", refuse)
    result = bench_checkpointing(["long"])
    assert "long: MemoryLimitError: too little" in str(result)
    assert [(goal.value, goal.met) for goal in result.goals()] == [(math.inf, False)] * 2


@pytest.mark.parametrize("order", [1, -1])
def test_what_is_not_known_is_no_success(order):
    cases = (Case("while", "a", temp_bytes=(1, 2), time_ratio=math.nan), Case("while", "b", time_ratio=0.5))
    assert [goal.value for goal in CheckpointingBenchmark(cases[::order]).goals()] == [math.inf] * 2
    half = (Case("net at equal memory", "a", time_ratio=1.0), Case("nets", "nets", failure="too little"))
    assert [goal.met for goal in CheckpointingBenchmark(half[::order]).goals()] == [False] * 4
