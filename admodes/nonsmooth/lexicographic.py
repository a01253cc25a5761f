r"""The decided program: f as it is on the ray x + εv, ε ↓ 0, with every branch settled.

Evaluated on germs, a program meets each discrete decision (max, abs, comparisons, sort, floor ...) with an answer that
holds beside x; the kink is then replaced by the piece that was chosen. There remains a smooth function that agrees
with f on the ray, and the ordinary modes differentiate it: its gradient at x is the limit of ∇f along v.

Two questions are kept apart. *Where the program goes* is decided by its own code: germs pass through the bodies of
``custom_jvp`` and ``custom_vjp`` functions and through ``stop_gradient``. *The slope there* is what the user says: the
derivative of a custom function is always the user's rule, evaluated at x + εv. So ``jax.nn.relu``, whose rule is a
comparison, gets the slope of the side that v points to, and a straight-through estimator stays one.

References: as for germs.py; Kakade and Lee, "Provably correct automatic subdifferentiation for qualified programs",
NeurIPS 2018, whose two sweeps these are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar

import jax
import numpy as np
from jax import lax

from admodes.errors import UnsupportedPrimitiveError
from admodes.linear.maps import Elementwise
from admodes.linear.strong import strong
from admodes.modes.dual import bind_without_rule, push_duals
from admodes.modes.interpreter import Interpreter
from admodes.modes.record import is_recording_linear
from admodes.nonsmooth.decisions import DECISIONS
from admodes.nonsmooth.entered import decided_by_function, decided_by_slope
from admodes.nonsmooth.germs import Germ, Square, detach, freeze
from admodes.program import jax_compat as jc
from admodes.program.derived import fixed_point, instantiate, keep, merge, present, pushed
from admodes.program.evaluate import bind
from admodes.program.traits import SLOPE, traits
from admodes.rules.replaced import replacement
from admodes.rules.slopes import kink_of
from admodes.rules.table import ElementwiseRule, LinearRule, LocalRule, lookup
from admodes.subprograms.custom import known_tangent


@dataclass(frozen=True)
class Lexicographic(Interpreter):
    """Pushes germs, and returns the decided program's values with them.

    With ``guards`` comparisons for equality keep the answer that they have at x: they guard single points
    (``where(x == 0, 1, sin(x) / x)``), and beside them the program may be 0/0 to first order. With ``strict`` a value
    is NaN where its rate is unknown: an infinite slope that meets a rate of zero, √s for an s that is not seen to be
    a sum of squares, say.
    """

    nan_safe: bool = True
    guards: bool = False
    strict: bool = False
    within: tuple = ()  # the primitives whose slope is being decided
    nested: bool = False  # there is an outer level, for which our rates are constants
    met: list = field(default_factory=list, compare=False)  # the equalities that were decided

    dual: ClassVar[type] = Germ

    def push_equation(self, primitive, duals: Sequence[Germ], params: dict) -> list:
        germs = self._push(primitive, duals, params)
        return [replace(g, tangent=freeze(g.tangent)) for g in germs] if self.nested else germs

    def _push(self, primitive, duals: Sequence[Germ], params: dict) -> list:
        primals = [g.primal for g in duals]
        tangents = tuple(g.tangent for g in duals)
        if all(t is None for t in tangents):
            return list(map(Germ, bind(primitive, primals, params)))
        if is_equality(primitive) or jc.mentions(params, is_equality):
            self.met.append(primitive)
        kink = kink_of(primitive, tuple(map(jc.typeof, primals)), present(tangents), params)
        if kink is not None and not (self.guards and is_equality(primitive)):
            return _decide(kink)(self, primitive, duals, params)
        if primitive is jc.stop_gradient_p:
            square = duals[0].square and Square(detach(duals[0].square.second), detach(duals[0].square.half))
            return [Germ(primitive.bind(primals[0]), tangents[0], square)]
        special = _SPECIAL.get(primitive)
        if special is not None:
            return special(self, duals, params)
        rule = lookup(primitive)
        if rule is None:
            return list(map(Germ, bind_without_rule(primitive, primals, params)))
        if not isinstance(rule, LocalRule):
            outs, ts = rule.push(self, primitive, primals, tangents, params)
            return [Germ(o, None if t is None else detach(t)) for o, t in zip(outs, ts, strict=True)]
        if rule.kind == "refused":
            raise UnsupportedPrimitiveError(primitive.name, jc.current_place(), "cannot be evaluated beside a point")
        return self.push_local(primitive, duals, params)

    def push_germs(self, closed, germs) -> list:
        """A jaxpr on germs."""
        if jc.has_references(closed):
            values = self.push_program(closed, [g.primal for g in germs], [g.tangent for g in germs])
            return list(map(Germ, *values))
        return push_duals(self, closed, germs)

    def push_local(self, primitive, duals, params) -> list:
        """One equation without decisions, by its local Jacobian at the point."""
        rule = lookup(primitive)
        primals = [g.primal for g in duals]
        tangents = tuple(g.tangent for g in duals)
        outs = rule.evaluate(primitive, primals, params)
        at_outs, at = list(map(detach, outs)), list(map(detach, primals))
        jacobian = rule.jacobian(self, primitive, at_outs, at, present(tangents), params)
        if jacobian is None:
            return list(map(Germ, outs))
        ts = strong(jacobian).push(tangents)
        if self.strict and isinstance(jacobian, Elementwise):
            outs = [_nan_where_unknown(outs[0], jacobian.push(tangents)[0], ts[0])]
        if len(outs) == 1:
            return [Germ(outs[0], ts[0], _square(primitive, rule, jacobian, duals, params))]
        return list(map(Germ, outs, ts))


def _decide(kink: str | Callable) -> Callable:
    if callable(kink):
        return partial(decided_by_function, kink)
    return decided_by_slope if kink == SLOPE else DECISIONS[kink]


def is_equality(primitive) -> bool:
    """True for == and !=, which may guard single points."""
    return traits(primitive).kink in ("equal", "unequal")


def _nan_where_unknown(out, rate, strong_rate):
    unknown = lax.bitwise_and(lax.ne(rate, rate), lax.eq(strong_rate, strong_rate))
    return lax.select(unknown, lax.full_like(out, np.nan), out)


# -- sums of squares -------------------------------------------------------------------------------------


def _square(primitive, rule, jacobian, germs, params) -> Square | None:
    """The square that the result is: of an operand, or a linear image of squares."""
    if _squares_an_operand(primitive, germs, params):
        y, t = germs[0].primal, germs[0].tangent
        if primitive is lax.dot_general_p:
            return Square(primitive.bind(t, t, **params), primitive.bind(y, t, **params))
        return Square(lax.mul(t, t), lax.mul(y, t))
    moving = [g.tangent is not None for g in germs]
    if any(g.square is None for g, on in zip(germs, moving, strict=True) if on):
        return None
    if not (isinstance(rule, LinearRule) or _adds_up(primitive, rule, germs, tuple(moving), params)):
        return None
    parts = [
        jacobian.push(tuple(getattr(g.square, part) if on else None for g, on in zip(germs, moving, strict=True)))[0]
        for part in ("second", "half")
    ]
    return Square(*parts)


def _squares_an_operand(primitive, germs, params) -> bool:
    if not jc.is_real(germs[0].primal):
        return False
    if primitive is lax.square_p or (primitive is lax.integer_pow_p and params["y"] == 2):
        return True
    same = len(germs) == 2 and germs[0].primal is germs[1].primal
    if primitive is lax.dot_general_p and same:
        (left, right), (left_batch, right_batch) = params["dimension_numbers"]
        whole = len(left) + len(left_batch) == germs[0].primal.ndim
        return whole and tuple(left) == tuple(right) and tuple(left_batch) == tuple(right_batch)
    return primitive is lax.mul_p and same


def _adds_up(primitive, rule, germs, moving, params) -> bool:
    avals = tuple(map(jc.typeof, (g.primal for g in germs)))
    return isinstance(rule, ElementwiseRule) and rule.adds_up(primitive, avals, moving, params)


# -- users' rules -----------------------------------------------------------------------------------------


def _custom_jvp(interpreter, germs, params) -> list:
    fun, jvp = params["subfuns"]
    primals, tangents = [g.primal for g in germs], [g.tangent for g in germs]
    if is_recording_linear():  # a rule applies it to tangents: it is its own derivative (subprograms/custom.py)
        return list(map(Germ, *interpreter.push_function(fun.call_wrapped, primals, tangents)))
    if (ours := replacement(params)) is not None:
        return _replaced(interpreter, ours, primals, tangents, params)
    values, rates = _body(interpreter, fun, primals, tangents)

    @jax.custom_jvp
    def attached(values, primals, tangents):
        return values

    def pushed(inputs, moves):
        _, primals, tangents = inputs

        def of_germs(*xs):
            outs, ts = jc.call_jvp_rule(jvp, xs, moves[1])
            jc.forget_call(fun)
            return instantiate([known_tangent(t) for t in ts], map(jc.typeof, outs), [True] * len(outs))

        return attached(*inputs), interpreter.push_function(of_germs, primals, tangents)[0]

    attached.defjvp(pushed, symbolic_zeros=params["symbolic_zeros"])
    return list(map(Germ, attached(values, primals, tangents), rates))


def _replaced(interpreter, rule, primals, tangents, params) -> list:
    """One of the few functions of JAX's whose rule is replaced; they are smooth."""
    outs = bind(jc.custom_jvp_call_p, primals, params)
    at_outs, at = list(map(detach, outs)), list(map(detach, primals))
    jacobian = rule.jacobian(interpreter, jc.custom_jvp_call_p, at_outs, at, present(tangents), {})
    return list(map(Germ, outs, jacobian.push(tuple(tangents))))


def _custom_vjp(interpreter, germs, params) -> list:
    fun, forward, backward = params["subfuns"]
    primals, tangents = [g.primal for g in germs], [g.tangent for g in germs]
    values, rates = _body(interpreter, fun, primals, tangents)

    @jax.custom_vjp
    def attached(values, primals, tangents):
        return values

    def fwd(values, primals, tangents):
        active = [jc.is_differentiable(jc.typeof(p)) for p in primals]

        def of_germs(*xs):
            _, residuals = jc.call_fwd_rule(forward, params["out_trees"], xs, active)
            jc.forget_call(fun)
            return residuals

        return attached(values, primals, tangents), interpreter.push_function(of_germs, primals, tangents)

    def bwd(residuals, cotangents):
        def of_germs(*kept):
            cts = map(known_tangent, jc.call_bwd_rule(backward, kept, cotangents)[0])
            return instantiate(cts, map(jc.typeof, primals), [True] * len(primals))

        return None, interpreter.push_function(of_germs, *residuals)[0], None

    attached.defvjp(fwd, bwd)
    return list(map(Germ, attached(values, primals, tangents), rates))


def _body(interpreter, fun, primals, tangents) -> tuple[list, list]:
    """A custom function's own code on germs, as constants: (values, rates of change)."""
    outs, rates = interpreter.push_function(fun.call_wrapped, primals, tangents)
    return list(map(detach, outs)), rates


# -- calls and loops ----------------------------------------------------------------------------------------


def _while(interpreter, germs, params) -> list:
    """A loop whose condition is decided beside x too."""
    primals, tangents = [g.primal for g in germs], tuple(g.tangent for g in germs)
    loop = jc.while_parts(params)
    n_cond, n_body, cond, body = loop.n_cond, loop.n_body, loop.cond, loop.body
    n = n_cond + n_body
    on = present(tangents)
    cond_on, body_on = on[:n_cond], on[n_cond:n]
    carry_on = fixed_point(on[n:], lambda carry: pushed(body, interpreter, body_on + carry)[1])
    body_program, _ = pushed(body, interpreter, body_on + carry_on, carry_on)
    cond_program, _ = pushed(cond, interpreter, cond_on + carry_on)
    starts = keep(carry_on, instantiate(tangents[n:], body.in_avals[n_body:], carry_on))
    pushed_loop = jc.WhileLoop(
        n_cond + sum(cond_on),
        n_body + sum(body_on),
        _tangents_behind(cond_program, cond_on, carry_on),
        _tangents_behind(body_program, body_on, carry_on),
    )
    flat = pushed_loop.bind(
        [*primals[:n_cond], *keep(cond_on, tangents[:n_cond])],
        [*primals[n_cond:n], *keep(body_on, tangents[n_cond:n])],
        [*primals[n:], *starts],
    )
    k = len(carry_on)
    return list(map(Germ, flat[:k], merge(carry_on, flat[k:])))


def _tangents_behind(program, consts_on, carry_on):
    """The program with the order (constants, their tangents, carry, its tangents) in the place of tangents last."""
    n_consts, n = len(consts_on), len(consts_on) + len(carry_on)
    m = n + sum(consts_on)
    order = (*range(n_consts), *range(n, m), *range(n_consts, n), *range(m, m + sum(carry_on)))
    return jc.permute_inputs(program, order)


def _inlined(body: str):
    def push(interpreter, germs, params):
        closed = jc.constrained(jc.substituted(jc.close_jaxpr(params[body])), jc.shardings_of(params))
        return interpreter.push_germs(closed, germs)

    return push


_SPECIAL = {
    jc.custom_jvp_call_p: _custom_jvp,
    jc.custom_vjp_call_p: _custom_vjp,
    jc.while_p: _while,
    jc.jit_p: _inlined("jaxpr"),
    jc.eval_jaxpr_p: _inlined(jc.EVALUATED),
}
