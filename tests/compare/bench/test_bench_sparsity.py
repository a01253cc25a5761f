"""The benchmark of detection and coloring, on small subjects."""

import re
import sys

import pytest

from admodes import problems
from admodes.compare.bench import sparsity, suite
from admodes.compare.bench.sparsity import SUBJECTS, Case, Found, SparsityBenchmark, Subject, apart, ours
from admodes.compare.bench.suite import without_asdex

SMALL = {
    "band": Subject("collocation", {"n": 6}),
    "arrowhead": Subject("arrowhead", {"n": 9}, ("bidirectional",)),
    "hessian": Subject("minimal_surface", {"n": 3}, ("symmetric",)),
}


@pytest.mark.parametrize("name", SUBJECTS)
def test_subjects_are_problems(name):
    subject = SUBJECTS[name]
    assert set(subject.sizes) <= set(problems.get(subject.problem).sizes)


@pytest.mark.parametrize(("name", "kind"), [("band", "row"), ("arrowhead", "bidirectional"), ("hessian", "symmetric")])
def test_the_coloring_with_the_fewest_colors_counts(name, kind):
    found = ours(SMALL[name])
    assert found.kind == kind
    assert found.bound <= found.colors <= min(found.shape)


@pytest.mark.skipif(bool(without_asdex()), reason=without_asdex())
@pytest.mark.parametrize("name", SMALL)
def test_no_more_nonzeros_and_colors_than_asdex(name):
    found, theirs = ours(SMALL[name]), sparsity.theirs(SMALL[name])
    assert theirs.shape == found.shape
    assert found.nonzeros <= theirs.nonzeros
    assert found.colors <= theirs.colors


def test_memory_is_that_of_a_process_of_its_own():
    found = apart(ours, Subject("burgers", {"n": 200_000}))
    assert found.nonzeros == 3 * 200_000 - 2
    assert found.bytes > 200_000 * 3 * 4  # the column indices alone


def test_goals_and_table():
    mine = Found((10, 10), 28, 3, "column", 3, 2.0, 1.0, 10**9)
    theirs = Found((10, 10), 28, 4, "fwd", 0, 9.0, 1.0, 10**9)
    result = SparsityBenchmark((Case("line", mine, theirs), Case("other", mine, None)))
    figures = {goal.name: (goal.value, goal.met) for goal in result.goals()}
    assert figures["line, detection and coloring, s"] == (3.0, True)
    assert figures["colors / asdex, worst"] == (0.75, True)
    assert figures["nonzeros / asdex, worst"] == (1.0, True)
    assert "10 x 10" in str(result)


def test_a_run_without_asdex(monkeypatch):
    monkeypatch.setattr(sparsity, "without_asdex", lambda: "asdex is not here")
    monkeypatch.setattr(sparsity, "SUBJECTS", SMALL)
    lines = []
    result = sparsity.bench_sparsity(["arrowhead"], progress=lines.append)
    assert lines[0] == "asdex is not here: its columns stay empty"
    assert result.cases[0].asdex is None
    assert result.to_dict()["cases"][0]["admodes"]["colors"] == 3


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("", None),
        ("from jax.core import Gone", "asdex 9.8 does not import on jax .*Gone"),
        ("import jax; jax.gone", "asdex 9.8 does not import on jax .*gone"),
        ("import gone", "asdex 9.8 does not import on jax .*gone"),
    ],
)
def test_an_asdex_that_does_not_import_is_none(code, why, tmp_path, monkeypatch):
    (tmp_path / "asdex.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "asdex", raising=False)
    monkeypatch.setattr(suite, "version", lambda name: "9.8")
    found = suite.without_asdex.__wrapped__()
    monkeypatch.delitem(sys.modules, "asdex", raising=False)
    assert re.match(why, found) if why else not found


def test_a_missing_asdex_is_called_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "asdex", None)
    assert "pip install" in suite.without_asdex.__wrapped__()
