"""The interpreter: both sweeps in one object, handed to the rules that must differentiate sub-programs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from admodes.modes import dual, record
from admodes.modes.tape import Recorder, Tape
from admodes.program import jax_compat as jc


class Interpreter:
    """What a rule may ask of the modes. There is one, :data:`INTERPRETER`."""

    def push_program(self, closed, primals, tangents) -> tuple[list, list]:
        """Forward mode through a jaxpr: (outputs, tangents of the outputs)."""
        return dual.push_program(self, closed, primals, tangents)

    def push_function(self, fun: Callable, primals, tangents) -> tuple[list, list]:
        """Forward mode through a function of flat arguments that returns a flat list."""
        return dual.push_function(self, fun, primals, tangents)

    def record_program(self, closed, primals, active, known=None) -> tuple[list, Tape]:
        """Evaluate and record a jaxpr: (outputs, tape); ``known(equation)`` may give results already at hand."""
        return record.record_program(self, closed, primals, active, known)

    def record_function(self, fun: Callable, primals, active, n_outputs=None) -> tuple[list, Tape]:
        """Evaluate and record a function of flat arguments that returns a flat list (of which the first count)."""
        return record.record_function(self, fun, primals, active, n_outputs)

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

        A linear function is its own derivative, so its transpose is its pullback at any point: here at 0.
        """
        zeros = [jc.zeros(a) for a in avals]
        _, tape = self.record_function(fun, zeros, [True] * len(zeros))
        return list(tape.pull(tuple(cotangents)))


INTERPRETER = Interpreter()
