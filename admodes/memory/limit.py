"""Reverse mode within a limit of memory: schedules are tried on the compiled program until one fits."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import jax
from jax.tree_util import tree_flatten, tree_leaves, tree_unflatten

from admodes.checkpointing.policies import Checkpoints
from admodes.errors import MemoryLimitError
from admodes.memory.block_choice import Costs, Schedules
from admodes.modes import checks
from admodes.modes.interpreter import INTERPRETER
from admodes.program import jax_compat as jc
from admodes.program.agreement import temporary_bytes
from admodes.program.blocks import Chain, chain, is_loop
from admodes.program.fingerprint import digest, hidden
from admodes.program.ir import Program, from_jaxpr
from admodes.program.kept import Kept
from admodes.program.trace import closed_jaxpr
from admodes.text_tables import count

# Schedules that are compiled for one parameter, at most. Chosen. Four times more may compile that much longer; one
# alone may leave much of the limit unused.
ATTEMPTS = 6
# Parts of the limit: a guess aims at the one, and from the other on the search stops. Chosen. A lower aim recomputes
# more than it has to; a higher one misses the limit more often, and compiles again.
AIM, CLOSE = 0.97, 0.85
# Slots of loops: the least, the second guess, the most. Chosen. The guesses only start a secant; a fourfold MOST
# matters where states are tiny and loops are of many million steps.
FEWEST, MORE, MOST = 3, 10, 1000


def within(limit: int, fun: Callable, args: tuple) -> Callable:
    """``fun`` such that its gradient needs at most ``limit`` bytes, for ``args`` of these types.

    The limit is on the temporaries of the compiled gradient, beside its arguments and results. The schedule that is
    found serves for all programs that are the same.
    """
    leaves, in_tree = tree_flatten(args)
    structure: list = []

    def flat(*leaves):
        outs, tree = tree_flatten(fun(*tree_unflatten(in_tree, leaves)))
        structure.append(tree)
        for x in outs:
            checks.traced_output(x)
        return outs

    program = from_jaxpr(closed_jaxpr(flat, *leaves))
    slots, values = zip(*program.constants, strict=True) if program.constants else ((), ())
    opened = Program((*program.inputs, *slots), program.outputs, (), program.equations, program.avals)
    types = tuple(map(jc.placed, (*leaves, *values)))
    task = _Task(opened, len(program.inputs), types)
    key = digest(opened), hidden(program), task.n, types, limit
    scheduled = _SCHEDULED.get(key, lambda: _fitting(task, limit))
    return lambda *args: tree_unflatten(structure[0], scheduled(*tree_leaves(args), *values))


def limited(limit: int) -> Callable:
    """The hook that puts a scheduled function in the place of the user's (see ``reverse.differentiated``)."""
    return lambda both, fun, args: both(within(limit, fun, args))


_SCHEDULED: Kept[Callable] = Kept(64)


@dataclass(frozen=True)
class _Task:
    """A program of which the first ``n`` inputs are differentiated.

    ``types`` are those of its inputs, with the devices that these are on.
    """

    program: Program
    n: int
    types: tuple


def _fitting(task: _Task, limit: int) -> Callable:
    """The program under the fastest schedule whose compiled gradient fits; MemoryLimitError if none does."""
    search = _Search(task, limit)
    found = search.run()
    if found is None:
        least = count(search.least, "B")
        raise MemoryLimitError(
            f"the gradient does not fit memory_limit={count(limit, 'B')}: beside its arguments and results it needs "
            f"at least {least}. Set memory_limit={search.least} or more, or make the arguments smaller."
        )
    steps, nest = found
    return jax.jit(lambda *args: steps.evaluate(nest, args))


Schedule = tuple[Chain, tuple]  # blocks, with the policy of their loops, and the nest of segments (see blocks.py)


class _Search:
    """Looks for a schedule that fits; those that compute little again come first.

    ``least`` is what the most frugal ones need, which are tried before the search gives up, whatever the limit.
    """

    def __init__(self, task: _Task, limit: int):
        self.n, self.types, self.limit, self.least = task.n, task.types, limit, sys.maxsize
        self.plain = chain(task.program)
        self.everything = tuple(range(len(self.plain)))
        self.measured: dict = {}

    def run(self) -> Schedule | None:
        """Keep all; of loops the states, or √l of them; recompute blocks; few states of loops; recompute blocks too."""
        if self.needs(self.plain, self.everything) <= self.limit:
            return self.plain, self.everything
        if not any(map(is_loop, self.plain.equations)):
            return self.blocks(self.plain)
        for policy in ("every", "sqrt"):
            steps = replace(self.plain, loops=Checkpoints(policy))
            if self.needs(steps, self.everything) <= self.limit:
                return steps, self.everything
        return self.blocks(self.plain) or self.slots() or self.blocks(self.with_slots(FEWEST))

    def blocks(self, steps: Chain) -> Schedule | None:
        """The fastest nest that fits; what varies is the budget of the model."""
        schedules = Schedules(Costs.of(steps))
        most = schedules.everything()
        known = [(0.0, 0), (most, self.needs(steps, self.everything))]
        budget = self.greatest(lambda budget: self.needs(steps, schedules.nest(budget)), known, most)
        nest = schedules.nest(budget)
        return (steps, nest) if budget else self.frugal(steps, nest)

    def slots(self) -> Schedule | None:
        """As many slots for the states of loops as fit."""

        def needs(slots: float) -> int:
            return self.needs(self.with_slots(slots), self.everything)

        if not self.frugal(self.with_slots(FEWEST), self.everything):
            return None
        slots = self.greatest(needs, [(FEWEST, needs(FEWEST)), (MORE, needs(MORE))], MOST)
        return self.with_slots(slots), self.everything

    def with_slots(self, slots: float) -> Chain:
        return replace(self.plain, loops=Checkpoints("revolve", int(slots)))

    def greatest(self, needs: Callable[[float], int], points: list[tuple[float, int]], most: float) -> float:
        """The greatest x ≤ ``most`` found with ``needs(x)`` within the limit, by secants through the last two points.

        Memory rises with x, about linearly. The first of the ``points`` to begin with is within the limit.
        """
        for _ in range(ATTEMPTS):
            low, used = max(point for point in points if point[1] <= self.limit)
            high = min((x for x, needed in points if needed > self.limit), default=most)
            (x0, y0), (x1, y1) = points[-2:]
            if used >= CLOSE * self.limit or y0 == y1 <= self.limit:
                break
            x = x1 + (AIM * self.limit - y1) * (x1 - x0) / (y1 - y0) if y0 != y1 else low
            x = x if low < x < high else (low + high) / 2
            points.append((x, needs(x)))
        return max(x for x, needed in points if needed <= self.limit)

    def frugal(self, steps: Chain, nest: tuple) -> Schedule | None:
        """The schedule if it fits."""
        needed = self.needs(steps, nest)
        self.least = min(self.least, needed)
        return (steps, nest) if needed <= self.limit else None

    def needs(self, steps: Chain, nest: tuple) -> int:
        """The bytes that the compiled gradient needs beside arguments and results."""
        key = steps.loops, nest
        if key not in self.measured:
            gradient = _gradient(lambda *xs: steps.evaluate(nest, xs), steps.program.in_avals, self.n)
            self.measured[key] = temporary_bytes(jax.jit(gradient).lower(*self.types))
        return self.measured[key]


def _gradient(fun: Callable, avals: Sequence, n: int) -> Callable:
    """Of a function of arrays of these types the value, and its gradient in the first ``n`` arguments."""
    active = [k < n and jc.is_differentiable(a) for k, a in enumerate(avals)]

    def gradient(*args):
        (value, *aux), tape = INTERPRETER.record_function(fun, args, active)
        cts = tape.pull((jc.one(value), *(None for _ in aux)))
        return [value, *aux, *(ct for ct in cts if ct is not None)]

    return gradient
