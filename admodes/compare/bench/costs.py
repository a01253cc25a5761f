"""``admodes bench costs``: the planner's predictions beside what its candidates take, on the suite of Jacobians."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from admodes import problems
from admodes.compare.bench.jacobians import SUBJECTS, Subject
from admodes.compare.bench.suite import Benchmark, Goal, failure_of
from admodes.compare.measure import interleave, keep_memory
from admodes.errors import AdmodesError
from admodes.planner.calls.request import request
from admodes.planner.choice.decision import Settings, compiled, decide
from admodes.text_tables import seconds

APART = 1.5  # candidates whose times differ by less may be predicted in any order
RUN_SECONDS = 3.0  # for the samples of a problem


@dataclass(frozen=True)
class Case:
    """A candidate for the Jacobian of a problem, in seconds."""

    name: str
    candidate: str = ""
    detail: str = ""
    predicted: float = math.nan
    measured: float = math.nan
    failure: str = ""


class CostsBenchmark(Benchmark):
    """Predictions and measurements of all candidates."""

    title = "Candidates of the planner"
    columns = ("jacobian", "candidate", "", "predicted", "measured", "predicted / measured")
    names = 3

    def goals(self) -> list[Goal]:
        """Of the pairs of candidates that differ by more than 1.5x, how many are predicted in the right order."""
        right = list(itertools.chain.from_iterable(self._ordered(name) for name in {c.name for c in self.measured}))
        if not right:
            return []
        return [Goal(f"pairs in the right order, of {len(right)} apart", statistics.mean(right), 0.9, at_least=True)]

    def _ordered(self, name: str) -> list[bool]:
        """For each pair of a problem's candidates that are apart, whether they are predicted in their order."""
        pairs = itertools.combinations((c for c in self.measured if c.name == name), 2)
        faster_first = (sorted(pair, key=lambda c: c.measured) for pair in pairs)
        return [a.predicted < b.predicted for a, b in faster_first if b.measured > APART * a.measured]

    def line(self, case: Case) -> list[str]:
        times = seconds(case.predicted), seconds(case.measured)
        return [case.name, case.candidate, case.detail, *times, f"{case.predicted / case.measured:.2f}"]


def run_cases(name: str, subject: Subject, *, dtype: str, rounds: int) -> list[Case]:
    """Predict and measure every candidate for one Jacobian; a case that says so if that fails."""
    fun, args = problems.get(subject.problem).make(dtype, **subject.sizes)
    call = request("bench costs", fun, 0, False, False).call(tuple(args), {})
    try:
        task = call.task()
        found = decide(task, Settings(form=subject.format)).candidates
        runs = {str(k): partial(compiled(task, c, subject.format), call.leaves) for k, c in enumerate(found)}
        samples = interleave(runs, rounds, RUN_SECONDS)
    except AdmodesError as failure:
        return [Case(name, failure=failure_of(failure))]
    return [
        Case(name, c.name, c.method.detail, c.seconds, statistics.median(samples[str(k)])) for k, c in enumerate(found)
    ]


def bench_costs(
    subjects: Iterable[str] = tuple(SUBJECTS),
    *,
    dtype: str = "float64",
    rounds: int = 10,
    progress: Callable[[str], None] = lambda line: None,
) -> CostsBenchmark:
    """Predict and measure the candidates for the named :data:`admodes.compare.bench.jacobians.SUBJECTS`.

    Predictions are those of the constants that ``admodes calibrate`` has measured, or of nominal ones.
    """
    keep_memory()
    cases = []
    for name in subjects:
        progress(name)
        cases += run_cases(name, SUBJECTS[name], dtype=dtype, rounds=rounds)
    return CostsBenchmark(tuple(cases))
