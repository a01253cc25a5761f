"""scan under a checkpointing policy: which of its states are kept, and which computed again.

"revolve" keeps the states of the binomial schedule and walks back step by step; "sqrt" keeps each √l-th state and
the tape of one stretch between them; "every" keeps the state before each step, but not what the step computes. The
policy is for the outermost loops: within a step, everything is kept.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isqrt
from typing import Any

import numpy as np
from jax import lax

from admodes.errors import SideEffectError
from admodes.linear.maps import LinearMap, add, linear_map, static
from admodes.program import jax_compat as jc
from admodes.program.evaluate import evaluate
from admodes.program.ir import from_jaxpr
from admodes.rules.binomial import placements
from admodes.rules.bounded import Trail, like, placed, unwind
from admodes.rules.checkpoints import Checkpoints
from admodes.rules.control import keep_slots
from admodes.rules.derived import fixed_point, instantiate, keep, merge, present, recorded
from admodes.rules.scan import Loop, ScanRule, split_at
from admodes.rules.table import higher_order


@dataclass(frozen=True)
class Steps:
    """The steps of a scan by number: what they read of its inputs, and where their results go."""

    loop: Loop
    body: Any

    def entry(self, k):
        return lax.sub(np.int32(self.loop.length - 1), k) if self.loop.reverse else k

    def read(self, xs, k) -> list:
        return [lax.dynamic_index_in_dim(x, self.entry(k), keepdims=False) for x in xs]

    def write(self, ys, values, k) -> list:
        return [
            y if v is None else lax.dynamic_update_index_in_dim(y, v, self.entry(k), 0)
            for y, v in zip(ys, values, strict=True)
        ]

    def run(self, consts, carry, xs, k) -> tuple:
        """(carry, results) of step k."""
        flat = evaluate(from_jaxpr(self.body), *consts, *carry, *self.read(xs, k))
        return flat[: self.loop.n_carry], flat[self.loop.n_carry :]


@linear_map
class BoundedScan(LinearMap):
    """The Jacobian of a scan of which the states of a binomial schedule were kept."""

    primals: tuple
    states: tuple
    params: tuple = static()
    active: tuple = static()
    linear: bool = static()
    interpreter: Any = static()
    domain: tuple = static()
    codomain: tuple = static()

    def push(self, tangents):
        return tuple(ScanRule().push(self.interpreter, jc.scan_p, self.primals, tangents, dict(self.params))[1])

    def pull(self, cotangents):
        if all(g is None for g in cotangents):
            return (None,) * len(self.domain)
        params = dict(self.params)
        loop = Loop.of(params)
        const_on, carry_on, x_on = loop.split(self.active)
        consts, _, xs = loop.split(self.primals)
        carry_ct, ys_ct = cotangents[: loop.n_carry], cotangents[loop.n_carry :]
        cts = keep(carry_on, instantiate(carry_ct, self.codomain[: loop.n_carry], carry_on))
        args = [*consts, *xs, *self.states, *cts, *keep(present(ys_ct), ys_ct)]
        key = self.interpreter, loop, self.interpreter.checkpoints.slots, self.active, self.linear, present(ys_ct)
        flat = jc.compiled(_pull_program(params["jaxpr"], *key, tuple(map(jc.typeof, args))))(*args)
        const_cts, carry_cts, x_cts = split_at(flat, sum(const_on), sum(carry_on))
        return merge(const_on, const_cts) + merge(carry_on, carry_cts) + merge(x_on, x_cts)


@jc.weak_cache
def _sweep_program(body, loop: Loop, slots: int, avals: tuple):
    """(constants, carry, xs) -> (carry, ys, kept states)."""
    steps = Steps(loop, body)

    def sweep(*args):
        consts, carry, xs = loop.split(args)
        ys = [jc.fill_zeros(jc.stacked(a, loop.length)) for a in body.out_avals[loop.n_carry :]]

        def advance(k, carry, ys):
            carry, values = steps.run(consts, carry, xs, k)
            return carry, steps.write(ys, values, k)

        carry, ys, trail = placed(advance, carry, loop.length, slots, ys)
        return [*like([*carry, *ys], body.out_avals), *trail.states]

    return jc.trace_flat(sweep, avals, "scan")


@jc.weak_cache
def _pull_program(body, interpreter, loop: Loop, slots: int, active: tuple, linear: bool, ys_on: tuple, avals: tuple):
    """(constants, xs, states, cotangents of carry and ys) -> cotangents of (constants, carry, xs)."""
    steps = Steps(loop, body)
    const_on, carry_on, x_on = loop.split(active)
    recording = recorded(body, _within(interpreter), active, linear)
    at = np.array(placements(loop.length, slots), np.int32)
    carry_avals = body.in_avals[loop.n_consts : loop.n_consts + loop.n_carry]

    def walk(*args):
        consts, xs, states, carry_ct, ys_ct = split_at(args, loop.n_consts, len(x_on), loop.n_carry, sum(carry_on))
        trail = Trail(np.int32(loop.length), at, np.arange(len(at), dtype=np.int32), tuple(states))
        sums = tuple(jc.zeros(jc.typeof(c)) for c in keep(const_on, consts))
        x_sums = tuple(jc.zeros(jc.typeof(x)) for x in keep(x_on, xs))

        def advance(k, carry):
            return steps.run(consts, carry, xs, k)[0]

        def pull(k, carry, cotangents):
            sums, carry_ct, x_cts = cotangents
            inputs = [*consts, *carry, *steps.read(xs, k)]
            flat = evaluate(from_jaxpr(recording.program), *inputs)
            tape = recording.tape(inputs, flat[: recording.n_outputs], flat[recording.n_outputs :])
            found = tape.pull(merge(carry_on, carry_ct) + merge(ys_on, steps.read(ys_ct, k)))
            of_consts, of_carry, of_x = loop.split(found)
            return (
                tuple(map(add, sums, keep(const_on, of_consts))),
                tuple(keep(carry_on, instantiate(of_carry, carry_avals, carry_on))),
                tuple(steps.write(x_cts, keep(x_on, of_x), k)),
            )

        sums, carry_ct, x_sums = unwind(advance, pull, trail, (sums, tuple(carry_ct), x_sums))
        return [*sums, *carry_ct, *x_sums]

    return jc.trace_flat(walk, avals, "scan")


def _within(interpreter):
    """The interpreter for a single step: the policy is spent, the slots of while loops are as before."""
    return replace(interpreter, checkpoints=Checkpoints("none", interpreter.checkpoints.slots))


@jc.weak_cache
def _recomputed(body):
    """The body as one checkpointed call."""
    jaxpr, consts = jc.open_jaxpr(body)

    def call(*args):
        # inside a loop there is nothing that the compiler could merge with
        return jc.remat_p.bind(*consts, *args, jaxpr=jaxpr, prevent_cse=False, differentiated=False, policy=None)

    return jc.trace_flat(call, body.in_avals, "checkpoint")


@jc.weak_cache
def _stretch(body, loop: Loop, avals: tuple):
    """Some steps of the scan, as one checkpointed call."""

    def run(*args):
        carry, ys = loop.bind(body, *loop.split(args))
        return [*carry, *ys]

    return _recomputed(jc.trace_flat(run, avals, "scan"))


def _scan_of_scans(loop: Loop, body, operands) -> list:
    """The scan in stretches of about √l steps, each of them checkpointed."""
    consts, carry, xs = loop.split(operands)
    width = max(isqrt(loop.length), 1)
    n, rest = divmod(loop.length, width)

    def part(start, stop):
        return [lax.slice_in_dim(x, start, stop) for x in xs]

    first, last = (rest, loop.length), (0, rest)
    if not loop.reverse:
        first, last = (0, n * width), (n * width, loop.length)
    folded = [lax.reshape(x, (n, width, *x.shape[1:])) for x in part(*first)]
    inner = replace(loop, length=width)
    stacked = [jc.stacked(a, width) for a in body.in_avals[loop.n_consts + loop.n_carry :]]
    avals = (*body.in_avals[: loop.n_consts + loop.n_carry], *stacked)
    carry, ys = replace(loop, length=n, unroll=1).bind(_stretch(body, inner, avals), consts, carry, folded)
    ys = [lax.reshape(y, (n * width, *y.shape[2:])) for y in ys]
    carry, more = replace(loop, length=rest).bind(_recomputed(body), consts, carry, part(*last))
    pairs = zip(more, ys, strict=True) if loop.reverse else zip(ys, more, strict=True)
    return [*carry, *(lax.concatenate(pair, 0) for pair in pairs)]


class PolicyScanRule(ScanRule):
    """A scan in reverse mode as the interpreter's policy says."""

    def record(self, interpreter, recorder, primitive, primals, slots, params):
        policy, loop, body = interpreter.checkpoints.policy, Loop.of(params), params["jaxpr"]
        if policy == "none" or not loop.length:
            return super().record(interpreter, recorder, primitive, primals, slots, params)
        if jc.has_side_effects(body):
            raise SideEffectError("lax.scan", jc.current_place())
        within = _within(interpreter)
        if policy == "every":
            params = dict(params, jaxpr=_recomputed(body))
            return super().record(within, recorder, primitive, primals, slots, params)
        if policy == "sqrt":
            return within.continue_function(recorder, lambda *xs: _scan_of_scans(loop, body, xs), primals, slots)
        return self._bounded(interpreter, recorder, primals, slots, params)

    def _bounded(self, interpreter, recorder, primals, slots, params):
        loop, body = Loop.of(params), params["jaxpr"]
        const_on, carry_on, x_on = loop.split(present(slots))

        def found(carry):
            return recorded(body, _within(interpreter), const_on + carry + x_on, recorder.linear).active

        carry_on = fixed_point(carry_on, lambda on: found(on)[: loop.n_carry])
        avals = tuple(map(jc.typeof, primals))
        flat = jc.compiled(_sweep_program(body, loop, interpreter.checkpoints.slots, avals))(*primals)
        n = len(body.out_avals)
        outs = flat[:n]
        linear = BoundedScan(
            tuple(primals),
            tuple(flat[n:]),
            tuple(params.items()),
            const_on + carry_on + x_on,
            recorder.linear,
            interpreter,
            avals,
            tuple(map(jc.typeof, outs)),
        )
        return outs, keep_slots(found(carry_on), recorder.append(slots, lambda: linear, outs))


higher_order(jc.scan_p, PolicyScanRule())
