r"""Accumulation: the Jacobian entry by entry, composed at planning time into static index lists.

The local Jacobians are sparse matrices whose entries are formulas (:mod:`admodes.planner.elimination.formulas`); those
of chains of elementwise operations are multiplied as arrays first
(:mod:`admodes.planner.elimination.elementwise_regions`). Eliminating a value of the program multiplies the blocks into
it with those out of it, on index arrays, once, when the Jacobian is planned. There remains, at run time, one pass
of gathers, multiplications and additions over the nonzeros; everything that does not depend on x is folded into
constants, and copied entries cost nothing.

The order is greedy: always the array whose elimination takes the fewest products of numbers that are not known. For
programs of few numbers it can be searched, number by number (:mod:`admodes.planner.elimination.search`).

References: Griewank and Walther, *Evaluating Derivatives*, 2nd ed., chapters 9 and 10; Griewank and Reese, *On the
calculation of Jacobian matrices by the Markowitz rule*, in: Automatic Differentiation of Algorithms, SIAM 1991.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import jax
import numpy as np

from admodes.linear.pattern import SparsityPattern
from admodes.planner.elimination.edge_elimination import Split, search_edges
from admodes.planner.elimination.formulas import KNOWN, Entries, Formula, Formulas, Terms, product
from admodes.planner.elimination.gather_tables import schedule
from admodes.planner.elimination.graph import Linearised, scalar_graph
from admodes.planner.elimination.local_nonzeros import Local, TooLarge, local_jacobians
from admodes.planner.elimination.orders import Rule, accumulate
from admodes.planner.elimination.search import Found, search
from admodes.planner.elimination.vertex_elimination import Elimination
from admodes.program import jax_compat as jc
from admodes.program.common_subexpressions import merge_common
from admodes.program.ir import Program

__all__ = ["Accumulation", "TooLarge", "accumulation"]

# Products of an accumulation at most, as PRODUCTS in ``planner/choice/candidates.py``.
MOST_PRODUCTS = 4_000_000
# Part of the time of a search that edge eliminations may add to it. Chosen. More is taken from the search for a
# vertex order.
FOR_EDGES = 0.1
# Nonzeros of the local Jacobians, each an edge of the graph that is searched. Chosen. Four times more make already
# the first, greedy order so much slower.
MOST_SCALARS = 20_000


@dataclass(frozen=True, eq=False)
class Accumulation:
    """The nonzeros of a Jacobian as static index lists.

    ``pattern``: rows are the entries of all outputs, columns those of the active inputs. ``constants`` counts the
    nonzeros that are the same for every x; ``multiplications`` and ``additions`` what the others take, partials aside,
    in so many ``levels`` one after the other. ``tables`` are the index arrays, to be passed to compiled code.
    ``search`` is what a search for the order has found; multiplications are then counted by its rule.
    """

    pattern: SparsityPattern
    multiplications: int
    additions: int
    levels: int
    constants: int
    tables: Any
    local: Local
    dtype: np.dtype
    search: Found | None = None

    def __call__(self, program: Program, tables: Any, args: Sequence, unread: bool = False) -> tuple[list, jax.Array]:
        """The outputs of ``program`` (this one, traced here or elsewhere) and the nonzeros, row by row, at ``args``.

        ``unread``: nobody asks for the outputs.
        """
        known, lists = tables
        outputs, arrays = self.local.values(program, known, args, unread)
        exact = jax.dtypes.result_type(self.dtype, *(x.dtype for x in arrays))
        return outputs, jax.lax.convert_element_type(lists(arrays, exact), self.dtype)


def accumulation(
    program: Program,
    active: Sequence[bool],
    *,
    most_products: int = MOST_PRODUCTS,
    order: Literal["array", "scalar"] = "array",
    seconds: float = 2.0,
    rule: Rule = "unit",
) -> Accumulation:
    """Plan the Jacobian of a program with respect to its active inputs, entry by entry.

    Args:
      program: what :func:`admodes.program.trace.trace` returns.
      active: which inputs to differentiate.
      most_products: give up beyond.
      order: eliminate array by array, greedily, or number by number in an order that is searched.
      seconds: CPU time of that search.
      rule: how it counts multiplications (:mod:`admodes.planner.elimination.orders`).

    Raises:
      TooLarge: there are more than ``most_products`` products of nonzeros, known ones included.
      PlanningError: complex numbers are differentiated.

    >>> import jax.numpy as jnp
    >>> from admodes.planner.ways.accumulation import accumulation
    >>> from admodes.program.trace import trace
    >>> x = jnp.array([1.0, 2.0, 3.0])
    >>> program = trace(lambda x: 4 * x[1:] * x[:-1] + x[1:], x)
    >>> found = accumulation(program, [True])
    >>> outputs, values = found(program, found.tables, [x])
    >>> found.pattern.rows.tolist(), found.pattern.cols.tolist(), values.tolist()
    ([0, 0, 1, 1], [0, 1, 1, 2], [8.0, 5.0, 12.0, 9.0])
    """
    active = [on and jc.is_differentiable(a) for on, a in zip(active, program.in_avals, strict=True)]
    best = None
    if order == "scalar":
        linearised = scalar_graph(program, active, min(most_products, MOST_SCALARS))
        vertices = search(linearised.graph, rule, seconds=(1 - FOR_EDGES) * seconds)
        split, best = search_edges(linearised.graph, vertices, rule, seconds=FOR_EDGES * seconds)
        local, formulas = linearised.local, Formulas(sum(linearised.local.sizes))
        entries = _eliminated(linearised, split, best.order, formulas)
    else:
        local = local_jacobians(merge_common(program), active, most_products, regions=True)
        formulas = Formulas(sum(local.sizes))
        entries = _Arrays(local, program, active, formulas, most_products).run()
    found = schedule(formulas, local.sizes, entries)
    return Accumulation(
        SparsityPattern.build(entries.rows, entries.cols, entries.shape),
        best.multiplications if best else found.multiplications + local.multiplications,
        found.additions + local.additions,
        found.levels,
        int(np.count_nonzero(entries.root == KNOWN)),
        (local.known, found.tables),
        local,
        _dtype(program, active),
        best,
    )


def _dtype(program: Program, active: Sequence[bool]) -> np.dtype:
    """That of the Jacobian: of all outputs together, or of the inputs if no output is differentiable."""
    outs = [a.dtype for a in program.out_avals if jc.is_differentiable(a)]
    ins = [a.dtype for a, on in zip(program.in_avals, active, strict=True) if on]
    return jax.dtypes.result_type(*(outs or ins or [np.float32]))


def _eliminated(linearised: Linearised, split: Split, order: Sequence[int], formulas: Formulas) -> Entries:
    """The Jacobian by eliminating the vertices of a scalar graph, some of them split."""
    partials: dict = {}
    for (u, w, _), value, terms in zip(linearised.graph.edges, linearised.values, linearised.terms, strict=True):
        known = {(KNOWN, KNOWN): value} if value else {}
        sums = known | {(number, KNOWN): coef for coef, number in terms}
        partials[u, w] = Formula(formulas, sums) if terms else value
    values = [partials[split.origin[u], split.origin[w]] for u, w, _ in split.graph.edges]
    nonzeros: dict[int, list] = {}
    for (w, u), value in accumulate(split.graph, order, values).items():
        coef, root = value.entry if isinstance(value, Formula) else (value, KNOWN)
        nonzeros.setdefault(w, []).append((u, coef, root))  # the vertices of the inputs are the columns
    rows = np.concatenate([np.zeros(0, int), *linearised.rows]).tolist()
    entries = [(i, *entry) for i, w in enumerate(rows) for entry in sorted(nonzeros.get(w, ())) if entry[1] != 0]
    places = np.array([e[:2] for e in entries], np.int64).reshape(-1, 2)
    coefs, roots = np.array([e[2] for e in entries], float), np.array([e[3] for e in entries], np.int64)
    return Entries(places[:, 0], places[:, 1], coefs, roots, (len(rows), len(linearised.graph.inputs)))


@dataclass(frozen=True, eq=False)
class _Block:
    """∂w/∂u as a sum of terms, which is formed when it is looked at."""

    formulas: Formulas
    terms: tuple[Terms, ...]
    shape: tuple[int, int]

    @cached_property
    def entries(self) -> Entries:
        return self.formulas.collect(list(self.terms), self.shape)

    def plus(self, other: _Block) -> _Block:
        return _Block(self.formulas, (*self.terms, *other.terms), self.shape)

    def times(self, inner: _Block) -> _Block:
        terms = product(self.entries, inner.entries)
        return _Block(self.formulas, (terms,), (self.shape[0], inner.shape[1]))


class _Arrays(Elimination):
    """The arrays of a program, by slot; an output is a vertex ``("out", j)`` of its own."""

    def __init__(self, local: Local, program: Program, active: Sequence[bool], formulas: Formulas, most: int):
        super().__init__(_Block.times, lambda w, there, more: there.plus(more))
        self.formulas, self.most, self.left = formulas, most, most
        self.inputs = [slot for slot, on in enumerate(active) if on]
        self.out_sizes = [math.prod(a.shape) for a in program.out_avals]
        self.in_sizes = [math.prod(program.in_avals[slot].shape) for slot in self.inputs]
        for slot in self.inputs:
            self.vertex(slot)
        for equation in local.blocks:
            for block in equation:
                self.add(block.source, block.target, _Block(formulas, (block.entries.terms(),), block.entries.shape))
        for j, (slot, size) in enumerate(zip(local.outputs, self.out_sizes, strict=True)):
            if slot is not None:
                self.add(slot, ("out", j), _Block(formulas, (Entries.identity(size).terms(),), (size, size)))

    def cost(self, v) -> tuple[int, int]:
        """The products that the elimination of v takes: of numbers that are not known, and all."""
        into = [self.successors[u][v].entries.row_counts for u in self.predecessors[v]]
        out = [block.entries.col_counts for block in self.successors[v].values()]
        if not into or not out:
            return 0, 0
        all_pairs, unknown = (int(n) for n in np.sum(sum(into) * sum(out), axis=1))
        return unknown, all_pairs

    def run(self) -> Entries:
        """Eliminate all but inputs and outputs; the Jacobian."""
        ends = set(self.inputs)
        left = [v for v in self.successors if v not in ends and not isinstance(v, tuple)]
        order = {v: k for k, v in enumerate(sorted(left))}
        costs = {v: (*self.cost(v), k) for v, k in order.items()}
        while costs:
            v = min(costs, key=costs.__getitem__)
            self.left -= costs.pop(v)[1]
            if self.left < 0:
                raise TooLarge(self.most - self.left)
            touched = (*self.predecessors[v], *self.successors[v])
            self.eliminate(v)
            for x in touched:
                if x in costs:
                    costs[x] = (*self.cost(x), order[x])
        return self._stacked()

    def _stacked(self) -> Entries:
        """The blocks of inputs and outputs as one matrix, sorted by rows and columns."""
        shape = sum(self.out_sizes), sum(self.in_sizes)
        first_row, first_col = np.cumsum([0, *self.out_sizes]), np.cumsum([0, *self.in_sizes])
        parts = [Terms(np.zeros(0, np.int64), np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.int64))]
        for i, u in enumerate(self.inputs):
            for w, found in self.successors[u].items():
                block = found.entries
                places = (block.rows + first_row[w[1]]) * shape[1] + block.cols + first_col[i]
                parts.append(Terms(places, block.coef, block.root, np.full(block.root.size, KNOWN)))
        return self.formulas.collect(parts, shape)
