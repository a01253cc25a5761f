"""``admodes bench modes``: what derivatives cost, as ratios to JAX's, measured side by side in one run."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

import admodes
from admodes.compare import jax_ad
from admodes.compare.bench.suite import Benchmark, Goal, failure_of
from admodes.compare.bench.workloads import WORKLOADS, Workload
from admodes.compare.check import errors
from admodes.compare.measure import interleave, keep_memory, measure, paired_ratio, size_ratio
from admodes.errors import AdmodesError
from admodes.text_tables import count, error, ratio, seconds

MODES = ("jvp", "vjp", "grad", "hvp")
TRACES = 9  # samples of trace time: cheap, and noisier than the others


# the largest median, and the largest single value, that a ratio should have
TARGETS = {
    "run": (1.05, 1.25),
    "memory": (1.05, 1.25),
    "trace": (1.5, 2.5),
    "compile": (1.2, math.inf),
    "eager": (3.0, 3.0),
}
STAGES = ("run", "memory", "trace", "lower", "compile", "eager")


@dataclass(frozen=True)
class Case:
    """One derivative of one workload: its own cost (seconds, bytes), and the ratios to JAX's."""

    workload: str
    mode: str
    seconds: dict[str, float] = field(default_factory=dict)
    temp_bytes: tuple[int, int] = (0, 0)
    ratios: dict[str, float] = field(default_factory=dict)
    error: float = float("nan")
    failure: str = ""

    @property
    def name(self) -> str:
        return f"{self.workload} {self.mode}"


class ModesBenchmark(Benchmark):
    """Derivatives side by side with JAX's."""

    title = "admodes / JAX (1.00: equal; below 1: admodes is cheaper)"
    columns = ("workload", "mode", *STAGES, "run time", "temp", "temp JAX", "rel. error")
    names = 2

    def goals(self) -> list[Goal]:
        """The median and the worst of each ratio."""
        found = []
        for name, (median, worst) in TARGETS.items():
            values = [case.ratios[name] for case in self.cases if name in case.ratios]
            if values:
                found.append(Goal(f"{name}, median", statistics.median(values), median))
                found.append(Goal(f"{name}, worst", max(values), worst))
        return [goal for goal in found if goal.target < math.inf]

    def line(self, case: Case) -> list[str]:
        ratios = [ratio(case.ratios.get(stage, math.nan)) for stage in STAGES]
        sizes = [count(size, "B") for size in case.temp_bytes]
        return [case.workload, case.mode, *ratios, seconds(case.seconds["run"]), *sizes, error(case.error)]


def derivative(library, mode: str, workload: Workload) -> tuple[Callable, tuple]:
    """The derivative ``mode`` of a workload by ``library`` (admodes or jax), and the arguments to call it with."""
    params, data = workload.params, workload.data
    rng = np.random.default_rng(0)

    def direction(like):
        shapes = jax.eval_shape(lambda: like)
        return jax.tree_util.tree_map(lambda a: rng.standard_normal(a.shape).astype(a.dtype), shapes)

    if mode == "jvp":
        return (
            lambda p, d, t: library.jvp(lambda q: workload.output(q, d), (p,), (t,)),
            (params, data, direction(params)),
        )
    if mode == "vjp":
        out = jax.eval_shape(workload.output, params, data)
        cotangent = rng.standard_normal(out.shape).astype(out.dtype)

        def pull(p, d, g):
            value, pullback = library.vjp(lambda q: workload.output(q, d), p)
            return value, pullback(g)

        return pull, (params, data, cotangent)
    if mode == "grad":
        return library.value_and_grad(workload.loss), (params, data)
    if mode == "hvp":
        gradient = library.grad(workload.loss)
        return (
            lambda p, d, v: library.jvp(lambda q: gradient(q, d), (p,), (v,)),
            (params, data, direction(params)),
        )
    raise ValueError(f"mode must be one of {', '.join(MODES)}, not {mode!r}")


def run_case(workload: Workload, mode: str, *, rounds: int, builds: int, eager_rounds: int) -> Case:
    """Measure one derivative of one workload by admodes and by JAX."""
    functions = {}
    for name, library in (("admodes", admodes), ("jax", jax_ad)):
        functions[name], args = derivative(library, mode, workload)
    args = jax.tree_util.tree_map(jax.numpy.asarray, args)
    try:
        both = measure(functions, args, rounds=rounds, builds=builds, traces=TRACES)
    except AdmodesError as failure:
        return Case(workload.name, mode, failure=failure_of(failure))
    ours, theirs = both["admodes"], both["jax"]
    stages = ("run", "trace", "lower", "compile")
    times = {stage: ours.seconds(stage) for stage in stages}
    ratios = {stage: paired_ratio(getattr(ours, stage), getattr(theirs, stage)) for stage in stages}
    ratios["memory"] = size_ratio(ours.temp_bytes, theirs.temp_bytes)
    if eager_rounds and mode in ("jvp", "grad"):
        eager = interleave({name: _bound(f, args) for name, f in functions.items()}, eager_rounds)
        times["eager"] = statistics.median(eager["admodes"])
        ratios["eager"] = paired_ratio(eager["admodes"], eager["jax"])
    _, relative = errors(ours.value, theirs.value)
    return Case(workload.name, mode, times, (ours.temp_bytes, theirs.temp_bytes), ratios, relative)


def _bound(function, args) -> Callable[[], Any]:
    return lambda: function(*args)


def bench_modes(
    workloads: Iterable[str] = tuple(WORKLOADS),
    modes: Iterable[str] = MODES,
    *,
    rounds: int = 30,
    builds: int = 3,
    eager_rounds: int = 5,
    progress: Callable[[str], None] = lambda line: None,
) -> ModesBenchmark:
    """Measure every mode on every workload.

    Args:
      workloads: names from :data:`~admodes.compare.bench.workloads.WORKLOADS`.
      modes: of ``jvp``, ``vjp``, ``grad``, ``hvp``.
      rounds: samples of the run time; every sample of admodes has one of JAX next to it.
      builds: samples of trace, lower and compile time.
      eager_rounds: samples without ``jit`` (jvp and grad only); 0 leaves them out.
      progress: called with a line before each case.
    """
    keep_memory()
    cases = []
    for name in workloads:
        workload = WORKLOADS[name]()
        for mode in modes:
            progress(f"{name} {mode}")
            cases.append(run_case(workload, mode, rounds=rounds, builds=builds, eager_rounds=eager_rounds))
    return ModesBenchmark(tuple(cases))
