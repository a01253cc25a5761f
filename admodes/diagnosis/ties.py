"""The kinks and jumps that a run sits on exactly, and the digits that it loses."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import jax
import numpy as np
from jax import lax

from admodes.diagnosis.examine import Step
from admodes.program import jax_compat as jc
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


def kinks(steps: Iterable[Step]) -> list[Kink]:
    """What the derivative depends on a choice for: each equation with a tie among operands that move."""
    found = []
    for step in steps:
        ties = _TIES.get(step.primitive)
        if ties is None or not any(step.active):
            continue
        what, count, jump = ties(step)
        if count:
            found.append(Kink(step.name, step.source, step.path, what, int(count), jump))
    return found


def _host(x) -> np.ndarray:
    array = np.asarray(x)
    return array if array.dtype.kind in "biuc" else array.astype(np.float64)


def _pair(what: str) -> Callable:
    def ties(step):
        a, b = map(_host, step.operands)
        return what, np.sum(a == b), False

    return ties


def _clamp(step):
    low, x, high = map(_host, step.operands)
    return "on a bound", np.sum((x == low) | (x == high)), False


def _zero(what: str, jump: bool) -> Callable:
    return lambda step: (what, np.sum(_host(step.operands[0]) == 0), jump)


def _whole(step):
    x = _host(step.operands[0])
    return "at a whole number", np.sum(np.isfinite(x) & (x == np.floor(x))), True


def _half(step):
    x = _host(step.operands[0])
    return "half way between whole numbers", np.sum(x - np.floor(x) == 0.5), True


def _rest(step):
    return "at a multiple of the divisor", np.sum(_host(step.outs[0]) == 0), True


def _cut(step):
    x = _host(step.operands[0])
    moving = jc.is_differentiable(jc.typeof(step.outs[0]))
    return "cut to a whole number", 0 if moving else np.sum((x == np.trunc(x)) & (x != 0)), True


def _extreme(step):
    (x,), axes = map(_host, step.operands[:1]), tuple(step.params["axes"])
    best = np.max(x, axes, keepdims=True) if "max" in step.name else np.min(x, axes, keepdims=True)
    return "several entries attain it", np.sum(np.sum(x == best, axes) > 1), False


def _neighbours(step):
    axis = step.params["dimension"] if step.name == "sort" else -1
    x = np.sort(_host(step.operands[0]), axis=axis)
    return "equal entries", np.sum(np.diff(x, axis=axis) == 0), False


def _root(step):
    return "a root of 0 (a norm of zeros, or a slope that is infinite)", np.sum(_host(step.operands[0]) == 0), False


_TIES: dict = {
    lax.max_p: _pair("a tie"),
    lax.min_p: _pair("a tie"),
    lax.gt_p: _pair("a comparison at a tie"),
    lax.lt_p: _pair("a comparison at a tie"),
    lax.ge_p: _pair("a comparison at a tie"),
    lax.le_p: _pair("a comparison at a tie"),
    lax.eq_p: _pair("a comparison that holds at this point only"),
    lax.ne_p: _pair("a comparison that fails at this point only"),
    lax.clamp_p: _clamp,
    lax.abs_p: _zero("at 0", False),
    lax.sign_p: _zero("at 0", True),
    lax.floor_p: _whole,
    lax.ceil_p: _whole,
    lax.round_p: _half,
    lax.rem_p: _rest,
    lax.convert_element_type_p: _cut,
    lax.reduce_max_p: _extreme,
    lax.reduce_min_p: _extreme,
    lax.argmax_p: _extreme,
    lax.argmin_p: _extreme,
    lax.sort_p: _neighbours,
    lax.top_k_p: _neighbours,
    lax.sqrt_p: _root,
}

# -- digits ------------------------------------------------------------------------------------------------

LOST = 0.6  # the share of all digits that must be lost to be worth a word
_EXACT = (lax.neg_p, lax.max_p, lax.min_p, lax.abs_p, lax.clamp_p, lax.sign_p, lax.floor_p, lax.nextafter_p)
_SUMS = (lax.reduce_sum_p, lax.dot_general_p, lax.cumsum_p, lax.conv_general_dilated_p)


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
    rule = lookup(step.primitive)
    exact = step.primitive in _EXACT or rule is None or getattr(rule, "kind", "") != "elementwise"
    return step.primitive in _SUMS or not exact


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
    return Loss(step.name, step.source, step.path, float(lost[place]), pair, float(out[place]), maker.name)
