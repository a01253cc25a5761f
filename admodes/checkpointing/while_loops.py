"""while_loop, and fori_loop with bounds known only at run time: forward and, in bounded memory, reverse.

JAX has no reverse mode here, for want of a bound on what to keep. With a fixed number of slots there is one: the
states that ``reversal.py`` keeps; the others are computed again.
"""

from __future__ import annotations

from typing import Any

from jax import lax

from admodes.checkpointing.reversal import Trail, like, online
from admodes.checkpointing.walk_back import stretch_width, walk_back
from admodes.errors import SideEffectError
from admodes.linear import logs
from admodes.linear.maps import LinearMap, linear_map, static
from admodes.program import jax_compat as jc
from admodes.program.derived import (
    fixed_point,
    instantiate,
    instantiate_cotangents,
    keep,
    merge,
    present,
    pushed,
    recorded,
    tangent_avals,
)
from admodes.program.evaluate import evaluate
from admodes.program.ir import from_jaxpr
from admodes.rules.table import HigherOrderRule, higher_order
from admodes.subprograms.control import keep_slots


@linear_map
class While(LinearMap):
    """The Jacobian of a while loop: where it started from, and the states that were kept."""

    primals: tuple
    trail: Trail
    params: tuple = static()
    active: tuple = static()
    linear: bool = static()
    width: int = static()
    interpreter: Any = static()
    domain: tuple = static()
    codomain: tuple = static()

    def push(self, tangents):
        return tuple(WhileRule().push(self.interpreter, jc.while_p, self.primals, tangents, dict(self.params))[1])

    def pull(self, cotangents):
        """x̄_k = J_kᵀ x̄_{k+1} from the last step to the first, the cotangents of the constants added up."""
        if all(g is None for g in cotangents):
            return (None,) * len(self.domain)
        loop = jc.while_parts(dict(self.params))
        _, const_on, carry_on = loop.split(self.active)
        _, consts, _ = loop.split(self.primals)
        cts = keep(carry_on, instantiate_cotangents(cotangents, self.codomain, carry_on))
        args = [*consts, *self.trail[:3], *self.trail.states, *cts]
        key = loop.steps, self.width, const_on + carry_on, self.linear, ()
        program = walk_back(loop.body, self.interpreter, *key, tuple(map(jc.typeof, args)), logs.wanted())
        flat = jc.compiled(program)(*args)
        n = sum(const_on)
        return (None,) * loop.n_cond + merge(const_on, flat[:n]) + merge(carry_on, flat[n:])


@jc.weak_cache
def _online_program(body, cond, n_cond: int, n_body: int, slots: int, width: int):
    """(constants, carry) -> (carry, trail)."""
    n = n_cond + n_body

    def sweep(*args):
        consts, carry = args[:n], args[n:]

        def going(carry):
            return evaluate(from_jaxpr(cond), *consts[:n_cond], *carry)[0]

        def step(carry):
            return evaluate(from_jaxpr(body), *consts[n_cond:], *carry)

        carry, trail = online(step, going, carry, slots, width)
        return [*like(carry, body.out_avals), *trail[:3], *trail.states]

    avals = [*cond.in_avals[:n_cond], *body.in_avals]
    return jc.trace_flat(sweep, avals, "while")


class WhileRule(HigherOrderRule):
    def push(self, interpreter, primitive, primals, tangents, params):
        loop = jc.while_parts(params)
        n_cond, n_body, body = loop.n_cond, loop.n_body, loop.body
        on, n = present(tangents), n_cond + n_body
        carry_on = fixed_point(on[n:], lambda carry: pushed(body, interpreter, on[n_cond:n] + carry)[1])
        program, _ = pushed(body, interpreter, on[n_cond:n] + carry_on, carry_on)
        order, n_ts = _group(n_body, len(carry_on), sum(on[n_cond:n]), sum(carry_on))
        body_program = _permuted(program, order)
        cond_program = _ignoring(loop.cond, tuple(tangent_avals(carry_on, body.in_avals[n_body:])))
        init_ts = keep(carry_on, instantiate(tangents[n:], body.in_avals[n_body:], carry_on))
        consts = [*primals[n_cond:n], *keep(on[n_cond:n], tangents[n_cond:n])]
        pushed_loop = jc.WhileLoop(n_cond, n_body + n_ts, cond_program, body_program)
        flat = pushed_loop.bind(primals[:n_cond], consts, [*primals[n:], *init_ts])
        return flat[: len(carry_on)], merge(carry_on, flat[len(carry_on) :])

    def record(self, interpreter, recorder, primitive, primals, slots, params):
        loop = jc.while_parts(params)
        if loop.cond.out_avals[0].shape:
            conds, others = primals[: loop.n_cond], primals[loop.n_cond :]
            once, inactive = _of_all_lanes(params), (None,) * loop.n_cond
            slots = (*inactive, *inactive, *slots[loop.n_cond :])
            return self.record(interpreter, recorder, primitive, (*conds, *conds, *others), slots, once)
        _, const_on, init_on = loop.split(present(slots))

        def reached(carry):
            return recorded(loop.body, interpreter, const_on + carry, recorder.linear).active

        # a result that only decides how long the loop runs, or is held constant in it, carries no derivative
        carry_on = fixed_point(init_on, reached)
        if not any(carry_on):
            return primitive.bind(*primals, **params), [None] * len(carry_on)
        if jc.has_side_effects(loop.body) or jc.has_side_effects(loop.cond):
            raise SideEffectError("lax.while_loop", jc.current_place())
        checkpoints, active = interpreter.checkpoints, const_on + carry_on
        width = stretch_width(checkpoints, loop.body, interpreter, loop.steps, active, recorder.linear)
        program = _online_program(loop.body, loop.cond, loop.n_cond, loop.n_body, checkpoints.slots, width)
        flat = jc.compiled(program)(*primals)
        n = len(carry_on)
        linear = While(
            tuple(primals),
            Trail(flat[n], flat[n + 1], flat[n + 2], tuple(flat[n + 3 :])),
            tuple(params.items()),
            (False,) * loop.n_cond + active,
            recorder.linear,
            width,
            interpreter,
            tuple(map(jc.typeof, primals)),
            tuple(map(jc.typeof, flat[:n])),
        )
        return flat[:n], keep_slots(carry_on, recorder.append(slots, lambda: linear, flat[:n]))


def _of_all_lanes(params) -> dict:
    """A batched while loop, whose condition is a vector, as one that runs while any lane does.

    Its body has the constants of the condition before its own, and leaves the lanes that are done as they are.
    """
    loop = jc.while_parts(params)
    cond, body = _lanes(loop.body, loop.cond, loop.n_cond)
    return jc.WhileLoop(loop.n_cond, loop.n_cond + loop.n_body, cond, body).params


@jc.weak_cache
def _lanes(body, cond, n_cond: int):
    n_consts = n_cond + len(body.in_avals) - len(body.out_avals)

    def running(consts, carry):
        return evaluate(from_jaxpr(cond), *consts, *carry)[0]

    def any_lane(*args):
        lanes = running(args[:n_cond], args[n_cond:])
        return [lax.reduce_or(lanes, tuple(range(lanes.ndim)))]

    def masked(*args):
        consts, carry = args[:n_consts], args[n_consts:]
        lanes = running(consts[:n_cond], carry)
        moved = evaluate(from_jaxpr(body), *consts[n_cond:], *carry)
        masks = (lax.broadcast_in_dim(lanes, x.shape, range(lanes.ndim)) for x in carry)
        return list(map(lax.select, masks, moved, carry))

    avals = [*cond.in_avals[:n_cond], *body.in_avals]
    return jc.trace_flat(any_lane, cond.in_avals, "condition"), jc.trace_flat(masked, avals, "body")


def _group(n_consts, n_carry, n_const_ts, n_carry_ts):
    """Where (consts, carry, their tangents) must go: (consts, their tangents, carry, its tangents)."""
    n = n_consts + n_carry
    consts, carry = range(n_consts), range(n_consts, n)
    const_ts, carry_ts = range(n, n + n_const_ts), range(n + n_const_ts, n + n_const_ts + n_carry_ts)
    return (*consts, *const_ts, *carry, *carry_ts), n_const_ts


@jc.weak_cache
def _permuted(program, order):
    return jc.permute_inputs(program, order)


@jc.weak_cache
def _ignoring(closed, extra: tuple):
    """The same program with further arguments that it ignores."""
    n = len(closed.in_avals)
    return jc.trace_flat(lambda *args: evaluate(from_jaxpr(closed), *args[:n]), [*closed.in_avals, *extra], "condition")


higher_order(jc.while_p, WhileRule(), cost="loop")
