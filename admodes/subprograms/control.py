"""Calls and branches. Scans are in ``scan.py``, while loops and checkpointed calls in ``checkpointing/``.

Each rule derives programs from the sub-program (see ``program/derived.py``) and binds the primitive to those, so
that the derivative of a jitted call is jitted, and that of a cond is a cond.
"""

from __future__ import annotations

from typing import Any

import jax

from admodes.linear import logs
from admodes.linear.maps import LinearMap, linear_map, static
from admodes.program import jax_compat as jc
from admodes.program.derived import (
    Recording,
    instantiate,
    instantiate_cotangents,
    keep,
    merge,
    present,
    pushed,
    recorded,
)
from admodes.program.evaluate import evaluate
from admodes.program.ir import from_jaxpr
from admodes.rules.table import HigherOrderRule, higher_order


@linear_map
class Compiled(LinearMap):
    """A map whose push and pull are each one compiled call, cached with ``owner``: the sub-program that it derives.

    No static part of ``linear`` may hold the owner, or it would keep itself alive.
    """

    linear: Any
    owner: Any = static()

    domain = property(lambda self: self.linear.domain)
    codomain = property(lambda self: self.linear.codomain)

    def push(self, tangents):
        return self._walk("push", tangents)

    def pull(self, cotangents):
        return self._walk("pull", cotangents)

    def _walk(self, direction, seeds):
        leaves, tree = jax.tree_util.tree_flatten(self.linear)
        distinct, places = _each_reference_once(leaves)
        results, entries = _compiled_walk(self.owner, direction, tree, places, logs.wanted())(distinct, seeds)
        logs.write(entries)
        return results

    def pattern(self):
        return self.linear.pattern()


def _each_reference_once(leaves) -> tuple[list, tuple]:
    """The leaves as arguments of a jitted function, which takes no reference twice, and where each is among them."""
    places = {id(x): i for i, x in reversed(list(enumerate(leaves))) if jc.is_reference(jc.typeof(x))}
    distinct = [i for i, x in enumerate(leaves) if places.get(id(x), i) == i]
    at = {i: k for k, i in enumerate(distinct)}
    return [leaves[i] for i in distinct], tuple(at[places.get(id(x), i)] for i, x in enumerate(leaves))


@jc.weak_cache
def _compiled_walk(owner, direction: str, tree, places: tuple, with_logs: bool):
    # the map comes as its leaves: jit's own caches would keep the static part of a map for good
    def walk(distinct, seeds):
        leaves = [distinct[i] for i in places]
        return getattr(jax.tree_util.tree_unflatten(tree, leaves), direction)(seeds)

    return jax.jit(logs.logged(walk, with_logs))


class CallRule(HigherOrderRule):
    """jit and closed calls: compiled when evaluated now, inlined when a surrounding jit will compile them anyway."""

    def __init__(self, body: str):
        self.body = body

    def _callee(self, params):
        return jc.constrained(jc.substituted(jc.close_jaxpr(params[self.body])), jc.shardings_of(params))

    def push(self, interpreter, primitive, primals, tangents, params):
        closed = self._callee(params)
        if jc.is_staging():
            return interpreter.push_program(closed, primals, tangents)
        program, active = pushed(closed, interpreter, present(tangents))
        flat = jc.compiled(program)(*primals, *keep(present(tangents), tangents))
        n = len(active)
        return flat[:n], merge(active, flat[n:])

    def record(self, interpreter, recorder, primitive, primals, slots, params):
        closed = self._callee(params)
        if jc.is_staging():
            return interpreter.continue_program(recorder, closed, primals, slots)
        recording = recorded(closed, interpreter, present(slots), recorder.linear)
        flat = jc.compiled(recording.program)(*primals)
        outs, residuals = flat[: recording.n_outputs], flat[recording.n_outputs :]
        linear = Compiled(recording.tape(primals, outs, residuals), recording)
        return outs, keep_slots(recording.active, recorder.append(slots, lambda: linear, outs))


def keep_slots(active, slots):
    return [s if on else None for on, s in zip(active, slots, strict=True)]


# -- cond ----------------------------------------------------------------------------------------------


@linear_map
class Branches(LinearMap):
    """The Jacobian of the branch that was taken. ``residuals`` are shared by the branches, by type."""

    index: Any
    inputs: tuple
    outputs: tuple
    residuals: tuple
    recordings: tuple = static()
    slots: tuple = static()
    active: tuple = static()
    domain: tuple = static()
    codomain: tuple = static()

    def push(self, tangents):
        wanted = tuple(map(any, zip(*(r.active for r in self.recordings), strict=True)))
        return self._walk("push", tangents, self.codomain, wanted)

    def pull(self, cotangents):
        return self._walk("pull", cotangents, self.domain, self.active)

    def _walk(self, direction, seeds, result_avals, wanted):
        # the index is operand 0 of the equation, the branches do not see it
        skip_in, skip_out = (1, 0) if direction == "push" else (0, 1)
        seeds, wanted = seeds[skip_in:], wanted[skip_out:]
        given = present(seeds)
        if not any(given):
            return (None,) * len(result_avals)
        values = (self.inputs, self.outputs, self.residuals, tuple(keep(given, seeds)))
        flat, tree = jax.tree_util.tree_flatten(values)
        branches = tuple(
            _walk_branch(r, slots, direction, given, wanted, tree, tuple(map(jc.typeof, flat)), logs.wanted())
            for r, slots in zip(self.recordings, self.slots, strict=True)
        )
        results = jc.cond_p.bind(self.index, *flat, branches=branches)
        return (None,) * skip_out + merge(wanted, results)


@jc.weak_cache
def _walk_branch(recording, slots, direction, given, wanted, tree, avals, with_logs):
    def walk(*flat):
        inputs, outputs, residuals, seeds = jax.tree_util.tree_unflatten(tree, flat)
        tape = recording.tape(inputs, outputs, [residuals[s] for s in slots])
        result_avals = tape.codomain if direction == "push" else tape.domain
        results = logs.refusing(getattr(tape, direction), "a branch of cond", with_logs)(merge(given, seeds))
        fill = instantiate if direction == "push" else instantiate_cotangents
        return keep(wanted, fill(results, result_avals, wanted))

    return jc.trace_flat(walk, avals, direction)


class CondRule(HigherOrderRule):
    def push(self, interpreter, primitive, primals, tangents, params):
        active = present(tangents)[1:]
        branches = jc.branches(params)
        found = [pushed(b, interpreter, active)[1] for b in branches]
        wanted = tuple(map(any, zip(*found, strict=True)))
        programs = tuple(pushed(b, interpreter, active, wanted)[0] for b in branches)
        flat = primitive.bind(*primals, *keep(active, tangents[1:]), **dict(params, branches=programs))
        n = len(wanted)
        return flat[:n], merge(wanted, flat[n:])

    def record(self, interpreter, recorder, primitive, primals, slots, params):
        active = present(slots)[1:]
        recordings = tuple(recorded(b, interpreter, active, recorder.linear) for b in jc.branches(params))
        shared, places = _share_residuals(recordings)
        programs = tuple(
            _padded(r.program, r.n_outputs, own, shared) for r, own in zip(recordings, places, strict=True)
        )
        index, *operands = primals
        flat = primitive.bind(index, *operands, **dict(params, branches=programs))
        n = recordings[0].n_outputs
        outs, residuals = flat[:n], flat[n:]
        used = {source for r in recordings for source in r.sources}
        linear = Branches(
            index,
            tuple(x if ("input", i) in used else None for i, x in enumerate(operands)),
            tuple(o if ("output", j) in used else None for j, o in enumerate(outs)),
            tuple(residuals),
            recordings,
            places,
            present(slots),
            tuple(map(jc.typeof, primals)),
            tuple(map(jc.typeof, outs)),
        )
        out_active = map(any, zip(*(r.active for r in recordings), strict=True))
        return outs, keep_slots(out_active, recorder.append(slots, lambda: linear, outs))


def _share_residuals(recordings: tuple[Recording, ...]):
    """Give residuals of different branches that have one type one slot: (types of the slots, slots of each branch)."""
    shared: list = []
    places = []
    for recording in recordings:
        free = list(range(len(shared)))
        own = []
        for aval in recording.residual_avals:
            match = next((s for s in free if jc.same_type(shared[s], aval)), None)
            if match is None:
                match = len(shared)
                shared.append(aval)
            else:
                free.remove(match)
            own.append(match)
        places.append(tuple(own))
    return tuple(shared), tuple(places)


@jc.weak_cache
def _padded(program, n_outputs, own, shared):
    """The recording of one branch, with zeros for the residuals of the other branches."""

    def padded(*args):
        flat = evaluate(from_jaxpr(program), *args)
        residuals = dict(zip(own, flat[n_outputs:], strict=True))
        return [
            *flat[:n_outputs],
            *(residuals[s] if s in residuals else jc.fill_zeros(a) for s, a in enumerate(shared)),
        ]

    return jc.trace_flat(padded, program.in_avals, "branch")


for _call in (jc.jit_p, jc.compute_on_p, jc.xla_metadata_call_p):
    higher_order(_call, CallRule("jaxpr"))
higher_order(jc.eval_jaxpr_p, CallRule(jc.EVALUATED))
higher_order(jc.program_order_p, CallRule("call_jaxpr"))
higher_order(jc.cond_p, CondRule(), cost="branches")
