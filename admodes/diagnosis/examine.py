r"""Running a function slowly: every equation with its values, through every loop, branch and custom rule.

An :class:`Examiner` is an interpreter that records for reverse mode as the others do, but unrolls what they keep
together: the steps of a scan or while loop one by one, of a cond the branch that is taken. So the log is a straight
line of equations that each have a source line, operands, results and (through the tape's entries) a local Jacobian.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import tree_flatten

from admodes.checkpointing.compared import only_compared
from admodes.modes import record
from admodes.modes.flat import flat_function
from admodes.modes.interpreter import INTERPRETER, Interpreter
from admodes.modes.record import Recorded
from admodes.modes.tape import Entry, Recorder
from admodes.program import jax_compat as jc
from admodes.program.derived import instantiate, merge, present
from admodes.program.trace import UNTRACEABLE
from admodes.subprograms.custom import known_tangent, recording_linear, rule_tangents


@dataclass(eq=False)
class Step:
    """One equation as it was executed. ``path`` says in which step of which loop; ``active[i]``: operand i moves."""

    primitive: Any
    source: str
    path: tuple
    operands: tuple
    outs: tuple
    active: tuple
    params: dict

    @property
    def name(self) -> str:
        return self.primitive.name


@dataclass(eq=False)
class Log:
    """A run: its steps in order, and for each entry of the tape the step that it belongs to."""

    inputs: tuple
    outs: tuple
    slots: tuple
    steps: list
    entries: list
    compared: list = field(default_factory=list)  # (loop, place) of those that only compare a value that moves
    origins: dict = field(default_factory=dict)  # of values that are not finite (births.py)


class LoggingRecorder(Recorder):
    """A recorder that notes for each entry which step makes it."""

    def __init__(self, in_avals):
        super().__init__(in_avals)
        self.current: Step | None = None
        self.entries: list[tuple[Entry, Step]] = []

    def append(self, reads, jacobian, outs) -> tuple:
        slots = super().append(reads, jacobian, outs)
        entry = next((s.entry for s in slots if s is not None), None)
        if entry is not None and self.current is not None:
            self.entries.append((entry, self.current))
        return slots


@dataclass(frozen=True, eq=False)
class Examiner(Interpreter):
    """Records, unrolling control flow, and keeps every step."""

    steps: list = field(default_factory=list)
    path: list = field(default_factory=list)
    compared: list = field(default_factory=list)
    moving: list = field(default_factory=list)  # whether the operands of the custom functions around us move

    @contextmanager
    def inside(self, what: str) -> Iterator[None]:
        self.path.append(what)
        try:
            yield
        finally:
            self.path.pop()

    def walk(self, recorder, closed, values) -> list:
        return record.continue_program(self, recorder, closed, values)

    def record_equation(self, recorder, primitive, values, params, outs=None) -> list:
        if not isinstance(recorder, LoggingRecorder):  # a map that is transposed, no step of the program
            return record.record_equation(self, recorder, primitive, values, params, outs)
        unroll = _UNROLLED.get(primitive)
        if unroll is not None:
            return unroll(self, recorder, list(values), params)
        operands, moving = [v.primal for v in values], [v.slot is not None for v in values]
        active = tuple(on or any(self.moving) for on in moving)
        step = Step(primitive, jc.current_place(), tuple(self.path), tuple(operands), (), active, params)
        if primitive in _CUSTOM:
            step.operands += tuple(self._body(recorder, params["subfuns"][0], operands, any(active)))
        before, recorder.current = recorder.current, step
        if primitive is jc.custom_jvp_call_p and any(moving) and not recorder.linear:
            results = self._rule(recorder, params, values, step.operands[len(values) :])
        else:
            results = record.record_equation(self, recorder, primitive, values, params, outs)
        recorder.current = before
        step.outs = tuple(r.primal for r in results)
        if not (recorder.linear and any(moving)):  # what is linear in tangents has no values of its own
            self.steps.append(step)
        return results

    def _body(self, recorder, fun, operands, active: bool) -> list:
        """The results of a custom function's own code, its steps kept too."""
        with jc.own_source():
            closed = jc.trace_flat(fun.call_wrapped, list(map(jc.typeof, operands)), "body")
        jc.forget_call(fun)
        self.moving.append(active)
        with self.inside("a custom function"):
            outs = self.walk(recorder, closed, list(map(Recorded, operands)))
        self.moving.pop()
        return [v.primal for v in outs]

    def _rule(self, recorder, params, values, outs) -> list:
        """The results of a custom_jvp function whose rule is recorded, equation by equation, as a linear function."""
        jvp, n = params["subfuns"][1], len(values)
        operands, slots = [v.primal for v in values], [v.slot for v in values]
        points = [Recorded(jc.zeros(jc.typeof(v.primal)), v.slot) for v in values if v.slot is not None]

        def rule(*args):
            ts = rule_tangents(args[:n], merge(present(slots), args[n:]), params["symbolic_zeros"])
            ys, found = jc.call_jvp_rule(jvp, args[:n], ts)
            return instantiate(map(known_tangent, found), map(jc.typeof, ys), [True] * len(ys))

        avals = [jc.typeof(x) for x in (*operands, *(p.primal for p in points))]
        with jc.own_source():
            closed = jc.trace_flat(rule, avals, "rule")
        with self.inside("a custom rule"), recording_linear(recorder):
            found = self.walk(recorder, closed, [*map(Recorded, operands), *points])
        moves = [jc.is_differentiable(jc.typeof(y)) for y in outs]
        return [Recorded(y, t.slot if on else None) for y, t, on in zip(outs, found, moves, strict=True)]


def examine(fun: Callable, args: Sequence) -> Log:
    """Run ``fun`` on concrete arguments and keep everything.

    The program is traced first; a function whose Python looks at values (``if x > 0``) is run as it is, and then only
    what depends on the differentiable arguments is seen.
    """
    leaves, tree = tree_flatten(tuple(args))
    leaves = [jnp.asarray(x) for x in map(jc.canonicalize, leaves)]
    flat, _ = flat_function(fun, tree, has_aux=False)
    recorder, examiner = LoggingRecorder(map(jc.typeof, leaves)), Examiner()
    slots = recorder.inputs([jc.is_differentiable(jc.typeof(x)) for x in leaves])
    values = list(map(Recorded, leaves, slots))
    try:
        closed = jc.without_references(jax.make_jaxpr(flat)(*leaves))
    except UNTRACEABLE:
        outs = record.continue_function(examiner, recorder, flat, values)
    else:
        outs = examiner.walk(recorder, closed, values)
    found = tuple(v.primal for v in outs), tuple(v.slot for v in outs)
    return Log(tuple(leaves), *found, examiner.steps, recorder.entries, examiner.compared)


# -- control flow, unrolled ---------------------------------------------------------------------------------


def _apply(examiner, recorder, fun: Callable, values) -> list:
    """A flat function that is no equation of the user's, on recorded values."""
    return record.continue_function(examiner, recorder, fun, values)


def _note_comparisons(examiner, name: str, body, values, n_consts: int, n_carry: int) -> None:
    on = tuple(v.slot is not None for v in values)
    if only_compared(body, INTERPRETER, on, n_consts, n_carry):
        examiner.compared.append((name, jc.current_place()))


def _scan(examiner, recorder, values, params) -> list:
    loop, body = jc.scan_parts(params)
    consts, carry, xs = loop.split(values)
    _note_comparisons(examiner, "scan", body, values, len(consts), len(carry))
    stacks: list = []
    for k in reversed(range(loop.length)) if loop.reverse else range(loop.length):
        slices = _apply(examiner, recorder, lambda *ys, k=k: [y[k] for y in ys], list(xs)) if xs else []
        with examiner.inside(f"scan step {k}"):
            results = examiner.walk(recorder, body, [*consts, *carry, *slices])
        carry = results[: loop.n_carry]
        stacks.append(results[loop.n_carry :])
    if loop.reverse:
        stacks.reverse()
    n_ys = len(body.out_avals) - loop.n_carry
    if not stacks:
        return [*carry, *(Recorded(jnp.zeros((0, *a.shape), a.dtype)) for a in body.out_avals[loop.n_carry :])]
    stacked = [_apply(examiner, recorder, lambda *ys: [jnp.stack(ys)], [s[j] for s in stacks])[0] for j in range(n_ys)]
    return [*carry, *stacked]


def _while(examiner, recorder, values, params) -> list:
    loop, k = jc.while_parts(params), 0
    cond_consts, body_consts, carry = loop.split(values)
    _note_comparisons(examiner, "while", loop.body, [*body_consts, *carry], len(body_consts), len(carry))
    while True:
        with examiner.inside(f"while step {k}"):
            (again,) = examiner.walk(recorder, loop.cond, [*cond_consts, *carry])
            if not bool(np.asarray(again.primal).any()):
                return list(carry)
            carry = examiner.walk(recorder, loop.body, [*body_consts, *carry])
        k += 1


def _cond(examiner, recorder, values, params) -> list:
    branches = jc.branches(params)
    index = min(max(int(values[0].primal), 0), len(branches) - 1)
    with examiner.inside(f"branch {index} of cond"):
        return examiner.walk(recorder, branches[index], values[1:])


def _call(body: str) -> Callable:
    def walk(examiner, recorder, values, params) -> list:
        return examiner.walk(recorder, jc.close_jaxpr(params[body]), values)

    return walk


_UNROLLED: dict = {
    jc.scan_p: _scan,
    jc.while_p: _while,
    jc.cond_p: _cond,
    jc.jit_p: _call("jaxpr"),
    jc.remat_p: _call("jaxpr"),
}
_CUSTOM = (jc.custom_jvp_call_p, jc.custom_vjp_call_p)
