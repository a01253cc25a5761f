"""``admodes bench accuracy``: first and second derivatives over the whole range of a format, and JAX's."""

from __future__ import annotations

import functools
import importlib
import math
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import admodes
from admodes.compare import jax_ad
from admodes.compare.bench import Benchmark, Goal
from admodes.compare.exact import Function, functions
from admodes.tables import table

FORMATS = ("float16", "bfloat16", "float32", "float64")
ORDERS = ("first", "second")
FEW = 16.0  # units in the last place within which nobody is called worse


@functools.cache
def without_mpmath() -> str:
    """Why there is no truth to compare with; empty if there is."""
    try:
        importlib.import_module("mpmath")
    except ImportError:
        return "mpmath, which computes the exact values, is not installed: pip install 'admodes[bench]'"
    return ""


@dataclass(frozen=True)
class Errors:
    """Of one library: the largest and the median error in units in the last place where not lost, and the lost points.

    ``where`` is the point of the largest error, or the first one that is lost.
    """

    largest: float = 0.0
    median: float = 0.0
    lost: int = 0
    where: float = math.nan


@dataclass(frozen=True)
class Case:
    """A derivative of a function in a format."""

    function: str
    format: str
    order: str
    points: int = 0
    admodes: Errors = Errors()
    jax: Errors = Errors()
    failure: str = ""

    @property
    def name(self) -> str:
        return f"{self.function}, {self.order}, {self.format}"

    @property
    def worse(self) -> bool:
        """True if we lose more points than JAX, or are off by twice as much as JAX and by more than a few units."""
        ours, theirs = self.admodes, self.jax
        if ours.lost != theirs.lost:
            return ours.lost > theirs.lost
        return ours.largest > max(2 * theirs.largest, FEW)


class AccuracyBenchmark(Benchmark):
    """Errors of derivatives."""

    title = "Errors in units in the last place, over all formats; lost points"
    columns = ("function", "order", "points", "max", "median", "lost", "JAX: max", "median", "lost")
    names = 2

    def goals(self) -> list[Goal]:
        """No lost first derivatives, a tenth of JAX's lost second derivatives, nowhere worse than JAX."""
        if not self.measured:
            return []
        lost = {
            (order, who): sum(getattr(case, who).lost for case in self.measured if case.order == order)
            for order in ORDERS
            for who in ("admodes", "jax")
        }
        second = lost["second", "admodes"] / max(lost["second", "jax"], 1)
        worse = sum(case.worse for case in self.measured)
        return [
            Goal(f"lost first derivatives (JAX: {lost['first', 'jax']})", lost["first", "admodes"], 0),
            Goal(f"lost second derivatives / JAX's {lost['second', 'jax']}", second, 0.1),
            Goal(f"cases worse than JAX, of {len(self.measured)}", worse, 0),
        ]

    def rows(self) -> list[list[str]]:
        """A row for each function and order: the formats together."""
        keys = dict.fromkeys((case.function, case.order) for case in self.measured)
        found = []
        for function, order in keys:
            cases = [case for case in self.measured if (case.function, case.order) == (function, order)]
            cells = [function, order, str(sum(case.points for case in cases))]
            for who in ("admodes", "jax"):
                each = [getattr(case, who) for case in cases]
                lost = sum(e.lost for e in each)
                cells += [_short(max(e.largest for e in each)), _short(statistics.median(e.median for e in each))]
                cells.append(str(lost) if lost else "-")
            found.append(cells)
        return found

    def worst(self, who: str, number: int = 10) -> list[Case]:
        """The cases in which a library ("admodes" or "jax") loses most, then those of its largest errors."""
        rank = lambda case: (getattr(case, who).lost / max(case.points, 1), getattr(case, who).largest)
        return sorted(self.measured, key=rank, reverse=True)[:number]

    def tables(self) -> list[Any]:
        parts = super().tables()
        for who in ("jax", "admodes"):
            rows = [self._place(case, getattr(case, who)) for case in self.worst(who)]
            columns = ["function", "order", "format", "lost", "max", "at"]
            parts.append(table(f"The worst ten of {'JAX' if who == 'jax' else who}", columns, rows, left=3))
        worse = [case.name for case in self.measured if case.worse]
        return [*parts, *(f"worse than JAX: {name}" for name in worse)]

    def _place(self, case: Case, errors: Errors) -> list[str]:
        lost = f"{errors.lost} of {case.points}"
        return [case.function, case.order, case.format, lost, _short(errors.largest), f"{errors.where:.2g}"]


def _short(value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.1f}" if value < 100 else f"{value:.0e}"


def points(function: Function, dtype, each_sign: int = 48) -> np.ndarray:
    """Numbers of a format in the domain: log-spaced to its ends, even in [-12, 12], ever nearer to some points."""
    info = jnp.finfo(dtype)
    ends = math.log2(float(info.tiny)) + 1, math.log2(float(info.max)) - 1
    sizes = 2.0 ** np.linspace(*ends, each_sign)
    spaced = np.linspace(-12, 12, 49) + 0.137
    steps = 2.0 ** -np.arange(1, info.nmant + 1, max(info.nmant // 12, 1))
    found: list[Any] = [sizes, -sizes, spaced]
    for centre in function.around:
        found += [centre + steps, centre - steps]
    xs = np.unique(np.concatenate(found).astype(dtype).astype(np.float64))
    low, high = function.span
    inside = (xs > function.low) & (xs < function.high) & (np.abs(xs) >= max(low, 2 * float(info.tiny)))
    return xs[inside & (np.abs(xs) <= high) & np.isfinite(xs)]


def _derivatives(library, fun: Callable, x) -> tuple:
    """The value, and two derivatives in forward mode."""
    ones = jnp.ones_like(x)
    slope = lambda y: library.jvp(fun, (y,), (ones,))[1]
    return fun(x), *library.jvp(slope, (x,), (ones,))


def _errors(found, exact: list, xs, dtype, mp) -> Errors:
    info = jnp.finfo(dtype)
    half = mp.mpf(2) ** -((info.nmant + 1) / 2)
    errors, lost, where = [], 0, math.nan
    worst = -1.0
    for value, truth, x in zip(found, exact, xs, strict=True):
        off = abs(mp.mpf(float(value)) - truth) if math.isfinite(value) else mp.inf
        if off > half * abs(truth):
            where = float(x) if not lost else where
            lost += 1
            continue
        unit = mp.mpf(2) ** (int(mp.floor(mp.log(abs(truth), 2))) - info.nmant)
        errors.append(float(off / unit))
        if errors[-1] > worst and not lost:
            worst, where = errors[-1], float(x)
    if not errors:
        return Errors(math.nan, math.nan, lost, where)
    return Errors(max(errors), statistics.median(errors), lost, where)


def _exact(function: Function, x, mp) -> tuple:
    """The value and two derivatives; not a number at poles."""
    try:
        return function.exact(x)
    except (ValueError, ZeroDivisionError, OverflowError):
        return (mp.nan,) * 3


def run_cases(name: str, function: Function, dtype: str, mp) -> list[Case]:
    """Both orders of one function in one format; none if the function does not take it."""
    xs = points(function, jnp.dtype(dtype))
    try:
        jax.eval_shape(function.function, jax.ShapeDtypeStruct(xs.shape, dtype))
    except TypeError:
        return []
    info = jnp.finfo(dtype)
    ordinary = lambda v: mp.isfinite(v) and 2 * float(info.tiny) <= abs(v) <= float(info.max) / 2
    with mp.workdps(function.digits):
        exact = [_exact(function, mp.mpf(float(x)), mp) for x in xs]
        given = jnp.asarray(xs, dtype)
        both = {}
        for who, library in (("admodes", admodes), ("jax", jax_ad)):
            results = jax.jit(functools.partial(_derivatives, library, function.function))(given)
            both[who] = [np.asarray(r).astype(np.float64) for r in results]
        half = mp.mpf(2) ** -((info.nmant + 1) / 2)
        values = both["jax"][0]
        sound = [
            (t[0] == 0 and v == 0)
            or (ordinary(t[0]) and math.isfinite(v) and abs(mp.mpf(float(v)) - t[0]) <= half * abs(t[0]))
            for v, t in zip(values, exact, strict=True)
        ]
        cases = []
        for k, order in enumerate(ORDERS, 1):
            at = [i for i, t in enumerate(exact) if sound[i] and ordinary(t[k])]
            truth = [exact[i][k] for i in at]
            found = {who: _errors(results[k][at], truth, xs[at], dtype, mp) for who, results in both.items()}
            if at:
                cases.append(Case(name, dtype, order, len(at), found["admodes"], found["jax"]))
        return cases


def bench_accuracy(
    names: Iterable[str] | None = None,
    *,
    formats: Iterable[str] = FORMATS,
    progress: Callable[[str], None] = lambda line: None,
) -> AccuracyBenchmark:
    """Compare derivatives of elementwise functions with mpmath's, ours beside JAX's.

    A point counts where the derivative is an ordinary number of the format, and where XLA's value is not lost itself.
    It is lost if more than half of its digits are wrong. Without mpmath there are no cases.

    Args:
      names: of the functions (:func:`admodes.compare.exact.functions`); all by default.
      formats: of float16, bfloat16, float32, float64.
      progress: called with a line before each function.
    """
    if why := without_mpmath():
        progress(f"skipped: {why}")
        return AccuracyBenchmark(())
    mp = importlib.import_module("mpmath")
    known = functions(mp)
    cases = []
    with jax.enable_x64(True):
        for name in known if names is None else names:
            progress(name)
            for dtype in formats:
                cases += run_cases(name, known[name], dtype, mp)
    return AccuracyBenchmark(tuple(cases))
