r"""Orders of multiplying Jacobians of arrays: networks of arrays by elimination, chains by bracketing.

With vertices that are arrays and edges that are dense matrices, eliminating v multiplies a |w| x |v| by a |v| x |u|
matrix for each pair of a predecessor u and a successor w: |u| |v| |w| multiply-adds. Forward mode multiplies each edge
(u, w) by |inputs| tangents, reverse mode by |outputs| cotangents, at |u| |w| each.

The best order is searched by :func:`admodes.planner.elimination.search.search` with sizes. On a chain, one array after
the other, dynamic programming over brackets is exact at any length, and there a Jacobian may also be carried through a
stage that is never accumulated, by pushing its columns or pulling its rows.

References: Godbole, *On efficient computation of matrix chain products*, IEEE Trans. Comput. C-22 (1973) 864-866;
Griewank and Naumann, *Accumulating Jacobians as chained sparse matrix products*, Math. Program. 95 (2003) 555-571;
Naumann, *Optimal Jacobian accumulation is NP-complete*, Math. Program. 112 (2008) 427-441.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from admodes.planner.elimination.graph import ScalarGraph


def network(sizes: Sequence[int], edges: Sequence[tuple[int, int]]) -> ScalarGraph:
    """The graph of arrays with these edges; its inputs have no predecessors and its outputs no successors."""
    sources, targets = {u for u, _ in edges}, {w for _, w in edges}
    inputs = tuple(v for v in range(len(sizes)) if v not in targets)
    outputs = tuple(v for v in range(len(sizes)) if v not in sources and v in targets)
    return ScalarGraph(len(sizes), inputs, outputs, tuple((u, w, None) for u, w in edges))


def forward_cost(graph: ScalarGraph, sizes: Sequence[int]) -> int:
    """Multiply-adds of forward mode with a tangent per input.

    >>> from admodes.planner.elimination.bracketing import forward_cost, network, reverse_cost
    >>> from admodes.planner.elimination.search import search
    >>> sizes = (10, 20, 1)
    >>> graph = network(sizes, [(0, 1), (1, 2)])
    >>> forward_cost(graph, sizes), reverse_cost(graph, sizes), search(graph, sizes=sizes).multiplications
    (2200, 220, 200)
    """
    return sum(sizes[v] for v in graph.inputs) * sum(sizes[u] * sizes[w] for u, w, _ in graph.edges)


def reverse_cost(graph: ScalarGraph, sizes: Sequence[int]) -> int:
    """Multiply-adds of reverse mode with a cotangent per output."""
    return sum(sizes[v] for v in graph.outputs) * sum(sizes[u] * sizes[w] for u, w, _ in graph.edges)


# -- chains --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bracket:
    """The way to the Jacobian of the stages ``start ... stop - 1``, and what it costs in all.

    ``how``: ``"stage"`` is one stage accumulated by itself; ``"multiply"`` is the product of the two ``parts``;
    ``"push"`` carries the columns of the first part through the stages after it, ``"pull"`` the rows of the last part
    back through the stages before it, and these are then not accumulated.
    """

    start: int
    stop: int
    how: Literal["stage", "multiply", "push", "pull"]
    parts: tuple[Bracket, ...]
    cost: float

    def __str__(self) -> str:
        if self.how == "stage":
            return f"J{self.start + 1}"
        inner = [str(part) for part in self.parts]
        if self.how == "push":
            inner.append(f"{_stages(self.parts[0].stop + 1, self.stop)} pushed")
        elif self.how == "pull":
            inner.insert(0, f"{_stages(self.start + 1, self.parts[0].start)} pulled")
        return f"({' '.join(reversed(inner))})"


def _stages(first: int, last: int) -> str:
    return f"{first}" if first == last else f"{first}..{last}"


def bracket(
    sizes: Sequence[int],
    *,
    accumulate: Sequence[float] | None = None,
    push: Sequence[float] | None = None,
    pull: Sequence[float] | None = None,
) -> Bracket:
    """The cheapest way to the Jacobian of a chain of stages, stage k leading from ``sizes[k]`` to ``sizes[k + 1]``.

    Args:
      sizes: of the arrays, inputs first.
      accumulate: what the Jacobian of each stage costs by itself, by default nothing (it is known).
      push: what one tangent through each stage costs; without it nothing is pushed.
      pull: what one cotangent through each stage costs; without it nothing is pulled.

    Raises:
      ValueError: a chain without stages, or lists of other lengths than it has stages.

    >>> from admodes.planner.elimination.bracketing import bracket
    >>> best = bracket((10, 30, 5, 60))
    >>> best.cost, str(best)
    (4500, '(J3 (J2 J1))')
    """
    stages = len(sizes) - 1
    if stages < 1:
        raise ValueError("a chain has at least one stage, so at least two sizes.")
    alone = list(accumulate) if accumulate is not None else [0] * stages
    if any(costs is not None and len(costs) != stages for costs in (alone, push, pull)):
        raise ValueError(f"the chain has {stages} stages: give one cost for each.")
    best = {(k, k + 1): Bracket(k, k + 1, "stage", (), alone[k]) for k in range(stages)}
    for length in range(2, stages + 1):
        for i in range(stages - length + 1):
            j = i + length
            found = []
            for k in range(i + 1, j):
                first, last = best[i, k], best[k, j]
                product = first.cost + last.cost + sizes[i] * sizes[k] * sizes[j]
                found.append(Bracket(i, j, "multiply", (first, last), product))
                if push is not None:
                    found.append(Bracket(i, j, "push", (first,), first.cost + sizes[i] * sum(push[k:j])))
                if pull is not None:
                    found.append(Bracket(i, j, "pull", (last,), last.cost + sizes[j] * sum(pull[i:k])))
            best[i, j] = min(found, key=lambda b: (b.cost, sum(part.how != "stage" for part in b.parts)))
    return best[0, stages]
