"""The benchmark of the planner's choices."""

import math

import jax
import numpy as np
import pytest

from admodes.compare.bench import regret
from admodes.compare.bench.regret import KINDS, Case, RegretBenchmark
from admodes.errors import PlanningError


def test_the_goals():
    cases = [Case("a", chosen_s=2.0, fastest_s=1.0, plain_s=4.0), Case("b", chosen_s=1.0, fastest_s=1.0)]
    mean, worst, plain = RegretBenchmark((*cases, Case("c", failure="no way"))).goals()
    assert math.isclose(mean.value, math.sqrt(2))
    assert worst.value == 2
    assert not worst.met
    assert plain.value == 0.5
    assert plain.met


@pytest.mark.parametrize("kind", KINDS)
def test_functions_are_made_up_and_have_jacobians(kind):
    (f, x, form), (_, again, _) = (KINDS[kind](np.random.default_rng(1)) for _ in range(2))
    np.testing.assert_array_equal(x, again)
    assert form in ("dense", "bcoo")
    out = f(x[: x.size])
    assert np.isfinite(jax.jvp(f, (x,), (np.ones_like(x),))[1]).all()
    assert out.size > 1


def test_every_candidate_is_run():
    result = regret.bench_regret(["kernel"], count=1, rounds=2)
    (case,) = result.cases
    assert not case.failure
    assert 0 < case.fastest_s <= case.chosen_s
    assert case.plain_s > 0
    assert "kernel 0" in str(result)


def test_a_function_that_fails_is_reported(monkeypatch):
    def refuse(*_):
        raise PlanningError("no way")

    monkeypatch.setattr(regret, "decide", refuse)
    assert "loop 0: PlanningError: no way" in str(regret.bench_regret(["loop"], count=1, rounds=1))
