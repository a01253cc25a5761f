"""The findings of the doctor, as data and as text.

Data is for tests and tools; the text names the line, the reason and the cure.
"""

from __future__ import annotations

import linecache
import re
import textwrap
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from admodes.diagnosis.births import Birth
from admodes.diagnosis.cures import cure, cure_of_loss
from admodes.diagnosis.ties import Kink, Loss
from admodes.program import jax_compat as jc
from admodes.program.text import value_text
from admodes.text_tables import Brief, clipped, plural

_PLACE = re.compile(r"^(.*?):(\d+)(?::\d+)?(?: \((.*)\))?$")


def shown_place(source: str) -> str:
    """A source line as short as it is clear: ``model.py:12 (loss)``."""
    match = _PLACE.match(source)
    if not match:
        return source
    file, line, function = match.groups()
    return f"{Path(file).name}:{line}" + (f" ({function})" if function else "")


def code_at(source: str) -> str:
    """The text of the source line; empty if it cannot be read."""
    match = _PLACE.match(source)
    return linecache.getline(match.group(1), int(match.group(2))).strip() if match else ""


@dataclass(frozen=True, repr=False)
class Finding(Brief):
    """An equation that makes a value or a derivative that is not finite out of finite ones."""

    sweep: str
    primitive: str
    source: str
    code: str
    path: tuple[str, ...]
    operands: tuple[str, ...]
    result: float
    index: tuple[int, ...]
    count: int
    size: int
    masked: bool
    masked_by: str | None
    cure: str

    @staticmethod
    def of(birth: Birth) -> Finding:
        place = birth.cause or birth
        step = place.step
        shapes = [np.shape(x) for x in (step.outs if place.sweep != "reverse" else step.operands)]
        shape = shapes[place.which] if place.which < len(shapes) else ()
        given = step.operands[: len(step.active)]
        return Finding(
            birth.sweep,
            step.name,
            step.source,
            code_at(step.source),
            step.path,
            tuple(_operand(x, place.index, shape) for x in given),
            birth.result,
            place.index,
            place.count,
            int(np.prod(shape, dtype=int)),
            birth.incoming == 0 and birth.limit is None,
            None if birth.masked_by is None else birth.masked_by.source,
            cure(birth),
        )

    def __str__(self) -> str:
        call = f"{_called(self.primitive)}({', '.join(self.operands)})"
        lines = [f"{call} in {shown_place(self.source)}{_inside(self.path)}"]
        if self.code:
            lines.append(f"  {self.code}")
        entries = f"{self.count} of {self.size} entries, the first at {list(self.index)}" if self.size > 1 else ""
        where = {"value": "gives", "reverse": "sends back", "forward": "gives the tangent"}[self.sweep]
        lines.append(f"  {where} {self.result:g}" + (f" ({entries})" if entries else ""))
        if self.masked_by:
            lines.append(f"  a select in {shown_place(self.masked_by)} leaves it out")
        if self.cure:
            lines += textwrap.wrap(self.cure, 100, initial_indent="  cure: ", subsequent_indent="        ")
        return "\n".join(lines)


def _called(primitive: str) -> str:
    return primitive.removesuffix("_call")


def _operand(x, index, shape) -> str:
    if jc.is_extended(jc.dtype_of(x)):
        return "key"
    array = np.asarray(x)
    array = array if array.dtype.kind in "biuc" else array.astype(np.float64)
    return value_text(array[index] if array.shape == shape and array.ndim else array)


def _inside(path) -> str:
    return f", in {', '.join(path)}" if path else ""


@dataclass(frozen=True, repr=False)
class Report:
    """The result of :func:`admodes.doctor`.

    ``value``, ``reverse`` and ``forward`` name what makes the output, its gradient and its tangent not finite (None:
    they are finite). ``masked`` are places where values are not finite, without consequences. ``kinks`` are what the
    point sits on; ``jumps``, whether the function jumps there; ``losses``, differences that cost most digits;
    ``compared``, loops that make a result of an argument by comparisons only, through which no derivative passes.
    """

    function: str
    value: Finding | None
    reverse: Finding | None
    forward: Finding | None
    masked: tuple[Finding, ...]
    kinks: tuple[Kink, ...]
    losses: tuple[Loss, ...]
    jumps: bool
    compared: tuple[str, ...] = ()

    @property
    def healthy(self) -> bool:
        """True if value and derivatives are finite, the function does not jump, and no loop only compares."""
        return not (self.value or self.reverse or self.forward or self.jumps or self.compared)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {"healthy": self.healthy, **asdict(self)}

    def __repr__(self) -> str:
        counted = (len(self.kinks), "kink", ""), (len(self.losses), "loss", "losses"), (len(self.masked), "mask", "")
        parts = [plural(*numbered) for numbered in counted if numbered[0]]
        return clipped(f"Report({'; '.join([f'{self.function}: {self._verdict()}', *parts])})")

    def __str__(self) -> str:
        parts = [f"{self.function}: {self._verdict()}"]
        for title, finding in self._chapters():
            parts.append(f"{title}: it begins at\n{_indent(str(finding))}")
        if self.masked:
            lines = "\n".join(str(f) for f in self.masked)
            parts.append(f"not finite, but left out by a select or without influence:\n{_indent(lines)}")
        if self.compared:
            parts.append(f"no derivative passes through comparisons:\n{_indent(chr(10).join(self.compared))}")
        if self.kinks:
            title = "the function jumps here" if self.jumps else "the point sits on kinks (admodes.subgradient decides)"
            parts.append(f"{title}:\n{_indent(_lines(self.kinks, _kink))}")
        if self.losses:
            parts.append(f"digits are lost:\n{_indent(_lines(self.losses, _loss))}")
        return "\n\n".join(parts)

    def _chapters(self) -> list[tuple[str, Finding]]:
        """The findings to be told: of derivatives only what does not follow from the value, of two alike the first."""
        if self.value is not None:
            return [("the value is not finite (and so its derivatives)", self.value)]
        chapters = []
        if self.reverse is not None:
            chapters.append(("the gradient (reverse mode) is not finite", self.reverse))
        if self.forward is not None and (self.reverse is None or self.forward.source != self.reverse.source):
            chapters.append(("the tangent (forward mode) is not finite", self.forward))
        return chapters

    def _verdict(self) -> str:
        if self.healthy:
            return "finite; on kinks, where the derivative is a choice" if self.kinks else "healthy"
        broken = [name for name in ("value", "reverse", "forward") if getattr(self, name) is not None]
        names = {"value": "the value", "reverse": "the gradient", "forward": "the tangent"}
        verb = "are" if len(broken) > 1 else "is"
        said = f"{' and '.join(names[b] for b in broken)} {verb} not finite" if broken else ""
        loops = "a loop only compares what is differentiated" if self.compared else ""
        return " and ".join(filter(None, [said, "it jumps here" if self.jumps else "", loops]))


def _indent(text: str) -> str:
    return "\n".join("  " + line for line in text.splitlines())


def _lines(items, show) -> str:
    shown = [show(x) for x in items[:8]]
    if len(items) > 8:
        shown.append(f"... and {len(items) - 8} more")
    return "\n".join(shown)


def _kink(kink: Kink) -> str:
    jump = ", a jump" if kink.jump else ""
    return f"{kink.primitive} in {shown_place(kink.source)}{_inside(kink.path)}: {kink.what} ({kink.count}x{jump})"


def _loss(loss: Loss) -> str:
    a, b = loss.operands
    sign = "-" if loss.primitive == "sub" else "+"
    return (
        f"{a:.9g} {sign} {b:.9g} = {loss.result:.3g} in {shown_place(loss.source)}{_inside(loss.path)}: "
        f"{loss.digits:.0f} digits\n  cure: {cure_of_loss(loss)}"
    )
