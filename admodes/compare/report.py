"""The tables of comparisons and benchmarks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from admodes.text_tables import count, error, plain, plural, ratio, seconds, show, table

if TYPE_CHECKING:
    from admodes.compare.comparison import Comparison, Row


def comparison_table(comparison: Comparison) -> Any:
    """One line per mode, then one per oracle."""
    columns = ["mode", "passes", "flops", "bytes", "trace", "compile", "run", "temp", "abs. err", "rel. err", "/ JAX"]
    columns.append("Pareto")
    best = comparison.pareto

    def line(row: Row) -> list[str]:
        costs = [f"{row.passes}", count(row.flops), count(row.bytes, "B")]
        costs += [seconds(row.trace_s), seconds(row.compile_s), seconds(row.run_s), count(row.temp_bytes, "B")]
        mark = "*" if row.mode in best else ""
        if row.mode == row.oracle:
            return [row.mode, *costs, "", "", "", mark]
        return [row.mode, *costs, error(row.abs_error), error(row.rel_error), ratio(row.run_ratio), mark]

    return table(
        f"{comparison.function}: {plural(comparison.inputs, 'input')}, {plural(comparison.outputs, 'output')}",
        columns,
        [line(row) for row in (*comparison.rows, *comparison.oracle_rows)],
        caption=_caption(comparison),
    )


def _caption(comparison: Comparison) -> str:
    samples = plural(comparison.repeat, "sample")
    by_oracle: dict[str, list[str]] = {}
    for row in comparison.rows:
        by_oracle.setdefault(row.oracle, []).append(row.mode)
    checked = "; ".join(f"{', '.join(modes)} against {oracle}" for oracle, modes in by_oracle.items())
    lines = [
        f"Jacobian under jit on {comparison.device}; times are medians of {samples}, interleaved.",
        f"Errors: {checked}; '/ JAX' is the run time over its.",
        "Pareto: no other is better in both run and temp.",
    ]
    if comparison.borrowed:
        lines.append(f"Rules borrowed from JAX: {', '.join(comparison.borrowed)}.")
    return "\n".join(lines)


__all__ = ["comparison_table", "plain", "show", "table"]
