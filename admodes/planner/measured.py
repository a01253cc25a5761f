"""Times that were measured, kept in the user's cache directory from one session to the next."""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import jax

from admodes.planner.machine import cache_directory, identity, write
from admodes.program.agreement import agreed, several_processes

CALLS = 5


def _file(fingerprint: str, form: str) -> Path:
    return cache_directory() / "measured" / f"{fingerprint[:32]}-{form}.json"


def recall(fingerprint: str, form: str) -> dict[str, float]:
    """Seconds by candidate, as measured on this machine for this task; empty if nothing was, or cannot be read.

    In a run of several processes all have what the first to ask has, until the run ends.
    """
    return agreed(("measured before", fingerprint, form), lambda: _on_this_host(fingerprint, form))


def _on_this_host(fingerprint: str, form: str) -> dict[str, float]:
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
    """Add measured times to those that are kept; a warning if they cannot be."""
    data = {"identity": identity(), "seconds": _on_this_host(fingerprint, form) | seconds}
    try:
        write(_file(fingerprint, form), data)
    except OSError as error:
        warnings.warn(f"what was measured is not kept for other sessions: {error}", stacklevel=2)


def seconds_of(run: Callable, leaves, budget: float = 0.5) -> float:
    """The median time of the calls of a compiled function that fit the budget; of :data:`CALLS` by several processes.

    (Each call may wait for the others: all must make as many.)
    """
    jax.block_until_ready(run(leaves))
    samples: list[float] = []
    end, together = time.perf_counter() + budget, several_processes()
    while len(samples) < CALLS if together else not samples or time.perf_counter() < end:
        start = time.perf_counter()
        jax.block_until_ready(run(leaves))
        samples.append(time.perf_counter() - start)
    return sorted(samples)[len(samples) // 2]
