r"""The scalar linearised computational graph: a vertex per number, an edge per partial derivative that is not zero.

The Jacobian is the sum, over the paths from an input to an output, of the products of the partials on the path. Every
accumulation of it is an order of eliminating the other vertices (:mod:`admodes.planner.elimination.orders`).

References: Bauer, *Computational graphs and rounding error*, SIAM J. Numer. Anal. 11 (1974) 87-96;
Griewank and Walther, *Evaluating Derivatives*, 2nd ed., SIAM 2008, section 9.2.
"""

from __future__ import annotations

import functools
import heapq
import json
import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jax import lax

from admodes.planner.elimination.formulas import KNOWN
from admodes.planner.elimination.local_nonzeros import Block, Local, local_jacobians
from admodes.program import jax_compat as jc
from admodes.program.common_subexpressions import merge_common
from admodes.program.ir import Program

Edge = tuple[int, int, float | None]  # source, target, the partial if it does not depend on x


@dataclass(frozen=True)
class ScalarGraph:
    """Vertices ``0 ... vertices - 1`` and edges ``(source, target, value)``, at most one from each to each.

    ``value`` is the partial where it is the same for every x, else ``None``. Inputs have no predecessors, outputs no
    successors: an output that is used again has a sink of its own behind an edge of value 1, and ``sinks`` lists these.

    Raises:
      ValueError: the edges do not make such a graph.
    """

    vertices: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    edges: tuple[Edge, ...]
    sinks: tuple[int, ...] = ()

    def __post_init__(self):
        ends = {(u, w) for u, w, _ in self.edges}
        if any(not 0 <= v < self.vertices for v in {*self.inputs, *self.outputs, *(v for e in ends for v in e)}):
            raise ValueError(f"the graph has vertices 0 to {self.vertices - 1}, but names others.")
        if len(ends) < len(self.edges):
            raise ValueError("the graph has two edges between the same vertices; add their values first.")
        if {w for _, w in ends}.intersection(self.inputs) or {u for u, _ in ends}.intersection(self.outputs):
            raise ValueError("an edge leads into an input or out of an output; give a used output a sink of its own.")
        if not set(self.sinks) <= set(self.outputs):
            raise ValueError("every sink of an output that is used again must be an output.")
        if len(self.topological) < self.vertices:
            raise ValueError("the graph has a cycle.")

    @functools.cached_property
    def intermediates(self) -> tuple[int, ...]:
        """The vertices to be eliminated, in the order of evaluation."""
        ends = {*self.inputs, *self.outputs}
        return tuple(v for v in self.topological if v not in ends)

    @functools.cached_property
    def topological(self) -> tuple[int, ...]:
        """All vertices, each after its predecessors; by number where that leaves a choice."""
        waiting = [0] * self.vertices
        successors: list[list[int]] = [[] for _ in waiting]
        for u, w, _ in self.edges:
            waiting[w] += 1
            successors[u].append(w)
        ready = [v for v, count in enumerate(waiting) if not count]
        order = []
        while ready:
            order.append(v := heapq.heappop(ready))
            for w in successors[v]:
                waiting[w] -= 1
                if not waiting[w]:
                    heapq.heappush(ready, w)
        return tuple(order)

    @staticmethod
    def from_json(source: str | Path | Mapping) -> ScalarGraph:
        """Read a graph from a file, or from what ``json.load`` made of it.

        The keys are those of the fields, and ``sinks_of_outputs_used_again`` for ``sinks``.
        """
        data = source if isinstance(source, Mapping) else json.loads(Path(source).read_text(encoding="utf-8"))
        edges = tuple((u, w, None if value is None else float(value)) for u, w, value in data["edges"])
        sinks = tuple(data.get("sinks_of_outputs_used_again", ()))
        return ScalarGraph(data["vertices"], tuple(data["inputs"]), tuple(data["outputs"]), edges, sinks)

    def to_json(self) -> dict:
        """The graph as :meth:`from_json` reads it."""
        return {
            "vertices": self.vertices,
            "inputs": list(self.inputs),
            "outputs": list(self.outputs),
            "intermediates": list(self.intermediates),
            "sinks_of_outputs_used_again": list(self.sinks),
            "edges": [list(edge) for edge in self.edges],
        }


# -- from a program ------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Linearised:
    """The scalar graph of a program, and where its numbers come from.

    The partial on edge e is the number ``values[e]`` plus the sum of coefficient times number of ``local`` over the
    pairs ``terms[e]``. ``columns[i]`` and ``rows[j]`` hold the vertex of each entry of input i and output j, or -1
    where the derivative is zero.
    """

    graph: ScalarGraph
    program: Program
    local: Local
    terms: tuple[tuple[tuple[float, int], ...], ...]
    values: tuple[float, ...]
    columns: tuple[np.ndarray, ...]
    rows: tuple[np.ndarray, ...]
    in_avals: tuple
    out_avals: tuple

    def partials(self, *args) -> list:
        """The partials on the edges of the graph at these (flat) arguments: arrays of shape (), or Python numbers."""
        _, arrays = self.local.values(self.program, self.local.known, args)
        starts = np.cumsum([0, *self.local.sizes])
        numbers = {}
        for number in sorted({number for terms in self.terms for _, number in terms}):
            k = int(np.searchsorted(starts, number, "right")) - 1
            numbers[number] = lax.index_in_dim(arrays[k], number - int(starts[k]), keepdims=False)
        partials = []
        for terms, value in zip(self.terms, self.values, strict=True):
            parts = [numbers[number] if coef == 1 else coef * numbers[number] for coef, number in terms]
            partials.append(functools.reduce(operator.add, [value, *parts] if value or not parts else parts))
        return partials


def scalar_graph(program: Program, active: Sequence[bool] | None = None, most: float = math.inf) -> Linearised:
    """The linearised computational graph of a program, a vertex for every number that it computes.

    Common subexpressions are merged and dead code is dropped; a number that only copies another (``reshape``, slices,
    ``x + 1``) is no vertex of its own. Meant for programs of at most some thousands of numbers.

    Args:
      program: what :func:`admodes.program.trace.trace` returns.
      active: which inputs to differentiate, by default all that are real.
      most: how many nonzeros the local Jacobians may have together.

    Raises:
      TypeError: complex numbers.
      TooLarge: there are more nonzeros.

    >>> from admodes.planner.elimination.graph import scalar_graph
    >>> from admodes.program.trace import trace
    >>> speelpenning = trace(lambda x, y, z: x * y * z, 2.0, 3.0, 4.0)
    >>> scalar_graph(speelpenning).graph.edges
    ((0, 3, None), (1, 3, None), (2, 4, None), (3, 4, None))
    """
    differentiable = [jc.is_differentiable(aval) for aval in program.in_avals]
    active = [on and chosen for on, chosen in zip(differentiable, active or differentiable, strict=True)]
    if any(np.issubdtype(aval.dtype, np.complexfloating) for aval in (*program.in_avals, *program.out_avals)):
        raise TypeError("scalar graphs are made of real numbers, and this program takes or returns complex ones.")
    local = local_jacobians(merge_common(program), active, most)
    builder = _Builder()
    columns = []
    for slot, (aval, on) in enumerate(zip(program.in_avals, active, strict=True)):  # the first slots of the tape
        builder.place[slot] = [builder.vertex({}) if on else -1 for _ in range(math.prod(aval.shape))]
        columns.append(np.array(builder.place[slot], int))
    inputs = len(builder.edges)
    for blocks in local.blocks:
        builder.add(blocks)
    avals = program.out_avals
    rows = [builder.place.get(s) or [-1] * math.prod(a.shape) for s, a in zip(local.outputs, avals, strict=True)]
    return builder.finish(inputs, local, columns, rows, program)


class _Builder:
    """A graph that grows: ``edges[v]`` are those into v, source -> [constant part, {number: its coefficient}]."""

    def __init__(self):
        self.edges: list[dict[int, list]] = []
        self.place: dict[int, list[int]] = {}  # slot -> the vertex of each entry, or -1

    def vertex(self, edges: dict[int, list]) -> int:
        self.edges.append(edges)
        return len(self.edges) - 1

    def add(self, blocks: Sequence[Block]) -> None:
        """Append the results of one equation; a copy of a vertex is that vertex."""
        results: dict[int, list[dict[int, list]]] = {}
        for block in blocks:
            e = block.entries
            into = results.setdefault(block.target, [{} for _ in range(e.shape[0])])
            nonzeros = zip(e.rows.tolist(), e.cols.tolist(), e.coef.tolist(), e.root.tolist(), strict=True)
            for r, c, coef, root in nonzeros:
                u = self.place.get(block.source, [])[c : c + 1]
                if u and u[0] >= 0:
                    value = into[r].setdefault(u[0], [0.0, {}])
                    if root == KNOWN:
                        value[0] += coef
                    else:
                        value[1][root] = value[1].get(root, 0.0) + coef
        for slot, entries in results.items():
            self.place[slot] = [self._result(edges) for edges in entries]

    def _result(self, edges: dict[int, list]) -> int:
        edges = {u: value for u, value in edges.items() if value != [0.0, {}]}
        if list(edges.values()) == [[1.0, {}]]:
            return next(iter(edges))
        return self.vertex(edges) if edges else -1

    def finish(self, inputs: int, local: Local, columns, rows, program: Program) -> Linearised:
        """Drop what no output needs, give outputs that are used again their sinks, and number what is left."""
        results = sorted({v for row in rows for v in row if v >= 0})
        live, used = set(range(inputs)), set(range(inputs))
        live.update(results)
        for v in reversed(range(len(self.edges))):
            if v in live:
                live.update(self.edges[v])
                used.update(self.edges[v])
        number = {v: k for k, v in enumerate(sorted(live))}
        edges = [(number[u], number[v], value) for v in sorted(live) for u, value in sorted(self.edges[v].items())]
        sinks = {v: len(number) + k for k, v in enumerate(v for v in results if v in used)}
        edges += [(number[v], sink, [1.0, {}]) for v, sink in sinks.items()]
        graph = ScalarGraph(
            len(number) + len(sinks),
            tuple(range(inputs)),
            tuple(sinks.get(v, number[v]) for v in results),
            tuple((u, w, None if terms else value) for u, w, (value, terms) in edges),
            tuple(sinks.values()),
        )
        return Linearised(
            graph,
            program,
            local,
            tuple(tuple((coef, root) for root, coef in terms.items()) for _, _, (_, terms) in edges),
            tuple(value for _, _, (value, _) in edges),
            tuple(columns),
            tuple(np.array([v if v < 0 else sinks.get(v, number[v]) for v in row], int) for row in rows),
            program.in_avals,
            program.out_avals,
        )
