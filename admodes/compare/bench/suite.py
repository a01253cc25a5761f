"""The common part of all benchmarks: cases that were measured in one run, goals that they meet or miss, and both as
tables."""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any, ClassVar

import jax

import admodes
from admodes.text_tables import plain, table


@functools.cache
def without_asdex() -> str:
    """Why there is no asdex, the other library of sparse Jacobians, to compare with; empty if there is."""
    try:
        importlib.import_module("asdex")
    except (ImportError, AttributeError) as error:  # it uses internals of JAX, which not every version has
        if getattr(error, "name", None) == "asdex":
            return "asdex is not installed (pip install 'admodes[bench]')"
        return f"asdex {version('asdex')} does not import on jax {jax.__version__}: {error}"
    return ""


def failure_of(error: Exception) -> str:
    """The ``failure`` of a case: an error in one line."""
    return f"{type(error).__name__}: {error}".splitlines()[0]


def worst(values: Iterable[float]) -> float:
    """The largest, where one that is not known is as bad as it can be.

    >>> worst([1.0, 3.0]), worst([1.0, math.nan]), worst([math.nan, 1.0])
    (3.0, inf, inf)
    """
    return max(math.inf if math.isnan(value) else value for value in values)


@dataclass(frozen=True)
class Goal:
    """A figure that should be at most (or, ``at_least``, at least) ``target``."""

    name: str
    value: float
    target: float
    at_least: bool = False

    @property
    def met(self) -> bool:
        return self.value >= self.target if self.at_least else self.value <= self.target

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "met": self.met}


@dataclass(frozen=True)
class Benchmark:
    """The cases of a benchmark. ``str()`` is a table of them and one of the goals."""

    cases: tuple[Any, ...]

    title: ClassVar[str]
    columns: ClassVar[Sequence[str]]
    names: ClassVar[int] = 1  # how many columns, from the left, are text

    @property
    def measured(self) -> tuple[Any, ...]:
        """The cases that did not fail."""
        return tuple(case for case in self.cases if not case.failure)

    def goals(self) -> list[Goal]:
        """The figures over all cases that have a target."""
        raise NotImplementedError

    def line(self, case) -> list[str]:
        """A case as a line of the table, an entry for each of ``columns``."""
        raise NotImplementedError

    def rows(self) -> list[list[str]]:
        """The lines of the table: one for each case that did not fail."""
        return [self.line(case) for case in self.measured]

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain data for JSON."""
        about = {"admodes": admodes.__version__, "jax": jax.__version__, "device": jax.devices()[0].device_kind}
        goals = [goal.to_dict() for goal in self.goals()]
        return {**about, "goals": goals, "cases": [asdict(case) for case in self.cases]}

    def tables(self) -> list[Any]:
        """The table of the cases, that of the goals, and a line for each failure."""
        parts = [table(self.title, list(self.columns), self.rows(), left=self.names)]
        goals = [[g.name, f"{g.value:.3g}", _bound(g), "yes" if g.met else "NO"] for g in self.goals()]
        if goals:
            parts.append(table("Goals", ["", "measured", "goal", "met"], goals))
        return parts + [f"{case.name}: {case.failure}" for case in self.cases if case.failure]

    def __str__(self) -> str:
        return plain(*self.tables())


def _bound(goal: Goal) -> str:
    return f"{'≥' if goal.at_least else '≤'} {goal.target:g}"


def geometric_mean(values: Sequence[float]) -> float:
    """exp of the mean of the logarithms.

    >>> geometric_mean([0.5, 2.0])
    1.0
    """
    return math.exp(math.fsum(map(math.log, values)) / len(values))
