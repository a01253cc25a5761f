"""``admodes bench modes``: what derivatives cost, as ratios to JAX's, measured side by side in one run."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import jax
import numpy as np

import admodes
from admodes.compare.check import errors
from admodes.compare.measure import interleave, measure, paired_ratio, size_ratio
from admodes.compare.workloads import WORKLOADS, Workload
from admodes.errors import AdmodesError

MODES = ("jvp", "vjp", "grad", "hvp")
TRACES = 9  # samples of trace time: cheap, and noisier than the others


@dataclass(frozen=True)
class Target:
    """The largest median, and the largest single value, that a ratio should have."""

    median: float
    worst: float


TARGETS = {
    "run": Target(1.05, 1.25),
    "memory": Target(1.05, 1.25),
    "trace": Target(1.5, 2.5),
    "lower": Target(float("inf"), float("inf")),
    "compile": Target(1.2, float("inf")),
    "eager": Target(3.0, 3.0),
}


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


@dataclass(frozen=True)
class Benchmark:
    """The cases, and how they compare with :data:`TARGETS`. ``str()`` is a table."""

    cases: tuple[Case, ...]

    def summary(self) -> dict[str, dict[str, float | bool]]:
        """For each ratio: the median, the worst, the targets, and whether both are met."""
        rows: dict[str, dict[str, float | bool]] = {}
        for name, target in TARGETS.items():
            values = [case.ratios[name] for case in self.cases if name in case.ratios]
            if values:
                median, worst = statistics.median(values), max(values)
                met = median <= target.median and worst <= target.worst
                rows[name] = {"median": median, "worst": worst, **_prefixed(target), "met": met}
        return rows

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain data for JSON."""
        about = {"admodes": admodes.__version__, "jax": jax.__version__, "device": jax.devices()[0].device_kind}
        return {**about, "summary": self.summary(), "cases": [asdict(case) for case in self.cases]}

    def __str__(self) -> str:
        from admodes.compare.report import benchmark_tables, plain

        return plain(*benchmark_tables(self))


def _prefixed(target: Target) -> dict[str, float]:
    return {f"target_{name}": value for name, value in asdict(target).items()}


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
    for name, library in (("admodes", admodes), ("jax", jax)):
        functions[name], args = derivative(library, mode, workload)
    args = jax.tree_util.tree_map(jax.numpy.asarray, args)
    try:
        both = measure(functions, args, rounds=rounds, builds=builds, traces=TRACES)
    except AdmodesError as failure:
        return Case(workload.name, mode, failure=f"{type(failure).__name__}: {failure}".splitlines()[0])
    ours, theirs = both["admodes"], both["jax"]
    stages = ("run", "trace", "lower", "compile")
    seconds = {stage: ours.seconds(stage) for stage in stages}
    ratios = {stage: paired_ratio(getattr(ours, stage), getattr(theirs, stage)) for stage in stages}
    ratios["memory"] = size_ratio(ours.temp_bytes, theirs.temp_bytes)
    if eager_rounds and mode in ("jvp", "grad"):
        eager = interleave({name: _bound(f, args) for name, f in functions.items()}, eager_rounds)
        seconds["eager"] = statistics.median(eager["admodes"])
        ratios["eager"] = paired_ratio(eager["admodes"], eager["jax"])
    _, relative = errors(ours.value, theirs.value)
    return Case(workload.name, mode, seconds, (ours.temp_bytes, theirs.temp_bytes), ratios, relative)


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
) -> Benchmark:
    """Measure every mode on every workload.

    Args:
      workloads: names from :data:`~admodes.compare.workloads.WORKLOADS`.
      modes: of ``jvp``, ``vjp``, ``grad``, ``hvp``.
      rounds: samples of the run time; every sample of admodes has one of JAX next to it.
      builds: samples of trace, lower and compile time.
      eager_rounds: samples without ``jit`` (jvp and grad only); 0 leaves them out.
      progress: called with a line before each case.
    """
    cases = []
    for name in workloads:
        workload = WORKLOADS[name]()
        for mode in modes:
            progress(f"{name} {mode}")
            cases.append(run_case(workload, mode, rounds=rounds, builds=builds, eager_rounds=eager_rounds))
    return Benchmark(tuple(cases))
