"""Checkpointed calls (``jax.checkpoint``): what is stored is their inputs, and what the user's policy saves."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from admodes.checkpointing.block_segments import has_loops, in_segments
from admodes.checkpointing.policies import Checkpoints
from admodes.compilers.recompute import after
from admodes.linear.maps import LinearMap, linear_map, static
from admodes.program import jax_compat as jc
from admodes.program.derived import keep, merge, present, pushed
from admodes.program.evaluate import bind, evaluate, run
from admodes.program.ir import from_jaxpr
from admodes.rules.references import check_references
from admodes.rules.table import HigherOrderRule, higher_order
from admodes.subprograms.control import CallRule, Compiled, keep_slots


@linear_map
class Rematerialised(LinearMap):
    """The Jacobian of a checkpointed call: only its inputs (and what the policy saves) are residuals.

    The tape is recorded again when it is needed, and not before (``compilers/recompute.py``).
    """

    inputs: tuple
    saved: dict
    closed: Any = static()
    active: tuple = static()
    prevent_cse: bool = static()
    linear: bool = static()
    interpreter: Any = static()
    domain: tuple = static()
    codomain: tuple = static()

    def _tape(self, seeds):
        inputs, saved = self.inputs, self.saved
        if self.prevent_cse:
            inputs, saved = after(seeds, (inputs, saved))

        def known(equation):
            return saved.get(equation.outputs)

        _, tape = self.interpreter.record_program(self.closed, inputs, self.active, known, self.linear)
        return tape

    def push(self, tangents):
        return self._tape(tangents).push(tangents)

    def pull(self, cotangents):
        return self._tape(cotangents).pull(cotangents)

    def pattern(self):
        return self._tape(()).pattern()


class RematRule(HigherOrderRule):
    """A call that touches references from outside is one on their contents: what it writes, it writes once."""

    def push(self, interpreter, primitive, primals, tangents, params):
        touched, written = jc.touched_references(params["jaxpr"])
        if any(touched):
            apply = partial(self.push, interpreter, primitive)
            return _on_contents(apply, primitive, primals, tangents, params, touched, written)
        program, active = pushed(jc.close_jaxpr(params["jaxpr"]), interpreter, present(tangents))
        jaxpr, consts = jc.open_jaxpr(program)
        args = [*consts, *primals, *keep(present(tangents), tangents)]
        prevent_cse = params["prevent_cse"]
        if isinstance(prevent_cse, tuple):
            prevent_cse = (True,) * len(consts) + prevent_cse + (True,) * (len(args) - len(consts) - len(primals))
        flat = primitive.bind(*args, **dict(params, jaxpr=jaxpr, prevent_cse=prevent_cse))
        n = len(active)
        return flat[:n], merge(active, flat[n:])

    def record(self, interpreter, recorder, primitive, primals, slots, params):
        touched, written = jc.touched_references(params["jaxpr"])
        if any(touched):
            apply = partial(self.record, interpreter, recorder, primitive)
            return _on_contents(apply, primitive, primals, slots, params, touched, written)
        if isinstance(params["policy"], Checkpoints):
            return self._scheduled(interpreter, recorder, primitive, primals, slots, params)
        closed = jc.close_jaxpr(params["jaxpr"])
        program, keys = _saving(closed, params["policy"])
        staging = jc.is_staging()
        flat = evaluate(from_jaxpr(program), *primals) if staging else jc.compiled(program)(*primals)
        n = len(closed.out_avals)
        outs, saved = flat[:n], iter(flat[n:])
        prevent_cse = params["prevent_cse"]
        linear: LinearMap = Rematerialised(
            tuple(primals),
            {key: tuple(next(saved) for _ in key) for key in keys},
            closed,
            present(slots),
            any(prevent_cse) if isinstance(prevent_cse, tuple) else prevent_cse,
            recorder.linear,
            interpreter,
            tuple(map(jc.typeof, primals)),
            tuple(map(jc.typeof, outs)),
        )
        out_slots = recorder.append(slots, lambda: linear if staging else Compiled(linear, params["jaxpr"]), outs)
        return outs, keep_slots(interpreter.reached(closed, present(slots), recorder.linear), out_slots)

    def _scheduled(self, interpreter, recorder, primitive, primals, slots, params):
        """The user's policy is one of ours: for the loops of the call, or for its blocks if it has none."""
        policy, closed = params["policy"], jc.close_jaxpr(params["jaxpr"])
        if policy.policy != "none" and not has_loops(closed):
            params = {"jaxpr": _segmented(closed, policy)}
        scheduled = replace(interpreter, checkpoints=policy)
        return CallRule("jaxpr").record(scheduled, recorder, primitive, primals, slots, params)


def _on_contents(apply, primitive, primals, derivatives, params, touched, written):
    """(results, their tangents or slots) of a call that touches references, which get their new contents."""
    kinds = tuple(getattr(jc.typeof(x), "kind", None) for x in primals)
    jaxpr, _ = jc.open_jaxpr(jc.on_contents(jc.close_jaxpr(params["jaxpr"]), kinds, touched, written))
    contents = [x[...] if on else x for x, on in zip(primals, touched, strict=True)]
    outs, found = apply(contents, derivatives, dict(params, jaxpr=jaxpr))
    n = len(outs) - sum(written)
    for reference, content, derivative in zip(keep(written, primals), outs[n:], found[n:], strict=True):
        if derivative is not None:
            check_references(primitive, [reference])
        reference[...] = content
    return outs[:n], found[:n]


@jc.weak_cache
def _segmented(closed, policy):
    return jc.trace_flat(in_segments(closed, policy), closed.in_avals, "checkpoint")


@jc.weak_cache
def _saving(closed, policy):
    """The program that also returns what the policy saves, and the output slots of the equations that it saves.

    Nothing is saved of a program that creates references: what it does depends on their state.
    """
    if jc.has_references(closed):
        return closed.replace(), ()
    keys: list = []

    def saving(*args):
        saved: dict = {}

        def step(equation, operands, params):
            outs = bind(equation.primitive, operands, params)
            if jc.is_saveable(policy, equation.primitive, map(jc.typeof, operands), equation.params):
                saved[equation.outputs] = outs
            return outs

        outs = run(from_jaxpr(closed), step, args)
        keys[:] = sorted(saved)
        return [*outs, *(x for key in keys for x in saved[key])]

    return jc.trace_flat(saving, closed.in_avals, "checkpoint"), tuple(keys)


higher_order(jc.remat_p, RematRule())
