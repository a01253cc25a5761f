"""The report of a decision: its candidates as a table, why the first was chosen, and what would change that."""

from __future__ import annotations

import math
from collections.abc import Callable
from textwrap import fill

from admodes.planner.choice.candidates import Candidate
from admodes.planner.choice.decision import OBJECTIVES, Decision
from admodes.planner.ways.checkpointed import Checkpointed
from admodes.text_tables import WIDTH, count, plain, seconds, table

SPARE = ("bytes", "flops", "mults", "passes")


def describe(decision: Decision, noun: str = "Jacobian", width: int = WIDTH) -> str:
    """The candidates as a table, the winner, and why, in lines of at most ``width`` characters."""
    rows = [
        [
            f"{'*' if c is decision.best else ' '} {c.name}",
            c.method.detail,
            str(c.method.passes),
            count(c.multiplications),
            count(c.work.flops),
            count(c.work.bytes, "B"),
            seconds(c.seconds),
            seconds(c.measured_s),
            count(c.temp_bytes, "B"),
            count(c.measured_bytes, "B"),
        ]
        for c in decision.candidates
    ]
    columns = ["candidate", "how", "passes", "mults", "flops", "bytes", "predicted", "measured", "memory", "peak"]
    title = f"{noun}, {decision.heading}"
    left_out = [f"{r.name} is left out, as the function refuses it: {r.reason}" for r in decision.refused]
    sentences = filter(None, [why(decision), otherwise(decision), *left_out])
    return plain(
        table(title, columns, rows, left=2, spare=SPARE), *(fill(text, width) for text in sentences), width=width
    )


def why(decision: Decision) -> str:
    """One sentence on why the first candidate was chosen."""
    winner, *others = decision.candidates
    amount, unit = _amounts(decision)
    basis = "measured" if not math.isnan(winner.measured_s) and decision.settings.objective == "time" else "predicted"
    if too_large := _too_large(decision):
        against, limit = too_large[0], count(decision.settings.memory_limit or 0, "B")
        return (
            f"{winner.name} wins within {limit}: {winner.method.detail}, {basis} {unit(amount(winner))}, in "
            f"{count(winner.measured_bytes, 'B')}; {against.name} ({against.method.detail}), {unit(amount(against))}, "
            f"needs {count(against.measured_bytes, 'B')}."
        )
    if not others:
        reason = ": one pass gives the whole Jacobian" if winner.method.passes == 1 else ""
        return f"{winner.name} ({winner.method.detail}) is the only candidate{reason}."
    plain_ones = [c for c in others if c.name in ("forward", "reverse")]
    against = min(plain_ones or others, key=amount)
    return (
        f"{winner.name} wins: {winner.method.detail}, {basis} {unit(amount(winner))} against {unit(amount(against))} "
        f"of {against.name} ({against.method.detail}){_times(amount(against), amount(winner))}."
    )


def otherwise(decision: Decision) -> str:
    """The changes that would change the choice."""
    winner, *others = decision.candidates
    amount, unit = _amounts(decision)
    hint = "" if decision.machine.measured else " The constants of the machine are nominal: `admodes calibrate`."
    if too_large := _too_large(decision):
        least = min(too_large, key=lambda c: c.measured_bytes)
        return f"With memory_limit={int(least.measured_bytes)} or more, {least.name} would win.{hint}"
    smaller = [c for c in others if isinstance(c.method, Checkpointed) and c.temp_bytes < winner.temp_bytes]
    others = [c for c in others if c not in smaller]
    said = []
    if others:
        second = min(others, key=amount)
        is_plain = winner.name in ("forward", "reverse") and second.name in ("forward", "reverse")
        if is_plain and 0 < amount(winner) < math.inf and amount(second) < math.inf and decision.n and decision.m:
            side, size = ("inputs", decision.n) if winner.name == "forward" else ("outputs", decision.m)
            most = math.ceil(size * amount(second) / amount(winner))
            said.append(f"With more than about {most} {side}, {second.name} would win.")
        else:
            times = _times(amount(second), amount(winner))
            said.append(f"Next best is {second.name} ({second.method.detail}){times}.")
    if smaller:
        next_ = min(smaller, key=amount)
        said.append(
            f"With a memory_limit below about {count(winner.temp_bytes, 'B')}, {next_.name} would win, at "
            f"{unit(amount(next_))}{_times(amount(next_), amount(winner))}."
        )
    return " ".join(said) + hint if said else ""


def _times(amount: float, of_winner: float) -> str:
    """The factor by which that is more; nothing where the winner needs none."""
    if amount == of_winner:
        return ", as much"
    return f", {amount / of_winner:.3g} times as much" if of_winner > 0 else ""


def _too_large(decision: Decision) -> list[Candidate]:
    """The candidates, the best first, that would have won but for the memory limit."""
    amount, _ = _amounts(decision)
    limit = decision.settings.memory_limit
    winner, *others = decision.candidates
    if limit is None:
        return []
    return sorted((c for c in others if c.measured_bytes > limit and amount(c) < amount(winner)), key=amount)


def _amounts(decision: Decision):
    units: dict[str, Callable[[float], str]] = {
        "time": seconds,
        "flops": lambda x: count(x, "flops"),
        "memory": lambda x: count(x, "B"),
        "multiplications": lambda x: f"{int(x)} multiplications",
    }
    objective = decision.settings.objective
    return OBJECTIVES[objective], units[objective]
