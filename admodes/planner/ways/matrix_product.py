"""Jacobians that are at hand: that of a product with a matrix is the matrix."""

from __future__ import annotations

import math
from dataclasses import dataclass

from jax import lax

from admodes.planner.cost.work import Work
from admodes.planner.matrices import Dense
from admodes.planner.task import Task
from admodes.program.evaluate import evaluate, live_equations
from admodes.program.ir import Const


@dataclass(frozen=True, eq=False)
class MatrixProduct:
    """∂(W x)/∂x = W: the task is one contraction of all of x with an operand that does not depend on it."""

    place: int  # of the differentiated operand
    name: str = "matrix"
    detail: str = "the other factor of the product"
    passes: int = 0
    pattern: None = None
    tables: None = None

    def work(self, task: Task) -> Work:
        return Work(bytes=2.0 * task.n * task.m * task.dtype.itemsize, kernels=1)

    def jacobian(self, task: Task, tables, args) -> tuple[list, Dense]:
        (equation,) = live_equations(task.program)
        values = dict(task.program.constants) | dict(zip(task.program.inputs, args, strict=True))
        other = equation.inputs[1 - self.place]
        value = other.value if isinstance(other, Const) else values[other]
        factor = matrix_of(value, equation.params["dimension_numbers"], self.place, task.dtype)
        return evaluate(task.program, *args), factor


def matrix_of(other, dimension_numbers, place: int, dtype) -> Dense:
    """W of W x, a dot_general that contracts all of x, its operand number ``place``, with ``other``."""
    contracted, _ = dimension_numbers
    x_axes, axes = contracted[place], contracted[1 - place]
    by_x = [a for _, a in sorted(zip(x_axes, axes, strict=True))]  # in the order of the entries of x
    free = [a for a in range(other.ndim) if a not in axes]
    transposed = (*by_x, *free) == tuple(range(other.ndim))  # as it is
    first, last = (by_x, free) if transposed else (free, by_x)
    shape = [math.prod(other.shape[a] for a in side) for side in (first, last)]
    matrix = lax.reshape(lax.transpose(other, (*first, *last)), shape)
    return Dense(lax.convert_element_type(matrix, dtype), transposed)


def matrix_product(task: Task) -> MatrixProduct | None:
    """The method for this task, if it is such a product."""
    equations = live_equations(task.program)
    if len(equations) != 1 or equations[0].primitive.name != "dot_general" or len(task.in_avals) != 1:
        return None
    (equation,) = equations
    active = {s for s, on in zip(task.program.inputs, task.active, strict=True) if on}
    places = [k for k, x in enumerate(equation.inputs) if not isinstance(x, Const) and x in active]
    if len(places) != 1 or tuple(task.program.outputs) != equation.outputs:
        return None
    contracted, _ = equation.params["dimension_numbers"]
    (x,) = task.in_avals
    depth = math.prod(x.shape[a] for a in contracted[places[0]])
    return MatrixProduct(places[0]) if depth == task.n else None
