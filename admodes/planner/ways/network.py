r"""Networks of arrays: the Jacobian by eliminating whole arrays, with a matrix on each edge.

Vertices are the arrays of a program and ∂w/∂u is on the edge from u to w: the matrix of a product W u, a diagonal
matrix, or a map that is applied to what it is multiplied by. Eliminating v adds ∂w/∂v ∂v/∂u to each ∂w/∂u, at |w| |v|
|u| multiply-adds for two matrices, and the order decides how many there are in all
(:mod:`admodes.planner.elimination.bracketing`). Where chains of cuts take one waist after the other, a network may have
paths beside them. Matrices are scaled as late as can be, and of two factors the smaller one.

References: Griewank and Naumann, *Accumulating Jacobians as chained sparse matrix products*, Math. Program. 95 (2003)
555-571; Naumann, *Optimal Jacobian accumulation is NP-complete*, Math. Program. 112 (2008) 427-441.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from admodes.linear.maps import Linear
from admodes.modes.interpreter import INTERPRETER
from admodes.modes.tape import Tape
from admodes.planner.cost.work import Work, work
from admodes.planner.elimination.elementwise_regions import joined
from admodes.planner.elimination.graph import ScalarGraph
from admodes.planner.elimination.local_nonzeros import is_real
from admodes.planner.elimination.search import Found, search
from admodes.planner.elimination.vertex_elimination import Elimination
from admodes.planner.matrices import LARGEST, Dense
from admodes.planner.sweeps.batched_sweep import evaluate_once
from admodes.planner.task import Task
from admodes.planner.ways.network_edges import KINDS, Edge, edges
from admodes.planner.ways.seeded import forward, reverse
from admodes.program import jax_compat as jc
from admodes.program.derived import keep
from admodes.program.ir import from_jaxpr

# Equations of a program that is taken as a network. Chosen: each is recorded when planning. Beyond, no network is
# offered.
MOST_EQUATIONS = 500
# Arrays beside inputs and outputs. Chosen, for the time of the search. Beyond, no network is offered.
MOST_ARRAYS = 60
# Part of the multiplications of plain modes below which a network is offered. Chosen. At 1 networks would be planned
# and compiled that gain next to nothing; at half of it good ones are lost.
WORTH = 0.85
# Arrays whose best order is found, and seconds for which one of more arrays is searched. Chosen, for each first call.
QUICK, QUICK_SECONDS = 8, 0.05
# Seconds of the search, if multiplications are what counts; as in ``planner/choice/candidates.py``.
SEARCH_SECONDS = 4.0


class Arrays(Elimination):
    """The arrays of a tape, by slot; the rows of the Jacobian have vertices of their own, the ``sinks``."""

    def __init__(self, tape: Tape, active: Sequence[bool], differentiated: Sequence[bool]):
        self.types: dict[Any, Any] = dict(enumerate(tape.domain))
        super().__init__(Edge.times, lambda w, there, more: there.plus(more, self.types[w].size, self.types[w].dtype))
        self.inputs = tuple(keep(active, range(len(active))))
        for s in self.inputs:
            self._vertex(s, tape.domain[s])
        maps, wiring, *_ = joined(tape)
        for jacobian, (reads, writes) in zip(maps, wiring, strict=True):
            for s, aval in zip(writes, jacobian.codomain, strict=True):
                if s is not None:
                    self._vertex(s, aval)
            for j, i, edge in edges(jacobian):
                if reads[i] is not None and writes[j] is not None:
                    self.add(reads[i], writes[j], edge)
        first = max(self.types, default=-1) + 1
        self.sinks = tuple(range(first, first + sum(differentiated)))
        for sink, slot, aval in zip(
            self.sinks, keep(differentiated, tape.outputs), keep(differentiated, tape.codomain), strict=True
        ):
            self._vertex(sink, aval)
            if slot is not None:
                self.add(slot, sink, Edge(None))
        self._contract()

    def _vertex(self, v: int, aval) -> None:
        self.types[v] = aval
        self.vertex(v)

    @property
    def intermediates(self) -> list:
        ends = {*self.inputs, *self.sinks}
        return [v for v in self.successors if v not in ends]

    def _contract(self) -> None:
        """Eliminate what is a multiple, entry by entry, of the only array before it, or has its only successor so."""
        left: list = []
        while len(left) != len(now := self.intermediates):
            left = now
            for v in left:
                before, after = self.predecessors[v], self.successors[v]
                alone = [self.successors[u][v] for u in before] if len(before) == 1 else []
                alone += after.values() if len(after) == 1 else []
                if any(edge.core is None for edge in alone):
                    self.eliminate(v)

    @property
    def is_of_matrices(self) -> bool:
        """True if there are matrices on the edges, and no map that multiplies, which is applied row by row."""
        every = [edge for after in self.successors.values() for edge in after.values()]
        matrices = [isinstance(edge.core, Dense) for edge in every]
        return any(matrices) and all(on or edge.is_free for on, edge in zip(matrices, every, strict=True))

    def graph(self) -> tuple[ScalarGraph, tuple[int, ...], tuple[int, ...]]:
        """The network that is left, the sizes of its arrays, and the slots of its vertices."""
        slots: tuple = tuple(self.successors)
        number = {v: k for k, v in enumerate(slots)}
        found = [
            (number[u], number[w], 1.0 if edge.is_free else None)
            for u, after in self.successors.items()
            for w, edge in after.items()
        ]
        inputs, sinks = (tuple(number[v] for v in side) for side in (self.inputs, self.sinks))
        return ScalarGraph(len(slots), inputs, sinks, tuple(found)), tuple(self.types[v].size for v in slots), slots

    def jacobian(self, dtype) -> Dense:
        """The edges from inputs to sinks as one matrix."""

        def block(u: int, w: int):
            m, n = self.types[w].size, self.types[u].size
            edge = self.successors[u].get(w)
            if edge is None:
                return jnp.zeros((m, n), dtype)
            return lax.convert_element_type(edge.matrix(m, self.types[w].dtype).rows, dtype)

        rows = [jnp.concatenate([block(u, w) for u in self.inputs], 1) for w in self.sinks]
        return Dense(jnp.concatenate(rows, 0))


@dataclass(frozen=True, eq=False)
class Network:
    """The arrays of a tape, eliminated in this ``order`` (of slots).

    ``graph`` is the network when the search began, ``entries`` the sizes of its arrays, and ``search`` what it found;
    what it costs was worked out then.
    """

    order: tuple[int, ...]
    graph: ScalarGraph
    entries: tuple[int, ...]
    search: Found
    cost: Work
    multiplications: float
    is_of_matrices: bool  # and diagonals, and of what moves or adds entries
    name: str = "network"
    passes: int = 0
    pattern: None = None
    tables: None = None

    @property
    def detail(self) -> str:
        proof = "optimal" if self.search.optimal else f"at least {self.search.lower_bound}"
        return f"{len(self.order)} arrays eliminated, {self.search.multiplications} multiply-adds ({proof})"

    def work(self, task: Task) -> Work:
        return self.cost

    def jacobian(self, task: Task, tables, args) -> tuple[list, Dense]:
        """The outputs, and the Jacobian as one matrix."""
        n = len(task.closed.out_avals)

        def accumulate(*args):
            outs, tape = INTERPRETER.record_program(task.closed, args, task.active)
            return [*outs, _eliminated(task, tape, self.order).rows]

        program = from_jaxpr(jc.trace_flat(accumulate, task.closed.in_avals, "network"))
        *outs, matrix = evaluate_once(program, args, unread=n if task.outputs_unread else 0)
        return outs, Dense(matrix)


def _eliminated(task: Task, tape: Tape, order: Sequence[int]) -> Dense:
    elimination = Arrays(tape, task.active, task.differentiated)
    for v in order:
        elimination.eliminate(v)
    return elimination.jacobian(task.dtype)


def whole_arrays(task: Task, objective: str) -> Network | None:
    """The network of a task, if it is one of matrices and diagonals, or takes much fewer multiplications than others.

    A map that is applied to each row of a matrix is not better off than in plain modes, which fuse it with others.
    """
    found = network(task, thorough if objective == "multiplications" else quick)
    if found is None or found.is_of_matrices or objective == "multiplications":
        return found
    plain = min(method.work(task).multiplications for method in (forward(task), reverse(task)))
    return found if found.multiplications <= WORTH * plain else None


def network(task: Task, find: Callable[[ScalarGraph, Sequence[int]], Found]) -> Network | None:
    """The elimination of whole arrays, in the order that ``find(graph, sizes)`` gives.

    None if the arrays are numbers, or if a map of the program has one direction only or is complex.
    """
    if len(task.program.equations) > MOST_EQUATIONS or not 0 < task.n * task.m <= LARGEST:
        return None
    found: Any = None

    def record(*args):
        nonlocal found
        outs, tape = INTERPRETER.record_program(task.closed, args, task.active)
        if is_real(tape) and all(isinstance(m, KINDS) for m in tape.maps):
            elimination = Arrays(tape, task.active, task.differentiated)
            found = tape, elimination.is_of_matrices, elimination.graph()
        return [*outs, *filter(_is_number, jax.tree_util.tree_leaves(tape))]

    recorded = jc.trace_flat(record, task.closed.in_avals, "record")
    if found is None:
        return None
    tape, is_of_matrices, (graph, sizes, slots) = found
    if len(graph.intermediates) > MOST_ARRAYS or max(sizes) == 1:
        return None
    best = find(graph, sizes)
    order = tuple(slots[v] for v in best.order)
    products = _products(task, tape, order)
    cost = work(recorded, (False,) * len(task.active), 1) + products
    return Network(order, graph, sizes, best, cost, products.multiplications, is_of_matrices)


def quick(graph: ScalarGraph, sizes: Sequence[int]) -> Found:
    """The best order of a few arrays, a good one of more."""
    return search(graph, "unit", sizes=sizes, seconds=QUICK_SECONDS, exact=QUICK)


def thorough(graph: ScalarGraph, sizes: Sequence[int]) -> Found:
    """The best order that is found in some seconds."""
    return search(graph, "unit", sizes=sizes, seconds=SEARCH_SECONDS)


def _products(task: Task, tape: Tape, order: Sequence[int]) -> Work:
    """The work of the elimination alone; multiplications by known matrices count as others do."""
    structure: Any
    leaves, structure = jax.tree_util.tree_flatten(tape)
    products = (m for m in tape.maps if isinstance(m, Linear) and m.primitive is lax.dot_general_p)
    factors = {id(x) for m in products for x in m.operands}
    given = [_is_number(x) or id(x) in factors for x in leaves]

    def accumulate(*values):
        it = iter(values)
        same = structure.unflatten(next(it) if on else x for on, x in zip(given, leaves, strict=True))
        return [_eliminated(task, same, order).rows]

    types = [jc.typeof(x) for x in keep(given, leaves)]
    return work(jc.trace_flat(accumulate, types, "accumulate"), (True,) * len(types), 1)


def _is_number(x) -> bool:
    """True if it is found at run time."""
    return isinstance(x, jc.Tracer)
