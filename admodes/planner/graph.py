r"""The scalar linearised computational graph: a vertex per number, an edge per partial derivative that is not zero.

The Jacobian is the sum, over the paths from an input to an output, of the products of the partials on the path. Every
accumulation of it is an order of eliminating the other vertices (:mod:`admodes.planner.elimination`).

References: Bauer, *Computational graphs and rounding error*, SIAM J. Numer. Anal. 11 (1974) 87-96;
Griewank and Walther, *Evaluating Derivatives*, 2nd ed., SIAM 2008, section 9.2.
"""

from __future__ import annotations

import functools
import heapq
import json
import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import lax

from admodes.linear.maps import Elementwise, LinearMap, Over, expand
from admodes.modes.interpreter import INTERPRETER
from admodes.modes.record import Recorded, record_equation
from admodes.modes.tape import Recorder
from admodes.program import jax_compat as jc
from admodes.program.evaluate import bind, evaluate, live_equations, run
from admodes.program.ir import Const, Equation, Program, from_jaxpr

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

COMMUTATIVE = {"add", "add_any", "mul", "max", "min"}


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
    if equation.primitive.name in COMMUTATIVE:
        operands.sort()
    key = (equation.primitive, tuple(operands), tuple(sorted(equation.params.items(), key=lambda item: item[0])))
    try:
        hash(key)
    except TypeError:  # a parameter that cannot be compared: an array, say
        return None
    return key


def _operand_key(operand) -> tuple:
    if not isinstance(operand, Const):
        return ("slot", operand, "")
    value = np.asarray(operand.value)
    return ("value", value.tobytes(), f"{value.dtype}{value.shape}{jc.typeof(operand.value).weak_type}")


@dataclass(frozen=True, eq=False)
class Linearised:
    """The scalar graph of a program, and where its numbers come from.

    ``program`` computes arrays of partials; the partial on edge e is the number ``values[e]`` plus the sum of the
    entries (array, position) of these that ``terms[e]`` names. ``columns[i]`` and ``rows[j]`` hold the vertex of each
    entry of input i and output j, or -1 where the derivative is zero.
    """

    graph: ScalarGraph
    program: Program
    terms: tuple[tuple[tuple[int, int], ...], ...]
    values: tuple[float, ...]
    columns: tuple[np.ndarray, ...]
    rows: tuple[np.ndarray, ...]
    in_avals: tuple
    out_avals: tuple

    def partials(self, *args) -> list:
        """The partials on the edges of the graph at these (flat) arguments: arrays of shape (), or Python numbers."""
        arrays = evaluate(self.program, *args)
        entries = {}
        for array, k in sorted({place for terms in self.terms for place in terms}):
            flat = lax.reshape(arrays[array], (np.size(arrays[array]),))
            entries[array, k] = lax.index_in_dim(flat, k, keepdims=False)
        partials = []
        for terms, value in zip(self.terms, self.values, strict=True):
            parts = [entries[place] for place in terms]
            partials.append(functools.reduce(operator.add, [value, *parts] if value or not parts else parts))
        return partials


def scalar_graph(program: Program, active: Sequence[bool] | None = None) -> Linearised:
    """The linearised computational graph of a program, a vertex for every number that it computes.

    Common subexpressions are merged and dead code is dropped; a number that only copies another (``reshape``, slices,
    ``x + 1``) is no vertex of its own. Meant for programs of at most some thousands of numbers.

    Args:
      program: what :func:`admodes.program.trace.trace` returns.
      active: which inputs to differentiate, by default all that are real.

    Raises:
      TypeError: complex numbers.

    >>> from admodes.planner.graph import scalar_graph
    >>> from admodes.program.trace import trace
    >>> speelpenning = trace(lambda x, y, z: x * y * z, 2.0, 3.0, 4.0)
    >>> scalar_graph(speelpenning).graph.edges
    ((0, 3, None), (1, 3, None), (2, 4, None), (3, 4, None))
    """
    differentiable = [jc.is_differentiable(aval) for aval in program.in_avals]
    active = [on and chosen for on, chosen in zip(differentiable, active or differentiable, strict=True)]
    if any(np.issubdtype(aval.dtype, np.complexfloating) for aval in (*program.in_avals, *program.out_avals)):
        raise TypeError("scalar graphs are made of real numbers, and this program takes or returns complex ones.")
    local, outputs, blocks = _local_jacobians(merge_common(program), active)
    known = _constants(local)
    builder = _Builder()
    columns = []
    for slot, (aval, on) in enumerate(zip(program.in_avals, active, strict=True)):  # the first slots of the tape
        builder.place[slot] = [builder.vertex({}) if on else -1 for _ in range(math.prod(aval.shape))]
        columns.append(np.array(builder.place[slot], int))
    inputs = len(builder.edges)
    for block in blocks:
        builder.add(block, known)
    rows = [builder.place.get(s) or [-1] * math.prod(a.shape) for s, a in zip(outputs, program.out_avals, strict=True)]
    return builder.finish(inputs, local, columns, rows, program)


@dataclass(frozen=True)
class _Block:
    """d(result ``target``) / d(operand ``source``): the nonzeros, with values in output number ``array``."""

    source: int
    target: int
    size: int  # of the result
    entries: tuple[np.ndarray, np.ndarray]  # rows, columns
    array: int


def _local_jacobians(program: Program, active: Sequence[bool]) -> tuple[Program, tuple, list[list[_Block]]]:
    """A program of the nonzeros of all local Jacobians, the tape slots of the outputs, and the blocks by equation."""
    outputs: tuple = ()
    equations: list[list[_Block]] = []

    def local(*primals):
        nonlocal outputs
        recorder = Recorder(map(jc.typeof, primals))

        def step(equation, operands, params):
            return record_equation(INTERPRETER, recorder, equation.primitive, operands, params)

        results = run(program, step, list(map(Recorded, primals, recorder.inputs(active))), Recorded)
        tape = recorder.close([r.slot for r in results], [jc.typeof(r.primal) for r in results])
        arrays: list = []
        for jacobian, (reads, writes) in zip(tape.maps, tape.wiring, strict=True):
            blocks = []
            for j, i, rows, cols, values in _nonzeros(jacobian, [s is not None for s in reads]):
                if writes[j] is not None:
                    size = math.prod(jacobian.codomain[j].shape)
                    blocks.append(_Block(reads[i], writes[j], size, (rows, cols), len(arrays)))
                    arrays.append(values)
            equations.append(blocks)
        outputs = tape.outputs
        return arrays

    return from_jaxpr(jc.trace_flat(local, program.in_avals, "local")), outputs, equations


def _nonzeros(jacobian: LinearMap, active: Sequence[bool]) -> Iterator[tuple]:
    """(result, operand, rows, columns, values) of the blocks of a map."""
    dense: dict[int, Sequence] = {}
    for (j, i), pattern in jacobian.pattern().items():
        if not active[i]:
            continue
        rows, cols, out = pattern.rows, pattern.cols, jacobian.codomain[j]
        if isinstance(jacobian, Elementwise):
            d, kind = jacobian.partials[i], jacobian.kinds[i]
            values: Any
            if d is None:
                values = np.full(len(rows), kind, out.dtype)
            else:
                partial = lax.convert_element_type(d, out.dtype)
                partial = lax.div(np.ones((), out.dtype), partial) if kind is Over else partial
                values = lax.reshape(expand(partial, out.shape), rows.shape)
        else:
            if i not in dense:
                dense[i] = _push_basis(jacobian, i)
            values = dense[i][j][cols, rows]
        yield j, i, rows, cols, values


def _push_basis(jacobian: LinearMap, i: int) -> list:
    """For each result the matrix (entry of operand i, entry of the result)."""
    domain = jacobian.domain
    n = math.prod(domain[i].shape)
    basis = np.eye(n, dtype=domain[i].dtype).reshape(n, *domain[i].shape)

    def pushed(seed):
        tangents = jacobian.push(tuple(seed if k == i else None for k in range(len(domain))))
        return [jc.zeros(a) if t is None else t for t, a in zip(tangents, jacobian.codomain, strict=True)]

    return [lax.reshape(x, (n, x.size // n)) if n else x for x in jax.vmap(pushed)(basis)]


def _constants(program: Program) -> dict[int, np.ndarray]:
    """The outputs (by number) that are the same for all inputs."""
    known = {slot: value for slot, value in program.constants if not isinstance(value, jc.Tracer)}
    with jax.ensure_compile_time_eval():
        for equation in program.equations:
            if all(isinstance(x, Const) or x in known for x in equation.inputs) and not equation.effects:
                operands = [x.value if isinstance(x, Const) else known[x] for x in equation.inputs]
                params = equation.primitive.get_bind_params(equation.params)
                known.update(zip(equation.outputs, bind(equation.primitive, operands, params), strict=True))
    outputs = enumerate(program.outputs)
    found = {k: x.value if isinstance(x, Const) else known.get(x) for k, x in outputs}
    return {k: np.asarray(value).reshape(-1) for k, value in found.items() if value is not None}


class _Builder:
    """A graph that grows: ``edges[v]`` are those into v, source -> [constant part, entries of arrays to add to it]."""

    def __init__(self):
        self.edges: list[dict[int, list]] = []
        self.place: dict[int, list[int]] = {}  # slot -> the vertex of each entry, or -1

    def vertex(self, edges: dict[int, list]) -> int:
        self.edges.append(edges)
        return len(self.edges) - 1

    def add(self, blocks: Sequence[_Block], known: Mapping[int, np.ndarray]) -> None:
        """Append the results of one equation; a copy of a vertex is that vertex."""
        results: dict[int, list[dict[int, list]]] = {}
        for block in blocks:
            into = results.setdefault(block.target, [{} for _ in range(block.size)])
            for k, (r, c) in enumerate(zip(*block.entries, strict=True)):
                u = self.place.get(block.source, [])[c : c + 1]
                if u and u[0] >= 0:
                    value = into[r].setdefault(u[0], [0.0, []])
                    if block.array in known:
                        value[0] += float(known[block.array][k])
                    else:
                        value[1].append((block.array, k))
        for slot, entries in results.items():
            self.place[slot] = [self._result(edges) for edges in entries]

    def _result(self, edges: dict[int, list]) -> int:
        edges = {u: value for u, value in edges.items() if value != [0.0, []]}
        if list(edges.values()) == [[1.0, []]]:
            return next(iter(edges))
        return self.vertex(edges) if edges else -1

    def finish(self, inputs: int, local: Program, columns, rows, program: Program) -> Linearised:
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
        edges += [(number[v], sink, [1.0, []]) for v, sink in sinks.items()]
        graph = ScalarGraph(
            len(number) + len(sinks),
            tuple(range(inputs)),
            tuple(sinks.get(v, number[v]) for v in results),
            tuple((u, w, None if terms else value) for u, w, (value, terms) in edges),
            tuple(sinks.values()),
        )
        return Linearised(
            graph,
            local,
            tuple(tuple(terms) for _, _, (_, terms) in edges),
            tuple(value for _, _, (value, _) in edges),
            tuple(columns),
            tuple(np.array([v if v < 0 else sinks.get(v, number[v]) for v in row], int) for row in rows),
            program.in_avals,
            program.out_avals,
        )
