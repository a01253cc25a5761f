"""Pictures of plans: waists, arrays, kept states and colors, as text or drawn.

A plan says in words what it does; the picture shows where.
"""

from __future__ import annotations

import string
import textwrap
from math import isqrt
from typing import Any

import numpy as np

from admodes.checkpointing.binomial import placements
from admodes.linear.pattern import SparsityPattern
from admodes.planner.ways.checkpointed import Checkpointed, depths
from admodes.planner.ways.network import Network

SIGNS = string.digits + string.ascii_letters
LARGEST = 60  # rows and columns that are drawn one by one


def picture(method, pattern: SparsityPattern | None, axes: Any = None):
    """A plan as text, or drawn into matplotlib ``axes``: its cuts, its order of elimination, the nonzeros by color."""
    coloring = getattr(method, "coloring", None)
    if axes is not None:
        return _drawn(method, coloring, pattern, axes)
    sizes = getattr(method, "sizes", None)
    if sizes is not None:
        return _chain(method)
    if isinstance(method, Network):
        return "\n".join([f"{method.name}: {method.detail}", *_arrays(method)])
    if (found := _search(method)) is not None:
        order = textwrap.fill(" ".join(map(str, found.order)), LARGEST)
        return f"{method.name}: {method.detail}\nnumbers in the order in which they are eliminated:\n{order}"
    if isinstance(method, Checkpointed):
        return "\n".join([f"{method.name}: {method.detail}", *_kept(method)])
    if coloring is not None and max(coloring.pattern.shape) <= LARGEST:
        return _colored(coloring)
    if pattern is not None:
        return f"{method.name}: {method.detail}\n{pattern.spy()}"
    return f"{method.name}: {method.detail}"


def _search(method):
    """The result of a search for an order of elimination, if there was one."""
    return getattr(getattr(method, "accumulation", method), "search", None)


def _chain(method) -> str:
    """The waists as bars as wide as they are, and what is done between them."""
    widest = max(method.sizes)
    lines = []
    for k, size in enumerate(method.sizes):
        bar = "#" * max(1, round(size * 48 / widest))
        lines.append(f"{bar.center(48)} {size}".rstrip())
        if k < len(method.methods):
            inner = method.methods[k]
            count = len(method.split.stages[k].equations)
            how = "carried through" if inner is None else f"{inner.name}, {inner.detail}"
            lines.append(f"  J{k + 1}: {count} equation{'s' * (count != 1)}; {how}")
    return "\n".join([*lines, f"J = {method.order}"])


def _arrays(method: Network) -> list[str]:
    """The arrays as bars as wide as they are, what they follow from, and when they are eliminated."""
    graph, widest = method.graph, max(method.entries)
    place = {v: k for k, v in enumerate(method.search.order, start=1)}
    sides = (("x", graph.inputs), ("v", graph.intermediates), ("y", graph.outputs))
    names = {v: f"{letter}{k}" for letter, side in sides for k, v in enumerate(side, start=1)}
    lines = []
    for v in names:
        size = method.entries[v]
        sources = " ".join(names[u] for u, w, _ in graph.edges if w == v)
        bar = "#" * max(1, round(size * 30 / widest))
        when = f", eliminated as number {place[v]}" if v in place else ""
        lines.append(f"{names[v]:>4} {bar:30} {size}{' from ' if sources else ''}{sources}{when}")
    return lines


def _kept(method: Checkpointed) -> list[str]:
    """For each loop its steps from left to right, | where states are kept; for blocks how often each is run again."""
    schedule = method.schedule
    if isinstance(schedule, tuple):
        return ["".join(SIGNS[depth] if depth else "|" for _, depth in depths(schedule)) + " blocks"]
    lines = []
    for length, stretch in zip(method.lengths, method.stretches, strict=True):
        if length is None:
            lines.append(f"{method.noun}: known at run time only")
            continue
        width = min(length, LARGEST)
        marks = np.full(width, ".")
        if schedule.policy == "sqrt":
            kept = np.arange(0, length, max(isqrt(length), 1))
        else:
            kept = stretch * np.array(placements(-(-length // stretch), schedule.slots))
        marks[kept * width // length] = "|"
        lines.append(f"{''.join(marks)} {length:,} {method.noun}")
    return lines


def entry_colors(coloring) -> np.ndarray:
    """For each nonzero the number of a product that it is in: J s first, then sᵀ J."""
    pattern = coloring.pattern
    by_column = np.full(pattern.nnz, -1) if coloring.columns is None else coloring.columns[pattern.cols]
    if coloring.rows is None:
        return by_column
    by_row = coloring.rows[pattern.rows]
    return np.where(by_row >= 0, by_row + coloring.column_number, by_column)


def _colored(coloring) -> str:
    """The matrix with a sign for each nonzero: the product that gives it."""
    m, n = coloring.pattern.shape
    canvas = np.full((m, n), " ")
    signs = np.array(list(SIGNS))[entry_colors(coloring) % len(SIGNS)]
    canvas[coloring.pattern.rows, coloring.pattern.cols] = signs
    lines = ["|" + "".join(row) + "|" for row in canvas]
    return "\n".join([f"{m} x {n}, each nonzero with the number of the product that gives it", *lines])


def _bars(method, axes):
    """The waists as bars, inputs on top, and what is done between them."""
    places = range(len(method.sizes))
    drawn = axes.barh(places, method.sizes, height=0.3)
    axes.set_yticks(places, [f"{size}" for size in method.sizes])
    axes.invert_yaxis()
    for k, inner in enumerate(method.methods):
        axes.text(0, k + 0.5, f" J{k + 1}: {'carried through' if inner is None else inner.name}", va="center")
    axes.set(xlabel="numbers that pass", title=f"J = {method.order}")
    return drawn


def _drawn(method, coloring, pattern, axes):
    if getattr(method, "sizes", None) is not None:
        return _bars(method, axes)
    if pattern is None or _search(method) is not None:  # nothing but words
        axes.set_axis_off()
        return axes.text(0, 1, picture(method, pattern), va="top", family="monospace", transform=axes.transAxes)
    if coloring is None:
        return pattern.spy(axes=axes)
    m, n = coloring.pattern.shape
    size = max(0.5, min(60.0, 2e4 / max(m, n) ** 1.5))
    drawn = axes.scatter(
        coloring.pattern.cols, coloring.pattern.rows, c=entry_colors(coloring), s=size, cmap="turbo", marker="s"
    )
    axes.set(xlim=(-0.5, n - 0.5), ylim=(m - 0.5, -0.5), xlabel="input", ylabel="output", aspect="equal")
    axes.set_title(f"{coloring.number} products instead of {min(m, n)}")
    return drawn
