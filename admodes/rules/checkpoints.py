"""What the user says is to be kept of a loop, and what computed again."""

from __future__ import annotations

from dataclasses import dataclass

from admodes.tables import whole_number

DEFAULT_SLOTS = 100
POLICIES = ("revolve", "sqrt", "every", "none")


@dataclass(frozen=True)
class Checkpoints:
    """A policy for loops, with the number of states that "revolve" (and every loop that ends by a condition) may keep.

    It is also a policy of ``jax.checkpoint``, by which it travels with the function that it is for: where JAX
    differentiates that function, it keeps all ("none") or nothing.
    """

    policy: str = "none"
    slots: int = DEFAULT_SLOTS

    def __post_init__(self):
        if self.policy not in POLICIES:
            raise ValueError(f"unknown policy {self.policy!r}: there are {', '.join(map(repr, POLICIES))}")
        object.__setattr__(self, "slots", whole_number("slots", self.slots))  # one: the state that a loop starts from

    def __call__(self, primitive, *avals, **params) -> bool:
        return self.policy == "none"


KEEP_ALL = Checkpoints()
