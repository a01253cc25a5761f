"""The benchmark's arithmetic, and one real case of it."""

import itertools

import jax
import numpy as np
import pytest

import admodes
from admodes.compare.bench.modes import STAGES, Case, ModesBenchmark, bench_modes, derivative, run_case
from admodes.compare.bench.workloads import WORKLOADS
from admodes.compare.check import errors
from admodes.compare.measure import interleave, measure, paired_ratio, size_ratio, temp_bytes


@pytest.mark.parametrize("name", WORKLOADS)
@pytest.mark.parametrize("mode", ["vjp", pytest.param("hvp", marks=pytest.mark.slow)])  # hvp is jvp of grad
def test_both_sides_of_every_case_compute_the_same(name, mode):
    workload = WORKLOADS[name]()
    ours, args = derivative(admodes, mode, workload)
    theirs, same = derivative(jax, mode, workload)
    jax.tree_util.tree_map(np.testing.assert_array_equal, args, same)
    assert errors(jax.jit(ours)(*args), jax.jit(theirs)(*args))[1] < 1e-3


def test_an_unknown_mode():
    with pytest.raises(ValueError, match="jvp, vjp, grad, hvp"):
        derivative(jax, "jet", WORKLOADS["chain"]())


def test_goals_are_medians_and_worst_cases():
    cases = tuple(Case("w", "jvp", ratios={"run": r, "compile": 1.0}) for r in (0.9, 1.0, 1.3))
    median, worst, compiling = ModesBenchmark(cases).goals()
    assert (median.name, median.value, median.met) == ("run, median", 1.0, True)
    assert (worst.name, worst.value, worst.target, worst.met) == ("run, worst", 1.3, 1.25, False)
    assert (compiling.name, compiling.met) == ("compile, median", True)


def test_a_small_run_has_every_ratio_and_prints(capsys):
    lines = []
    result = bench_modes(["linalg"], ["grad"], rounds=2, builds=1, eager_rounds=1, progress=lines.append)
    assert lines == ["linalg grad"]
    assert set(result.cases[0].ratios) == set(STAGES)
    assert result.to_dict()["cases"][0]["workload"] == "linalg"
    assert "Goals" in str(result)


def test_a_workload_that_cannot_be_differentiated_is_reported(monkeypatch):
    from admodes.rules import table

    monkeypatch.setattr(table, "_RULES", {})
    case = run_case(WORKLOADS["chain"](), "jvp", rounds=1, builds=1, eager_rounds=0)
    assert "UnsupportedPrimitiveError" in case.failure
    assert "chain jvp: Unsupported" in str(ModesBenchmark((case,)))


def test_measure_counts_flops_and_memory():
    x = np.ones((40, 40), np.float32)
    found = measure({"once": lambda a: a @ a, "twice": lambda a: (a @ a) @ a}, (x,), rounds=2, builds=1)
    assert found["once"].flops == pytest.approx(2 * 40**3, rel=0.05)
    assert found["twice"].flops == pytest.approx(4 * 40**3, rel=0.05)
    assert found["twice"].temp_bytes >= 4 * 40 * 40
    assert [len(found["once"].trace), len(found["once"].compile), len(found["once"].run)] == [3, 1, 2]


def test_nothing_is_compiled_again_once_the_time_is_spent():
    found = measure({"f": lambda a: a + 1}, (1.0,), rounds=1, builds=3, build_seconds=0.0)
    assert len(found["f"].compile) == 1
    assert len(found["f"].trace) == 3


def test_interleaving_has_an_order_of_its_own_for_each_round():
    calls = []
    samples = interleave({name: lambda name=name: calls.append(name) for name in "abc"}, rounds=8)
    assert {name: len(s) for name, s in samples.items()} == {"a": 8, "b": 8, "c": 8}
    bursts = [x for x, y in zip(calls, ["", *calls], strict=False) if x != y]
    following = {(x, y) for x, y in itertools.pairwise(bursts)}
    assert following == set(itertools.permutations("abc", 2))


def test_ratios():
    assert paired_ratio([1.0, 10.0, 3.0], [2.0, 5.0, 3.0]) == 1.0
    assert size_ratio(0, 0) == 1.0
    assert size_ratio(8, 0) == float("inf")


def test_a_backend_without_memory_analysis():
    class Silent:
        def memory_analysis(self):
            return None

    assert temp_bytes(Silent()) == 0
