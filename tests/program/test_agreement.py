"""Agreement between the processes of a run, here with a store that stands for the coordinator's."""

import ast
import itertools
from pathlib import Path

import numpy as np
import pytest

from admodes.linear.pattern import SparsityPattern
from admodes.planner.elimination.graph import ScalarGraph
from admodes.planner.elimination.search import search
from admodes.program import agreement
from admodes.program import jax_compat as jc
from admodes.sparse import coloring

ROOT = Path(agreement.__file__).parent.parent


class Store:
    def __init__(self):
        self.texts, self.is_first = {}, False

    def get(self, key, seconds=0.0):
        return self.texts.get(key)

    def offer(self, key, text):
        self.texts.setdefault(key, text)


@pytest.fixture
def store(monkeypatch):
    found = Store()
    monkeypatch.setattr(jc, "store", lambda: found)
    return found


def test_one_process_does_not_keep_what_it_says():
    numbers = itertools.count()
    assert [agreement.agreed(("x",), lambda: next(numbers)) for _ in range(3)] == [0, 1, 2]


def test_the_first_answer_holds_for_all(store):
    numbers = itertools.count()
    assert [agreement.agreed(("x",), lambda: next(numbers)) for _ in range(3)] == [0, 0, 0]
    assert agreement.agreed(("y",), lambda: {"a": 0.1 + 0.2}) == {"a": 0.1 + 0.2}
    assert next(numbers) == 1


def test_another_process_may_be_faster_with_its_answer(store):
    def slow():
        store.offer(next(iter(store.texts), key), "[1]")
        return [2]

    agreement.agreed(("x",), lambda: None)
    (key,) = store.texts
    store.texts.clear()
    assert agreement.agreed(("x",), slow) == [1]


def test_a_clock_counts_steps_where_several_processes_search(store):
    clock = agreement.Clock(lambda: pytest.fail("the time was asked for"))
    clock.worked(3e7)
    assert clock.now() == pytest.approx(3e7 * agreement.STEP)


def of_matrix(kind):
    rng = np.random.default_rng(0)
    rows, cols = rng.integers(200, size=1200), rng.integers(200, size=1200)
    if kind == "symmetric":
        rows, cols = np.concatenate([rows, cols]), np.concatenate([cols, rows])
    return lambda: coloring(SparsityPattern.build(rows, cols, (200, 200)), kind, budget=0.1)


def of_graph():
    rng = np.random.default_rng(1)
    edges = {(int(rng.integers(max(0, w - 12), min(w, 58))), w) for w in range(4, 60) for _ in range(3)}
    graph = ScalarGraph(60, (0, 1, 2, 3), (58, 59), tuple((u, w, None) for u, w in sorted(edges)))
    return lambda: search(graph, seconds=0.1)


@pytest.mark.parametrize("make", [*map(of_matrix, ("column", "row", "bidirectional", "symmetric")), of_graph()])
def test_searches_ask_only_the_clock(store, monkeypatch, make):
    timer = property(lambda clock: pytest.fail("the time was asked for"), set_nothing)
    monkeypatch.setattr(agreement.Clock, "timer", timer, raising=False)
    make()


def set_nothing(clock, timer):
    """(The timer of a clock that counts is of no use.)"""


MEASURING = {"program/agreement.py", "planner/cost/machine.py", "planner/cost/timings.py"}
MEASURING.add("planner/choice/trial.py")  # which several processes leave out
PLANNING = [
    p for part in ("program", "linear", "rules", "modes", "sparse", "planner") for p in (ROOT / part).rglob("*.py")
]


@pytest.mark.parametrize(
    "file", [p for p in PLANNING if str(p.relative_to(ROOT)) not in MEASURING], ids=lambda p: p.name
)
def test_nobody_else_asks_for_the_time(file):
    """What measures goes through ``agreed``; a search is given a ``Clock``."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        asked = (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
        )
        assert not (asked and node.func.value.id == "time"), f"{file.name}:{node.lineno}"
