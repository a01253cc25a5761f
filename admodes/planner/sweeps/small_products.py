r"""Products of small matrices as sums of products of numbers, which compilers fuse with what is around them.

A product of two matrices is a call of a library, which takes longer than a thousand multiply-adds do: in the body of a
loop over a few unknowns the calls are most of the time.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax import lax

from admodes.planner.cost.work import depth_of, entries
from admodes.program import jax_compat as jc
from admodes.program.dependence import dependent
from admodes.program.evaluate import bind, run
from admodes.program.ir import Const, Equation, Program, from_jaxpr

SMALL = 1024  # multiply-adds; in a loop, sums of so many take at most the time of the call
PRECISE = frozenset(map(np.dtype, (np.float32, np.float64, np.complex64, np.complex128)))  # added up as they are


def small_products_added_up(program: Program, seeded: Sequence[bool], count: int) -> Program:
    """The program with its small products of matrices as sums; what depends on marked inputs comes ``count`` times."""
    varying = dependent(program, itertools.compress(program.inputs, seeded))
    copies = lambda x: count if not isinstance(x, Const) and x in varying else 1
    small = {id(e) for e in program.equations if _is_small(e, program, copies)}
    if not small:
        return program

    def step(equation, operands, params):
        if id(equation) in small:
            left, right = operands
            result = _added_up(left, right, params["dimension_numbers"])
            return [jc.convert_like(result, program.avals[equation.outputs[0]])]
        return bind(equation.primitive, operands, params)

    return from_jaxpr(jc.trace_flat(lambda *args: run(program, step, args), program.in_avals, "sums"))


def _is_small(equation: Equation, program: Program, copies: Callable[[Any], int]) -> bool:
    """True if it is a product of matrices (compilers inline those with a vector) of so few multiply-adds."""
    if equation.primitive is not lax.dot_general_p:
        return False
    left, right, result = types = [program.type_of(x) for x in (*equation.inputs, *equation.outputs)]
    if len({t.dtype for t in types}) > 1 or result.dtype not in PRECISE:
        return False
    if any(jc.is_laid_out(t) or jc.is_varying(t) for t in types):
        return False
    depth = depth_of(equation.primitive, equation.params, types)
    of_left, of_right, of_result = map(copies, (*equation.inputs, *equation.outputs))
    common = of_result if of_left == of_right else 1  # seeds on both sides are an axis of both
    if not 0 < of_result * entries(result) * depth <= SMALL:
        return False
    _, (batch, _) = equation.params["dimension_numbers"]
    shared = depth * common * math.prod(left.shape[k] for k in batch)
    return min(of_left * entries(left), of_right * entries(right)) > shared


def _added_up(left, right, numbers):
    """The same as ``lax.dot_general``: the products of all pairs of entries, added up over the contracted axes."""
    (left_sums, right_sums), (left_batch, right_batch) = numbers
    left_free = [k for k in range(left.ndim) if k not in (*left_batch, *left_sums)]
    right_free = [k for k in range(right.ndim) if k not in (*right_batch, *right_sums)]
    left = lax.transpose(left, (*left_batch, *left_free, *left_sums))
    right = lax.transpose(right, (*right_batch, *right_free, *right_sums))
    batch, rows, columns = len(left_batch), len(left_free), len(right_free)
    shape = (*left.shape[: batch + rows], *right.shape[batch : batch + columns], *left.shape[batch + rows :])
    kept = batch + rows + columns
    axes = range(len(shape))
    left = lax.broadcast_in_dim(left, shape, (*axes[: batch + rows], *axes[kept:]))
    right = lax.broadcast_in_dim(right, shape, (*axes[:batch], *axes[batch + rows :]))
    return lax.reduce_sum(lax.mul(left, right), tuple(axes[kept:]))
