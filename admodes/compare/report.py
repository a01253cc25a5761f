"""Tables: numbers with units, laid out by rich (imported only when something is printed)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from admodes.compare.bench import Benchmark
    from admodes.compare.comparison import Comparison, Row

_SECONDS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))
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


def plural(number: int, noun: str) -> str:
    """
    >>> plural(1, "input"), plural(2, "output")
    ('1 input', '2 outputs')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"


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


def comparison_table(comparison: Comparison) -> Any:
    """One line per mode, then one per oracle."""
    columns = ["mode", "passes", "flops", "bytes", "trace", "compile", "run", "temp", "abs. err", "rel. err", "/ JAX"]

    def line(row: Row) -> list[str]:
        costs = [f"{row.passes}", count(row.flops), count(row.bytes, "B")]
        costs += [seconds(row.trace_s), seconds(row.compile_s), seconds(row.run_s), count(row.temp_bytes, "B")]
        if row.mode == row.oracle:
            return [row.mode, *costs, "", "", ""]
        return [row.mode, *costs, error(row.abs_error), error(row.rel_error), ratio(row.run_ratio)]

    return table(
        f"{comparison.function}: {plural(comparison.inputs, 'input')}, {plural(comparison.outputs, 'output')}",
        columns,
        [line(row) for row in (*comparison.rows, *comparison.oracle_rows)],
        caption=_caption(comparison),
    )


def _caption(comparison: Comparison) -> str:
    samples = plural(comparison.repeat, "sample")
    checked = ", ".join(f"{row.mode} against {row.oracle}" for row in comparison.rows)
    lines = [
        f"Jacobian under jit on {comparison.device}; times are medians of {samples}, interleaved.",
        f"Errors: {checked}; '/ JAX' is the run time over its.",
    ]
    if comparison.borrowed:
        lines.append(f"Rules borrowed from JAX: {', '.join(comparison.borrowed)}.")
    return "\n".join(lines)


def benchmark_tables(benchmark: Benchmark) -> list[Any]:
    """One line per case with the ratios to JAX, and one line per target."""
    stages = ["run", "memory", "trace", "lower", "compile", "eager"]
    rows, failures = [], []
    for case in benchmark.cases:
        if case.failure:
            failures.append(f"{case.workload} {case.mode}: {case.failure}")
            continue
        ours, theirs = case.temp_bytes
        values = [ratio(case.ratios.get(stage, math.nan)) for stage in stages]
        own = [seconds(case.seconds["run"]), count(ours, "B"), count(theirs, "B")]
        rows.append([case.workload, case.mode, *values, *own, error(case.error)])
    columns = ["workload", "mode", *stages, "run time", "temp", "temp JAX", "rel. error"]
    keys = ("median", "worst", "target_median", "target_worst")
    summary = [
        [name, *[ratio(float(line[key])) for key in keys], _verdict(line)] for name, line in benchmark.summary().items()
    ]
    return [
        table("admodes / JAX (1.00: equal; below 1: admodes is cheaper)", columns, rows, left=2),
        table("Targets", ["ratio", "median", "worst", "median ≤", "worst ≤", "met"], summary),
        *failures,
    ]


def _verdict(line: dict) -> str:
    if math.isinf(line["target_median"]):
        return "-"
    return "yes" if line["met"] else "NO"
