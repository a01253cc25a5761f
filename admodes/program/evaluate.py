"""The one loop over the equations of a program, and what is asked of it.

All interpreters are a ``step`` for one equation that is given to this loop: values, duals, recorded values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from admodes.program import jax_compat as jc
from admodes.program.ir import Const, Equation, Program


def run(program: Program, step: Callable, args: Sequence, lift: Callable = lambda x: x) -> list:
    """Interpret a program: ``step(equation, operands, params)`` returns the results of one equation.

    ``lift`` turns a constant into the interpreter's kind of value.
    """
    env: list = [None] * len(program.avals)
    for slot, value in program.constants:
        env[slot] = lift(value)
    for slot, value in zip(program.inputs, args, strict=True):
        env[slot] = value

    def read(operand):
        return lift(operand.value) if isinstance(operand, Const) else env[operand]

    for equation in program.equations:
        with jc.user_source(equation.source):
            params = equation.primitive.get_bind_params(equation.params)
            results = step(equation, [read(x) for x in equation.inputs], params)
        for slot, value in zip(equation.outputs, results, strict=True):
            env[slot] = value
    return [read(x) for x in program.outputs]


def evaluate(program: Program, *args) -> list:
    """The outputs of the program at ``args``."""
    return run(program, lambda equation, operands, params: bind(equation.primitive, operands, params), args)


def bind(primitive, operands, params) -> Sequence:
    """Evaluate one primitive; always a sequence of results."""
    out = primitive.bind(*operands, **params)
    return list(out) if primitive.multiple_results else [out]


def live_equations(program: Program) -> list[Equation]:
    """The equations that the outputs need, in order (those with effects included)."""
    needed = {o for o in program.outputs if not isinstance(o, Const)}
    kept = []
    for equation in reversed(program.equations):
        if needed.intersection(equation.outputs) or equation.effects:
            kept.append(equation)
            needed.update(equation.slots)
    return kept[::-1]
