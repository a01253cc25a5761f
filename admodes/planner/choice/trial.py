"""Trials: candidates whose predictions lie close together are run at the first call, and the fastest is remembered.

A prediction may be wrong by a factor of two or three, and only a run tells. So where the predicted times of the best
few lie within a factor, and compiling them is quick, they are compiled and run in turn. The times go where those of
``measure=True`` are (:mod:`admodes.planner.cost.timings`), so that each task is tried once on a machine.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import jax

from admodes.planner.choice.candidates import Candidate
from admodes.planner.task import Task
from admodes.program import jax_compat as jc
from admodes.program.agreement import several_processes

# Candidates predicted to take at most so many times as long as the best one are tried. Chosen: predictions are rarely
# off by more. At 1 nothing is tried; at 10 most candidates are, to no end.
WITHIN = 3.0
# Candidates that are tried. Chosen. Each is a compilation more.
MOST = 4
# Seconds of the processor for compiling and running them. Chosen: with them, first calls take as long as those of
# libraries that detect patterns slowly. With four times fewer, programs that compile for 0.2 s are not tried.
SECONDS = 2.5
# Equations, those of sub-programs included, of a program that compiles so quickly that trying may be worth it. Chosen.
EQUATIONS = 150
# Seconds of one run, and bytes of temporary memory, as predicted, from which on nothing is run for a trial. Chosen.
LONG, LARGE = 0.1, 2.0**28
# Runs of each at least, the fastest of which counts, and seconds for those of one. Chosen. One may be disturbed.
RUNS, RUN_SECONDS = 3, 0.03


def close(found: Sequence[Candidate], task: Task) -> list[Candidate]:
    """The candidates worth trying, variants of others last; none if predictions are clear or a trial is too dear."""
    best = found[0]
    if not math.isnan(best.measured_s) or not 0 < best.seconds < LONG or several_processes():
        return []
    near = [c for c in found if c.seconds <= WITHIN * best.seconds and c.temp_bytes < LARGE]
    near = sorted(near, key=lambda c: getattr(c.method, "as_written", False))[:MOST]
    if len(near) < 2 or task.has_unknown_constants or task.is_varying or task.is_laid_out:
        return []
    return near if not jc.has_side_effects(task.closed) and jc.count_equations(task.closed) <= EQUATIONS else []


def times(candidates: Sequence[Candidate], compiled: Callable[[Candidate], Callable], leaves) -> dict[int, float]:
    """Seconds of those (by number) for which there was time, each run several times in turn."""
    end = time.process_time() + SECONDS
    runs: dict[int, Callable] = {}
    longest = 0.0
    for k, c in enumerate(candidates):
        start = time.process_time()
        if start + longest > end:
            break
        run = compiled(c)
        jax.block_until_ready(run(leaves))
        runs[k], longest = run, max(longest, time.process_time() - start)
    samples: dict[int, list[float]] = {k: [] for k in runs}
    end = time.perf_counter() + RUN_SECONDS * len(runs)
    while min(map(len, samples.values())) < RUNS or time.perf_counter() < end:
        for k, run in runs.items():
            start = time.perf_counter()
            jax.block_until_ready(run(leaves))
            samples[k].append(time.perf_counter() - start)
    return {k: min(taken) for k, taken in samples.items()}
