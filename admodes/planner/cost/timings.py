"""Times that were measured, kept in the user's cache folder.

A plan with ``measure=True`` is worth its time once; later plans for the same task take the times from here.
"""

from __future__ import annotations

import contextlib
import math
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import jax

from admodes.planner.cost import cache_folder
from admodes.program.agreement import agreed, several_processes

# timed calls of a candidate in a run of several processes, enough for a median that one slow call does not move; four
# times as many take four times as long, and one alone may be the slow call
CALLS = 5


def _file(fingerprint: str, form: str) -> Path:
    return cache_folder.file("measured", f"{fingerprint[:32]}-{form}.json")


def _seconds(data: dict) -> dict[str, float]:
    seconds = data["seconds"]
    if not all(0 < value < math.inf for value in seconds.values()):
        raise ValueError("there are times that cannot be")
    return {name: float(value) for name, value in seconds.items()}


def recall(fingerprint: str, form: str) -> dict[str, float]:
    """Seconds by candidate, as measured on this machine for this task; empty if nothing was.

    A file that is unreadable is removed, with a warning. In a run of several processes all have what the first of them
    to ask has, until the run ends.
    """
    return agreed(("measured before", fingerprint, form), lambda: _on_this_host(fingerprint, form))


def _on_this_host(fingerprint: str, form: str) -> dict[str, float]:
    try:
        path = _file(fingerprint, form)
        return cache_folder.read(path, _seconds) or {}
    except cache_folder.UnreadableError as error:
        warnings.warn(f"what was measured before is lost: {error}", stacklevel=2)
        with contextlib.suppress(OSError):
            path.unlink()
        return {}
    except OSError:  # there is no cache folder
        return {}


def remember(fingerprint: str, form: str, seconds: dict[str, float]) -> None:
    """Add measured times to those that are kept; a warning if they cannot be."""
    known = _on_this_host(fingerprint, form)
    try:
        cache_folder.write(_file(fingerprint, form), seconds=known | seconds)
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
