r"""Vertex elimination: a graph whose edges are linear maps, and an algebra of these.

Eliminating v replaces each path u → v → w by the edge J_wv J_vu, which is added to an edge from u to w that is there
already. When all but inputs and outputs are gone, the edges are the Jacobian. Edges are numbers, formulas, sparse
matrices of formulas, or matrices of arrays; only their products and sums differ. (Multiplications alone are counted on
bit masks, in ``orders.py``, because a search counts them a million times.)

Reference: Griewank and Walther, *Evaluating Derivatives*, 2nd ed., section 9.2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Elimination:
    """A graph that is being eliminated: ``successors[u][w]`` is ∂w/∂u.

    ``times(outer, inner)`` is the product of two edges, ``plus(w, there, more)`` the sum of two that lead to w.

    >>> from admodes.planner.elimination.vertex_elimination import Elimination
    >>> graph = Elimination(lambda outer, inner: outer * inner, lambda w, there, more: there + more)
    >>> for u, w, partial in ("x", "v", 2.0), ("v", "y", 3.0), ("x", "y", 1.0):
    ...     graph.add(u, w, partial)
    >>> graph.eliminate("v")
    >>> graph.successors
    {'x': {'y': 7.0}, 'y': {}}
    """

    def __init__(self, times: Callable, plus: Callable):
        self.times, self.plus = times, plus
        self.successors: dict[Any, dict[Any, Any]] = {}
        self.predecessors: dict[Any, dict[Any, None]] = {}

    def vertex(self, v: Any) -> None:
        """Enter a vertex, if it is not there."""
        self.successors.setdefault(v, {})
        self.predecessors.setdefault(v, {})

    def add(self, u: Any, w: Any, edge: Any) -> None:
        """Add an edge from u to w to the one that may be there."""
        self.vertex(u)
        self.vertex(w)
        after = self.successors[u]
        after[w] = self.plus(w, after[w], edge) if w in after else edge
        self.predecessors[w][u] = None

    def eliminate(self, v: Any) -> None:
        """Join each predecessor of v with each successor, and take v out."""
        after = self.successors.pop(v)
        for u in self.predecessors.pop(v):
            inner = self.successors[u].pop(v)
            for w, outer in after.items():
                self.add(u, w, self.times(outer, inner))
        for w in after:
            del self.predecessors[w][v]
