"""Memory against time: which ways to a Jacobian no other beats in both, and the picture of all of them."""

from __future__ import annotations

import math
import string
from collections.abc import Mapping
from typing import Any

import numpy as np

from admodes.text_tables import count, seconds

Points = Mapping[str, tuple[float, float]]  # (bytes, seconds) by name
TITLE = "time against temporary memory"
WIDTH, HEIGHT = 64, 16  # of the picture as text


def measured(points: Points) -> Points:
    """The points of which both are known: a mode that was not measured has a NaN."""
    return {name: point for name, point in points.items() if all(map(math.isfinite, point))}


def front(points: Points) -> tuple[str, ...]:
    """The names of the points than which no other is at least as good in both and better in one, by memory.

    A point that is not finite is on no front.

    >>> from admodes.compare.pareto import front
    >>> front({"a": (1.0, 9.0), "b": (4.0, 2.0), "c": (5.0, 2.0), "d": (2.0, 9.5)})
    ('a', 'b')
    """
    points = measured(points)

    def beaten(name):
        x = points[name]
        return any(y != x and y[0] <= x[0] and y[1] <= x[1] for y in points.values())

    return tuple(sorted((name for name in points if not beaten(name)), key=lambda name: points[name]))


def curve(points: Points) -> str:
    """The finite points as text, both axes logarithmic, a letter for each: capital letters are the Pareto front.

    >>> from admodes.compare.pareto import curve
    >>> print(curve({"frugal": (1e3, 4e-3), "fast": (1e6, 1e-3), "neither": (2e6, 3e-3)}).splitlines()[-1].strip())
    A frugal   B fast   c neither
    """
    points = measured(points)
    if not points:
        return f"{TITLE}: nothing measured"
    best = front(points)
    places = {name: (max(memory, 1.0), max(time, 1e-12)) for name, (memory, time) in points.items()}
    logs = np.log(np.array(list(places.values())))
    low, high = logs.min(0), logs.max(0)
    spots = np.rint((logs - low) / np.where(high > low, high - low, 1.0) * (WIDTH - 1, HEIGHT - 1)).astype(int)
    canvas = np.full((HEIGHT, WIDTH), " ")
    letters = dict(zip(points, string.ascii_lowercase * (1 + len(points) // 26), strict=False))
    letters |= {name: letters[name].upper() for name in best}
    for name, (x, y) in reversed(list(zip(points, spots, strict=True))):
        canvas[HEIGHT - 1 - y, x] = letters[name]
    (left, bottom), (right, top) = np.exp(low), np.exp(high)
    sides = [seconds(top), *[""] * (HEIGHT - 2), seconds(bottom)]
    lines = [f"{side:>10} |{''.join(row)}".rstrip() for side, row in zip(sides, canvas, strict=True)]
    ends = f"{count(left, 'B')}{count(right, 'B'):>{WIDTH - len(count(left, 'B'))}}"
    entries = [f"{letters[name]} {name}" for name in points]
    legend = [f"{'':12}{'   '.join(entries[k : k + 3])}" for k in range(0, len(entries), 3)]
    title = f"{TITLE}; capitals: no other is better in both"
    return "\n".join([title, *lines, f"{'':10} +{'-' * WIDTH}", f"{'':12}{ends}", *legend])


def draw(points: Points, file: Any, title: str, format: str) -> None:
    """The finite points and the Pareto front as a figure in a file (or its binary handle)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    points = measured(points)
    best = np.reshape([points[name] for name in front(points)], (-1, 2))
    axes.step(*best.T, where="post", color="0.6", zorder=0, label="Pareto front" if points else "nothing measured")
    for name, (memory, time) in points.items():
        axes.plot(memory, time, "s" if name.startswith("jax.") else "o", label=name)
    axes.set(xscale="symlog", yscale="log", xlabel="temporary memory (bytes)", ylabel="time (s)", title=title)
    axes.legend(fontsize="small")
    figure.savefig(file, format=format)
