r"""Many right-hand sides at once: triangular systems solved by products of matrices, block by block.

All seeds of a sweep meet the same triangle, so that a solve is one product with an inverse, seen by blocks:

.. math:: L = \begin{pmatrix} L_1 & \\ L_{21} & L_2 \end{pmatrix}: \quad
   X_1 = L_1^{-1} B_1, \quad X_2 = L_2^{-1} (B_2 - L_{21} X_1)

and so on down to small blocks, of which alone an inverse is formed. Products are what compilers do best, while JAX's
solves on a CPU are calls of a library that has threads of its own: beside other work, each call with many right-hand
sides waits for these.

Reference: Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd ed., sections 8.1 and 8.4.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from jax import lax

from admodes.planner.sweeps.small_products import PRECISE
from admodes.program import jax_compat as jc
from admodes.program.dependence import dependent
from admodes.program.evaluate import bind, run
from admodes.program.ir import Const, Equation, Program, from_jaxpr
from admodes.rules.linalg import T, block, conj, dot, eye

# Entries of all right-hand sides from which on the library takes its threads (OpenBLAS 0.3). If it is too small, a few
# solves get as slow as the kernels they are made of; if too large, threads are waited for.
MANY = 1024
# Rows of a block that is inverted: its square is less than MANY. Chosen. Twice as many make the leaves a third of
# the work; half as many double the kernels.
LEAF = 16
# Blocks at most, for the time of compilation. Chosen. With more, systems of thousands of unknowns compile for seconds.
MOST_BLOCKS = 64


def solved_by_products(program: Program, seeded: Sequence[bool], count: int) -> Program:
    """The program with its triangular solves of many right-hand sides as products, those inside of linear solvers too.

    Values that depend on marked inputs come ``count`` times.
    """
    names = {e.primitive for e in program.equations}
    if names.isdisjoint((lax.linalg.triangular_solve_p, lax.linear_solve_p)):
        return program
    varying = dependent(program, itertools.compress(program.inputs, seeded))
    varies = lambda x: not isinstance(x, Const) and x in varying
    changed = False

    def step(equation, operands, params):
        nonlocal changed
        if _has_many(equation, program, varies, count):
            changed = True
            return [solve(*operands, **params)]
        if equation.primitive is lax.linear_solve_p:
            params = {**params, "jaxprs": _solvers(equation, params, varies, count)}
            changed |= params["jaxprs"] is not equation.params["jaxprs"]
        return bind(equation.primitive, operands, params)

    found = from_jaxpr(jc.trace_flat(lambda *args: run(program, step, args), program.in_avals, "products"))
    return found if changed else program


def _has_many(equation: Equation, program: Program, varies: Callable[[Any], bool], count: int) -> bool:
    """True if it is a triangular system of numbers that are added up as they are, with many right-hand sides."""
    if equation.primitive is not lax.linalg.triangular_solve_p:
        return False
    matrix, sides = (program.type_of(x) for x in equation.inputs)
    if len(matrix.shape) != 2 or matrix.dtype not in PRECISE or varies(equation.inputs[0]):
        return False
    if any(jc.is_laid_out(t) or jc.is_varying(t) for t in (matrix, sides)):
        return False
    copies = count if varies(equation.inputs[1]) else 1
    return matrix.shape[0] > LEAF and copies * sides.size >= MANY


def _solvers(equation: Equation, params: dict, varies: Callable[[Any], bool], count: int):
    """The programs of a linear solver, those that solve by products where they can."""
    lengths, jaxprs = params["const_lengths"], params["jaxprs"]
    flags, at = {}, 0
    for name in lengths._fields:
        flags[name] = [varies(x) for x in equation.inputs[at : at + getattr(lengths, name)]]
        at += getattr(lengths, name)
    sides = [varies(x) for x in equation.inputs[at:]]

    def solver(name: str):
        closed = getattr(jaxprs, name)
        if closed is None:
            return None
        before = from_jaxpr(closed)
        after = solved_by_products(before, [*flags[name], *sides], count)
        if after is before:
            return closed
        return jc.trace_flat(lambda *args: run(after, _plain, args), closed.in_avals, name)

    found = {name: solver(name) for name in ("solve", "transpose_solve")}
    same = all(closed is getattr(jaxprs, name) for name, closed in found.items())
    return jaxprs if same else jaxprs._replace(**found)


def _plain(equation, operands, params):
    return bind(equation.primitive, operands, params)


def solve(a, b, *, left_side: bool, lower: bool, transpose_a: bool, conjugate_a: bool, unit_diagonal: bool):
    """The same as ``lax.linalg.triangular_solve`` of one matrix, by products."""
    a = T(a) if transpose_a else a
    a = conj(a) if conjugate_a else a
    lower ^= transpose_a
    leaf = max(LEAF, -(-a.shape[0] // MOST_BLOCKS))
    times = dot if left_side else lambda x, y: dot(y, x)
    first = lower == left_side  # which half of the unknowns is found first
    axis = 0 if left_side else 1

    def part(x, low, high):
        return block(x, (low, high)) if left_side else block(x, cols=(low, high))

    def solved(a, b):
        n = a.shape[0]
        if n <= leaf:
            options = {"left_side": left_side, "lower": lower, "unit_diagonal": unit_diagonal}
            return times(lax.linalg.triangular_solve(a, eye(a), **options), b)
        half = -(-n // (2 * leaf)) * leaf
        ends = (0, half), (half, n)
        now, later = ends if first else ends[::-1]
        found = solved(block(a, now, now), part(b, *now))
        between = block(a, later, now) if left_side else block(a, now, later)
        rest = lax.sub(part(b, *later), times(between, found))
        rest = solved(block(a, later, later), rest)
        return lax.concatenate((found, rest) if first else (rest, found), axis)

    return solved(a, b)
