"""Agreement of the processes of one run: their plans are the same, or their collectives wait for each other.

A plan follows from the program, but for two things. Numbers that are measured, or read from a file of this host, go
through :func:`agreed`: one process decides, the others take that over. And where a search is given some seconds, a
:class:`Clock` counts its steps instead. Nobody waits for another process to come: one may plan for itself alone.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from typing import Any

import jax

from admodes.program import jax_compat as jc

STEP = 1e-7  # seconds: about what the innermost loops of searches take for one round in Python, on machines of 2025
# Seconds that others wait for the first process, where its answer is preferred. Chosen. Less, and a slow first
# process is not heard; more, and one that has died holds up the others.
PATIENCE = 10.0


def several_processes() -> bool:
    """True if this is one of several processes."""
    return jc.store() is not None


def agreed(topic: tuple, make: Callable[[], Any], *, by_first: bool = False) -> Any:
    """The result of ``make()`` in the process that came first, for all that ask for the same ``topic`` in this run.

    It is plain data, and the topic has the same text in all processes. With ``by_first`` that is process 0, if it asks
    within :data:`PATIENCE`. In a run of one process it is what ``make()`` returns here and now.
    """
    store = jc.store()
    if store is None:
        return make()
    key = "admodes/" + hashlib.sha256(repr(topic).encode()).hexdigest()
    found = store.get(key, PATIENCE if by_first and not store.is_first else 0.0)
    if found is None:
        store.offer(key, json.dumps(make()))
        found = store.get(key)
        assert found is not None
    return json.loads(found)


def temporary_bytes(lowered: jax.stages.Lowered) -> int:
    """Bytes that a program needs beside its arguments and results, on each device; compiles it."""
    needed = jc.temporary_bytes(lowered)  # (in all processes: compilers may exchange what they try)
    return agreed(("bytes", lowered.as_text()), lambda: needed) if several_processes() else needed


class Clock:
    """The seconds that a search has taken, by ``timer``; in a run of several processes, by the steps it says it made.

    A search that asks for the time in a loop must say what it does there (:meth:`worked`).
    """

    def __init__(self, timer: Callable[[], float] = time.perf_counter):
        self.timer = timer
        self.counts = several_processes()
        self.steps = 0.0

    def worked(self, steps: float) -> None:
        """So many more steps were made, each of about :data:`STEP`."""
        self.steps += steps

    def now(self) -> float:
        return STEP * self.steps if self.counts else self.timer()
