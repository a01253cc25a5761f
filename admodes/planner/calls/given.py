"""Knowledge of a Jacobian that users give: a pattern, a coloring, that a triangle is enough."""

from __future__ import annotations

import numpy as np

from admodes.errors import PatternError
from admodes.linear.pattern import SparsityPattern
from admodes.planner.choice.decision import Settings
from admodes.planner.task import Task


def prepared(task: Task, chosen: Settings) -> Task:
    """The task with what is given.

    Raises:
      PatternError: the pattern does not cover the Jacobian, or the coloring is of another one than was given.
      ValueError: a coloring or a triangle that is for symmetric matrices, where this one is not known to be.
    """
    pattern, coloring = chosen.pattern, chosen.coloring
    if coloring is not None:
        if coloring.kind == "symmetric" and not task.symmetric:
            raise ValueError("a symmetric coloring is for Hessians of functions without derivative rules of a user's.")
        if pattern is not None and pattern.union(coloring.pattern).nnz > coloring.pattern.nnz:
            raise PatternError("the coloring is of a pattern that does not cover the one that was given with it.")
        pattern = coloring.pattern
    if pattern is not None:
        task = with_pattern(task, pattern)
    if chosen.triangle is not None and not task.symmetric:
        raise ValueError(
            f"triangle={chosen.triangle!r} is for Hessians, which are symmetric unless the function has several "
            "outputs or derivative rules of a user's (custom_jvp, custom_vjp)."
        )
    return task if chosen.triangle is None else task.lower_triangle()


def with_pattern(task: Task, given: SparsityPattern) -> Task:
    """The task with this pattern in the place of the one that is detected, which it must cover.

    Raises:
      PatternError: it has another shape, or lacks an entry that can be nonzero.
    """
    if given.shape != (task.m, task.n):
        raise PatternError(f"the pattern is {given.shape[0]} x {given.shape[1]}, the Jacobian {task.m} x {task.n}.")
    union = task.pattern.union(given)
    if union.nnz > given.nnz:
        extra = union.matrix.astype(np.int8) - given.matrix.astype(np.int8)
        row, col = (int(k[0]) for k in extra.nonzero())
        raise PatternError(
            f"the pattern does not cover the Jacobian: entry ({row}, {col}), and {union.nnz - given.nnz - 1} more, "
            "can be nonzero. Leave `pattern` out to have it detected, or give a superset."
        )
    return task.with_pattern(given)
