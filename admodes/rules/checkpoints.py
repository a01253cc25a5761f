"""What the user says is to be kept of a loop, and what computed again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from admodes.program.blocks import aval_bytes

LEAST_SLOTS = 100
SMALL = 2**15  # bytes that are kept of any loop without being asked: they fit in a first-level cache
POLICIES = ("revolve", "sqrt", "every", "none")


@dataclass(frozen=True)
class Checkpoints:
    """A policy for loops, with the number of states that "revolve" (and every loop that ends by a condition) may keep.

    It is also a policy of ``jax.checkpoint``, by which it travels with the function that it is for: where JAX
    differentiates that function, it keeps all ("none") or nothing. ``slots`` is None for as many states as are
    small together, and at least 100.
    """

    policy: str = "none"
    slots: int | None = None

    def __post_init__(self):
        if self.policy not in POLICIES:
            raise ValueError(f"unknown policy {self.policy!r}: there are {', '.join(map(repr, POLICIES))}")
        if self.slots is not None and (not isinstance(self.slots, int) or self.slots < 1):
            raise ValueError(
                f"slots must be a whole number, at least 1 (the state that a loop starts from); got {self.slots!r}"
            )

    def __call__(self, primitive, *avals, **params) -> bool:
        return self.policy == "none"

    def room(self, state: Sequence = ()) -> int:
        """The slots for states of these types."""
        size = sum(map(aval_bytes, state))
        return self.slots or max(LEAST_SLOTS, SMALL // size if size else 0)


KEEP_ALL = Checkpoints()
