"""Tables and numbers with units, laid out by rich (imported only when something is printed).

One place decides how 0.0012 s and 3 MiB are written.
"""

from __future__ import annotations

import math
import numbers
import operator
from dataclasses import fields
from typing import Any

_SECONDS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))
WIDTH = 80  # of what reprs show, in characters: the width of a terminal
_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


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


def table(title: str, columns: list[str], rows: list[list[str]], *, left: int = 1, caption: str = ""):
    """A rich table; the first ``left`` columns are text, the others numbers."""
    from rich import box
    from rich.table import Table

    grid = Table(
        title=title or None, caption=caption or None, box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True
    )
    grid.title_justify = grid.caption_justify = "left"
    for i, name in enumerate(columns):
        grid.add_column(name, justify="left" if i < left else "right", no_wrap=True)
    for row in rows:
        grid.add_row(*row)
    return grid


def show(*parts: Any) -> None:
    """Print tables and lines; where the terminal is narrower than a table, it wraps rather than losing columns."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        print(plain(*parts))
        return
    widest = max(
        (console.measure(part, options=console.options.update_width(1000)).maximum for part in parts), default=0
    )
    console.width = max(console.width, widest)
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, str), markup=False)


def plain(*parts: Any, width: int = 1000) -> str:
    """Tables and lines as text without colours."""
    import io

    from rich.console import Console

    out = io.StringIO()
    console = Console(file=out, width=width, color_system=None, force_terminal=False, highlight=False)
    for part in parts:
        console.print(part, markup=False)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


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
