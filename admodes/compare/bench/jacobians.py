"""``admodes bench jacobians``: planned Jacobians beside jax.jacfwd, jax.jacrev and asdex, measured in one run."""

from __future__ import annotations

import math
import statistics
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

import admodes
from admodes import problems
from admodes.compare import jax_ad
from admodes.compare.bench.suite import (
    Benchmark,
    Goal,
    failure_of,
    geometric_mean,
    without_asdex,
    worst,
)
from admodes.compare.check import errors
from admodes.compare.measure import Measurement, keep_memory, measure, paired_ratio, size_ratio
from admodes.errors import AdmodesError
from admodes.text_tables import count, error, ratio, seconds

FORMATS = ("dense", "bcoo")
PLAIN = ("jacfwd", "jacrev")
RUN_SECONDS = 6.0  # for the samples of a case: dense Jacobians by JAX may take a second each
TOLERANCE = {"float64": 1e-10, "float32": 1e-4}
PLAIN_WINS = 0.8  # a plan that runs longer than this share of the plain mode's time has not beaten it


@dataclass(frozen=True)
class Subject:
    """A problem at benchmark size, to differentiate in its first argument; ``structure`` is what a plan can gain by."""

    problem: str
    structure: str  # "dense", "cut", "sparse" or "batched"
    format: str = "dense"
    sizes: Mapping[str, Any] = field(default_factory=dict)


SUBJECTS: dict[str, Subject] = {
    "hourglass": Subject("hourglass", "cut", sizes={"widths": (800, 400, 8, 400, 800)}),
    "double_waist": Subject("double_waist", "cut", sizes={"widths": (400, 8, 300, 6, 400)}),
    "tall_net": Subject("dense_net", "dense", sizes={"widths": (16, 64, 512)}),
    "wide_net": Subject("dense_net", "dense", sizes={"widths": (512, 64, 16)}),
    "square_net": Subject("dense_net", "dense", sizes={"widths": (256, 256, 256)}),
    "ode": Subject("competition", "dense", sizes={"steps": 200}),
    "brusselator": Subject("brusselator", "sparse", "bcoo", {"n": 32}),
    "burgers": Subject("burgers", "sparse", "bcoo", {"n": 2000}),
    "arrowhead": Subject("arrowhead", "sparse", "bcoo", {"n": 3000}),
    "collocation": Subject("collocation", "sparse", "bcoo", {"n": 200}),
    "power_network": Subject("power_network", "sparse", "bcoo", {"buses": 500}),
    # not 64: XLA's convolution in float64 reads past the end of buffers of 2^k pages, which ends jax.jacfwd's process
    "heat": Subject("heat", "sparse", "bcoo", {"n": 60}),
    "per_example": Subject("per_example_net", "batched", sizes={"examples": 128, "widths": (16, 32, 8)}),
    "softmax_rows": Subject("softmax_rows", "batched", sizes={"rows": 64, "columns": 32}),
    "elementwise": Subject("elementwise", "batched", sizes={"n": 2000}),
}


@dataclass(frozen=True)
class Case:
    """One Jacobian: seconds of a run and of a first call, and temporary bytes, by contender; the error against JAX."""

    name: str
    structure: str = ""
    format: str = ""
    dtype: str = "float64"
    outputs: int = 0
    inputs: int = 0
    run: dict[str, float] = field(default_factory=dict)
    first_call: dict[str, float] = field(default_factory=dict)
    temp_bytes: dict[str, int] = field(default_factory=dict)
    ratios: dict[str, float] = field(default_factory=dict)
    error: float = float("nan")
    failure: str = ""

    @property
    def plain_wins(self) -> bool:
        return self.ratios["run / plain"] > PLAIN_WINS


class JacobiansBenchmark(Benchmark):
    """Planned Jacobians side by side with those of others."""

    title = "admodes / the fastest of the others (1.00: equal; below 1: admodes is cheaper)"
    others = (*PLAIN, "asdex")
    columns = (
        *("jacobian", "format", "m x n", "run", "memory", "first", "first / plain"),
        *("run time", *others),
        *("first call", *others),
        *("temp", "rel. error"),
    )
    names = 2

    def goals(self) -> list[Goal]:
        """The goals for the figures; those about asdex only if it was there."""
        found = [
            *_means("run, geometric mean", self.measured, "run", 0.4),
            *_worst("run, worst", self.measured, "run", 1.05),
            *_means(
                "run, sparse and batched without the arrowhead",
                [c for c in self.measured if c.structure in ("sparse", "batched") and c.name != "arrowhead"],
                "run",
                0.6,
            ),
            *_means("first call / asdex, geometric mean", self.measured, "first", 1.0),
            *_worst(
                "first call / plain mode, worst where that wins",
                [c for c in self.measured if c.plain_wins],
                "first / plain",
                1.5,
            ),
        ]
        for name, figure, target in (("hourglass", "run / plain", 20.0), ("arrowhead", "run", 100.0)):
            found += [
                Goal(f"{name}, times faster", 1.0 / c.ratios[figure], target, at_least=True)
                for c in self.measured
                if c.name == name
            ]
        if self.measured:
            tolerance = TOLERANCE[self.measured[0].dtype]
            found.append(Goal("relative error, worst", worst(c.error for c in self.measured), tolerance))
        return found

    def line(self, case: Case) -> list[str]:
        ratios = [ratio(case.ratios.get(k, math.nan)) for k in ("run", "memory", "first", "first / plain")]
        names = ("admodes", *self.others)
        times = [seconds(each.get(k, math.nan)) for each in (case.run, case.first_call) for k in names]
        shape = f"{case.outputs} x {case.inputs}"
        memory = count(case.temp_bytes["admodes"], "B")
        return [case.name, case.format, shape, *ratios, *times, memory, error(case.error)]


def _means(name: str, cases, figure: str, target: float) -> list[Goal]:
    values = [case.ratios[figure] for case in cases if figure in case.ratios]
    return [Goal(name, geometric_mean(values), target)] if values else []


def _worst(name: str, cases, figure: str, target: float) -> list[Goal]:
    values = [case.ratios[figure] for case in cases if figure in case.ratios]
    return [Goal(name, worst(values), target)] if values else []


def contenders(fun: Callable, args, format: Any) -> dict[str, Callable[[], Callable]]:
    """By name, what makes a function of ``args`` that returns the Jacobian; to make it is part of a first call."""
    makers: dict[str, Callable[[], Callable]] = {
        "admodes": lambda: admodes.jacobian(_anew(fun), format=format),
        "jacfwd": lambda: jax_ad.jacfwd(_anew(fun)),
        "jacrev": lambda: jax_ad.jacrev(_anew(fun)),
    }
    if not without_asdex():
        import asdex

        makers["asdex"] = lambda: asdex.jacobian(_anew(fun), *args, output_format=format)
    return makers


def _anew(fun: Callable) -> Callable:
    """The same function, which no cache knows."""
    return lambda *args: fun(*args)


def run_case(name: str, subject: Subject, *, format: str | None, dtype: str, rounds: int, builds: int) -> Case:
    """Measure one Jacobian by all contenders."""
    problem = problems.get(subject.problem)
    fun, args = problem.make(dtype, **subject.sizes)
    format = format or subject.format
    makers = contenders(fun, args, format)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="asdex")  # that a coloring is no use; it is part of what is compared
        try:
            found = measure(
                {who: make() for who, make in makers.items()},
                args,
                rounds=rounds,
                builds=1,
                traces=1,
                run_seconds=RUN_SECONDS,
            )
        except AdmodesError as failure:
            return Case(name, failure=failure_of(failure))
        run = {who: each.seconds("run") for who, each in found.items()}
        plain = min(PLAIN, key=run.__getitem__)
        first = _first_calls({who: makers[who] for who in makers if who not in PLAIN or who == plain}, args, builds)
    expected = found[plain].value
    columns, rows = (_count(tree) for tree in (args[0], jax.eval_shape(fun, *args)))
    return Case(
        name,
        subject.structure,
        format,
        dtype,
        rows,
        columns,
        run,
        {who: statistics.median(samples) for who, samples in first.items()},
        {who: each.temp_bytes for who, each in found.items()},
        _ratios(found, first, run, plain),
        errors(_dense(found["admodes"].value, expected), expected)[1],
    )


def _ratios(found: Mapping[str, Measurement], first, run, plain: str) -> dict[str, float]:
    """Ours over those of the fastest other, and over those of the plain mode."""
    best = min((who for who in run if who != "admodes"), key=run.__getitem__)
    ours = found["admodes"]
    ratios = {
        "run": paired_ratio(ours.run, found[best].run),
        "run / plain": paired_ratio(ours.run, found[plain].run),
        "memory": size_ratio(ours.temp_bytes, found[best].temp_bytes),
        "first / plain": paired_ratio(first["admodes"], first[plain]),
    }
    if "asdex" in first:
        ratios["first"] = paired_ratio(first["admodes"], first["asdex"])
    return ratios


def _first_calls(makers: Mapping[str, Callable[[], Callable]], args, samples: int) -> dict[str, list[float]]:
    """Seconds until the first Jacobian is there: detection, coloring, planning, tracing, compiling and a run."""
    times: dict[str, list[float]] = {who: [] for who in makers}
    for k in range(samples):
        for who in list(makers)[:: 1 if k % 2 == 0 else -1]:
            start = time.perf_counter()
            jax.block_until_ready(jax.jit(makers[who]())(*args))
            times[who].append(time.perf_counter() - start)
    return times


def _count(tree) -> int:
    return sum(math.prod(x.shape) for x in jax.tree_util.tree_leaves(tree))


def _dense(value, expected):
    """Arrays of the shapes of ``expected``, from sparse ones (of any number of batch axes) where they are sparse."""
    leaves = jax.tree_util.tree_leaves(value, is_leaf=lambda x: hasattr(x, "todense"))
    arrays = [x.todense() if hasattr(x, "todense") else x for x in leaves]
    wanted, tree = jax.tree_util.tree_flatten(expected)
    shaped = [np.reshape(a, np.shape(e)) for a, e in zip(arrays, wanted, strict=True)]
    return jax.tree_util.tree_unflatten(tree, shaped)


def bench_jacobians(
    subjects: Iterable[str] = tuple(SUBJECTS),
    *,
    format: str | None = None,
    dtype: str = "float64",
    rounds: int = 40,
    builds: int = 3,
    progress: Callable[[str], None] = lambda line: None,
) -> JacobiansBenchmark:
    """Measure the Jacobians of the named subjects, by all contenders.

    Args:
      subjects: names from :data:`SUBJECTS`.
      format: ``"dense"`` or ``"bcoo"`` for all; by default each in its own. JAX knows dense ones only.
      dtype: ``"float64"`` (64-bit types must be switched on) or ``"float32"``.
      rounds: samples of the run time; every sample of one contender has one of each other next to it.
      builds: samples of the time of a first call.
      progress: called with a line before each case.
    """
    if why := without_asdex():
        progress(f"{why}: its columns stay empty")
    keep_memory()
    cases = []
    for name in subjects:
        progress(name)
        cases.append(run_case(name, SUBJECTS[name], format=format, dtype=dtype, rounds=rounds, builds=builds))
    return JacobiansBenchmark(tuple(cases))
