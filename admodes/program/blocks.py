"""A program as a chain of blocks, cut where few bytes cross, and its evaluation in nested checkpointed segments.

A nest says how a part of the chain is evaluated: a tuple of numbers of blocks, whose tapes are kept, and of segments
(nests again), of which only what enters them is kept: they are checkpointed calls. ``(0, (1, 2), 3)`` keeps the tapes
of blocks 0 and 3 and computes 1 and 2 again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import jax
import numpy as np

from admodes.program import jax_compat as jc
from admodes.program.evaluate import evaluate, live_equations
from admodes.program.ir import Const, Equation, Program

MOST_BLOCKS = 64


def aval_bytes(aval) -> int:
    """The bytes that a value of this type occupies (random keys: their words)."""
    if len(arrays := jc.arrays_in(aval)) != 1 or arrays[0] is not aval:
        return sum(map(aval_bytes, arrays))
    size = math.prod(aval.shape)
    return size * (16 if jc.is_extended(aval.dtype) else np.dtype(aval.dtype).itemsize)


@dataclass(frozen=True, eq=False)
class Chain:
    """Block k are the equations from ``cuts[k]`` to ``cuts[k + 1]``.

    ``loops`` is the policy under which ``jax.checkpoint`` calls the blocks that hold loops, None if those are plain.
    """

    program: Program
    equations: tuple[Equation, ...]
    cuts: tuple[int, ...]
    loops: Callable | None = None

    def __len__(self) -> int:
        return len(self.cuts) - 1

    @cached_property
    def _span(self) -> tuple[dict, dict]:
        return _lifetimes(self.program, self.equations)

    def entering(self, cut: int) -> tuple[int, ...]:
        """The slots that cross a cut, in order: made before it, read after it."""
        made, read = self._span
        at = self.cuts[cut]
        return tuple(sorted(s for s, k in made.items() if k < at <= read.get(s, -1)))

    def part(self, start: int, stop: int) -> Program:
        """The blocks from ``start`` to ``stop`` as a program of what they read, that returns what is read later."""
        _, read = self._span
        equations = self.equations[self.cuts[start] : self.cuts[stop]]
        made = {s for e in equations for s in e.outputs}
        inputs = {x for e in equations for x in e.slots} - made
        outputs = tuple(sorted(s for s in made if read.get(s, -1) >= self.cuts[stop]))
        return Program(tuple(sorted(inputs)), outputs, (), equations, self.program.avals)

    def evaluate(self, nest: tuple, args: Sequence) -> list:
        """The outputs of the program at ``args``, evaluated as the nest says."""
        env = dict(self.program.constants) | dict(zip(self.program.inputs, args, strict=True))
        self._run(nest, env)
        return [x.value if isinstance(x, Const) else env[x] for x in self.program.outputs]

    def _run(self, nest, env) -> None:
        for item in nest:
            part = self.part(*_extent(item))
            args = [env[s] for s in part.inputs]
            run = self._segment(item, part) if isinstance(item, tuple) else self.call(part)
            env.update(zip(part.outputs, run(*args), strict=True))

    def call(self, part: Program) -> Callable:
        """A block as a function."""

        def block(*xs):
            return evaluate(part, *xs)

        has_loops = self.loops is not None and any(map(is_loop, part.equations))
        return jax.checkpoint(block, policy=self.loops) if has_loops else block

    def _segment(self, nest, part) -> Callable:
        def segment(*xs):
            env = dict(zip(part.inputs, xs, strict=True))
            self._run(nest, env)
            return [env[s] for s in part.outputs]

        return jax.checkpoint(segment)


def is_loop(equation: Equation) -> bool:
    """True if the equation is a scan or a while loop, or holds one however deep."""
    loops = (jc.scan_p, jc.while_p)
    return equation.primitive in loops or jc.mentions(equation.params, loops)


def _extent(item) -> tuple[int, int]:
    """The first block of an item of a nest, and the one after its last."""
    if not isinstance(item, tuple):
        return item, item + 1
    return _extent(item[0])[0], _extent(item[-1])[1]


def _lifetimes(program: Program, equations) -> tuple[dict, dict]:
    """For each value made by an equation the number of that, and of the last one that reads it (outputs: past all)."""
    made: dict = {}
    read: dict = {}
    for k, e in enumerate(equations):
        read.update((x, k) for x in e.slots)
        made.update((s, k) for s in e.outputs)
    read.update((x, len(equations) + 1) for x in program.outputs if not isinstance(x, Const))
    return made, read


def chain(program: Program, most: int = MOST_BLOCKS) -> Chain:
    """The program cut into at most ``most`` blocks of about equal weight in bytes, each cut the narrowest nearby."""
    equations = tuple(live_equations(program))
    n = len(equations)
    made, read = _lifetimes(program, equations)
    crossing = np.zeros(n + 2)
    for slot, k in made.items():
        crossing[k + 1] += aval_bytes(program.avals[slot])
        crossing[min(read.get(slot, k), n) + 1] -= aval_bytes(program.avals[slot])
    crossing = np.cumsum(crossing)
    weight = np.cumsum([0] + [sum(aval_bytes(program.avals[s]) for s in e.outputs) for e in equations])
    cuts = [0]
    window = np.minimum(weight * most // max(weight[-1], 1), most - 1)
    for k in range(1, most):
        places = [i for i in np.flatnonzero(window == k) if 0 < i < n]
        if places:
            cuts.append(int(min(places, key=lambda i: (crossing[i], i))))
    return Chain(program, equations, tuple(dict.fromkeys((*cuts, n))))
