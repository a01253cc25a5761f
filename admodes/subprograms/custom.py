"""Users' own derivative rules: ``custom_jvp`` and ``custom_vjp``.

The primal body is never inlined: the user's rule *is* the derivative (but a few rules of JAX's own, ``replaced.py``). A
custom_jvp rule is linear in its tangents, so recording it with tangents in the place of values appends its transpose to
the tape. A custom_vjp rule gives the pullback; its transpose is the forward mode that JAX refuses.

A rule may apply custom functions to its tangents, itself above all: the rule of a linear solver solves for the
tangent. Such a function is linear there, so that it is its own derivative. A custom_jvp function is then recorded by
its body, as JAX does: its rule would ask for itself again, for ever. A custom_vjp function's transpose is its rule.

A rule that is not linear has no transpose. Equations that show it raise NotLinearError; not noticed are comparisons
of tangents, and primitives whose rule is a function (the ``max`` of a tangent's entries, say): the derivative is then
that of the rule at tangents of ones.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from admodes.linear import logs
from admodes.linear.maps import Function
from admodes.program import jax_compat as jc
from admodes.program.derived import merge, present
from admodes.program.evaluate import bind
from admodes.rules.replaced import replacement
from admodes.rules.table import HigherOrderRule, higher_order


def rule_tangents(primals, tangents, symbolic_zeros):
    """Tangents as a user's rule expects them: zeros are arrays, or SymbolicZero objects where it asks for those."""
    zero = jc.symbolic_zero if symbolic_zeros else jc.zeros
    return [zero(jc.typeof(p)) if t is None else t for p, t in zip(primals, tangents, strict=True)]


def known_tangent(tangent):
    """A tangent from a user's rule; None if it is zero by its type."""
    if tangent is None or jc.is_symbolic_zero(tangent) or jc.dtype_of(tangent) == jc.float0:
        return None
    return tangent


@contextmanager
def recording_linear(recorder):
    """Context for the part of a record that must be linear."""
    before, recorder.linear = recorder.linear, True
    try:
        yield
    finally:
        recorder.linear = before


def record_tangents(interpreter, recorder, rule, primals, slots) -> tuple[list, list]:
    """Append ``rule``, a function tangents -> (results, their tangents), linear in the tangents (None being zero)."""
    outs: list = []

    def of_tangents(*active_tangents):
        values, ts = rule(merge(present(slots), active_tangents))
        outs.extend(values)
        return [jc.zeros(jc.typeof(v)) if known_tangent(t) is None else t for v, t in zip(values, ts, strict=True)]

    reached = [s for s in slots if s is not None]
    points = [jc.tangent_point(jc.typeof(p)) for p, s in zip(primals, slots, strict=True) if s is not None]
    with recording_linear(recorder):
        _, out_slots = interpreter.continue_function(recorder, of_tangents, points, reached)
    return outs, out_slots


class CustomJVPRule(HigherOrderRule):
    def _replaced(self, interpreter, primitive, primals, active, params):
        """(results, Jacobian) of one of the few functions of JAX's whose rule is replaced; None of others."""
        rule = replacement(params)
        if rule is None:
            return None
        outs = bind(primitive, primals, params)
        return outs, interpreter.jacobian(rule, primitive, outs, primals, active, {})

    def push(self, interpreter, primitive, primals, tangents, params):
        if found := self._replaced(interpreter, primitive, primals, present(tangents), params):
            outs, jacobian = found
            return outs, jacobian.push(tuple(tangents))
        _, jvp = params["subfuns"]
        outs, ts = jc.call_jvp_rule(jvp, primals, rule_tangents(primals, tangents, params["symbolic_zeros"]))
        return outs, [known_tangent(t) for t in ts]

    def record(self, interpreter, recorder, primitive, primals, slots, params):
        fun, jvp = params["subfuns"]
        if recorder.linear:
            return interpreter.continue_function(recorder, fun.call_wrapped, primals, slots)
        if found := self._replaced(interpreter, primitive, primals, present(slots), params):
            outs, jacobian = found
            return outs, recorder.append(slots, lambda: jacobian, outs)

        def rule(tangents):
            return jc.call_jvp_rule(jvp, primals, rule_tangents(primals, tangents, params["symbolic_zeros"]))

        return record_tangents(interpreter, recorder, rule, primals, slots)


class _Number:
    """A residual that is a Python number (or one of numpy's): ``bwd`` may decide on it, and it is never traced.

    Equal are numbers of one type that are written alike; so ``True``, ``1`` and ``1.0`` differ, as 0.0 and -0.0 do.
    """

    def __init__(self, value):
        self.value = value
        self.key = type(value), repr(value)

    def __eq__(self, other):
        return isinstance(other, _Number) and self.key == other.key

    def __hash__(self):
        return hash(self.key)


@dataclass(frozen=True)
class _Pullback:
    """A user's ``bwd`` as a function (residuals, cotangents) -> cotangents.

    ``numbers`` are the residuals that are not arrays, each at its place; None stands for one that is.
    """

    bwd: Any
    numbers: tuple
    codomain: tuple
    symbolic_zeros: bool

    def __call__(self, residuals, cotangents):
        arrays = iter(residuals)
        values = [next(arrays) if n is None else n.value for n in self.numbers]
        zero = jc.symbolic_zero if self.symbolic_zeros else jc.zeros
        cts = [zero(a) if g is None else g for a, g in zip(self.codomain, cotangents, strict=True)]
        found, entries = jc.call_bwd_rule(self.bwd, values, cts)
        logs.write(entries)
        return [known_tangent(ct) for ct in found]


class CustomVJPRule(HigherOrderRule):
    def _map(self, interpreter, primals, active, params):
        _, fwd, bwd = params["subfuns"]
        outs, residuals = jc.call_fwd_rule(fwd, params["out_trees"], primals, active)
        domain, codomain = tuple(map(jc.typeof, primals)), tuple(map(jc.typeof, outs))
        numbers = tuple(_Number(x) if jc.is_number(x) else None for x in residuals)
        arrays = tuple(x for x, n in zip(residuals, numbers, strict=True) if n is None)
        apply = _Pullback(bwd, numbers, codomain, params["symbolic_zeros"])
        return outs, Function(arrays, tuple(active), apply, interpreter.transpose, "pull", domain, codomain)

    def push(self, interpreter, primitive, primals, tangents, params):
        outs, jacobian = self._map(interpreter, primals, [t is not None for t in tangents], params)
        return outs, jacobian.push(tuple(tangents))

    def record(self, interpreter, recorder, primitive, primals, slots, params):
        outs, jacobian = self._map(interpreter, primals, [s is not None for s in slots], params)
        return outs, recorder.append(slots, lambda: jacobian, outs)


higher_order(jc.custom_jvp_call_p, CustomJVPRule())
higher_order(jc.custom_vjp_call_p, CustomVJPRule())
