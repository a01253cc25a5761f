r"""Which blocks of a program to keep the tapes of, and which to compute again, so that reverse mode fits a limit.

The program is a chain of blocks k with tapes of wₖ bytes, aₖ bytes crossing into each, and times uₖ. With C(s, t, m) the
least time of forward sweeps run again in walking back the blocks s ... t−1 in m bytes, what enters s being kept,

    C(s, t, m) = min( C(s+1, t, m − wₛ − aₛ₊₁)                                    the tape of s is kept,
                      min_j  Σₛ≤ₖ<ⱼ uₖ + C(j, t, m − aⱼ) + C(s, j, m) )            what enters j is kept,

with the aⱼ counted as far as they are not kept already, and C(s, s+1, m) = 0 if wₛ fits.

Reference: Beaumont, Eyraud-Dubois, Herrmann, Joly and Shilova, "Optimal checkpointing for heterogeneous chains: how to
train deep neural networks with limited memory", ACM TOMS 51 (2025) ("rotor").
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import numpy as np

from admodes.modes.interpreter import Interpreter
from admodes.program import jax_compat as jc
from admodes.program.blocks import Chain, aval_bytes
from admodes.rules.derived import recorded

LEVELS = 1000  # of memory that the dynamic program tells apart
BYTES_PER_FLOP = 4.0  # what a byte moved takes, in the time of floating point operations


@dataclass(frozen=True)
class Costs:
    """Of a chain: bytes of each tape, of what enters each block, the working memory and the time of each.

    ``entering[j][s]`` counts of what enters j only what does not enter s already.
    """

    tapes: np.ndarray
    entering: np.ndarray
    working: np.ndarray
    times: np.ndarray

    @staticmethod
    def of(chain: Chain) -> Costs:
        n, avals = len(chain), chain.program.avals
        crossing = [frozenset(chain.entering(k)) for k in range(n + 1)]

        def size(slots) -> int:
            return sum(aval_bytes(avals[s]) for s in slots)

        entering = np.array([[size(crossing[j] - crossing[min(s, n)]) for s in range(n + 1)] for j in range(n + 1)])
        parts = [_part_costs(chain, k) for k in range(n)]
        tapes, working, times = (np.array(column, float) for column in zip(*parts, strict=True))
        return Costs(tapes, entering, working, times)


def _part_costs(chain: Chain, k: int) -> tuple[float, float, float]:
    """(bytes of the tape beside what the block reads, bytes at work when it is walked back, time) of block k."""
    part = chain.part(k, k + 1)
    active = tuple(jc.is_differentiable(a) for a in part.in_avals)
    closed = jc.trace_flat(chain.call(part), part.in_avals, "block")
    recording = recorded(closed, Interpreter(), active)
    kept = {source for source in recording.sources if source[0] in ("output", "residual")}
    types = {"output": recording.program.out_avals, "residual": recording.residual_avals}
    tape = sum(aval_bytes(types[kind][i]) for kind, i in kept)
    widest = max((sum(aval_bytes(chain.program.avals[s]) for s in e.outputs) for e in part.equations), default=0)
    cost = jax.jit(jc.jaxpr_as_fun(closed)).lower(*part.in_avals).cost_analysis() or {}
    return tape, tape + 2 * widest, cost.get("flops", 0.0) + BYTES_PER_FLOP * cost.get("bytes accessed", 0.0)


class Schedules:
    """C(s, t, m) for all memory sizes at once: arrays over levels of memory, up to what keeping all would take."""

    def __init__(self, costs: Costs):
        self.costs, self.n = costs, len(costs.tapes)
        self.most = float(costs.tapes.sum() + np.diag(costs.entering, -1).sum() + costs.working.max(initial=0.0))
        self.unit = max(self.most / LEVELS, 1.0)
        self.best: dict = {}
        self.choice: dict = {}
        elapsed = np.concatenate([[0.0], np.cumsum(costs.times)])
        for width in range(1, self.n + 1):
            for start in range(self.n - width + 1):
                self._solve(start, start + width, elapsed)

    def least(self) -> float:
        """The fewest bytes that a schedule fits."""
        return self.unit * int(np.argmax(np.isfinite(self.best[0, self.n])))

    def nest(self, limit: float) -> tuple:
        """The fastest nest (``program/blocks.py``) that fits ``limit`` bytes by the model, or else the least one."""
        level = min(int(max(limit, self.least()) / self.unit + 0.5), LEVELS)
        return self._nest(0, self.n, level)

    def _levels(self, size: float) -> int:
        return int(np.ceil(size / self.unit))

    def _less(self, values: np.ndarray, size: float) -> np.ndarray:
        """``values`` as a function of the memory before ``size`` bytes of it are taken."""
        d = min(self._levels(size), LEVELS + 1)
        return np.concatenate([np.full(d, np.inf), values[: LEVELS + 1 - d]])

    def _solve(self, start, stop, elapsed) -> None:
        tapes, entering = self.costs.tapes, self.costs.entering
        if stop == start + 1:
            fits = np.arange(LEVELS + 1) >= self._levels(self.costs.working[start])
            self.best[start, stop] = np.where(fits, 0.0, np.inf)
            return
        kept = self._less(self.best[start + 1, stop], tapes[start] + entering[start + 1][start])
        options = [np.where(np.isinf(self.best[start, start + 1]), np.inf, kept)]
        for j in range(start + 1, stop):
            right = self._less(self.best[j, stop], entering[j][start])
            options.append(elapsed[j] - elapsed[start] + right + self.best[start, j])
        table = np.stack(options)
        self.choice[start, stop] = table.argmin(0)
        self.best[start, stop] = table.min(0)

    def _nest(self, start: int, stop: int, level: int) -> tuple:
        if stop == start + 1:
            return (start,)
        steps = int(self.choice[start, stop][level])
        if steps == 0:
            taken = self.costs.tapes[start] + self.costs.entering[start + 1][start]
            return (start, *self._nest(start + 1, stop, level - self._levels(taken)))
        j = start + steps
        rest = level - self._levels(self.costs.entering[j][start])
        return (self._nest(start, j, level), *self._nest(j, stop, rest))
