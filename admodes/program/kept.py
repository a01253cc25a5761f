"""The results of recent work, kept for whoever asks for the same again.

Plans and compiled programs are dear to make and cheap to keep, if there is an end to their number.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from admodes.program import jax_compat as jc

T = TypeVar("T")


class Kept(Generic[T]):
    """At most so many results by key, the oldest of which make place; threads may share them.

    Settings of JAX that a trace depends on belong to each key. Two threads that miss a result at once both make it;
    the first one that is done is kept, for both.
    """

    def __init__(self, most: int):
        self.most = most
        self.entries: dict[Hashable, T] = {}
        self._lock = threading.Lock()

    def find(self, key: Hashable) -> T | None:
        with self._lock:
            return self.entries.get((key, jc.trace_context()))

    def keep(self, key: Hashable, made: T) -> T:
        """The value kept under the key from now on: ``made``, unless another thread came first."""
        with self._lock:
            kept = self.entries.setdefault((key, jc.trace_context()), made)
            while len(self.entries) > self.most:
                self.entries.pop(next(iter(self.entries)))
            return kept

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value kept under the key, or else made now."""
        found = self.find(key)
        return self.keep(key, make()) if found is None else found
