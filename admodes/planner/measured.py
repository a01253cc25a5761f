"""Times that were measured, kept in the user's cache directory from one session to the next."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import jax

from admodes.planner.machine import cache_directory, identity


def _file(fingerprint: str, form: str) -> Path:
    return cache_directory() / "measured" / f"{fingerprint[:32]}-{form}.json"


def recall(fingerprint: str, form: str) -> dict[str, float]:
    """Seconds by candidate, as measured on this machine for this task; empty if nothing was, or cannot be read."""
    try:
        data = json.loads(_file(fingerprint, form).read_text(encoding="utf-8"))
        if data["identity"] != identity():
            return {}
        return {
            str(name): float(value) for name, value in data["seconds"].items() if math.isfinite(value) and value > 0
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def remember(fingerprint: str, form: str, seconds: dict[str, float]) -> None:
    """Add measured times to those that are kept."""
    path = _file(fingerprint, form)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = {"identity": identity(), "seconds": recall(fingerprint, form) | seconds}
    part = path.with_suffix(".part")
    part.write_text(json.dumps(data, indent=2), encoding="utf-8")
    part.replace(path)


def seconds_of(run: Callable, leaves, budget: float = 0.5) -> float:
    """The median time of the calls of a compiled function that fit the budget."""
    jax.block_until_ready(run(leaves))
    samples: list[float] = []
    end = time.perf_counter() + budget
    while not samples or time.perf_counter() < end:
        start = time.perf_counter()
        jax.block_until_ready(run(leaves))
        samples.append(time.perf_counter() - start)
    return sorted(samples)[len(samples) // 2]
