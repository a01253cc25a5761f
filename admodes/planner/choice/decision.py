r"""Plans: the cheapest way to one Jacobian, what the others would cost, and why it was chosen.

All candidates (:mod:`admodes.planner.choice.candidates`) are costed by one model of the machine; the plain modes are
always among them, so that a plan is no worse than the better of plain forward and plain reverse mode as far as the
model goes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax
import numpy as np

from admodes.errors import PlanningError
from admodes.linear.pattern import SparsityPattern
from admodes.planner.choice import trial
from admodes.planner.choice.candidates import Candidate, Refusal, candidate, candidates
from admodes.planner.cost.machine import Machine, machine
from admodes.planner.cost.timings import recall, remember, seconds_of
from admodes.planner.matrices import Inside, places, positions
from admodes.planner.task import Task
from admodes.planner.ways.checkpointed import LEAST_SAVED, checkpointed
from admodes.planner.ways.seeded import Seeded
from admodes.planner.ways.seeded import compressed as seeded
from admodes.program import agreement
from admodes.program import jax_compat as jc
from admodes.program.kept import Kept
from admodes.sparse.coloring import Coloring
from admodes.text_tables import clipped, count, plural

OBJECTIVES: dict[str, Callable[[Candidate], float]] = {
    "time": lambda c: c.seconds if math.isnan(c.measured_s) else c.measured_s,
    "flops": lambda c: c.work.flops,
    "memory": lambda c: c.temp_bytes if math.isnan(c.measured_bytes) else c.measured_bytes,
    "multiplications": lambda c: c.multiplications,
}
# Bytes of temporary memory from which on keeping less of the tape is considered: unasked, and for the objective
# "memory". Chosen. If they are too small, planning costs more than it saves; if too large, some memory is kept.
LARGE, SMALL = 2**26, 2**16
# Candidates that `measure=True` times. Chosen. Each more costs a compilation; one alone would measure nothing but the
# prediction.
MEASURED = 3
# Decisions, and compiled runs, that are kept. Chosen. With four times fewer, a program with more kinds of Jacobians
# plans anew; with more, the programs take memory.
MOST_PLANS = 64


@dataclass(frozen=True)
class Settings:
    """The wishes for a plan: the fields are the arguments of :func:`admodes.plan`."""

    objective: str = "time"
    memory_limit: int | None = None
    measure: bool | None = None
    chunk_size: int | None = None
    mesh: Any = None
    form: str = "dense"
    pattern: SparsityPattern | None = None
    coloring: Coloring | None = None
    triangle: str | None = None

    def __post_init__(self):
        if self.triangle not in (None, "lower"):
            raise ValueError(f"triangle must be 'lower' or None, got {self.triangle!r}")
        if self.triangle is not None and self.form not in ("bcoo", "scipy"):
            raise ValueError(f"triangle='lower' is for the formats 'bcoo' and 'scipy', not for {self.form!r}")
        if self.objective not in tuple(OBJECTIVES):
            raise ValueError(f"objective must be one of {', '.join(OBJECTIVES)}, got {self.objective!r}")

    def at(self, leaves: Sequence[Any] | None) -> Settings:
        """For these arguments: if they are spread over the devices of a mesh, seeds are split over these."""
        mesh = None if self.mesh is not None or not leaves or jax.device_count() == 1 else _mesh_of(leaves)
        return self if mesh is None else dataclasses.replace(self, mesh=mesh)

    @property
    def options(self) -> dict[str, Any]:
        """The options with which methods that take seeds are made."""
        return {"chunk": self.chunk_size, "mesh": self.mesh}


@dataclass(frozen=True, eq=False, repr=False)
class Decision:
    """The candidates for a task, the best first, by the objective of ``settings``; ``pattern`` if one was needed.

    ``refused`` are those that a derivative rule in the function ruled out.
    """

    fingerprint: str
    n: int
    m: int
    pattern: SparsityPattern | None
    settings: Settings
    machine: Machine
    candidates: tuple[Candidate, ...]
    refused: tuple[Refusal, ...] = ()

    @property
    def best(self) -> Candidate:
        return self.candidates[0]

    @property
    def given(self) -> SparsityPattern | None:
        """The pattern that was given, by itself or with a coloring."""
        chosen = self.settings
        return chosen.pattern if chosen.coloring is None else chosen.coloring.pattern

    @property
    def heading(self) -> str:
        """The shape of the Jacobian, its nonzeros if they are known, and what was made small."""
        filled = f", {self.pattern.nnz} nonzeros" if self.pattern is not None else ""
        return f"{self.m} x {self.n}{filled}; objective: {self.settings.objective}"

    def __repr__(self) -> str:
        return clipped(f"Decision({self.heading}; {self.best.name} of {plural(len(self.candidates), 'candidate')})")


def _mesh_of(leaves: Sequence) -> jax.sharding.Mesh | None:
    """The mesh that JAX spreads one of the arrays over by itself; None if types say how (explicit axes)."""
    for x in leaves:
        sharding = getattr(x, "sharding", None)
        if isinstance(sharding, jax.sharding.NamedSharding) and not sharding.is_fully_replicated:
            mesh = sharding.mesh
            automatic = all(kind == jax.sharding.AxisType.Auto for kind in mesh.axis_types)
            return mesh if automatic and isinstance(mesh, jax.sharding.Mesh) else None
    return None


_DECISIONS: Kept[Decision] = Kept(MOST_PLANS)


def decide(task: Task, settings: Settings, leaves: Sequence | None = None) -> Decision:
    """The decision for a task: one that was made before for such a task, or a new one.

    ``leaves`` are arguments to measure with; without them, or while a function is traced, no time is measured, but what
    was measured before is used. Unless ``measure`` is False, candidates that are predicted to be close are timed.
    """
    constants = machine()
    key = (task.key, settings, constants)
    known = _DECISIONS.find(key)
    if known is not None:
        return known
    if settings.measure is not False and (leaves is None or jc.is_tracing()):
        return decide(task, dataclasses.replace(settings, measure=False))
    if settings.memory_limit is not None and leaves is None:
        if task.has_unknown_constants:
            raise PlanningError(
                "a memory limit is met by compiling, but the function closes over values that are being traced (by jit "
                "or vmap around it): make them arguments of the function."
            )
        leaves = list(map(jc.placed, task.closed.in_avals))  # enough to compile
    refused: list[Refusal] = []
    if settings.coloring is None:
        found = list(candidates(task, constants, settings.form, settings.options, settings.objective, refused=refused))
    else:
        found = [candidate(seeded(settings.coloring, **settings.options), task, constants, settings.form)]
    if not found:
        raise refused[0].error
    plain = found
    found = [*plain, *_checkpointed(plain, task, constants, settings)]
    seconds = {} if settings.measure else recall(task.fingerprint, settings.form)
    found = [dataclasses.replace(c, measured_s=seconds.get(label(c), c.measured_s)) for c in found]
    amount = OBJECTIVES[settings.objective]
    unknown = lambda c: settings.objective == "time" and bool(seconds) and math.isnan(c.measured_s)
    found.sort(key=lambda c: (unknown(c), amount(c), c.seconds))
    others: list[Candidate] = []
    if settings.memory_limit is not None:
        tried = {label(c) for c in found}
        found, others = _within(found, task, settings, constants, leaves)
        if not found:  # whatever the model says of memory: it is only measured that counts
            rest = [c for c in _checkpointed(plain, task, constants, settings, every=True) if label(c) not in tried]
            found, more = _within(rest, task, settings, constants, leaves)
            others += more
        if not found:
            raise _nothing_fits(others, task, settings)
    if settings.measure:
        assert leaves is not None
        found = _measured(found, task, settings, leaves)
    elif settings.measure is None and (settings.objective, settings.memory_limit, settings.mesh) == (
        "time",
        None,
        None,
    ):
        found = _tried(found, task, settings, leaves)
    ranked = (*found, *others)
    pattern = task.known_pattern
    decision = Decision(task.fingerprint, task.n, task.m, pattern, settings, constants, ranked, tuple(refused))
    return _DECISIONS.keep(key, decision)


def _checkpointed(
    found: list[Candidate], task: Task, constants: Machine, settings: Settings, every: bool = False
) -> list[Candidate]:
    """The cheapest way by rows with less of its tape kept, where memory matters; ``every`` schedule, or likely ones."""
    pulled: Any = [c for c in found if isinstance(c.method, Seeded) and c.method.columns is None]
    base = min(pulled, key=lambda c: c.seconds, default=None)
    if base is None or task.is_varying:
        return []
    limit = settings.memory_limit
    if not every and limit is None and base.temp_bytes < (SMALL if settings.objective == "memory" else LARGE):
        return []
    nests = every or (limit is not None and base.temp_bytes > limit)
    less = checkpointed(base.method, task, nests, -math.inf if every else LEAST_SAVED)
    return [candidate(c, task, constants, settings.form) for c in less]


def label(c: Candidate) -> str:
    return f"{c.name}: {c.method.detail}"


def _measured(found: list[Candidate], task: Task, settings: Settings, leaves) -> list[Candidate]:
    """Time the best few; the others keep their places behind them."""
    timed = []
    for c in found[:MEASURED]:
        run = compiled(task, c, settings.form)
        taken = seconds_of(run, leaves)
        timed.append(dataclasses.replace(c, measured_s=taken, measured_bytes=temporary_bytes(run, leaves)))
    seconds = {label(c): c.measured_s for c in timed}
    seconds = agreement.agreed(("measured now", task.fingerprint, str(settings), sorted(seconds)), lambda: seconds)
    timed = [dataclasses.replace(c, measured_s=seconds[label(c)]) for c in timed]
    remember(task.fingerprint, settings.form, seconds)
    return [*sorted(timed, key=OBJECTIVES[settings.objective]), *found[MEASURED:]]


def _tried(found: list[Candidate], task: Task, settings: Settings, leaves) -> list[Candidate]:
    """Time those whose predictions lie close together, where that is quick; the others keep their places behind."""
    near = trial.close(found, task)
    if not near:
        return found
    taken = trial.times(near, lambda c: compiled(task, c, settings.form), leaves)
    timed = [dataclasses.replace(near[k], measured_s=seconds) for k, seconds in taken.items()]
    remember(task.fingerprint, settings.form, {label(c): c.measured_s for c in timed})
    rest = [c for c in found if all(c is not near[k] for k in taken)]
    return [*sorted(timed, key=lambda c: c.measured_s), *rest]


# -- memory ------------------------------------------------------------------------------------------


def _within(found: list[Candidate], task, settings: Settings, constants, leaves) -> tuple[list, list]:
    """The candidates whose compiled program keeps within the memory limit, seeds in chunks where that is needed.

    Then those that do not, with what they need, and those that are no better and were not compiled.
    """
    amount = OBJECTIVES[settings.objective]
    fitting: list[Candidate] = []
    others: list[Candidate] = []
    for k, c in enumerate(found):
        if fitting and amount(c) >= amount(fitting[0]):
            others += found[k:]
            break
        fitted, needs = _fit(c, task, settings, constants, leaves)
        if fitted is None:
            others.append(dataclasses.replace(c, measured_bytes=needs))
        else:
            fitting = sorted([*fitting, fitted], key=amount)
    return fitting, others


def _nothing_fits(tried: list[Candidate], task: Task, settings: Settings) -> PlanningError:
    least = min(c.measured_bytes for c in tried)
    return PlanningError(
        f"no way to this Jacobian ({task.m} x {task.n}) keeps within {count(settings.memory_limit or 0, 'B')} of "
        f"temporary memory; the least that would do is memory_limit={int(least)} ({count(least, 'B')})."
    )


def _fit(c: Candidate, task, settings, constants, leaves) -> tuple[Candidate | None, float]:
    """The candidate within the limit, in the largest chunks that are, and the least memory that it needs."""
    limit = settings.memory_limit or 0
    needs = temporary_bytes(compiled(task, c, settings.form), leaves)
    if needs <= limit:
        return dataclasses.replace(c, measured_bytes=needs), needs
    if not isinstance(c.method, Seeded):
        return None, needs
    chunk = c.method.chunk or max(c.method.products)
    least = needs
    while chunk > 1:
        chunk = max(1, min(chunk // 2, int(chunk * limit / needs)))
        smaller = candidate(dataclasses.replace(c.method, chunk=chunk), task, constants, settings.form)
        needs = temporary_bytes(compiled(task, smaller, settings.form), leaves)
        least = min(least, needs)
        if needs <= limit:
            return dataclasses.replace(smaller, measured_bytes=needs), least
    return None, least


def temporary_bytes(run: Run, leaves) -> float:
    """The temporary memory of a compiled run, as the compiler reports it."""
    return float(agreement.temporary_bytes(run.program.lower(run.tables, leaves)))


# -- running -----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Run:
    """A method as one compiled function of the flat arguments; ``pattern`` is that of the entries that it gives."""

    task: Task
    pattern: SparsityPattern | None
    program: Any = field(repr=False)  # what jax.jit returns
    tables: Any = field(repr=False)

    def __call__(self, leaves):
        return self.program(self.tables, leaves)

    @cached_property
    def indices(self) -> jax.Array:
        """(row, column) of each entry."""
        assert self.pattern is not None
        with jax.ensure_compile_time_eval():
            return jax.device_put(np.stack([self.pattern.rows, self.pattern.cols], 1).astype(np.int32))


def compiled(task: Task, chosen: Candidate, form: str, finish: Callable = lambda outs, entries: entries) -> Run:
    """A candidate, ready to run; ``finish(outs, entries)`` makes of the outputs and the entries what is returned."""
    method: Any = chosen.method
    pattern = method.pattern
    if form in ("bcoo", "scipy") and (pattern is None or task.has_given_pattern):
        pattern = task.pattern
    if task.is_lower:
        assert pattern is not None
        pattern = pattern.lower_triangle

    @jax.jit
    def program(tables, leaves):
        inner, where = tables
        if form == "compressed":
            return finish(*method.compressed(task, inner, leaves))
        outs, found = method.jacobian(task, inner, leaves)
        return finish(outs, found.full((task.m, task.n), where) if form == "dense" else found.at(where))

    where: Any = None
    if pattern is not None and form == "dense":
        where = places(pattern)
    elif pattern is not None and method.pattern is None:
        where = positions(pattern)
    elif pattern is not method.pattern:
        where = Inside.of(method.pattern, pattern)
    with jax.ensure_compile_time_eval():
        arrays = jax.device_put((method.tables, where))  # without compiling anything, as asarray would
    return Run(task, pattern, program, arrays)
