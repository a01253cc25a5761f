r"""Where NaN and infinity are born: in the values, in tangents (forward mode), in cotangents (reverse mode).

Each value that is not finite has an origin: the first equation on its way that made it from finite ones (or NaN from
infinities that were given, as those of a mask). Entries that a select leaves out have no say in what comes after.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jax import lax

from admodes.diagnosis.examine import Log, Step
from admodes.linear.maps import add
from admodes.program import jax_compat as jc


@dataclass(eq=False)
class Birth:
    """``step`` makes ``count`` entries that are not finite, the first at ``index`` of result (or operand) ``which``.

    ``incoming`` is what it was given there in a derivative sweep: 0 means that the entry has no influence (0·∞).
    """

    step: Step
    sweep: str  # "value", "forward" or "reverse"
    which: int
    index: tuple[int, ...]
    count: int
    result: float
    incoming: float | None = None
    masked_by: Step | None = None
    cause: Birth | None = None  # in a derivative sweep: the value that was not finite before
    limit: bool | None = None  # of what is given 0: whether the derivative has a limit that is not 0 (None: it is 0)


def not_finite(x) -> np.ndarray:
    """The mask of the entries that are NaN or infinite; nothing for types that cannot be."""
    if not jc.is_array(x) or not jc.is_differentiable(jc.typeof(x)):
        return np.zeros(np.shape(x), bool)
    array = np.asarray(x)
    return ~np.isfinite(array if array.dtype.kind == "c" else array.astype(np.float64))


def has_nan(x) -> bool:
    """True if any entry is NaN."""
    return jc.is_array(x) and jc.is_differentiable(jc.typeof(x)) and bool(np.any(np.asarray(x) != np.asarray(x)))


def _first(mask: np.ndarray) -> tuple:
    return tuple(int(i) for i in np.argwhere(mask)[0]) if mask.ndim else ()


# -- values ------------------------------------------------------------------------------------------------


def values(log: Log) -> tuple[list[Birth], Birth | None]:
    """All births among the values in order, and the one that the first output that is not finite comes from."""
    origins = log.origins
    births: list[Birth] = []
    for step in log.steps:
        sources = _sources(step, origins)
        given = [x for x in sources if not_finite(x).any()]
        inherited = next((origins[id(x)] for x in given if origins.get(id(x)) is not None), None)
        for j, out in enumerate(step.outs):
            bad = not_finite(out)
            if not bad.any():
                continue
            birth = inherited
            if birth is None and (not given or (has_nan(out) and not any(map(has_nan, given)))):
                mask = bad if not given else np.asarray(out) != np.asarray(out)
                index = _first(mask)
                birth = Birth(step, "value", j, index, int(mask.sum()), _entry(out, index))
                births.append(birth)
            origins[id(out)] = birth
    broken = [x for x in log.outs if not_finite(x).any()]
    culprit = next((origins.get(id(x)) for x in broken if origins.get(id(x)) is not None), None)
    return births, culprit or (_given(log, broken[0]) if broken else None)


class _Argument:
    name = "argument"


class _Constant:
    name = "constant"


def _given(log: Log, out) -> Birth:
    """A birth that no equation is to blame for: an argument that is not finite, or else a constant of the program."""
    number, x = next(((k, x) for k, x in enumerate(log.inputs) if not_finite(x).any()), (None, out))
    kind, source = (_Constant, "the program") if number is None else (_Argument, f"array {number} of the arguments")
    mask = not_finite(x)
    index = _first(mask)
    step = Step(kind, source, (), (), (x,), (), {})
    return Birth(step, "value", 0, index, int(mask.sum()), _entry(x, index))


def _sources(step: Step, origins) -> Sequence:
    """The operands that have a say; what a select leaves out is marked as masked by it."""
    if step.primitive is not lax.select_n_p:
        return step.operands
    which, *cases = step.operands
    chosen = np.broadcast_to(np.asarray(which), np.shape(cases[0])).astype(int)
    kept = []
    for k, case in enumerate(cases):
        bad = not_finite(case)
        if (bad & (chosen == k)).any():
            kept.append(case)
        elif bad.any() and origins.get(id(case)) is not None:
            origins[id(case)].masked_by = step
    return kept


def _entry(x, index) -> float:
    value = np.asarray(x)[index]
    return float(np.abs(value)) if np.iscomplexobj(value) else float(value)


# -- derivatives -------------------------------------------------------------------------------------------


def reverse(log: Log, cotangents: Sequence) -> tuple[list[Birth], Birth | None]:
    """Births in the sweep back from ``cotangents`` of the outputs, and the one that reaches an input first."""
    carried: dict = {}
    births: list[Birth] = []

    def send(slot, value, birth):
        if slot is None or value is None:
            return
        key = _key(slot)
        before, known = carried.get(key, (None, None))
        carried[key] = (add(before, value), known or birth)

    for slot, g in zip(log.slots, cotangents, strict=True):
        send(slot, g, None)
    for entry, step in sorted(log.entries, key=lambda pair: -pair[0].number):
        jacobian = entry.jacobian()
        if jacobian is None:
            continue
        given = [carried.pop((entry.number, j), (None, None)) for j in range(len(jacobian.codomain))]
        if all(g is None for g, _ in given):
            continue
        results = jacobian.pull(tuple(g for g, _ in given))
        found = _births(log, step, "reverse", given, results, births)
        for slot, value, birth in zip(entry.reads, results, found, strict=True):
            send(slot, value, birth)
    inputs = [carried.get((None, i), (None, None)) for i in range(len(log.inputs))]
    return births, next((b for g, b in inputs if g is not None and not_finite(g).any()), None)


def forward(log: Log, tangents: Sequence) -> tuple[list[Birth], Birth | None]:
    """Births in the sweep forward from ``tangents`` of the inputs, and the one that reaches an output first."""
    carried: dict = {(None, i): (t, None) for i, t in enumerate(tangents)}
    births: list[Birth] = []
    for entry, step in sorted(log.entries, key=lambda pair: pair[0].number):
        jacobian = entry.jacobian()
        given = [(None, None) if s is None else carried.get(_key(s), (None, None)) for s in entry.reads]
        if jacobian is None or all(t is None for t, _ in given):
            continue
        results = jacobian.push(tuple(t for t, _ in given))
        found = _births(log, step, "forward", given, results, births)
        carried.update({(entry.number, j): pair for j, pair in enumerate(zip(results, found, strict=True))})
    outs = [(None, None) if s is None else carried.get(_key(s), (None, None)) for s in log.slots]
    return births, next((b for t, b in outs if t is not None and not_finite(t).any()), None)


def _births(log, step, sweep, given, results, births) -> list:
    """For each result its origin: that of what was given, or a birth here (which is entered into ``births``)."""
    inherited = next((birth for x, birth in given if x is not None and birth is not None), None)
    origins = []
    for j, value in enumerate(results):
        bad = np.zeros((), bool) if value is None else not_finite(value)
        birth = inherited if bad.any() else None
        if bad.any() and birth is None:
            index = _first(bad)
            incoming = _incoming(given, index, bad.shape)
            causes = (log.origins.get(id(x)) for x in step.operands)
            cause = next((c for c in causes if c is not None and c.step is not step), None)
            birth = Birth(step, sweep, j, index, int(bad.sum()), _entry(value, index), incoming, cause=cause)
            births.append(birth)
        origins.append(birth)
    return origins


def _incoming(given, index, shape) -> float | None:
    """The part of a sweep that reaches the entry: of one array of the same shape the entry, else 0 if all of it is
    0."""
    arrays = [np.asarray(x) for x, _ in given if x is not None]
    if len(arrays) == 1 and arrays[0].shape == shape:
        return _entry(arrays[0], index)
    return 0.0 if all(not a.any() for a in arrays) else None


def _key(slot) -> tuple:
    return (slot.entry.number if slot.entry is not None else None, slot.index)
