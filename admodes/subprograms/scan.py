"""scan: loops of known length, in both modes.

Reverse mode runs the loop once forward, keeping the residuals of each step's tape, and once backward.
Only what must be is kept: residuals that depend on the loop's constants only are computed once outside
the loop, those that are inputs or outputs of a step are not stored a second time.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import jax

from admodes.linear import logs
from admodes.linear.maps import LinearMap, add, linear_map, static
from admodes.program import jax_compat as jc
from admodes.program.derived import (
    Recording,
    cotangent_avals,
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
from admodes.program.fusion import derived
from admodes.program.ir import Program, from_jaxpr
from admodes.rules.table import HigherOrderRule
from admodes.subprograms.control import keep_slots


@dataclass(frozen=True, eq=False)
class LoopRecording:
    """A scan body prepared for reverse mode.

    ``program``: (constants, carry, x) -> (carry, y, stacked residuals); ``invariant``: constants -> the residuals
    that do not change; ``sources`` says where each residual of ``recording`` is found inside the backward body:
    ("const", i), ("x", i), ("y", j), ("literal", k), ("invariant", k), ("stacked", k), or ("derived", k): computed
    again there by ``derived`` (``program/fusion.py``) from what is found at ``leaves``.
    """

    recording: Recording
    program: Any
    invariant: Any
    sources: tuple
    derived: Program
    leaves: tuple

    @property
    def found(self) -> set:
        """Where something is read."""
        return {*self.sources, *self.leaves}

    @property
    def stacked_avals(self) -> list:
        return self.program.out_avals[self.recording.n_outputs :]

    def tape(self, consts, invariant, xs, ys, stacked):
        """The tape of one step."""
        literals = self.recording.literals
        values = {"const": consts, "literal": literals, "invariant": invariant, "x": xs, "y": ys, "stacked": stacked}
        values["derived"] = evaluate(self.derived, *(values[kind][k] for kind, k in self.leaves))
        return jax.tree_util.tree_unflatten(self.recording.tree, [values[kind][k] for kind, k in self.sources])


@jc.weak_cache
def record_body(
    body, interpreter, loop: jc.ScanLoop, active: tuple, linear: bool, with_ys: bool = True
) -> LoopRecording:
    """The recording of a loop's body; results of a step that its tape needs are found in the loop's, if ``with_ys``."""
    recording = recorded(body, interpreter, active, linear)
    n_in, n_out, first_x = len(body.in_avals), recording.n_outputs, loop.n_consts + loop.n_carry
    varies = jc.depends_on(recording.program, [i >= loop.n_consts for i in range(n_in)])
    program = from_jaxpr(recording.program)
    slots = {"input": program.inputs, "output": program.outputs, "residual": program.outputs[n_out:]}
    needed = list(dict.fromkeys(source for source in recording.sources if source[0] != "literal"))
    fixed = [k for kind, k in needed if kind == "residual" and not varies[n_out + k]]

    # where a value is found that is not stacked
    places: dict = {("input", i): ("const", i) for i in range(loop.n_consts)}
    places |= {("input", i): ("x", i - first_x) for i in range(first_x, n_in)}
    places |= {("output", j): ("y", j - loop.n_carry) for j in range(loop.n_carry, n_out) if with_ys}
    places |= {("residual", k): ("invariant", i) for i, k in enumerate(fixed)}

    known = {slots[kind][k]: place for (kind, k), place in places.items() if isinstance(slots[kind][k], int)}
    fresh = {source: slots[source[0]][source[1]] for source in needed if source not in places}
    again = derived(program, known, [slot for slot in fresh.values() if isinstance(slot, int)])
    stacked = [source for source, slot in fresh.items() if slot not in again.outputs]
    places |= {source: ("stacked", k) for k, source in enumerate(stacked)}
    places |= {s: ("derived", again.outputs.index(slot)) for s, slot in fresh.items() if slot in again.outputs}
    found = {fresh[s]: places[s] for s in stacked if isinstance(fresh[s], int)} | known

    def forward(*args):
        flat = evaluate(program, *args)
        values = {"input": args, "output": flat[:n_out], "residual": flat[n_out:]}
        return [*flat[:n_out], *(values[kind][k] for kind, k in stacked)]

    return LoopRecording(
        recording,
        jc.trace_flat(forward, body.in_avals, "scan"),
        jc.of_first_inputs(recording.program, loop.n_consts, [n_out + k for k in fixed]),
        tuple(places.get(source, source) for source in recording.sources),
        again,
        tuple(found[slot] for slot in again.inputs),
    )


@linear_map
class Scan(LinearMap):
    """The Jacobian of a scan: the tape of each step, stacked along the loop."""

    consts: tuple
    invariant: tuple
    xs: tuple
    ys: tuple
    stacked: tuple
    loop: jc.ScanLoop = static()
    recorded: LoopRecording = static()
    active: tuple = static()
    domain: tuple = static()
    codomain: tuple = static()

    @property
    def _residuals(self):
        """The residuals that do not change along the loop, and those that do."""
        return (self.consts, self.invariant), (self.xs, self.ys, self.stacked)

    def push(self, tangents):
        """One loop over ẋ_{k+1} = J_k (ċ, ẋ_k, u̇_k)."""
        if all(t is None for t in tangents):
            return (None,) * len(self.codomain)
        _, carry_on, _ = self.loop.split(self.active)
        consts, carry, xs = self.loop.split(tangents)
        carry_avals, _ = self._out_avals()
        starts = keep(carry_on, instantiate(carry, carry_avals, carry_on))
        fixed, varying, tree, avals = self._flatten()
        program = _push_body(self.recorded, self.loop, self.active, present(consts), present(xs), tree, avals)
        out_carry, out_ys = self.loop.bind(
            program.closed, [*fixed, *keep(present(consts), consts)], starts, [*varying, *keep(present(xs), xs)]
        )
        return merge(carry_on, out_carry) + merge(program.y_active, out_ys)

    def pull(self, cotangents):
        """The loop run backwards: x̄_k = J_kᵀ (x̄_{k+1}, ȳ_k), the cotangents of the constants added up."""
        if all(g is None for g in cotangents):
            return (None,) * len(self.domain)
        const_on, carry_on, _ = self.loop.split(self.active)
        consts, carry, _ = self.loop.split(self.domain)
        carry_ct, ys_ct = cotangents[: self.loop.n_carry], cotangents[self.loop.n_carry :]
        sums = [jc.cotangent_zeros(a) for a in keep(const_on, consts)]
        carry_ct = keep(carry_on, instantiate_cotangents(carry_ct, carry, carry_on))
        fixed, varying, tree, avals = self._flatten()
        program = _pull_body(self.recorded, self.loop, self.active, present(ys_ct), tree, avals, logs.wanted())
        flat, stacked = self.loop.bind(
            program.closed,
            fixed,
            [*sums, *carry_ct],
            [*varying, *keep(present(ys_ct), ys_ct)],
            reverse=not self.loop.reverse,
        )
        n_x = sum(program.x_active)
        logs.write(jax.tree_util.tree_unflatten(program.logs, stacked[n_x:]))
        x_cts = merge(program.x_active, stacked[:n_x])
        return merge(const_on, flat[: len(sums)]) + merge(carry_on, flat[len(sums) :]) + x_cts

    def _out_avals(self):
        return self.codomain[: self.loop.n_carry], self.codomain[self.loop.n_carry :]

    def _flatten(self):
        fixed, varying = self._residuals
        fixed, fixed_tree = jax.tree_util.tree_flatten(fixed)
        varying, varying_tree = jax.tree_util.tree_flatten(varying)
        avals = tuple(map(jc.typeof, fixed)), tuple(jc.unstacked(jc.typeof(v)) for v in varying)
        return fixed, varying, (fixed_tree, varying_tree), avals


def split_at(values, *sizes) -> list:
    """Cut a sequence into pieces of these sizes, and the rest."""
    cuts = [0, *itertools.accumulate(sizes), len(values)]
    return [values[a:b] for a, b in itertools.pairwise(cuts)]


@dataclass(frozen=True, eq=False)
class _Body:
    closed: Any
    y_active: tuple = ()
    x_active: tuple = ()
    logs: Any = None  # the structure of the entries of a step


def _step_tape(recorded: LoopRecording, tree, fixed, varying):
    """The tape of one step from the flat residuals."""
    return recorded.tape(*jax.tree_util.tree_unflatten(tree[0], fixed), *jax.tree_util.tree_unflatten(tree[1], varying))


@jc.weak_cache
def _push_body(recorded, loop, active, consts_on, xs_on, tree, avals) -> _Body:
    _, carry_on, _ = loop.split(active)
    n_fixed, n_varying = len(avals[0]), len(avals[1])
    in_avals = recorded.recording.program.in_avals
    consts, carry, xs = loop.split(in_avals)
    types = [
        *avals[0],
        *tangent_avals(consts_on, consts),
        *tangent_avals(carry_on, carry),
        *avals[1],
        *tangent_avals(xs_on, xs),
    ]
    found: list = []

    def step(*args):
        fixed, c, s, varying, u = split_at(args, n_fixed, sum(consts_on), sum(carry_on), n_varying)
        tape = _step_tape(recorded, tree, fixed, varying)
        ts = tape.push(merge(consts_on, c) + merge(carry_on, s) + merge(xs_on, u))
        new_carry, ys = ts[: loop.n_carry], ts[loop.n_carry :]
        found[:] = present(ys)
        return [*keep(carry_on, instantiate(new_carry, carry, carry_on)), *keep(found, ys)]

    closed = jc.trace_flat(step, types, "push")
    return _Body(closed, y_active=tuple(found))


@jc.weak_cache
def _pull_body(recorded, loop, active, ys_on, tree, avals, with_logs) -> _Body:
    const_on, carry_on, x_on = loop.split(active)
    n_fixed, n_varying = len(avals[0]), len(avals[1])
    in_avals, out_avals = recorded.recording.program.in_avals, recorded.recording.program.out_avals
    consts, carry, _ = loop.split(in_avals)
    ys = out_avals[loop.n_carry : recorded.recording.n_outputs]
    n_const, n_carry = sum(const_on), sum(carry_on)
    of_logs: list = []
    types = [
        *avals[0],
        *cotangent_avals(const_on, consts),
        *cotangent_avals(carry_on, carry),
        *avals[1],
        *cotangent_avals(ys_on, ys),
    ]
    found: list = []

    def step(*args):
        fixed, sums, carry_ct, varying, ys_ct = split_at(args, n_fixed, n_const, n_carry, n_varying)
        tape = _step_tape(recorded, tree, fixed, varying)
        cts, entries = logs.logged(tape.pull, with_logs)(merge(carry_on, carry_ct) + merge(ys_on, ys_ct))
        flat, structure = jax.tree_util.tree_flatten(entries)
        of_logs[:] = [structure]
        const_cts, new_carry, x_cts = loop.split(cts)
        found[:] = [on and ct is not None for on, ct in zip(x_on, x_cts, strict=True)]
        return [
            *map(add, sums, keep(const_on, const_cts)),
            *keep(carry_on, instantiate_cotangents(new_carry, carry, carry_on)),
            *keep(found, x_cts),
            *flat,
        ]

    closed = jc.trace_flat(step, types, "pull")
    return _Body(closed, x_active=tuple(found), logs=of_logs[0])


class ScanRule(HigherOrderRule):
    def push(self, interpreter, primitive, primals, tangents, params):
        loop, body = jc.scan_parts(params)
        consts, carry, xs = loop.split(primals)
        consts_t, carry_t, xs_t = loop.split(tangents)
        const_on, x_on = present(consts_t), present(xs_t)
        carry_on = fixed_point(
            present(carry_t), lambda on: pushed(body, interpreter, const_on + on + x_on)[1][: loop.n_carry]
        )
        program, y_on = _push_scan(body, interpreter, loop, const_on, carry_on, x_on)
        carry_avals = loop.split(body.in_avals)[1]
        init_t = keep(carry_on, instantiate(carry_t, carry_avals, carry_on))
        carries, outs = loop.bind(
            program,
            [*consts, *keep(const_on, consts_t)],
            [*carry, *init_t],
            [*xs, *keep(x_on, xs_t)],
        )
        n = len(y_on)
        values = [*carries[: loop.n_carry], *outs[:n]]
        return values, merge(carry_on, carries[loop.n_carry :]) + merge(y_on, outs[n:])

    def record(self, interpreter, recorder, primitive, primals, slots, params):
        loop, body = jc.scan_parts(params)
        const_on, carry_on, x_on = loop.split(present(slots))
        carry_on = fixed_point(
            carry_on,
            lambda on: recorded(body, interpreter, const_on + on + x_on, recorder.linear).active[: loop.n_carry],
        )
        active = const_on + carry_on + x_on
        prepared = record_body(body, interpreter, loop, active, recorder.linear)
        consts, carry, xs = loop.split(primals)
        invariant = jc.compiled(prepared.invariant)(*consts) if prepared.invariant.out_avals else ()
        carries, outs = loop.bind(prepared.program, consts, carry, xs)
        n_ys = prepared.recording.n_outputs - loop.n_carry
        ys, stacked = outs[:n_ys], outs[n_ys:]
        used = prepared.found
        linear = Scan(
            tuple(c if ("const", i) in used else None for i, c in enumerate(consts)),
            tuple(invariant),
            tuple(x if ("x", i) in used else None for i, x in enumerate(xs)),
            tuple(y if ("y", j) in used else None for j, y in enumerate(ys)),
            tuple(stacked),
            loop,
            prepared,
            active,
            tuple(map(jc.typeof, primals)),
            tuple(map(jc.typeof, [*carries, *ys])),
        )
        results = [*carries, *ys]
        out_active = carry_on + prepared.recording.active[loop.n_carry :]
        return results, keep_slots(out_active, recorder.append(slots, lambda: linear, results))


@jc.weak_cache
def _push_scan(body, interpreter, loop, const_on, carry_on, x_on):
    """The body of the forward sweep in scan's order of operands and results, and which ys have a tangent."""
    n = len(body.in_avals)
    first = pushed(body, interpreter, const_on + carry_on + x_on)[1]
    y_on = first[loop.n_carry :]
    program, _ = pushed(body, interpreter, const_on + carry_on + x_on, carry_on + y_on)
    consts, carry, xs = loop.split(range(n))
    ts = range(n, n + sum(const_on) + sum(carry_on) + sum(x_on))
    a, b = sum(const_on), sum(const_on) + sum(carry_on)
    order = (*consts, *ts[:a], *carry, *ts[a:b], *xs, *ts[b:])
    n_out, c = len(body.out_avals), loop.n_carry
    out_order = (*range(c), *range(n_out, n_out + sum(carry_on)), *range(c, n_out))
    out_order += tuple(range(n_out + sum(carry_on), n_out + sum(carry_on) + sum(y_on)))
    return jc.select_outputs(jc.permute_inputs(program, order), out_order), y_on
