"""scan under a checkpointing policy: which of its states are kept, and which computed again.

"revolve" keeps the states of the binomial schedule and walks back stretch by stretch; "sqrt" keeps each √l-th state and
the tape of one stretch between them; "every" keeps the state before each step, but not what the step computes. The
policy is for the outermost loops: within a step, everything is kept.
"""

from __future__ import annotations

from dataclasses import replace
from math import isqrt
from typing import Any

from jax import lax

from admodes.checkpointing.reversal import Trail, like, placed
from admodes.checkpointing.walk_back import Steps, stretch_width, walk_back
from admodes.errors import SideEffectError
from admodes.linear import logs
from admodes.linear.maps import LinearMap, linear_map, static
from admodes.program import jax_compat as jc
from admodes.program.derived import fixed_point, instantiate_cotangents, keep, merge, present, recorded
from admodes.rules.table import higher_order
from admodes.subprograms.control import keep_slots
from admodes.subprograms.scan import ScanRule, split_at


@linear_map
class BoundedScan(LinearMap):
    """The Jacobian of a scan of which the states of a binomial schedule were kept."""

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
        return tuple(ScanRule().push(self.interpreter, jc.scan_p, self.primals, tangents, dict(self.params))[1])

    def pull(self, cotangents):
        if all(g is None for g in cotangents):
            return (None,) * len(self.domain)
        loop, body = jc.scan_parts(dict(self.params))
        const_on, carry_on, x_on = loop.split(self.active)
        consts, _, xs = loop.split(self.primals)
        carry_ct, ys_ct = cotangents[: loop.n_carry], cotangents[loop.n_carry :]
        cts = keep(carry_on, instantiate_cotangents(carry_ct, self.codomain[: loop.n_carry], carry_on))
        args = [*consts, *xs, *self.trail[:3], *self.trail.states, *cts, *keep(present(ys_ct), ys_ct)]
        within = _within(self.interpreter)
        key = within, loop, self.width, self.active, self.linear, present(ys_ct), tuple(map(jc.typeof, args))
        flat = jc.compiled(walk_back(body, *key, logs.wanted()))(*args)
        const_cts, carry_cts, x_cts = split_at(flat, sum(const_on), sum(carry_on))
        return merge(const_on, const_cts) + merge(carry_on, carry_cts) + merge(x_on, x_cts)


@jc.weak_cache
def _sweep_program(body, loop: jc.ScanLoop, slots: int, width: int, avals: tuple):
    """(constants, carry, xs) -> (carry, ys, trail)."""
    steps = Steps(loop, body)

    def sweep(*args):
        consts, carry, xs = loop.split(args)
        ys = [jc.fill_zeros(jc.stacked(a, loop.length)) for a in body.out_avals[loop.n_carry :]]

        def step(k, carry, ys):
            carry, values = steps.run(consts, carry, xs, k)
            return carry, steps.write(ys, values, k)

        carry, ys, trail = placed(step, carry, loop.length, slots, width, ys)
        return [*like([*carry, *ys], body.out_avals), *trail[:3], *trail.states]

    return jc.trace_flat(sweep, avals, "scan")


def _within(interpreter):
    """The interpreter for a single step: the policy is spent, the slots of while loops are as before."""
    return replace(interpreter, checkpoints=replace(interpreter.checkpoints, policy="none"))


@jc.weak_cache
def _recomputed(body):
    """The body as one checkpointed call."""
    jaxpr, consts = jc.open_jaxpr(body)

    def call(*args):
        # inside a loop there is nothing that the compiler could merge with
        return jc.remat_p.bind(*consts, *args, jaxpr=jaxpr, prevent_cse=False, differentiated=False, policy=None)

    return jc.trace_flat(call, body.in_avals, "checkpoint")


@jc.weak_cache
def _stretch(body, loop: jc.ScanLoop, avals: tuple):
    """Some steps of the scan, as one checkpointed call."""

    def run(*args):
        carry, ys = loop.bind(body, *loop.split(args))
        return [*carry, *ys]

    return _recomputed(jc.trace_flat(run, avals, "scan"))


def _scan_of_scans(loop: jc.ScanLoop, body, operands) -> list:
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
    if not rest:
        return [*carry, *ys]
    carry, more = replace(loop, length=rest).bind(_recomputed(body), consts, carry, part(*last))
    pairs = zip(more, ys, strict=True) if loop.reverse else zip(ys, more, strict=True)
    return [*carry, *(lax.concatenate(pair, 0) for pair in pairs)]


class PolicyScanRule(ScanRule):
    """A scan in reverse mode as the interpreter's policy says."""

    def record(self, interpreter, recorder, primitive, primals, slots, params):
        policy, (loop, body) = interpreter.checkpoints.policy, jc.scan_parts(params)
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
        loop, body = jc.scan_parts(params)
        const_on, carry_on, x_on = loop.split(present(slots))
        checkpoints, within = interpreter.checkpoints, _within(interpreter)

        def found(carry):
            return recorded(body, within, const_on + carry + x_on, recorder.linear).active

        carry_on = fixed_point(carry_on, lambda on: found(on)[: loop.n_carry])
        active, avals = const_on + carry_on + x_on, tuple(map(jc.typeof, primals))
        width = min(stretch_width(checkpoints, body, within, loop, active, recorder.linear), loop.length)
        flat = jc.compiled(_sweep_program(body, loop, checkpoints.slots, width, avals))(*primals)
        n = len(body.out_avals)
        outs = flat[:n]
        linear = BoundedScan(
            tuple(primals),
            Trail._make((*flat[n : n + 3], tuple(flat[n + 3 :]))),
            tuple(params.items()),
            active,
            recorder.linear,
            width,
            interpreter,
            avals,
            tuple(map(jc.typeof, outs)),
        )
        return outs, keep_slots(found(carry_on), recorder.append(slots, lambda: linear, outs))


higher_order(jc.scan_p, PolicyScanRule(), cost="loop")
