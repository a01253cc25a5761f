"""Common subexpressions: a program in which nothing is computed twice."""

from __future__ import annotations

from typing import Any

from admodes.program.evaluate import live_equations
from admodes.program.fingerprint import content
from admodes.program.folding import is_known
from admodes.program.ir import Const, Equation, Program
from admodes.program.traits import traits


def merge_common(program: Program) -> Program:
    """The program without dead code, and with each subexpression computed once."""
    first: dict[Any, tuple[int, ...]] = {}
    same: dict[int, int] = {}
    kept = []
    for equation in live_equations(program):
        inputs = tuple(x if isinstance(x, Const) else same.get(x, x) for x in equation.inputs)
        merged = Equation(equation.primitive, equation.params, inputs, equation.outputs, equation.source)
        key = None if equation.effects else _key(merged)
        if key is not None and key in first:
            same.update(zip(equation.outputs, first[key], strict=True))
            continue
        if key is not None:
            first[key] = equation.outputs
        kept.append(merged)
    outputs = tuple(x if isinstance(x, Const) else same.get(x, x) for x in program.outputs)
    return Program(program.inputs, outputs, program.constants, tuple(kept), program.avals)


def _key(equation: Equation):
    """Equal for equations that compute the same; None if the parameters cannot tell."""
    operands = [_operand_key(x) for x in equation.inputs]
    if traits(equation.primitive).commutative:
        operands.sort()
    key = (equation.primitive, tuple(operands), tuple(sorted(equation.params.items(), key=lambda item: item[0])))
    try:
        hash(key)
    except TypeError:  # a parameter that cannot be compared: an array, say
        return None
    return key


def _operand_key(operand) -> tuple:
    if not isinstance(operand, Const):
        return "slot", operand
    return ("value", *content(operand.value)) if is_known(operand.value) else ("tracer", id(operand.value))
