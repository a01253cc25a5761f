"""The benchmark of the planner's predictions."""

import math

from admodes.compare.bench import costs
from admodes.compare.bench.costs import Case, CostsBenchmark
from admodes.compare.bench.jacobians import Subject
from admodes.errors import PlanningError


def test_only_pairs_that_are_apart_count():
    """Of a, b, c and d only a and b are close; b before c is predicted wrongly."""
    times = {"a": (1.0, 1.0), "b": (3.0, 1.2), "c": (2.0, 2.0), "d": (9.0, 9.0)}
    cases = [Case("one", name, "", *pair) for name, pair in times.items()]
    (goal,) = CostsBenchmark((*cases, Case("other", "a", "", 9.0, 1.0))).goals()
    assert goal.name == "pairs in the right order, of 5 apart"
    assert math.isclose(goal.value, 4 / 5)
    assert not goal.met


def test_every_candidate_is_measured(monkeypatch):
    monkeypatch.setattr(costs, "SUBJECTS", {"small": Subject("arrowhead", "sparse", "bcoo", {"n": 20})})
    result = costs.bench_costs(["small"], dtype="float32", rounds=1)
    assert {"forward", "reverse", "bidirectional", "accumulation"} <= {case.candidate for case in result.cases}
    assert all(case.measured > 0 and case.predicted > 0 for case in result.cases)
    assert "bidirectional" in str(result)


def test_a_problem_that_fails_is_reported(monkeypatch):
    def refuse(task, settings):
        raise PlanningError("no way")

    monkeypatch.setattr(costs, "decide", refuse)
    monkeypatch.setattr(costs, "SUBJECTS", {"small": Subject("arrowhead", "sparse", "bcoo", {"n": 20})})
    assert "small: PlanningError: no way" in str(costs.bench_costs(["small"], dtype="float32", rounds=1))
