"""Equations that are objects (hijax), those aside that stand for others (``program/jax_compat/hijax.py``).

JAX's own have entries by class. Any other object brings its derivative with it, and the methods that its author has
written are what is called. To look inside (``expand``) would be wrong: what an object is made of need not have its
derivative (``ldexp`` works on bits).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
from jax import lax

from admodes.errors import UnsupportedPrimitiveError
from admodes.linear import logs
from admodes.linear.maps import Function, LinearMap, linear_map
from admodes.program import jax_compat as jc
from admodes.program.derived import instantiate, present
from admodes.rules.table import HigherOrderRule, elementwise, function, higher_order, zero
from admodes.subprograms.custom import known_tangent, record_tangents

METHODS = "has no derivative: its class gives none of `jvp`, `lin` with `linearized`, `vjp_fwd` with `vjp_bwd_retval`"
SELF_APPLIED = "applies itself to tangents, as a linear function may, but cannot be transposed: give it a `transpose`"


# -- objects with methods of their own ------------------------------------------------------------------------


@dataclass(frozen=True)
class _Pullback:
    """An object's backward pass as a function (residuals, cotangents) -> cotangents."""

    prim: Any
    active: tuple  # which operands have a derivative
    reached: tuple  # which results have one

    def __call__(self, residuals, cotangents):
        cts = [
            jc.zero_cotangent(a) if g is None or not on else g
            for g, a, on in zip(cotangents, self.prim.out_avals_flat, self.reached, strict=True)
        ]
        found, entries = jc.pulled_by(self.prim, self.active, residuals, cts)
        logs.write(entries)
        return [known_tangent(ct) for ct in found]


@dataclass(frozen=True)
class _Transpose:
    """The transpose of an object that is linear in some operands."""

    prim: Any
    linear: tuple

    def __call__(self, primals, cotangents):
        cts = [
            jc.zero_cotangent(a) if g is None else g for g, a in zip(cotangents, self.prim.out_avals_flat, strict=True)
        ]
        return [known_tangent(ct) for ct in jc.transposed_by(self.prim, primals, self.linear, cts)]


@linear_map
class Opaque(LinearMap):
    """A map whose pattern cannot be found from its code, which applies the same object again: it is taken as full."""

    inner: LinearMap

    domain = property(lambda self: self.inner.domain)
    codomain = property(lambda self: self.inner.codomain)

    def push(self, tangents):
        return self.inner.push(tangents)

    def pull(self, cotangents):
        return self.inner.pull(cotangents)


_RECORDING: ContextVar[tuple] = ContextVar("recording", default=())  # (recorder, object): those being recorded now


@contextmanager
def _recording(recorder, prim):
    """Context in which an object is recorded; whether that is so already."""
    before = _RECORDING.get()
    token = _RECORDING.set((*before, (recorder, prim)))
    try:
        yield any(of is recorder and other == prim for of, other in before)
    finally:
        _RECORDING.reset(token)


class ObjectRule(HigherOrderRule):
    """An object's own methods: of those that give what is asked for directly, else through the transpose."""

    def push(self, interpreter, primitive, primals, tangents, params):
        prim = params["_prim"]
        rule = self._forward(prim, primals)
        if rule is not None:
            outs, ts = rule(tangents)
            return outs, [known_tangent(t) for t in ts]
        outs, jacobian, _ = self._backward(interpreter, prim, primals, present(tangents))
        return outs, jacobian.push(tuple(tangents))

    def record(self, interpreter, recorder, primitive, primals, slots, params):
        prim, active = params["_prim"], present(slots)
        rule = self._forward(prim, primals)
        with _recording(recorder, prim) as again:
            reached = [True] * len(prim.out_avals_flat)
            if recorder.linear and jc.gives(prim, "transpose"):
                outs = primitive.bind(*primals, **params)
                jacobian = _function(interpreter, primals, outs, active, tuple(primals), _Transpose(prim, active))
            elif rule is None or _has_vjp(prim):
                outs, jacobian, reached = self._backward(interpreter, prim, primals, active)
            elif again:
                raise UnsupportedPrimitiveError(type(prim).__name__, jc.current_place(), SELF_APPLIED)
            else:
                return record_tangents(interpreter, recorder, rule, primals, slots)
            found = recorder.append(slots, lambda: Opaque(jacobian) if again else jacobian, outs)
        return outs, [s if on else None for s, on in zip(found, reached, strict=True)]

    def _forward(self, prim, primals) -> Callable | None:
        """tangents -> (results, their tangents), if the object says."""
        if jc.gives(prim, "jvp"):
            apply = jc.jvp_of
        elif jc.gives(prim, "lin", "linearized"):
            apply = jc.linearized_by
        else:
            return None
        return lambda tangents: apply(prim, primals, tangents)

    def _backward(self, interpreter, prim, primals, active) -> tuple[list, Function, list]:
        """(results, Jacobian, which results have a derivative)."""
        if not _has_vjp(prim):
            raise UnsupportedPrimitiveError(type(prim).__name__, jc.current_place(), METHODS)
        outs, residuals, reached = jc.vjp_of(prim, active, primals)
        pullback = _Pullback(prim, tuple(active), tuple(reached))
        return outs, _function(interpreter, primals, outs, active, residuals, pullback), reached


def _has_vjp(prim) -> bool:
    return jc.gives(prim, "vjp_fwd") and (jc.gives(prim, "vjp_bwd") or jc.gives(prim, "vjp_bwd_retval"))


def _function(interpreter, primals, outs, active, residuals, pull) -> Function:
    domain, codomain = tuple(map(jc.typeof, primals)), tuple(map(jc.typeof, outs))
    return Function(residuals, tuple(active), pull, interpreter.transpose, "pull", domain, codomain)


higher_order(jc.HiPrimitive(jc.HiPrim), ObjectRule())


# -- JAX's own ------------------------------------------------------------------------------------------------


def _power_of_two(x, exponent):
    """2**exponent, exact, in the type of x."""
    return jnp.ldexp(lax.full_like(x, 1), exponent)


def _push_frexp(outs, primals, tangents, *, _prim):
    mantissa, exponent = outs
    return [lax.mul(tangents[0], _power_of_two(mantissa, lax.neg(exponent))), None]  # x = m 2ᵉ with e constant


elementwise(jc.hi_primitive("Ldexp"), lambda out, x, e, **_: _power_of_two(out, e), None, cost="elementwise")
function(jc.hi_primitive("Frexp"), _push_frexp, residuals=lambda outs, primals, **_: (outs, ()), cost="elementwise")
zero(jc.hi_primitive("SearchSorted"), jc.hi_primitive("Nonzero"))


def _weak(interpreter):
    """The interpreter without strong zeros: tangents decide these, which a rule that is recorded has not yet."""
    return replace(interpreter, nan_safe=False) if interpreter.nan_safe else interpreter


class RootRule(HigherOrderRule):
    """``custom_root``: F(p, x(p)) = 0 implies dx = -(∂F/∂x)⁻¹ ∂F/∂p dp, where the user gives the solver."""

    def push(self, interpreter, primitive, primals, tangents, params):
        return self._rule(interpreter, primitive, primals, params)(tangents)

    def record(self, interpreter, recorder, primitive, primals, slots, params):
        rule = self._rule(interpreter, primitive, primals, params)
        return record_tangents(interpreter, recorder, rule, primals, slots)

    def _rule(self, interpreter, primitive, primals, params) -> Callable:
        prim, interpreter = params["_prim"], _weak(interpreter)
        outs = primitive.bind(*primals, **params)

        def push(fun, xs, ts):
            ys, found = interpreter.push_function(fun, xs, ts)
            return instantiate(found, map(jc.typeof, ys), [True] * len(ys))

        def rule(tangents):
            found = jc.root_tangents(prim, push, primals, outs, tangents)
            return outs, [*found, *[None] * (len(outs) - len(found))]

        return rule


class RootMapRule(HigherOrderRule):
    """The linearised equation of a ``custom_root`` or its transpose: of constants, the root and a vector."""

    def push(self, interpreter, primitive, primals, tangents, params):
        return interpreter.push_function(self._function(interpreter, params["_prim"]), primals, tangents)

    def record(self, interpreter, recorder, primitive, primals, slots, params):
        return interpreter.continue_function(recorder, self._function(interpreter, params["_prim"]), primals, slots)

    def _function(self, interpreter, prim) -> Callable:
        interpreter = _weak(interpreter)

        def linearised(fun, transposed, xs, vs):
            if transposed:
                outs, tape = interpreter.record_function(fun, xs, [True] * len(xs))
                return instantiate(tape.pull(tuple(vs)), map(jc.typeof, xs), [True] * len(xs))
            outs, ts = interpreter.push_function(fun, xs, vs)
            return instantiate(ts, map(jc.typeof, outs), [True] * len(outs))

        return lambda *operands: jc.root_map(prim, linearised, operands)


higher_order(jc.hi_primitive("CustomRoot"), RootRule())
higher_order(jc.hi_primitive("RootLinearMap"), RootMapRule())
