"""The kinks and jumps that a run sits on exactly, and the digits that it loses.

All numbers are finite there, and the derivative is doubtful all the same: nothing else would say so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax import lax

from admodes.diagnosis.examine import Step
from admodes.program import jax_compat as jc
from admodes.program.dependence import dependent
from admodes.program.derived import keep
from admodes.program.evaluate import bind, run
from admodes.program.ir import Const, Program, from_jaxpr
from admodes.program.traits import SLOPE, traits
from admodes.rules.slopes import kink_of, slopes_of, spelled_out
from admodes.rules.table import lookup
from admodes.text_tables import Brief


@dataclass(frozen=True, repr=False)
class Kink(Brief):
    """``count`` entries of an equation are at a tie; ``jump``: its value changes by a jump there."""

    primitive: str
    source: str
    path: tuple[str, ...]
    what: str
    count: int
    jump: bool = False


@dataclass(frozen=True, repr=False)
class Loss(Brief):
    """A difference of numbers that agree in all but a few digits: ``digits`` of them are lost."""

    primitive: str
    source: str
    path: tuple[str, ...]
    digits: float
    operands: tuple[float, float]
    result: float
    cause: str  # the primitive that made the rounded operand
    cure: str  # what to do about results of that, in words; "" where nothing is known


def kinks(steps: Iterable[Step]) -> list[Kink]:
    """Each equation with a tie among operands that move: there the derivative depends on a choice."""
    found = []
    for step in steps:
        what, tied, jump = _ties(step)
        count = int(np.sum(tied))
        if count:
            found.append(Kink(step.name, step.source, step.path, what, count, jump))
    return found


def _ties(step: Step, within: tuple = ()) -> tuple[str, Any, bool]:
    """(where the operands of a step are, which entries are there, whether the value jumps there).

    A step may stand in the slope of its own primitive: those that it is ``within`` are taken as known.
    """
    if not any(step.active) or step.primitive in within:
        return "", False, False
    avals = tuple(map(jc.typeof, step.operands))
    kink = kink_of(step.primitive, avals, step.active, step.params)
    if isinstance(kink, str) and kink != SLOPE:
        return _TIES[kink](step) if kink in _TIES else ("", False, False)
    if kink is None:
        return "", False, False
    said, within = traits(step.primitive), (*within, step.primitive)
    if kink == SLOPE:
        program = from_jaxpr(slopes_of(step.primitive, avals, step.active, step.params)[0])
        what, tied = _ties_inside(program, [*step.outs, *step.operands], [False, *step.active], within)
    else:
        program = from_jaxpr(spelled_out(kink, avals, tuple(step.params.items())))
        what, tied = _ties_inside(program, step.operands, step.active, within)
    return said.tie or what, tied, said.jump


def _ties_inside(program: Program, operands: Sequence, active: Sequence[bool], within: tuple) -> tuple[str, Any]:
    """The ties in a program that stands for one step; an entry may be tied in several of its comparisons."""
    varying = dependent(program, keep(active, program.inputs))
    met: list[Step] = []

    def evaluate(equation, xs, params):
        results = bind(equation.primitive, xs, params)
        on = tuple(not isinstance(x, Const) and x in varying for x in equation.inputs)
        met.append(Step(equation.primitive, "", (), tuple(xs), tuple(results), on, params))
        return results

    run(program, evaluate, operands)
    found = [(what, tied) for what, tied, _ in (_ties(s, within) for s in met) if np.any(tied)]
    if not found:
        return "", False
    masks = [np.asarray(tied) for _, tied in found]
    alike = len({mask.shape for mask in masks}) == 1
    return found[0][0], np.any(masks, 0) if alike else max(masks, key=np.sum)


def _host(x) -> np.ndarray:
    array = np.asarray(x)
    return array if array.dtype.kind in "biuc" else array.astype(np.float64)


def _pair(what: str) -> Callable:
    def ties(step):
        a, b = map(_host, step.operands)
        return what, a == b, False

    return ties


def _clamp(step):
    low, x, high = map(_host, step.operands)
    return "on a bound", (x == low) | (x == high), False


def _zero(what: str, jump: bool) -> Callable:
    return lambda step: (what, _host(step.operands[0]) == 0, jump)


def _whole(step):
    x = _host(step.operands[0])
    return "at a whole number", np.isfinite(x) & (x == np.floor(x)), True


def _half(step):
    x = _host(step.operands[0])
    return "half way between whole numbers", x - np.floor(x) == 0.5, True


def _rest(step):
    return "at a multiple of the divisor", _host(step.outs[0]) == 0, True


def _cut(step):
    x = _host(step.operands[0])
    moving = jc.is_differentiable(jc.typeof(step.outs[0]))
    return "cut to a whole number", False if moving else (x == np.trunc(x)) & (x != 0), True


def _extreme(step):
    (x,), axes = map(_host, step.operands[:1]), tuple(step.params["axes"])
    best = np.max(x, axes, keepdims=True) if "max" in step.name else np.min(x, axes, keepdims=True)
    return "several entries attain it", np.sum(x == best, axes) > 1, False


def _neighbours(step):
    axis = step.params["dimension"] if step.name == "sort" else -1
    x = np.sort(_host(step.operands[0]), axis=axis)
    return "equal entries", np.diff(x, axis=axis) == 0, False


def _root(step):
    return "a root of 0 (a norm of zeros, or a slope that is infinite)", _host(step.operands[0]) == 0, False


_TIES: dict[str, Callable] = {  # by the kind of kink, which the rule table says
    "larger": _pair("a tie"),
    "smaller": _pair("a tie"),
    "greater": _pair("a comparison at a tie"),
    "less": _pair("a comparison at a tie"),
    "not less": _pair("a comparison at a tie"),
    "not greater": _pair("a comparison at a tie"),
    "equal": _pair("a comparison that holds at this point only"),
    "unequal": _pair("a comparison that fails at this point only"),
    "between": _clamp,
    "modulus": _zero("at 0", False),
    "sign": _zero("at 0", True),
    "floor": _whole,
    "ceiling": _whole,
    "rounding": _half,
    "rest": _rest,
    "cut": _cut,
    "largest": _extreme,
    "smallest": _extreme,
    "place of largest": _extreme,
    "place of smallest": _extreme,
    "order": _neighbours,
    "leading": _neighbours,
    "root": _root,
}

# -- digits ------------------------------------------------------------------------------------------------

LOST = 0.6  # the share of all digits that must be lost to be worth a word


def losses(steps: Iterable[Step]) -> list[Loss]:
    """Catastrophic cancellation: a sum or difference of rounded numbers that leaves few of their digits.

    Of two numbers a and b with relative errors ε, a - b has the relative error ε max(|a|, |b|)/|a - b|. Differences of
    numbers that are exact (inputs, and what is only moved) are exact, and say nothing.
    """
    rounded: dict[int, Step] = {}
    keep: list = []
    found = []
    for step in steps:
        makers = [rounded.get(id(x)) for x in step.operands]
        if step.primitive in (lax.sub_p, lax.add_p) and any(makers):
            loss = _loss(step, makers)
            if loss is not None:
                found.append(loss)
        maker = step if _rounds(step) else next((m for m in makers if m is not None), None)
        if maker is not None:
            rounded.update((id(out), maker) for out in step.outs)
            keep.append(step.outs)
    return found


def _rounds(step: Step) -> bool:
    said = traits(step.primitive).rounds
    return getattr(lookup(step.primitive), "kind", "") == "elementwise" if said is None else said


def _loss(step: Step, makers) -> Loss | None:
    dtype = jc.dtype_of(step.outs[0])
    if not jc.is_real(step.outs[0]):
        return None
    a, b, out = (_host(x) for x in (*step.operands, step.outs[0]))
    a, b = np.broadcast_to(a, out.shape), np.broadcast_to(b, out.shape)
    large = np.maximum(np.abs(a), np.abs(b))
    total = -np.log10(float(jax.dtypes.finfo(dtype).eps))
    with np.errstate(divide="ignore", invalid="ignore"):
        lost = np.where((large > 0) & np.isfinite(large) & np.isfinite(out), np.log10(large / np.abs(out)), 0.0)
    lost = np.where(np.isnan(lost), 0.0, np.minimum(lost, total))
    place = np.unravel_index(np.argmax(lost), lost.shape) if lost.size else ()
    if not lost.size or lost[place] < LOST * total:
        return None
    maker = next(m for m in makers if m is not None)
    pair = float(a[place]), float(b[place])
    return Loss(
        step.name,
        step.source,
        step.path,
        float(lost[place]),
        pair,
        float(out[place]),
        maker.name,
        traits(maker.primitive).advice.loss,
    )
