r"""Reverse mode that keeps a part of its tape and computes the rest again, as candidates of a plan.

The cost of a schedule beside plain reverse mode follows from the steps that it works on: l of them, with b bytes of
state and t bytes of tape each. Keeping s states by the binomial schedule, s b + t bytes are held instead of l t, and
t(l, s) steps run again (:func:`admodes.checkpointing.binomial.fewest_steps`); "sqrt" holds √l (b + t) bytes and runs l
again. The steps are those of the loops of a program, or, if it has none, its blocks.

Under a memory limit, nests of blocks from a dynamic program over unequal blocks (:mod:`admodes.memory.block_choice`)
come into the race too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from math import isqrt

import jax

from admodes.checkpointing.binomial import fewest_steps
from admodes.checkpointing.block_segments import has_loops
from admodes.checkpointing.policies import KEEP_ALL, Checkpoints
from admodes.memory.block_choice import Costs, Schedules
from admodes.modes.interpreter import INTERPRETER
from admodes.planner.cost.work import UNKNOWN_TRIPS, Work, in_loop, work
from admodes.planner.task import Task
from admodes.planner.ways.seeded import Seeded
from admodes.program import jax_compat as jc
from admodes.program.blocks import aval_bytes, chain
from admodes.program.derived import recorded
from admodes.program.ir import Program, from_jaxpr
from admodes.subprograms.scan import record_body

# States that "revolve" keeps, in the candidates. Chosen, by factors of about 3: the best of them takes at most about
# so much more memory than one between.
SLOTS = (100, 30, 10, 3)
# Memory of nests, as parts of what the whole tape takes. Chosen. Each more is one more program to cost.
BUDGETS = (0.5, 0.25, 0.1, 0.0)
# Part of the memory: a schedule that is expected to save less is no candidate. Chosen. Less offers schedules that run
# longer for nothing.
LEAST_SAVED = 0.1


@dataclass(frozen=True, eq=False)
class Checkpointed(Seeded):
    """Rows pulled through a program that is recorded under ``schedule``: a policy, or a nest of blocks.

    Beside plain reverse mode it runs ``steps`` steps again, the work ``again`` in each sweep back (for each row in a
    nest of blocks: what is computed again there depends on the seed), and holds ``saved`` bytes less. ``lengths`` are
    those of the loops (None if known at run time only: then ``steps`` is a guess), or the number of blocks;
    ``stretches`` says for each how many are walked back at once.
    """

    schedule: Checkpoints | tuple = KEEP_ALL
    lengths: tuple[int | None, ...] = ()
    steps: int = 0
    again: Work = field(default_factory=Work)
    saved: float = 0.0
    by_rows: bool = False
    stretches: tuple[int, ...] = ()

    @property
    def noun(self) -> str:
        return "blocks" if self.by_rows else "steps"

    @property
    def detail(self) -> str:
        about = "about " if None in self.lengths else ""
        return f"{super().detail}; {about}{self.steps:,} {self.noun} computed again"

    @property
    def plain_schedule(self) -> dict | tuple:
        """The schedule as plain data, for :func:`restored`."""
        return self.schedule if isinstance(self.schedule, tuple) else asdict(self.schedule)

    def work(self, task: Task) -> Work:
        plain = super().work(task)
        sweeps = self.passes if self.by_rows else math.ceil(self.passes / (self.chunk or self.passes))
        return replace(plain + self.again.times(sweeps), peak=max(plain.peak - self.saved, 0.0))

    def _products(self, task: Task, tables, args) -> tuple[list, list]:
        return super()._products(replace(task, closed=_scheduled(task.closed, self.schedule)), tables, args)


@jc.weak_cache
def _scheduled(closed, schedule):
    """The jaxpr such that its tape keeps what the schedule says."""
    if isinstance(schedule, Checkpoints):
        return jc.trace_flat(
            jax.checkpoint(jc.jaxpr_as_fun(_live(closed)), policy=schedule), closed.in_avals, "checkpoint"
        )
    steps = chain(from_jaxpr(closed))
    return jc.trace_flat(lambda *args: steps.evaluate(schedule, args), closed.in_avals, "checkpoint")


@jc.weak_cache
def _live(closed):
    """The jaxpr without dead code: results of steps that nobody reads would be held in a loop that is run back."""
    return jc.select_outputs(closed, range(len(closed.out_avals)))


# -- which there are ---------------------------------------------------------------------------------


def checkpointed(
    base: Seeded, task: Task, nests: bool = False, least_saved: float = LEAST_SAVED
) -> Iterator[Checkpointed]:
    """The schedules for ``base``, which pulls rows: policies, and, with ``nests``, nests of blocks for some budgets.

    Schedules that are expected to save less than a part of the memory are left out.
    """
    if task.symmetric or jc.has_side_effects(task.closed):  # a Hessian's gradient holds its own tape
        return
    if not has_loops(task.closed) and base.passes > 1:
        base = replace(base, chunk=1)  # in a batch of rows, the blocks would be computed again for each
    found = [by_policy(base, task, p) for p in (Checkpoints("sqrt"), *(Checkpoints("revolve", s) for s in SLOTS))]
    if nests:
        found += _nests(base, task)
    held = base.work(task).peak
    yield from (method for method in found if method.saved > least_saved * held)


def by_policy(base: Seeded, task: Task, policy: Checkpoints) -> Checkpointed:
    """``base`` under a policy of :func:`admodes.checkpoint`."""
    blocks = not has_loops(task.closed)
    steps = _blocks(task.closed, task.active) if blocks else _outermost(task.closed)
    again, count, saved = Work(), 0, 0.0
    for s in steps:
        more = s.again(policy) - s.again(KEEP_ALL)
        again += s.once.times(more)
        count += more
        saved += s.kept(KEEP_ALL) - s.kept(policy)
    slots = f" {policy.slots}" if policy.policy == "revolve" else ""
    lengths = tuple(None if s.is_open else s.length for s in steps)
    stretches = tuple(s.stretch(policy) for s in steps)
    return _made(base, f"{base.name} ({policy.policy}{slots})", policy, lengths, count, again, saved, blocks, stretches)


def by_nest(base: Seeded, task: Task, nest: tuple, saved: float, name: str) -> Checkpointed:
    """``base`` with its blocks in a nest of checkpointed segments (:mod:`admodes.program.blocks`).

    Raises:
      ValueError: the nest is not of the blocks of this program.
    """
    levels = dict(depths(nest))
    if list(levels) != list(range(len(chain(task.program)))):
        raise ValueError("the nest is not one of the blocks of this program")
    count = sum(levels.values())
    again = _forward(task.closed).times(count / len(levels))
    return _made(base, name, nest, (len(levels),), count, again, saved, True)


def restored(base: Seeded, task: Task, schedule, saved: float, name: str) -> Checkpointed:
    """The method of a saved plan, from its ``plain_schedule``; ValueError if it is not for ``task``."""
    if isinstance(schedule, dict):
        return by_policy(base, task, Checkpoints(**schedule))
    return by_nest(base, task, _tuples(schedule), saved, name)


def _tuples(nest) -> tuple:
    return tuple(_tuples(item) if isinstance(item, list) else item for item in nest)


def _made(base: Seeded, name: str, *schedule) -> Checkpointed:
    seeds = {f.name: getattr(base, f.name) for f in fields(Seeded)} | {"name": name}
    return Checkpointed(*seeds.values(), *schedule)


def _nests(base: Seeded, task: Task) -> Iterator[Checkpointed]:
    steps = chain(task.program)
    if len(steps) < 2:
        return
    schedules = Schedules(Costs.of(steps))
    whole, tape = schedules.everything(), _tape(task.closed, task.active)
    copied = isqrt(len(steps)) * sum(aval_bytes(task.program.avals[s]) for s in _given(task.program)) / len(steps)
    seen = {tuple(range(len(steps)))}
    for part in BUDGETS:
        budget = max(part * whole, schedules.least())
        nest = schedules.nest(budget)
        if nest not in seen:
            seen.add(nest)
            kept = budget / whole
            yield by_nest(base, task, nest, (1 - kept) * tape - copied, f"{base.name} ({kept:.0%} of the tape)")


def depths(nest: tuple, depth: int = 0) -> Iterator[tuple[int, int]]:
    """(block, how many segments it is in): it is computed again once for each."""
    for item in nest:
        if isinstance(item, tuple):
            yield from depths(item, depth + 1)
        else:
            yield item, depth


# -- the steps that a policy works on ----------------------------------------------------------------


@dataclass(frozen=True)
class Steps:
    """Steps of a loop, or blocks of a program without: bytes of a state and of a step's tape, and the work of a step.

    Of a loop that ends by a condition, ``is_open``, a fixed number of states is kept under any policy. ``copied`` are
    the bytes of arguments and constants of a block, of which there are copies wherever it is computed again
    (``compilers/recompute.py``), in about √l blocks at a time.
    """

    length: int
    state: float
    tape: float
    once: Work
    is_open: bool = False
    copied: float = 0.0
    is_loop: bool = True

    def kept(self, policy: Checkpoints) -> float:
        """The bytes that are held."""
        if self.is_open:
            return (policy.slots + 1) * self.state + self.stretch(policy) * self.tape
        if policy.policy == "none":
            return self.length * self.tape
        width = isqrt(self.length)
        if policy.policy == "revolve":
            slots = min(policy.slots, self.length)
            return (slots + 1) * self.state + self.stretch(policy) * self.tape + width * self.copied
        return width * (self.state + self.tape + self.copied)

    def again(self, policy: Checkpoints) -> int:
        """The number of steps run beside those of plain reverse mode."""
        if self.is_open or policy.policy == "revolve":
            width = self.stretch(policy)
            return width * fewest_steps(-(-self.length // width), policy.slots)
        return 0 if policy.policy == "none" else self.length

    def stretch(self, policy: Checkpoints) -> int:
        """The number of steps that are walked back at once."""
        return min(policy.stretch(self.state, self.tape), self.length) if self.is_loop else 1


@jc.weak_cache
def _outermost(closed) -> tuple[Steps, ...]:
    """The outermost loops of a program."""
    return tuple(_loops(_live(closed)))


def _loops(closed) -> Iterator[Steps]:
    for eqn in jc.inner(closed).eqns:
        params = eqn.params
        if eqn.primitive is jc.scan_p:
            loop, body = jc.scan_parts(params)
            if loop.length:
                yield _steps(body, loop)
        elif eqn.primitive is jc.while_p:
            repeated = jc.while_parts(params)
            yield _steps(repeated.body, replace(repeated.steps, length=UNKNOWN_TRIPS), is_open=True)
        elif eqn.primitive is not jc.remat_p:  # what the user has a policy for stays
            for body in jc.subprograms(params):
                yield from _loops(body)


def _steps(body, loop: jc.ScanLoop, is_open: bool = False) -> Steps:
    """A loop of this body."""
    _, carry, _ = loop.split(body.in_avals)
    active = tuple(map(jc.is_differentiable, body.in_avals))
    stacked = record_body(body, INTERPRETER, loop, active, False).stacked_avals
    tape = sum(map(aval_bytes, stacked))
    return Steps(loop.length, sum(map(aval_bytes, carry)), tape, in_loop(_forward(body)), is_open)


@jc.weak_cache
def _blocks(closed, active: tuple) -> tuple[Steps, ...]:
    """The blocks of a program without loops, taken to be equal."""
    steps = chain(from_jaxpr(closed))
    n = len(steps)
    if n < 2:
        return ()
    states = [sum(aval_bytes(steps.program.avals[s]) for s in steps.entering(k)) for k in range(1, n)]
    given = sum(aval_bytes(steps.program.avals[s]) for s in _given(steps.program))
    tape, once = _tape(closed, active) / n, _forward(closed).times(1 / n)
    return (Steps(n, sum(states) / len(states), tape, once, copied=given / n, is_loop=False),)


def _given(program: Program) -> list[int]:
    """The slots of arguments and constants."""
    return [*program.inputs, *(slot for slot, _ in program.constants)]


def _tape(closed, active: tuple) -> int:
    """The bytes of what the tape keeps beside inputs, constants and outputs."""
    jaxpr, constants = jc.open_jaxpr(closed)
    recording = recorded(jc.close_jaxpr(jaxpr), INTERPRETER, (False,) * len(constants) + active)
    return sum(map(aval_bytes, recording.residual_avals))


def _forward(closed) -> Work:
    return work(closed, (False,) * len(closed.in_avals), 1)
