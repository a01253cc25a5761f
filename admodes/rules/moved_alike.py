"""A kind of rule: each result moves as another, linear primitive makes the tangent of one operand move."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from admodes.rules.table import HigherOrderRule, lookup


@dataclass(frozen=True)
class Step:
    """Result j moves as ``primitive`` (linear in its first operand) makes the tangent of operand j move."""

    primitive: Any
    others: tuple
    params: dict


@dataclass(frozen=True)
class StepsRule(HigherOrderRule):
    """``run(primitive, primals, params)`` returns (results, a :class:`Step` for each of the first results)."""

    run: Callable
    kind = "steps"

    def push(self, interpreter, primitive, primals, tangents, params):
        outs, steps = self.run(primitive, primals, params)
        ts = [None] * len(outs)
        for j, (step, t) in enumerate(zip(steps, tangents, strict=True)):
            if t is not None:
                ts[j] = step.primitive.bind(t, *step.others, **step.params)
        return outs, ts

    def record(self, interpreter, recorder, primitive, primals, slots, params):
        outs, steps = self.run(primitive, primals, params)
        out_slots = [None] * len(outs)
        for j, (step, x, slot) in enumerate(zip(steps, primals, slots, strict=True)):
            if slot is None:
                continue
            active = (True, *(False for _ in step.others))

            def jacobian(step=step, operands=(x, *step.others), out=outs[j], active=active):
                rule = lookup(step.primitive)
                return rule.jacobian(interpreter, step.primitive, (out,), operands, active, step.params)

            reads = (slot, *(None for _ in step.others))
            (out_slots[j],) = recorder.append(reads, jacobian, (outs[j],))
        return outs, out_slots
