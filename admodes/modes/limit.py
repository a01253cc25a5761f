"""Reverse mode within a limit of memory: schedules are tried on the compiled program until one fits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache

import jax
from jax.tree_util import tree_leaves, tree_structure, tree_unflatten

from admodes.errors import MemoryLimitError
from admodes.modes.budget import Costs, Schedules
from admodes.modes.interpreter import INTERPRETER
from admodes.program import jax_compat as jc
from admodes.program.blocks import Chain, chain, is_loop
from admodes.program.ir import Program, from_jaxpr
from admodes.rules.checkpoints import Checkpoints
from admodes.tables import count

ATTEMPTS = 6
LOOPS = (None, Checkpoints("sqrt"), Checkpoints("revolve", 30), Checkpoints("revolve", 3))  # what loops keep


def within(limit: int, fun: Callable, args: tuple) -> Callable:
    """``fun`` such that its gradient needs at most ``limit`` bytes, for ``args`` of these types.

    What counts are the temporaries of the compiled gradient, beside its arguments and results. The schedule that is
    found serves for all programs of the same text.
    """
    closed, shape = jax.make_jaxpr(fun, return_shape=True)(*args)
    program = from_jaxpr(jc.without_references(closed))
    slots, values = zip(*program.constants, strict=True) if program.constants else ((), ())
    opened = Program((*program.inputs, *slots), program.outputs, (), program.equations, program.avals)
    scheduled = _fitting(_Task(str(closed.jaxpr), opened, len(program.inputs)), limit)
    return lambda *args: tree_unflatten(tree_structure(shape), scheduled(*tree_leaves(args), *values))


def limited(limit: int) -> Callable:
    """What puts a scheduled function in the place of the user's (see ``reverse.differentiated``)."""
    return lambda both, fun, args: both(within(limit, fun, args))


@dataclass(frozen=True)
class _Task:
    """A program of which the first ``n`` inputs are differentiated; equal to others of the same text."""

    text: str
    program: Program = field(compare=False)
    n: int


@lru_cache(64)
def _fitting(task: _Task, limit: int) -> Callable:
    """The program under the fastest schedule whose compiled gradient fits; MemoryLimitError if none does.

    Loops keep everything unless no schedule of the blocks fits; then they keep less and less.
    """
    plain, least = chain(task.program), float("inf")
    policies = LOOPS if any(map(is_loop, plain.equations)) else LOOPS[:1]
    for policy in policies:
        steps = replace(plain, loops=policy)
        for nest, needed in _attempts(steps, task.n, limit):
            if needed <= limit:
                return jax.jit(lambda *args, steps=steps, nest=nest: steps.evaluate(nest, args))
            least = min(least, needed)
    raise MemoryLimitError(
        f"the gradient does not fit memory_limit={count(limit, 'B')}: beside its arguments and results it needs at "
        f"least {count(least, 'B')}. Set memory_limit={least} or more, or make the arguments smaller."
    )


def _attempts(steps: Chain, n: int, limit: int) -> Iterator[tuple[tuple, int]]:
    """Schedules of the blocks with what they need, each for a smaller budget of the model: (nest, bytes)."""
    everything = tuple(range(len(steps)))
    needed = _temporaries(steps, everything, n)
    yield everything, needed
    schedules = Schedules(Costs.of(steps))
    budget, last = schedules.everything(), everything
    for left in reversed(range(ATTEMPTS)):
        budget -= max(1.25 * (needed - limit), 0.15 * budget)
        nest = schedules.nest(budget if left else 0.0)
        if nest != last:
            last, needed = nest, _temporaries(steps, nest, n)
            yield nest, needed


def _temporaries(steps: Chain, nest: tuple, n: int) -> int:
    """The bytes that the compiled gradient needs beside arguments and results."""
    avals = steps.program.in_avals
    active = [k < n and jc.is_differentiable(a) for k, a in enumerate(avals)]

    def gradient(*args):
        (value, *aux), tape = INTERPRETER.record_function(lambda *xs: steps.evaluate(nest, xs), args, active)
        return value, aux, tape.pull((jc.one(value), *(None for _ in aux)))

    return jc.temporary_bytes(gradient, *avals)
