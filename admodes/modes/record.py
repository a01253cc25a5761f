r"""The recording sweep of reverse mode: evaluate, and write down the local Jacobian of each equation.

As with duals, tracers carry the record through the user's Python, sub-programs are interpreted, and
both ways call the interpreter's ``record_equation``, by default the one here. Walking the finished tape
backwards is :meth:`Tape.pull`.

Reference: Griewank and Walther, *Evaluating Derivatives*, 2nd ed., section 3.2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from jax import lax

from admodes.errors import NotLinearError, UnsupportedPrimitiveError
from admodes.linear.maps import LinearMap, linear_map, static
from admodes.modes.references import ReferenceTrace
from admodes.modes.tape import Recorder, Slot, Tape
from admodes.program import jax_compat as jc
from admodes.program.evaluate import bind, run
from admodes.program.ir import from_jaxpr
from admodes.rules.references import check_references
from admodes.rules.table import LocalRule, lookup
from admodes.subprograms.callbacks import Refused

NOT_LINEAR = (
    "the rule of a custom_jvp function must be linear in the tangents (of a custom_vjp function: in the cotangents), "
    "or it cannot be transposed, but it applies '{}' to them (at {})."
)


@linear_map
class NotLinear(LinearMap):
    """The Jacobian of an equation that is not linear, where it had to be: an error as soon as a derivative meets it.

    A value that is computed from tangents may be anything as long as no derivative comes back from it: the tolerance
    of an iterative solver, say, which is a matter of its control flow.
    """

    message: str = static()
    domain: tuple = static()
    codomain: tuple = static()

    def push(self, tangents):
        raise NotLinearError(self.message)

    def pull(self, cotangents):
        raise NotLinearError(self.message)


@dataclass(frozen=True)
class Recorded:
    """A value and the slot of the tape that holds its cotangent; ``None``: no derivative flows through it."""

    primal: Any
    slot: Slot | None = None


def record_equation(interpreter, recorder: Recorder, primitive, values: Sequence[Recorded], params: dict, outs=None):
    """One step of the sweep: the results of an equation, as recorded values (``outs`` if they are known already)."""
    primals = [v.primal for v in values]
    slots = tuple(v.slot for v in values)
    active = tuple(s is not None for s in slots)
    rule = lookup(primitive)
    local = isinstance(rule, LocalRule)
    if not any(active) or (local and not recorder.linear and rule.is_zero(primals)):
        return [Recorded(out) for out in outs or bind(primitive, primals, params)]
    if rule is not None and not local:
        return list(map(Recorded, *rule.record(interpreter, recorder, primitive, primals, slots, params)))
    if rule is None:
        check_references(primitive, primals)
        outs, place = outs or bind(primitive, primals, params), jc.current_place()

        def jacobian():
            raise UnsupportedPrimitiveError(primitive.name, place)

        check_references(primitive, outs)
    else:
        if recorder.linear and isinstance(rule, Refused):
            rule.refuse_transpose()
        outs, place = outs or rule.evaluate(primitive, primals, params), jc.current_place() if recorder.linear else ""

        def jacobian():
            domain = tuple(map(jc.typeof, primals))
            if place and not rule.is_linear(primitive, domain, active, params):
                return NotLinear(NOT_LINEAR.format(primitive.name, place), domain, tuple(map(jc.typeof, outs)))
            return interpreter.jacobian(rule, primitive, outs, primals, active, params)

    # A vmapped cond gives a branch that is not taken the stopped copy of an operand: select(p, stopped x, x), whose
    # value is x all the same. Recorded as linear it is x: the copy, which is not linear in x, has no part in it.
    if recorder.linear and primitive is lax.select_n_p:
        slots = tuple(None if _is_stopped(s, slots) else s for s in slots)
    out_slots = recorder.append(slots, jacobian, outs)
    if primitive is jc.stop_gradient_p:
        out_slots[0].entry.stops = slots[0]
    return list(map(Recorded, outs, out_slots))


def _is_stopped(slot: Slot | None, others) -> bool:
    """True if the value of a slot is that of one of the others with its derivative stopped."""
    stops = None if slot is None or slot.entry is None else slot.entry.stops
    return stops is not None and stops in others


def record_program(
    interpreter, closed, primals: Sequence, active: Sequence[bool], known=None, linear: bool = False
) -> tuple[list, Tape]:
    """Evaluate a jaxpr and record it: (outputs, tape). The tape's domain are the inputs of the jaxpr."""
    recorder = Recorder(map(jc.typeof, primals), linear)
    inputs = map(Recorded, primals, recorder.inputs(active))
    values = continue_program(interpreter, recorder, closed, inputs, known)
    outs = [v.primal for v in values]
    return outs, recorder.close([v.slot for v in values], map(jc.typeof, outs))


def continue_program(interpreter, recorder: Recorder, closed, values, known=None) -> list[Recorded]:
    """Append a jaxpr to a record that has begun; ``known(equation)`` may give results that need no evaluation."""
    if jc.has_references(closed):
        return continue_function(interpreter, recorder, jc.jaxpr_as_fun(closed), list(values))

    def step(equation, operands, params):
        outs = known(equation) if known else None
        return interpreter.record_equation(recorder, equation.primitive, operands, params, outs)

    return run(from_jaxpr(closed), step, list(values), Recorded)


@jc.weak_cache
def reached(closed, interpreter, active: tuple, linear: bool) -> tuple[bool, ...]:
    """The outputs of a jaxpr that carry a derivative if these inputs do; no Jacobian is built."""
    found: list = []

    def sweep(*primals):
        recorder = Recorder(map(jc.typeof, primals), linear)
        values = continue_program(interpreter, recorder, closed, map(Recorded, primals, recorder.inputs(active)))
        found[:] = [v.slot is not None for v in values]
        return []

    jc.trace_flat(sweep, closed.in_avals, "reached")
    return tuple(found)


class TapeTracer(jc.DerivativeTracer):
    """A :class:`Recorded` value that travels through the user's Python."""

    __slots__ = ["recorded"]

    def __init__(self, trace, recorded):
        super().__init__(trace, jc.typeof(recorded.primal))
        self.recorded = recorded

    @property
    def primal(self):
        return self.recorded.primal

    def _short_repr(self):
        return f"Recorded({self.recorded.primal})"


class TapeTrace(ReferenceTrace):
    """Gives meaning to primitives that are applied to recorded tracers."""

    def __init__(self, parent_trace, interpreter, recorder):
        super().__init__(parent_trace)
        self.interpreter, self.recorder = interpreter, recorder

    def unpack(self, value) -> Recorded:
        return value.recorded if isinstance(value, TapeTracer) and value._trace is self else Recorded(value)

    def pack(self, recorded: Recorded):
        return recorded.primal if recorded.slot is None else TapeTracer(self, recorded)

    def apply(self, primitive, args, params):
        values = self.interpreter.record_equation(self.recorder, primitive, [self.unpack(x) for x in args], params)
        return [self.pack(v) for v in values]


def is_recording_linear() -> bool:
    """True if what is applied now is recorded, and must be linear."""
    with jc.take_current_trace() as trace:
        return isinstance(trace, TapeTrace) and trace.recorder.linear


def continue_function(interpreter, recorder: Recorder, fun: Callable, values: Sequence[Recorded]) -> list[Recorded]:
    """Run a flat function on recorded values, appending to a record that has begun."""
    with jc.take_current_trace() as parent:
        trace = TapeTrace(parent, interpreter, recorder)
        with jc.ensure_no_leaks(trace):
            inputs = [trace.pack(v) for v in values]
            with jc.set_current_trace(trace):
                outputs = [trace.unpack(x) for x in trace.returned(fun(*inputs))]
            del trace, inputs
    return outputs


def record_function(
    interpreter,
    fun: Callable,
    primals: Sequence,
    active: Sequence[bool],
    n_outputs: Callable[[], int] | None = None,
    linear: bool = False,
) -> tuple[list, Tape]:
    """Run a flat function on recorded values: (outputs, tape). The tape leads to the first ``n_outputs()`` outputs.

    With ``linear``, a function that shows not to be linear raises NotLinearError.
    """
    recorder = Recorder(map(jc.typeof, primals), linear)
    inputs = list(map(Recorded, primals, recorder.inputs(active)))
    values = continue_function(interpreter, recorder, fun, inputs)
    outs = [v.primal for v in values]
    kept = values[: n_outputs()] if n_outputs else values
    return outs, recorder.close([v.slot for v in kept], [jc.typeof(v.primal) for v in kept])
