"""The candidates: every way to a Jacobian that is worth costing for a task, with what each is expected to cost."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np

from admodes.errors import PlanningError
from admodes.linear.pattern import SparsityPattern
from admodes.planner.cost.machine import Machine
from admodes.planner.cost.work import Work, conversion, work
from admodes.planner.matrices import LARGEST, Dense, Nonzeros
from admodes.planner.sweeps.batched_sweep import evaluate_once
from admodes.planner.task import REFUSALS, Task
from admodes.planner.ways.accumulation import Accumulation, TooLarge, accumulation
from admodes.planner.ways.block_diagonal import blocked
from admodes.planner.ways.chain_of_cuts import chained
from admodes.planner.ways.matrix_product import matrix_product
from admodes.planner.ways.network import whole_arrays
from admodes.planner.ways.seeded import compressed, forward, reverse
from admodes.program import jax_compat as jc
from admodes.program.derived import keep
from admodes.program.ir import Program
from admodes.sparse.coloring import coloring
from admodes.sparse.orders import ORDERS
from admodes.text_tables import WIDTH, clipped, plural, seconds

# Seconds that a coloring is improved. Chosen. Four times less may leave a few colors too many, each one more product;
# more is spent at each first call.
COLORING_SECONDS = 0.1
# Columns: a coloring of fewer is found within a few hundredths of a second, and improved only where that may pay.
# Chosen. If it is too large, first calls take longer; if too small, a few colors are lost.
SMALL = 2**12
# From this part of nonzeros on a pattern is not worth compressing, nor accumulating entry by entry. Chosen: at one
# half a coloring saves less than half of the products. Four times less would lose colorings that save.
DENSE = 0.5
# Products of an accumulation at most. Chosen: index lists of tens of MB. Four times more take that much more memory
# and time to plan; with four times fewer a large sparse Jacobian is left to colorings.
PRODUCTS = 4_000_000
# Time that an accumulation of a full Jacobian may take, in that of the fastest other way, both as predicted. Chosen: a
# prediction may be three times off. More is planned for nothing; less loses what was predicted badly.
LONGER = 3.0
# Nonzeros of local Jacobians: beyond, an elimination order is not searched in seconds. Chosen. Four times more leave
# the search fewer moves for each of them.
MOST_NUMBERS = 4000
# Seconds of the search for an order, if multiplications are what counts. Chosen. Less may leave multiplications that
# a longer search would save.
SEARCH_SECONDS = 4.0
LOOPS = (jc.scan_p, jc.while_p)


class Method(Protocol):
    """A way to a Jacobian. ``tables`` are the index arrays that it takes at run time, as an argument."""

    @property
    def name(self) -> str: ...

    @property
    def detail(self) -> str: ...

    @property
    def passes(self) -> int: ...

    @property
    def pattern(self) -> SparsityPattern | None: ...

    @property
    def tables(self) -> Any: ...

    def work(self, task: Task) -> Work: ...

    def jacobian(self, task: Task, tables: Any, args: Any) -> tuple[list[Any], Dense | Nonzeros]: ...


@dataclass(frozen=True, eq=False, repr=False)
class Candidate:
    """A method, what it is expected to cost, and what it was measured to cost (NaN: not measured).

    ``seconds`` and ``temp_bytes`` are predictions for one call.
    """

    method: Method
    work: Work
    seconds: float
    temp_bytes: float
    multiplications: float
    measured_s: float = math.nan
    measured_bytes: float = math.nan

    @property
    def name(self) -> str:
        return self.method.name

    def __repr__(self) -> str:
        measured = "" if math.isnan(self.measured_s) else f", {seconds(self.measured_s)} measured"
        costs = f"{plural(self.method.passes, 'pass', 'passes')}, {seconds(self.seconds)} predicted{measured}"
        room = WIDTH - len(costs) - len("  best: Candidate(; )")  # so that it is a line of the plan's
        return f"Candidate({clipped(f'{self.name}: {self.method.detail}', room)}; {costs})"

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "name": self.name,
            "detail": self.method.detail,
            "passes": self.method.passes,
            "multiplications": self.multiplications,
            "flops": self.work.flops,
            "bytes": self.work.bytes,
            "predicted_s": self.seconds,
            "measured_s": self.measured_s,
            "predicted_temp_bytes": self.temp_bytes,
            "measured_temp_bytes": self.measured_bytes,
        }


@dataclass(frozen=True)
class Refusal:
    """A way to the Jacobian that the function itself rules out: a derivative rule in it raised this error.

    A rule of the user's may be for one mode only (a function may be differentiable in reverse mode and refuse the
    forward one), so that one candidate cannot be built where another can.
    """

    name: str
    error: Exception

    @property
    def reason(self) -> str:
        """The first line of the error, and its class."""
        lines = str(self.error).strip().splitlines()
        return f"{type(self.error).__name__}: {lines[0] if lines else 'no message'}"


def candidate(method: Method, task: Task, machine: Machine, form: str) -> Candidate:
    """Predict what a method costs, the writing of the result in the form that is wanted included."""
    done = method.work(task)
    if form == "dense" and method.pattern is not None:
        done += conversion((task.m, task.n), method.pattern.nnz, task.dtype)
    counted = getattr(method, "multiplications", done.multiplications)
    return Candidate(method, done, machine.seconds(done), done.peak, counted)


def candidates(
    task: Task,
    machine: Machine,
    form: str,
    options: dict,
    objective: str = "time",
    whole: bool = True,
    refused: list[Refusal] | None = None,
) -> Iterator[Candidate]:
    """The candidates for a task: plain modes always, the others where the structure of the Jacobian offers them.

    A candidate that a derivative rule in the function refuses is left out, and enters the list ``refused``.

    For the objective ``"time"`` colorings are improved only where that might make them the fastest; for
    ``"multiplications"`` an elimination order is searched, which takes seconds. Networks of arrays are taken as a
    ``whole``, not in parts.
    """
    least = math.inf
    refused = [] if refused is None else refused

    def cost(method: Method) -> Candidate:
        nonlocal least
        found = candidate(method, task, machine, form)
        least = min(least, found.seconds)
        return found

    def offered(name: str, make: Callable[[], Candidate | None]) -> Iterator[Candidate]:
        try:
            found = make()
        except REFUSALS as error:
            refused.append(Refusal(name, error))
        else:
            if found is not None:
                yield found

    def costed(method: Method | None) -> Candidate | None:
        return None if method is None else cost(method)

    def accumulated(make: Callable[[], Accumulated]) -> Candidate | None:
        try:
            return cost(make())
        except (TooLarge, PlanningError):  # no small program, too large, or complex
            return None

    def colored(kind: str) -> Candidate:
        if objective == "time" and kind in ("column", "row") and max(pattern.shape) < SMALL:
            colors = coloring(pattern, kind, order=ORDERS, budget=COLORING_SECONDS / 5)
            quick = cost(compressed(colors, **options))
            if colors.optimal or quick.seconds * colors.lower_bound > least * colors.number:
                return quick
        return cost(compressed(coloring(pattern, kind, budget=COLORING_SECONDS, shapes=grids(task, kind)), **options))

    forwards = offered("forward", lambda: cost(forward(task, **options)))
    reversed_ = offered("reverse", lambda: cost(reverse(task, **options)))
    if task.is_varying:
        yield from forwards if task.symmetric else reversed_
        return
    if form != "compressed":
        yield from forwards
        if task.rows_allowed:
            yield from reversed_
        if objective == "time" and jc.mentions({"jaxpr": task.closed}, LOOPS):  # storing may cost more than it saves
            yield from offered("forward", lambda: cost(forward(task, as_written=True, **options)))
            if task.rows_allowed:
                yield from offered("reverse", lambda: cost(reverse(task, as_written=True, **options)))
        if objective in ("multiplications", "flops") and task.is_real:
            yield from offered("elimination", lambda: accumulated(lambda: Accumulated(searched(task), "elimination")))
        if form == "dense" and (min(task.n, task.m) <= 1 or task.is_laid_out):
            return  # one pass is enough, or other ways would lose the layout
        if options.get("mesh") is None and not task.is_laid_out:
            yield from offered("matrix product", lambda: costed(matrix_product(task)))
    pattern = task.pattern
    sparse = pattern.nnz < DENSE * task.n * task.m and (form != "dense" or task.n * task.m <= LARGEST)
    # only products with seeds will do
    alone = form == "compressed" or options.get("mesh") is not None or task.is_laid_out
    if sparse and not alone:
        yield from offered("blocks", lambda: costed(blocked(task, machine)))
        yield from offered("accumulation", lambda: accumulated(lambda: nonzeros(task, PRODUCTS)))
    elif not alone:
        yield from offered("cuts", lambda: costed(chained(task, machine, lambda part: best(part, machine))))
        if whole:
            yield from offered("network", lambda: costed(whole_arrays(task, objective)))
        # local Jacobians may be sparse though their product is full
        if objective == "time" and (form != "dense" or task.n * task.m <= LARGEST):
            most = min(PRODUCTS, int(LONGER * least / machine.gathered))
            yield from offered("accumulation", lambda: accumulated(lambda: nonzeros(task, most)))
    if sparse or form == "compressed":
        for kind in kinds(task):
            yield from offered(f"{kind} coloring", partial(colored, kind))


def kinds(task: Task) -> list[str]:
    """The colorings worth trying: of both sides at once only if neither side's longest row or column is short."""
    pattern = task.pattern
    wide = int(pattern.row_counts.max(initial=0))
    tall = int(np.bincount(pattern.cols, minlength=1).max(initial=0))
    found = ["symmetric"] if task.symmetric else []
    found.append("column")
    if task.rows_allowed:
        found.append("row")
        if min(wide, tall) > 4 * max(1, math.ceil(pattern.nnz / max(1, *pattern.shape))):
            found.append("bidirectional")
    return found


def grids(task: Task, kind: str) -> tuple:
    """The shapes of the arrays that the columns (rows) number, as hints for stencils."""
    avals = task.out_avals if kind == "row" else task.in_avals
    return tuple({a.shape for a in avals if len(a.shape) > 1})


def best(task: Task, machine: Machine, form: str = "dense") -> Candidate:
    """The candidate of the least predicted time for a part of a chain."""
    refused: list[Refusal] = []
    found = list(candidates(task, machine, form, {}, whole=False, refused=refused))
    if not found:
        raise refused[0].error
    return min(found, key=lambda c: c.seconds)


@dataclass(frozen=True, eq=False)
class Accumulated:
    """The nonzeros by products and sums of the nonzeros of the local Jacobians, worked out as static index lists."""

    accumulation: Accumulation
    name: str = "accumulation"
    passes: int = 0

    @property
    def pattern(self) -> SparsityPattern:
        return self.accumulation.pattern

    @property
    def multiplications(self) -> int:
        return self.accumulation.multiplications

    @property
    def detail(self) -> str:
        a = self.accumulation
        if a.search is not None:
            proof = "optimal" if a.search.optimal else f"at least {a.search.lower_bound}"
            return f"{a.multiplications} products ({proof}), order by {a.search.method}"
        return f"{a.multiplications} products, {a.additions} sums, {a.constants} constant entries"

    @property
    def tables(self) -> Any:
        return self.accumulation.tables

    def work(self, task: Task) -> Work:
        a = self.accumulation
        local = a.local.closed  # values and local partials, with the operations on these
        once = work(local, (False,) * len(local.in_avals), 1)
        terms = float(a.multiplications + a.additions - a.local.multiplications - a.local.additions)
        return once + Work(gathered=terms, elements=float(a.pattern.nnz), kernels=1.0 + 2 * a.levels)

    def jacobian(self, task: Task, tables, args) -> tuple[list, Nonzeros]:
        outs, values = self.accumulation(rows_only(task), tables, args, task.outputs_unread)
        if not all(task.differentiated):
            outs = evaluate_once(task.program, args)
        return outs, Nonzeros(values)


def nonzeros(task: Task, most: int) -> Accumulated:
    """The accumulation array by array, of so many products at most."""
    return Accumulated(accumulation(rows_only(task), task.active, most_products=most))


def searched(task: Task) -> Accumulation:
    """The accumulation number by number, in the order of the fewest multiplications that is found in some seconds."""
    most = MOST_NUMBERS
    return accumulation(rows_only(task), task.active, most_products=most, order="scalar", seconds=SEARCH_SECONDS)


def rows_only(task: Task) -> Program:
    """The program without the outputs that have no rows."""
    return dataclasses.replace(task.program, outputs=tuple(keep(task.differentiated, task.program.outputs)))
