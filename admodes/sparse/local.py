"""Patterns at a point: of the branches that are taken there, and without slopes that are 0 there.

A tape whose residuals are values knows more than its equations do: the slope of max(x, y) is 0 for one of the two.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from admodes.linear.pattern import SparsityPattern
from admodes.modes.checks import ARRAYS
from admodes.modes.interpreter import INTERPRETER
from admodes.modes.record import Recorded, record_equation
from admodes.modes.tape import Recorder
from admodes.program import jax_compat as jc
from admodes.program.evaluate import run
from admodes.program.ir import Program, from_jaxpr


def local_pattern(program: Program, active: Sequence[bool], args: Sequence) -> SparsityPattern:
    """The pattern of a program's outputs (rows) with respect to its ``active`` inputs (columns), at ``args``.

    Raises:
      TypeError: an argument is a type, not a value.
    """
    for x in args:
        if not isinstance(x, ARRAYS):
            raise TypeError(f"local=True takes the pattern at values of the arguments, but one is {x!r}")
    primals = list(map(jc.canonicalize, args))
    recorder = Recorder(map(jc.typeof, primals))

    def step(equation, operands, params):
        if equation.primitive is jc.cond_p:
            taken = jc.branches(params)[min(max(int(operands[0].primal), 0), len(jc.branches(params)) - 1)]
            return run(from_jaxpr(taken), step, operands[1:], Recorded)
        return record_equation(INTERPRETER, recorder, equation.primitive, operands, params)

    results = run(program, step, list(map(Recorded, primals, recorder.inputs(active))), Recorded)
    tape = recorder.close([r.slot for r in results], [jc.typeof(r.primal) for r in results])
    blocks = tape.pattern()
    inputs = [i for i, on in enumerate(active) if on]
    sizes = [math.prod(program.in_avals[i].shape) for i in inputs]
    starts = [0, *itertools.accumulate(sizes)]
    rows = []
    for j, result in enumerate(results):
        size = math.prod(jc.typeof(result.primal).shape)
        row = SparsityPattern.empty(size, starts[-1])
        for i, start in zip(inputs, starts[:-1], strict=True):
            if (j, i) in blocks:
                block = blocks[j, i]
                row = row.union(SparsityPattern.build(block.rows, block.cols + start, (size, starts[-1])))
        rows.append(row)
    return SparsityPattern.stack(rows) if rows else SparsityPattern.empty(0, starts[-1])
