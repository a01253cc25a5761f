"""Elimination: a scalar program's Jacobian in the order that takes the fewest multiplications."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np

from admodes.linear.pattern import SparsityPattern
from admodes.planner.elimination import ORDERS, accumulate, multiplications
from admodes.planner.graph import Linearised, scalar_graph
from admodes.planner.result import Nonzeros
from admodes.planner.search import Found, search
from admodes.planner.task import Task
from admodes.planner.work import Work, work
from admodes.program.evaluate import evaluate

MOST_NUMBERS = 4000  # a vertex for each: beyond, the graph is not searched in seconds
SECONDS = 4.0


@dataclass(frozen=True, eq=False)
class Eliminated:
    """The best elimination order that was found, and where its results go in the Jacobian.

    Multiplying by a partial that is 1 or -1 for every x is free, as it is in the compiled program.
    """

    linearised: Linearised
    found: Found
    pattern: SparsityPattern
    pairs: tuple[tuple[int, int], ...]  # (output, input) of each nonzero
    name: str = "elimination"
    passes: int = 0
    tables: None = None

    @property
    def multiplications(self) -> int:
        return self.found.multiplications

    @property
    def detail(self) -> str:
        graph = self.linearised.graph
        classical = ", ".join(f"{n} {multiplications(graph, ORDERS[n](graph), 'unit')}" for n in ("forward", "reverse"))
        proof = "optimal" if self.found.optimal else f"at least {self.found.lower_bound}"
        return f"{self.found.multiplications} ({proof}; {classical})"

    def work(self, task: Task) -> Work:
        once = work(task.pushing, (False,) * len(task.pushing.in_avals), 1)  # values and local partials
        return once + Work(elements=2.0 * self.multiplications, kernels=0.2 * self.multiplications)

    def jacobian(self, task: Task, tables, args) -> tuple[list, Nonzeros]:
        """The outputs, and the nonzeros."""
        entries = accumulate(self.linearised.graph, self.found.order, self.linearised.partials(*args))
        values = [jnp.asarray(entries[pair], task.dtype) for pair in self.pairs]
        return evaluate(task.program, *args), Nonzeros(jnp.stack(values) if values else jnp.zeros(0, task.dtype))


def eliminated(task: Task, program, seconds: float = SECONDS) -> Eliminated | None:
    """The method for a program of the rows of ``task``; None if it is not a small program of real numbers."""
    numbers = sum(math.prod(getattr(a, "shape", ())) for a in program.avals)
    complex_ = any(np.issubdtype(a.dtype, np.complexfloating) for a in (*task.in_avals, *task.out_avals))
    if numbers > MOST_NUMBERS or complex_ or task.has_unknown_constants:
        return None
    linearised = scalar_graph(program, task.active)
    graph = linearised.graph
    found = search(graph, "unit", seconds=seconds)
    rng = np.random.default_rng(0)
    partials = [rng.uniform(1, 2) if value is None else value for _, _, value in graph.edges]
    entries = accumulate(graph, found.order, partials)
    rows, columns = (np.concatenate([np.zeros(0, int), *parts]) for parts in (linearised.rows, linearised.columns))
    columns = columns[columns >= 0]
    places = [(i, j) for i, w in enumerate(rows) for j, u in enumerate(columns) if (int(w), int(u)) in entries]
    pattern = SparsityPattern.build([i for i, _ in places], [j for _, j in places], (task.m, task.n))
    pairs = tuple((int(rows[i]), int(columns[j])) for i, j in places)
    return Eliminated(linearised, found, pattern, pairs)
