"""``admodes bench sparsity``: how long large patterns take to find and to color, and how many colors, beside asdex."""

from __future__ import annotations

import multiprocessing
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from admodes import problems
from admodes.compare.bench.suite import Benchmark, Goal, without_asdex
from admodes.sparse import coloring, hessian_sparsity, sparsity
from admodes.text_tables import count, seconds


@dataclass(frozen=True)
class Subject:
    """A problem at a large size, and the colorings of which the one with the fewest colors counts.

    ``symmetric`` colors the Hessian, the others the Jacobian.
    """

    problem: str
    sizes: Mapping[str, Any]
    kinds: tuple[str, ...] = ("column", "row")

    @property
    def symmetric(self) -> bool:
        return self.kinds == ("symmetric",)


SUBJECTS: dict[str, Subject] = {
    "line": Subject("burgers", {"n": 10**6}),
    "square": Subject("bratu", {"n": 1000}),
    "convolution": Subject("heat", {"n": 300}),
    "torus": Subject("brusselator", {"n": 300}),
    "network": Subject("power_network", {"buses": 3000}),
    "band": Subject("collocation", {"n": 20000}),
    "arrowhead": Subject("arrowhead", {"n": 20000}, ("bidirectional",)),
    "hessian": Subject("minimal_surface", {"n": 200}, ("symmetric",)),
}
LINE_SECONDS, LINE_BYTES = 5.0, 2e9


@dataclass(frozen=True)
class Found:
    """The findings of one library: shape, nonzeros, colors and of what, a lower bound (0: none given), seconds,
    bytes."""

    shape: tuple[int, int]
    nonzeros: int
    colors: int
    kind: str
    bound: int
    detect: float
    color: float
    bytes: int = 0


@dataclass(frozen=True)
class Case:
    """A pattern by admodes, and by asdex if there is one."""

    name: str
    admodes: Found
    asdex: Found | None
    failure: str = ""


def ours(subject: Subject) -> Found:
    """Detect and color by admodes."""
    fun, (x, *data) = problems.get(subject.problem).make(**subject.sizes)
    detect = hessian_sparsity if subject.symmetric else sparsity
    start = time.perf_counter()
    pattern = detect(fun, x, *data)
    detected = time.perf_counter()
    best = min((coloring(pattern, kind, shapes=[x.shape]) for kind in subject.kinds), key=lambda c: c.number)
    end = time.perf_counter()
    times = (detected - start, end - detected)
    return Found(pattern.shape, pattern.nnz, best.number, best.kind, best.lower_bound, *times)


def theirs(subject: Subject) -> Found:
    """Detect and color by asdex: by columns or by rows, as it likes (it has no bidirectional coloring)."""
    import asdex

    fun, args = problems.get(subject.problem).make(**subject.sizes)
    detect = asdex.hessian_sparsity if subject.symmetric else asdex.jacobian_sparsity
    start = time.perf_counter()
    pattern = detect(fun, *args)
    detected = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", asdex.DenseColoringWarning)
        if subject.symmetric:
            best = asdex.hessian_coloring_from_sparsity(pattern)
        else:
            best = asdex.jacobian_coloring_from_sparsity(pattern)
    end = time.perf_counter()
    return Found(pattern.shape, pattern.nnz, best.num_colors, best.mode, 0, detected - start, end - detected)


def _with_memory(work: Callable[[Subject], Found], subject: Subject) -> Found:
    """Run in a process of its own, whose peak memory is then that of the work; a small case first loads the code."""
    work(Subject("arrowhead", {"n": 8}))
    before = _peak_bytes()
    found = work(subject)
    return replace(found, bytes=_peak_bytes() - before)


def _peak_bytes() -> int:
    """The most memory that this process ever had."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux, where getrusage's figure is at least that of the process that started this one
        return 1024 * int(next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM")))
    from resource import RUSAGE_SELF, getrusage

    return getrusage(RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def apart(work: Callable[[Subject], Found], subject: Subject) -> Found:
    """``work(subject)`` in a new process, with the memory it took."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_with_memory, work, subject).result()


class SparsityBenchmark(Benchmark):
    """Patterns and colors beside asdex's."""

    title = "Sparsity patterns: detection, then coloring"
    columns = (
        *("pattern", "kind", "m x n", "nonzeros", "colors", "bound", "detect", "color", "memory"),
        *("asdex: nonzeros", "colors", "detect", "color", "memory"),
    )
    names = 2

    def goals(self) -> list[Goal]:
        """A million unknowns in seconds; nowhere more nonzeros or colors than asdex finds."""
        found = []
        for case in self.measured:
            if case.name == "line":
                mine = case.admodes
                found.append(Goal("line, detection and coloring, s", mine.detect + mine.color, LINE_SECONDS))
                found.append(Goal("line, memory, bytes", mine.bytes, LINE_BYTES))
        for figure in ("nonzeros", "colors"):
            ratios = [getattr(c.admodes, figure) / getattr(c.asdex, figure) for c in self.measured if c.asdex]
            if ratios:
                found.append(Goal(f"{figure} / asdex, worst", max(ratios), 1.0))
        return found

    def line(self, case: Case) -> list[str]:
        mine, others = case.admodes, case.asdex
        cells = [case.name, mine.kind, "{} x {}".format(*mine.shape), str(mine.nonzeros)]
        cells += [str(mine.colors), str(mine.bound), *_costs(mine)]
        return cells + (["-"] * 5 if others is None else [str(others.nonzeros), str(others.colors), *_costs(others)])


def _costs(found: Found) -> list[str]:
    return [seconds(found.detect), seconds(found.color), count(found.bytes, "B")]


def bench_sparsity(
    subjects: Iterable[str] = tuple(SUBJECTS), *, progress: Callable[[str], None] = lambda line: None
) -> SparsityBenchmark:
    """Detect and color the patterns of the named :data:`SUBJECTS`, once each, in processes of their own.

    ``progress`` is called with a line before each.
    """
    if why := without_asdex():
        progress(f"{why}: its columns stay empty")
    cases = []
    for name in subjects:
        progress(name)
        subject = SUBJECTS[name]
        mine = apart(ours, subject)
        others = None if without_asdex() else apart(theirs, subject)
        cases.append(Case(name, mine, others))
    return SparsityBenchmark(tuple(cases))
