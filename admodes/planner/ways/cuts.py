r"""Cuts: narrow waists of the data-flow graph, where f = g ∘ h and J_f = J_g J_h with few columns and rows between.

A vertex cut is a set of values that every path from the differentiated inputs to the outputs meets. The narrowest is
found by max-flow through the graph with each value's size for its capacity; then again on both sides, which gives a
chain of parts. Dynamic programming over brackets (:func:`admodes.planner.elimination.bracketing.bracket`) finds how
their Jacobians are obtained and in which order they are multiplied, or pushed and pulled through each other.

References: Ford and Fulkerson, Canad. J. Math. 8 (1956) 399-404; Griewank and Naumann, *Accumulating Jacobians as
chained sparse matrix products*, Math. Program. 95 (2003) 555-571.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from admodes.program import jax_compat as jc
from admodes.program.ir import Const, Equation, Program
from admodes.rules.table import LocalRule, lookup

UNBOUNDED = 2**30
# Cuts of a chain: the dynamic program takes the cube of their number. Chosen. Four times more take 64 times as long;
# with fewer, long chains are cut into longer parts.
MOST_CUTS = 24
# Equations of a program that is cut. Chosen, for the time of max-flow. Beyond, no cut is offered.
MOST_EQUATIONS = 20_000


@dataclass(frozen=True)
class Stage:
    """A part of a program between two cuts: equations (by number), values that come in and go out (by slot).

    ``plain`` are the values it takes that carry no derivative here, ``extras`` those that later parts take so.
    """

    equations: tuple[int, ...]
    active: tuple[int, ...]
    plain: tuple[int, ...]
    results: tuple[int, ...]
    extras: tuple[int, ...]


@dataclass(frozen=True)
class Split:
    """A program as equations without derivative, then stages one after the other."""

    prelude: tuple[int, ...]
    stages: tuple[Stage, ...]


class Flow:
    """The values of a program through which derivatives flow, and the equations between them."""

    def __init__(self, program: Program, active: Sequence[bool]):
        self.program = program
        self.inputs = tuple(s for s, on in zip(program.inputs, active, strict=True) if on)
        self.carries = set(self.inputs)
        self.producer: dict[int, int] = {}
        self.between: list[tuple[tuple[int, ...], tuple[int, ...]]] = []  # of each equation: carriers in, carriers out
        for k, equation in enumerate(program.equations):
            reads = tuple(self.carries.intersection(equation.slots))
            writes: tuple[int, ...] = ()
            rule = lookup(equation.primitive)
            zero = isinstance(rule, LocalRule) and rule.is_zero(list(map(program.type_of, equation.inputs)))
            if reads and not zero:
                writes = tuple(s for s in equation.outputs if jc.is_differentiable(program.avals[s]))
                self.carries.update(writes)
                self.producer.update(dict.fromkeys(writes, k))
            self.between.append((reads, writes))

    def size(self, slots) -> int:
        return sum(math.prod(self.program.avals[s].shape) for s in slots)

    def region(self, sources, sinks) -> list[int]:
        """The equations on the paths from ``sources`` back from ``sinks``, in order."""
        stop, seen, found = set(sources), set(), set()
        stack = [s for s in sinks if s not in stop]
        while stack:
            s = stack.pop()
            k = self.producer.get(s)
            if s in seen or k is None:
                continue
            seen.add(s)
            found.add(k)
            stack += [r for r in self.between[k][0] if r not in stop]
        return sorted(found)

    def narrowest(self, sources: tuple, sinks: tuple) -> tuple[int, ...] | None:
        """The smallest set of values between these sets, if it is smaller than both of them."""
        from scipy.sparse import csr_matrix
        from scipy.sparse.csgraph import breadth_first_order, maximum_flow

        equations = self.region(sources, sinks)
        slots = sorted({*sources, *sinks, *(s for k in equations for s in self.between[k][1])})
        number = {s: i for i, s in enumerate(slots)}
        n = len(slots)
        start, end = 2 * n + len(equations), 2 * n + len(equations) + 1
        edges = [(2 * number[s], 2 * number[s] + 1, self.size((s,))) for s in slots]
        edges += [(start, 2 * number[s], UNBOUNDED) for s in sources]
        edges += [(2 * number[s] + 1, end, UNBOUNDED) for s in sinks]
        for e, k in enumerate(equations):
            reads, writes = self.between[k]
            edges += [(2 * number[s] + 1, 2 * n + e, UNBOUNDED) for s in reads if s in number]
            edges += [(2 * n + e, 2 * number[s], UNBOUNDED) for s in writes]
        rows, cols, capacities = (np.array(c, np.int32) for c in zip(*edges, strict=True))
        graph = csr_matrix((capacities, (rows, cols)), shape=(end + 1, end + 1))
        found = maximum_flow(graph, start, end)
        if found.flow_value >= min(self.size(sources), self.size(sinks)):
            return None
        residual = graph - found.flow
        residual.data = np.maximum(residual.data, 0)
        residual.eliminate_zeros()
        reached = set(breadth_first_order(residual, start, return_predecessors=False).tolist())
        return tuple(s for s in slots if 2 * number[s] in reached and 2 * number[s] + 1 not in reached)

    def cuts(self, sources: tuple, sinks: tuple, most: int = MOST_CUTS) -> list[tuple[int, ...]]:
        """Cuts between these sets, one after the other: the narrowest, then those on both sides of it."""
        middle = self.narrowest(sources, sinks) if most > 0 else None
        if middle is None or set(middle) in (set(sources), set(sinks)):
            return []
        before = self.cuts(sources, middle, (most - 1) // 2)
        return [*before, middle, *self.cuts(middle, sinks, most - 1 - len(before))]

    def first_product(self, sources: tuple, sinks: tuple) -> tuple[int, ...] | None:
        """The result of the matrix product that all inputs go into, if there is one: its Jacobian is known."""
        if len(sources) != 1:
            return None
        readers = [k for k in self.region(sources, sinks) if sources[0] in self.between[k][0]]
        if len(readers) != 1 or sources[0] in sinks:
            return None
        (reader,) = readers
        equation = self.program.equations[reader]
        if equation.primitive.name != "dot_general" or set(self.between[reader][1]) == set(sinks):
            return None
        return self.between[reader][1]


def split(program: Program, active: Sequence[bool], rows: Sequence[bool], product: bool = True) -> Split | None:
    """The program cut at its waists; None if it has none, or if they cannot be taken one after the other.

    ``product``: it is also cut after a product of all inputs with a matrix.
    """
    if len(program.equations) > MOST_EQUATIONS:
        return None
    flow = Flow(program, active)
    sinks = tuple(o for o, on in zip(program.outputs, rows, strict=True) if on and not isinstance(o, Const))
    if len(set(sinks)) < sum(rows) or not set(sinks) <= flow.carries or set(sinks) & set(flow.inputs):
        return None  # an output that is constant, an input or given twice has no place in a chain
    cuts = flow.cuts(flow.inputs, sinks)
    first = flow.first_product(flow.inputs, cuts[0] if cuts else sinks) if product else None
    chain = [flow.inputs, *([first] if first else []), *cuts, sinks]
    return _stages(program, flow, chain) if len(chain) > 2 else None


def _stages(program: Program, flow: Flow, chain: list[tuple[int, ...]]) -> Split | None:
    """The stages between the cuts of a chain.

    A value that follows from one value of a cut and is needed for another one and behind the cut is computed on both
    sides: the derivatives behind it are those with respect to the cut alone.
    """
    places: dict[int, list[int]] = {}  # equation -> its stages
    for k, (sources, sinks) in enumerate(itertools.pairwise(chain), start=1):
        for e in flow.region(sources, sinks):
            places.setdefault(e, []).append(k)
    stage_of = dict.fromkeys(flow.inputs, 0)
    members: list[list[int]] = [[] for _ in chain]
    for e, equation in enumerate(program.equations):
        reads = equation.slots
        earliest = max((stage_of.get(x, 0) for x in reads), default=0)
        if e not in places and any(x in flow.inputs for x in reads):
            earliest = max(earliest, 1)
        stages_of_e = places.get(e, [earliest])
        if stages_of_e[0] < earliest:
            return None  # a value that this stage needs is computed by a later one
        for at in stages_of_e:
            members[at].append(e)
        stage_of.update(dict.fromkeys(equation.outputs, stages_of_e[0]))
    wanted = {o for o in program.outputs if not isinstance(o, Const)}
    stages: list[Stage] = []
    for k in range(len(chain) - 1, 0, -1):
        made = {s for e in members[k] for s in program.equations[e].outputs}
        results = chain[k]
        extras = tuple(sorted((wanted & made) - set(results)))
        needed = {x for e in members[k] for x in program.equations[e].slots} - made
        plain = tuple(sorted(needed - set(chain[k - 1])))
        stages.insert(0, Stage(tuple(members[k]), chain[k - 1], plain, results, extras))
        wanted = (wanted - made) | needed
    return Split(tuple(members[0]), tuple(stages))


def subprogram(program: Program, equations: Sequence[int], inputs: Sequence[int], outputs: Sequence[int]) -> Program:
    """Some of the equations, as a program of its own with the same slots."""
    chosen: tuple[Equation, ...] = tuple(program.equations[e] for e in equations)
    return Program(tuple(inputs), tuple(outputs), (), chosen, program.avals)
