"""Reverse mode within a limit of memory: schedules are tried on the compiled program until one fits."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import jax
from jax.tree_util import tree_leaves, tree_structure, tree_unflatten

from admodes.errors import MemoryLimitError
from admodes.modes.budget import Costs, Schedules
from admodes.modes.interpreter import INTERPRETER
from admodes.program import jax_compat as jc
from admodes.program.blocks import Chain, chain
from admodes.program.ir import Program, from_jaxpr
from admodes.tables import count

ATTEMPTS = 6


def within(limit: int, fun: Callable, args: tuple) -> Callable:
    """``fun``, a function of ``args`` (their values do not matter), such that its gradient needs at most ``limit`` bytes.

    What counts are the temporaries of the compiled gradient, beside its arguments and results. The schedule
    found is kept for programs of the same text.
    """
    closed, shape = jax.make_jaxpr(fun, return_shape=True)(*args)
    program = from_jaxpr(jc.without_references(closed))
    slots, values = zip(*program.constants, strict=True) if program.constants else ((), ())
    opened = Program((*program.inputs, *slots), program.outputs, (), program.equations, program.avals)
    steps = chain(opened)
    nest = _fitting(Text(str(closed.jaxpr), steps), limit)

    def scheduled(*args):
        outs = steps.evaluate(nest, [*tree_leaves(args), *values])
        return tree_unflatten(tree_structure(shape), outs)

    return scheduled


class Text:
    """A chain that equals another one if the text of their programs is the same."""

    def __init__(self, text: str, steps: Chain):
        self.text, self.steps = text, steps

    def __eq__(self, other):
        return isinstance(other, Text) and self.text == other.text

    def __hash__(self):
        return hash(self.text)


@lru_cache(64)
def _fitting(text: Text, limit: int) -> tuple:
    """The nest of the fastest schedule whose compiled gradient fits; MemoryLimitError if none does."""
    steps = text.steps
    everything = tuple(range(len(steps)))
    needed = _temporaries(steps, everything)
    if needed <= limit:
        return everything
    schedules = Schedules(Costs.of(steps))
    budget, least, tried = schedules.most - (needed - limit), needed, set()
    for _ in range(ATTEMPTS):
        nest = schedules.nest(max(budget, schedules.least()))
        if nest in tried:
            break
        tried.add(nest)
        needed = _temporaries(steps, nest)
        if needed <= limit:
            return nest
        least = min(least, needed)
        budget -= 1.1 * (needed - limit)
    raise MemoryLimitError(
        f"the gradient does not fit memory_limit={count(limit, 'B')} beside its arguments and results: the least that "
        f"was reached is {count(least, 'B')} ({least} bytes). Raise the limit to that, make the arguments smaller, or use "
        "admodes.checkpoint on the loops inside the function."
    )


def _temporaries(steps: Chain, nest: tuple) -> int:
    """The bytes that the compiled gradient needs beside arguments and results."""
    avals = steps.program.in_avals
    active = [jc.is_differentiable(a) for a in avals]

    def gradient(*args):
        (value, *aux), tape = INTERPRETER.record_function(lambda *xs: steps.evaluate(nest, xs), args, active)
        return value, aux, tape.pull((jc.one(value), *(None for _ in aux)))

    return jax.jit(gradient).lower(*avals).compile().memory_analysis().temp_size_in_bytes


