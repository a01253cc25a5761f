r"""Dual numbers: the forward sweep.

A dual number is a pair (x, ẋ) with (f(x), f'(x) ẋ) as its image; pushing one through each equation,
J ẋ for the equation's local Jacobian J, is forward mode. Outside ``jit`` the pairs travel as tracers
through the user's own Python; sub-programs are interpreted. Both ways call the interpreter's ``push_equation``,
by default the one here.

Reference: Griewank and Walther, *Evaluating Derivatives*, 2nd ed., section 3.1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from admodes.errors import UnsupportedPrimitiveError
from admodes.modes.references import ReferenceTrace
from admodes.program import jax_compat as jc
from admodes.program.evaluate import bind, run
from admodes.program.ir import from_jaxpr
from admodes.rules.references import check_references
from admodes.rules.table import LocalRule, lookup


@dataclass(frozen=True)
class Dual:
    """A value and its tangent; ``None`` is the zero tangent."""

    primal: Any
    tangent: Any = None


def push_equation(interpreter, primitive, duals: Sequence[Dual], params: dict) -> list[Dual]:
    """One step of forward mode: the results of an equation, as duals."""
    primals = [d.primal for d in duals]
    tangents = tuple(d.tangent for d in duals)
    if all(t is None for t in tangents):
        return [Dual(out) for out in bind(primitive, primals, params)]
    rule = lookup(primitive)
    if rule is None:
        return [Dual(out) for out in bind_without_rule(primitive, primals, params)]
    if not isinstance(rule, LocalRule):
        return list(map(Dual, *rule.push(interpreter, primitive, primals, tangents, params)))
    outs = rule.evaluate(primitive, primals, params)
    active = tuple(t is not None for t in tangents)
    jacobian = interpreter.jacobian(rule, primitive, outs, primals, active, params)
    if jacobian is None:
        return [Dual(out) for out in outs]
    return list(map(Dual, outs, jacobian.push(tangents)))


def bind_without_rule(primitive, primals, params):
    """A primitive without a rule is fine as long as no result carries a derivative."""
    check_references(primitive, primals)
    outs = bind(primitive, primals, params)
    check_references(primitive, outs)
    if any(jc.is_differentiable(jc.typeof(o)) for o in outs):
        raise UnsupportedPrimitiveError(primitive.name, jc.current_place())
    return outs


def push_program(interpreter, closed, primals: Sequence, tangents: Sequence) -> tuple[list, list]:
    """Push duals through a jaxpr: (outputs, their tangents)."""
    if jc.has_references(closed):
        return push_function(interpreter, jc.jaxpr_as_fun(closed), primals, tangents)
    duals = push_duals(interpreter, closed, map(interpreter.dual, primals, tangents))
    return [d.primal for d in duals], [d.tangent for d in duals]


def push_duals(interpreter, closed, duals) -> list:
    """The outputs of a jaxpr without references, as duals of the interpreter's kind."""

    def step(equation, operands, params):
        return interpreter.push_equation(equation.primitive, operands, params)

    return run(from_jaxpr(closed), step, list(duals), interpreter.dual)


class DualTracer(jc.DerivativeTracer):
    """A :class:`Dual` that travels through the user's Python."""

    __slots__ = ["dual"]

    def __init__(self, trace, dual):
        super().__init__(trace, jc.typeof(dual.primal))
        self.dual = dual

    @property
    def primal(self):
        return self.dual.primal

    def _short_repr(self):
        return f"Dual({self.dual.primal}, {self.dual.tangent})"


class DualTrace(ReferenceTrace):
    """Gives meaning to primitives that are applied to dual tracers."""

    def __init__(self, parent_trace, interpreter):
        super().__init__(parent_trace)
        self.interpreter = interpreter

    def unpack(self, value) -> Dual:
        return value.dual if isinstance(value, DualTracer) and value._trace is self else self.interpreter.dual(value)

    def pack(self, dual: Dual):
        return dual.primal if dual.tangent is None else DualTracer(self, dual)

    def apply(self, primitive, args, params):
        duals = self.interpreter.push_equation(primitive, [self.unpack(x) for x in args], params)
        return [self.pack(d) for d in duals]


def push_function(interpreter, fun: Callable, primals: Sequence, tangents: Sequence) -> tuple[list, list]:
    """Run a flat function on duals: (outputs, their tangents)."""
    with jc.take_current_trace() as parent:
        trace = DualTrace(parent, interpreter)
        with jc.ensure_no_leaks(trace):
            inputs = [trace.pack(d) for d in map(interpreter.dual, primals, tangents)]
            with jc.set_current_trace(trace):
                duals = [trace.unpack(x) for x in trace.returned(fun(*inputs))]
            del trace, inputs
    return [d.primal for d in duals], [d.tangent for d in duals]
