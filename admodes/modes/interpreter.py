"""The interpreter: both sweeps in one object, handed to the rules that must differentiate sub-programs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from admodes.checkpointing.policies import KEEP_ALL, Checkpoints
from admodes.linear.maps import LinearMap
from admodes.linear.strong import strong
from admodes.modes import dual, record
from admodes.modes.tape import Recorder, Tape
from admodes.program import jax_compat as jc
from admodes.rules.kinks import POLICIES


@dataclass(frozen=True)
class Interpreter:
    """The modes as a rule may ask for them.

    ``ties`` is what the rules of kinks do where the derivative does not exist (``rules/kinks.py``); with ``nan_safe``
    zeros are strong (``linear/strong.py``); ``checkpoints`` is what loops keep (``checkpointing/policies.py``).
    :data:`INTERPRETER` is the one of all modes unless a user asks otherwise.
    """

    ties: str = "jax"
    nan_safe: bool = False
    checkpoints: Checkpoints = KEEP_ALL

    dual: ClassVar[type] = dual.Dual  # what the forward sweep carries

    def jacobian(self, rule, primitive, outs, primals, active, params) -> LinearMap | None:
        """The local Jacobian of an equation that has been evaluated; None if it is zero."""
        found = rule.jacobian(self, primitive, outs, primals, active, params)
        return strong(found) if self.nan_safe and found is not None else found

    def push_equation(self, primitive, duals, params) -> list:
        """Forward mode through one equation."""
        return dual.push_equation(self, primitive, duals, params)

    def record_equation(self, recorder: Recorder, primitive, values, params, outs=None) -> list:
        """The recording sweep through one equation (with its results, if they are known already)."""
        return record.record_equation(self, recorder, primitive, values, params, outs)

    def push_program(self, closed, primals, tangents) -> tuple[list, list]:
        """Forward mode through a jaxpr: (outputs, tangents of the outputs)."""
        return dual.push_program(self, closed, primals, tangents)

    def push_function(self, fun: Callable, primals, tangents) -> tuple[list, list]:
        """Forward mode through a function of flat arguments that returns a flat list."""
        return dual.push_function(self, fun, primals, tangents)

    def record_program(self, closed, primals, active, known=None, linear=False) -> tuple[list, Tape]:
        """Evaluate and record a jaxpr: (outputs, tape); ``known(equation)`` may give results already at hand."""
        return record.record_program(self, closed, primals, active, known, linear)

    def reached(self, closed, active: tuple, linear=False) -> tuple[bool, ...]:
        """The outputs of a jaxpr that carry a derivative if these inputs do."""
        return record.reached(closed, self, active, linear)

    def record_function(self, fun: Callable, primals, active, n_outputs=None, linear=False) -> tuple[list, Tape]:
        """Evaluate and record a function of flat arguments that returns a flat list (of which the first count)."""
        return record.record_function(self, fun, primals, active, n_outputs, linear)

    def continue_program(self, recorder: Recorder, closed, primals, slots) -> tuple[list, list]:
        """Append a jaxpr to a record that has begun: (outputs, their slots)."""
        values = record.continue_program(self, recorder, closed, map(record.Recorded, primals, slots))
        return [v.primal for v in values], [v.slot for v in values]

    def continue_function(self, recorder: Recorder, fun: Callable, primals, slots) -> tuple[list, list]:
        """Append a function to a record that has begun: (outputs, their slots)."""
        values = record.continue_function(self, recorder, fun, list(map(record.Recorded, primals, slots)))
        return [v.primal for v in values], [v.slot for v in values]

    def transpose(self, fun: Callable, avals: Sequence, cotangents: Sequence) -> list:
        """The transpose, at ``cotangents``, of a linear function of flat arguments of these types.

        A linear function is its own derivative, so its transpose is its pullback at any point: here at 1.
        Raises NotLinearError where an equation with a rule of its own shows that it is not.
        """
        points = [jc.tangent_point(a) for a in avals]
        _, tape = record.record_function(self, fun, points, [True] * len(points), linear=True)
        return list(tape.pull(tuple(cotangents)))


INTERPRETER = Interpreter()


def interpreter_for(nan_safe: bool, ties: str = "jax") -> Interpreter:
    """The interpreter with these policies; ValueError if there is none of that name."""
    if ties not in POLICIES:
        raise ValueError(
            f"unknown policy ties={ties!r}: there are {', '.join(map(repr, (*POLICIES, 'lexicographic')))}"
        )
    return Interpreter(ties, nan_safe)
