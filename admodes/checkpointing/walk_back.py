"""The way back through a loop of which few states were kept: the tapes of a stretch of its steps, and their pullback.

A while loop is here a scan without scanned inputs and results, whose length is known at run time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from jax import lax

from admodes.checkpointing.policies import Checkpoints
from admodes.checkpointing.reversal import Trail, unwind
from admodes.linear import logs
from admodes.linear.maps import add
from admodes.program import jax_compat as jc
from admodes.program.blocks import aval_bytes
from admodes.program.derived import instantiate_cotangents, keep, merge
from admodes.program.evaluate import evaluate
from admodes.program.ir import from_jaxpr
from admodes.subprograms.scan import record_body, split_at


@dataclass(frozen=True)
class Steps:
    """The steps of a loop by number: what they read of its inputs, and where their results go."""

    loop: jc.ScanLoop
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


def stretch_width(checkpoints: Checkpoints, body, interpreter, loop: jc.ScanLoop, active: tuple, linear: bool) -> int:
    """The number of steps that are walked back at once."""
    tape = record_body(body, interpreter, loop, active, linear, False).stacked_avals
    return checkpoints.stretch(*(sum(map(aval_bytes, avals)) for avals in (loop.split(body.in_avals)[1], tape)))


@jc.weak_cache
def walk_back(
    body,
    interpreter,
    loop: jc.ScanLoop,
    width: int,
    active: tuple,
    linear: bool,
    ys_on: tuple,
    avals: tuple,
    with_logs: bool,
):
    """(constants, xs, trail, cotangents of carry and ys) -> cotangents of (constants, carry, xs)."""
    steps = Steps(loop, body)
    const_on, carry_on, x_on = loop.split(active)
    prepared = record_body(body, interpreter, loop, active, linear, False)
    carry_avals = loop.split(body.in_avals)[1]
    room = [jc.stacked(a, width) for a in prepared.stacked_avals] if width > 1 else []

    def walk(*args):
        sizes = loop.n_consts, len(x_on), 3, loop.n_carry, sum(carry_on)
        consts, xs, placed, states, carry_ct, ys_ct = split_at(args, *sizes)
        trail = Trail._make((*placed, states))
        invariant = evaluate(from_jaxpr(prepared.invariant), *consts)
        sums = tuple(jc.cotangent_zeros(jc.typeof(c)) for c in keep(const_on, consts))
        x_sums = tuple(jc.cotangent_zeros(jc.typeof(x)) for x in keep(x_on, xs))

        def step(k, carry):
            return steps.run(consts, carry, xs, k)[0]

        def record(k, carry):
            flat = evaluate(from_jaxpr(prepared.program), *consts, *carry, *steps.read(xs, k))
            return flat[: loop.n_carry], flat[prepared.recording.n_outputs :]

        def pull(k, stacked, cotangents):
            sums, carry_ct, x_cts = cotangents
            tape = prepared.tape(consts, invariant, steps.read(xs, k), (), stacked)
            pull_step = logs.refusing(tape.pull, "a loop in bounded memory", with_logs)
            found = pull_step(merge(carry_on, carry_ct) + merge(ys_on, steps.read(ys_ct, k)))
            of_consts, of_carry, of_x = loop.split(found)
            return (
                tuple(map(add, sums, keep(const_on, of_consts))),
                tuple(keep(carry_on, instantiate_cotangents(of_carry, carry_avals, carry_on))),
                tuple(steps.write(x_cts, keep(x_on, of_x), k)),
            )

        cotangents, tapes = (sums, tuple(carry_ct), x_sums), list(map(jc.fill_zeros, room))
        sums, carry_ct, x_sums = unwind(step, record, pull, trail, cotangents, width, tapes)
        return [*sums, *carry_ct, *x_sums]

    single = replace(interpreter.checkpoints, tapes=1)  # for the loops of this one, if it is walked back in turn
    return jc.trace_flat(jax.checkpoint(walk, policy=single), avals, "loop")
