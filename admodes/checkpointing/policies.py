"""Policies: what of a loop is to be kept, and what computed again, as the user says."""

from __future__ import annotations

from dataclasses import dataclass

from admodes.text_tables import whole_number

# States of a loop that are kept if the user says nothing. Chosen: with 100 no step of a loop of 5,000 is run forward
# more than twice, (s+1)(s+2)/2 being the reach. Four times fewer reach 350; four times more take four times the
# memory.
DEFAULT_SLOTS = 100
# The tapes of a stretch may take this part of the memory for states. Chosen. Four times more lets tapes take as much
# as the states; four times less makes stretches shorter, and steps are run again more often.
SHARE = 0.25
POLICIES = ("revolve", "sqrt", "every", "none")


@dataclass(frozen=True)
class Checkpoints:
    """A policy for loops, with the number of states that "revolve" (and every loop that ends by a condition) may keep.

    The unit of the schedule is a stretch of ``tapes`` steps, which are walked back at once; None: see :meth:`stretch`.

    It is also a policy of ``jax.checkpoint``, by which it travels with the function that it is for: where JAX
    differentiates that function, it keeps all ("none") or nothing.
    """

    policy: str = "none"
    slots: int = DEFAULT_SLOTS
    tapes: int | None = None

    def __post_init__(self):
        if self.policy not in POLICIES:
            raise ValueError(f"unknown policy {self.policy!r}: there are {', '.join(map(repr, POLICIES))}")
        object.__setattr__(self, "slots", whole_number("slots", self.slots))  # one: the state that a loop starts from
        if self.tapes is not None:
            object.__setattr__(self, "tapes", whole_number("tapes", self.tapes))

    def stretch(self, state: float, tape: float) -> int:
        """The number of steps that are walked back at once, from the bytes of a state and of a step's tape.

        >>> Checkpoints(slots=100).stretch(80, 80), Checkpoints(slots=100).stretch(80, 8000)
        (25, 1)
        """
        if self.tapes is not None:
            return self.tapes
        return max(min(int(SHARE * self.slots * state / tape), self.slots), 1) if tape else self.slots

    def __call__(self, primitive, *avals, **params) -> bool:
        return self.policy == "none"


KEEP_ALL = Checkpoints()
