"""The benchmark's arithmetic, small cases of it, and that its subjects are problems of the collection."""

import math

import jax
import numpy as np
import pytest

import admodes
from admodes import problems
from admodes.compare.bench import jacobians
from admodes.compare.bench.jacobians import FORMATS, SUBJECTS, Case, JacobiansBenchmark, Subject, contenders, run_case
from admodes.compare.bench.suite import Goal, geometric_mean
from admodes.compare.check import errors

SMALL = {
    "hourglass": Subject("hourglass", "cut"),
    "arrowhead": Subject("arrowhead", "sparse", "bcoo", {"n": 12}),
}


def case(name, run, *, structure="sparse", first=0.5, plain=1.0, run_plain=0.1):
    ratios = {"run": run, "run / plain": run_plain, "memory": 1.0, "first": first, "first / plain": plain}
    times = {"admodes": 1.0, "jacfwd": 2.0, "jacrev": 3.0}
    return Case(name, structure, "dense", "float64", 2, 3, times, times, {"admodes": 0}, ratios, 1e-12)


def goals(*cases):
    return {goal.name: goal for goal in JacobiansBenchmark(cases).goals()}


@pytest.mark.parametrize("name", SUBJECTS)
def test_subjects_are_problems(name):
    subject = SUBJECTS[name]
    problem = problems.get(subject.problem)
    assert problem.argnums == 0
    assert set(subject.sizes) <= set(problem.sizes)
    assert subject.format in FORMATS
    assert subject.structure in ("dense", "cut", "sparse", "batched")


@pytest.mark.parametrize("format", FORMATS)
def test_all_contenders_compute_the_same(format):
    fun, args = problems.get("power_network").make(np.float64, buses=6)
    expected = jax.jit(jax.jacfwd(fun))(*args)
    made = contenders(fun, args, format)
    assert list(made)[:3] == ["admodes", "jacfwd", "jacrev"]
    for who, make in made.items():
        found = jax.jit(make())(*args)
        assert hasattr(found, "todense") == (format == "bcoo" and who in ("admodes", "asdex"))
        assert errors(jacobians._dense(found, expected), expected)[1] < 1e-12


def test_goals_take_means_and_worst_cases():
    found = goals(case("a", 0.1), case("b", 0.4, structure="dense"), case("arrowhead", 0.005, run_plain=0.9))
    assert found["run, geometric mean"].value == pytest.approx((0.1 * 0.4 * 0.005) ** (1 / 3))
    assert found["run, worst"].value == 0.4
    assert found["run, sparse and batched without the arrowhead"].value == pytest.approx(0.1)
    assert found["arrowhead, times faster"].value == pytest.approx(200.0)
    assert all(goal.met for goal in found.values())
    assert "hourglass, times faster" not in found


def test_first_calls_count_against_the_plain_mode_where_that_wins():
    name = "first call / plain mode, worst where that wins"
    assert name not in goals(case("a", 0.1, plain=9.0))
    found = goals(case("a", 0.1, plain=9.0), case("b", 1.0, plain=1.7, run_plain=1.0))
    assert found[name] == Goal(name, 1.7, 1.5)
    assert not found[name].met


def test_at_least_and_at_most():
    assert Goal("speed", 25.0, 20.0, at_least=True).met
    assert not Goal("speed", 15.0, 20.0, at_least=True).met
    assert not Goal("time", float("nan"), 1.0).met
    assert geometric_mean([4.0, 0.25, 8.0]) == pytest.approx(2.0)


def test_a_small_run_has_every_figure_and_prints(monkeypatch):
    monkeypatch.setattr(jacobians, "SUBJECTS", SMALL)
    lines = []
    result = jacobians.bench_jacobians(SMALL, rounds=2, builds=1, progress=lines.append)
    assert lines[-2:] == ["hourglass", "arrowhead"]
    first, second = result.cases
    assert (first.outputs, first.inputs, second.format) == (24, 24, "bcoo")
    for each in result.cases:
        assert each.error < 1e-10
        assert {"admodes", *jacobians.PLAIN} <= set(each.run) == set(each.temp_bytes)
        assert len(each.first_call) == len(each.run) - 1  # of the plain modes only the faster one
        assert {"run", "run / plain", "memory", "first / plain"} <= set(each.ratios)
    data = result.to_dict()
    assert data["cases"][1]["name"] == "arrowhead"
    assert {"name", "value", "target", "met"} <= set(data["goals"][0])
    assert "24 x 24" in str(result)
    assert "Goals" in str(result)


def test_without_asdex_its_columns_stay_empty(monkeypatch):
    monkeypatch.setattr(jacobians, "without_asdex", lambda: "asdex is not here")
    found = run_case("arrowhead", SMALL["arrowhead"], format=None, dtype="float64", rounds=1, builds=1)
    assert set(found.run) == {"admodes", "jacfwd", "jacrev"}
    assert "first" not in found.ratios
    lines = []
    table = str(JacobiansBenchmark((found,)))
    assert "first call / asdex" not in table
    jacobians.bench_jacobians([], progress=lines.append)
    assert lines == ["asdex is not here: its columns stay empty"]


def test_a_failure_is_reported(monkeypatch):
    def refuse(*_, **__):
        raise admodes.errors.UnsupportedPrimitiveError("jump", "here")

    monkeypatch.setattr(admodes, "jacobian", refuse, raising=False)
    found = run_case("arrowhead", SMALL["arrowhead"], format=None, dtype="float64", rounds=1, builds=1)
    assert math.isnan(found.error)
    assert "arrowhead: UnsupportedPrimitiveError" in str(JacobiansBenchmark((found,)))
