"""Tables that fit the terminal, and numbers with units, laid out by rich (imported only when something is printed).

One place decides how 0.0012 s and 3 MiB are written.
"""

from __future__ import annotations

import io
import math
import numbers
import operator
import shutil
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

_SECONDS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))
SHORT = 12  # characters, the least of a column of text that is broken into lines: a long word
WIDTH = 80  # of what reprs show, in characters: the width of a terminal
_PREFIXES = ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def seconds(value: float) -> str:
    """
    >>> seconds(0.00123), seconds(2.5), seconds(3e-7)
    ('1.23 ms', '2.5 s', '0.3 µs')
    """
    if math.isnan(value):
        return "-"
    unit, name = next((pair for pair in _SECONDS if value >= pair[0]), _SECONDS[-1])
    return f"{value / unit:.3g} {name}"


def count(value: float, unit: str = "") -> str:
    """
    >>> count(1234567), count(2048, "B"), count(7), count(float("nan"))
    ('1.23 M', '2.05 kB', '7', '-')
    """
    if math.isnan(value):
        return "-"
    size, prefix = next((pair for pair in _PREFIXES if value >= pair[0]), (1.0, ""))
    return f"{value / size:.3g} {prefix}{unit}".rstrip()


def ratio(value: float) -> str:
    """
    >>> ratio(1.0), ratio(12.345), ratio(float("inf"))
    ('1.00', '12.3', 'inf')
    """
    if math.isnan(value):
        return "-"
    return f"{value:.2f}" if value < 10 else f"{value:.3g}"


def error(value: float) -> str:
    """
    >>> error(0.0), error(1.5e-7)
    ('0', '1.5e-07')
    """
    return "-" if math.isnan(value) else "0" if value == 0 else f"{value:.1e}"


def plural(number: int, noun: str, many: str = "") -> str:
    """
    >>> plural(1, "input"), plural(2, "output"), plural(2, "pass", "passes")
    ('1 input', '2 outputs', '2 passes')
    """
    return f"{number} {noun if number == 1 else many or f'{noun}s'}"


@dataclass(frozen=True)
class Table:
    """Columns of text, then of numbers, that adapt to the width of a terminal: of what does not fit, columns that hold
    nothing go first, then the ``spare`` ones in that order, and at last long text is broken into lines.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: int = 1
    caption: str = ""
    spare: tuple[str, ...] = ()

    def lines(self, width: int) -> str:
        """The table as text of that width, or of more where numbers need it."""
        shown = list(range(len(self.columns)))
        empty = [k for k in shown if k >= self.left and all(row[k] in ("", "-") for row in self.rows)]
        spare = [k for name in self.spare for k in shown if self.columns[k] == name]
        leaving = [*empty, *(k for k in spare if k not in empty)] if self.rows else []
        while leaving and _width(self._grid(shown)) > width:
            gone = leaving.pop(0)
            shown = [k for k in shown if k != gone]
        text = max((k for k in shown if k < self.left), default=None)  # this column may be broken into lines
        longest = max((len(row[text]) for row in self.rows), default=0) if text is not None else 0
        least = _width(self._grid(shown)) - max(0, longest - SHORT)
        captions = [textwrap.fill(line, width) for line in self.caption.splitlines()]
        grid = _rendered(self._grid(shown, text), max(width, least))
        return "\n".join([*([self.title] if self.title else []), grid, *captions])

    def _grid(self, shown: Sequence[int], broken: int | None = None):
        from rich import box
        from rich.table import Table as Grid

        grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        for k in shown:
            justify: Any = "left" if k < self.left else "right"
            grid.add_column(self.columns[k], justify=justify, no_wrap=k != broken, overflow="fold")
        for row in self.rows:
            grid.add_row(*(row[k] for k in shown))
        return grid


def table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    left: int = 1,
    caption: str = "",
    spare: Sequence[str] = (),
) -> Table:
    """A table; the first ``left`` columns are text, the others numbers; ``spare`` are those to do without first.

    >>> found = table("", ["mode", "passes", "run"], [["forward", "8", "1 ms"]], spare=["passes"])
    >>> print(plain(found, width=16).strip("\\n"))
     mode      run
     ─────────────
     forward  1 ms
    """
    return Table(title, tuple(columns), tuple(map(tuple, rows)), left, caption, tuple(spare))


def _console(width: int, file: Any = None):
    from rich.console import Console

    return Console(file=file, width=width, color_system=None, force_terminal=False, highlight=False)


def _width(grid: Any) -> int:
    console = _console(10**4)
    return console.measure(grid).maximum


def _rendered(grid: Any, width: int) -> str:
    file = io.StringIO()
    _console(width, file).print(grid, markup=False)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


def show(*parts: Any, width: int | None = None) -> None:
    """Print tables and lines, in the width of the terminal (80 characters where there is none) if none is given."""
    text = plain(*parts, width=width or shutil.get_terminal_size().columns)
    print(in_encoding(text, sys.stdout.encoding or "ascii"))


def plain(*parts: Any, width: int = WIDTH) -> str:
    """Tables and lines as text."""
    return "\n".join(part.lines(width) if isinstance(part, Table) else str(part) for part in parts)


_ASCII = str.maketrans({"─": "-", "µ": "u", "≤": "<=", "≥": ">=", "×": "x", "█": "#", "·": ".", "∂": "d", "→": "->"})


def in_encoding(text: str, encoding: str) -> str:
    """The text in characters that an encoding has.

    >>> in_encoding("─ 3 µs", "ascii")
    '- 3 us'
    """
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(_ASCII).encode(encoding, "replace").decode(encoding)
    return text


def clipped(line: str, width: int = WIDTH) -> str:
    """
    >>> clipped("one two three", 9)
    'one t ...'
    """
    return line if len(line) <= width else f"{line[: width - 4].rstrip()} ..."


class Brief:
    """The repr of a dataclass in one line: as many fields as fit; functions by their names, arrays by their types."""

    def __repr__(self) -> str:
        text, end = f"{type(self).__name__}(", ", ...)"
        for k, field in enumerate(fields(self)):  # type: ignore[arg-type]  # a mixin
            part = f"{', ' if k else ''}{field.name}={_brief(getattr(self, field.name))}"
            if len(text) + len(part) + len(end) > WIDTH:
                return text + end
            text += part
        return text + ")"


def _brief(value: Any) -> str:
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{value.dtype}[{','.join(map(str, value.shape))}]"
    if isinstance(value, float):
        return f"{value:.4g}"
    return clipped(getattr(value, "__name__", None) or " ".join(repr(value).split()), 30)


def memory_bytes(limit: int | float | str | None) -> int | None:
    """Bytes from a number, or from a text such as ``"200MiB"``, ``"1.5 GB"``.

    >>> from admodes.text_tables import memory_bytes
    >>> memory_bytes("2KiB"), memory_bytes("1.5 MB"), memory_bytes(10)
    (2048, 1500000, 10)
    """
    if limit is None:
        return None
    units = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
    number: Any = limit
    factor = 1
    if isinstance(limit, str):
        text = limit.strip().lower()
        digits = text.rstrip("abcdefghijklmnopqrstuvwxyz ")
        unit = text[len(digits) :].strip()
        factor = units.get(unit, 0)
        try:
            number = float(digits)
        except ValueError:
            factor = 0
    real = isinstance(number, numbers.Real) and not isinstance(number, bool)
    if not factor or not real or not 1 <= number * factor < math.inf:
        raise ValueError(f"memory_limit must be a positive number of bytes or a text such as '200MiB', got {limit!r}")
    return int(number * factor)


def whole_number(name: str, value: Any) -> int:
    """The argument ``name``, a whole number that is at least 1.

    >>> from admodes.text_tables import whole_number
    >>> whole_number("chunk_size", 3)
    3
    """
    try:
        number = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise ValueError(f"{name} must be a whole number, at least 1, got {value!r}")
    return number
