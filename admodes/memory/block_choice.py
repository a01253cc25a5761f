r"""The choice of blocks whose tapes are kept, the others being computed again, so that reverse mode fits a limit.

The program is a chain of blocks k with tapes of wₖ bytes that refer to another iₖ bytes of what is read, aₖ bytes
crossing into each, and times uₖ. H(s, t, m) is the least time of forward sweeps run again in walking back the blocks
s ... t−1 in m bytes if what enters s is held besides, N(s, t, m) if it is not:

    H(s, t, m) = min( N(s+1, t, m − wₛ),                                   the tape of s is kept;
                      min_j  Σₛ≤ₖ<ⱼ uₖ + N(j, t, m) + H(s, j, m) )         s ... j−1 are computed again
    N(s, t, m) = min( N(s+1, t, m − wₛ − iₛ),  H(s, t, m − aₛ) )

and H(s, s+1, m) = 0 if what walking s back needs at work fits. Values that cross more than half of the cuts are held.

Reference: Beaumont, Eyraud-Dubois, Herrmann, Joly and Shilova, "Optimal checkpointing for heterogeneous chains: how to
train deep neural networks with limited memory", ACM TOMS 51 (2025) ("rotor").
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import jax
import numpy as np

from admodes.modes.interpreter import INTERPRETER
from admodes.program import jax_compat as jc
from admodes.program.blocks import Chain, aval_bytes
from admodes.program.derived import Recording, recorded
from admodes.program.ir import Const, from_jaxpr
from admodes.program.traits import traits

# Levels of memory that the dynamic program tells apart. Chosen: an answer is off by a thousandth of the range for
# each block at most. Four times more take as much longer to plan; with four times fewer a limit is met with more to
# spare.
LEVELS = 1000
# Further sweeps that a schedule may have. Chosen: a chain that is written out with more is long to compile. Four
# times more lets smaller limits be met by programs of that size.
SWEEPS = 4
# Floating point operations in the time of moving a byte. Chosen. Blocks are only compared with each other, so that an
# error of four changes which of two blocks of a like time is run again.
BYTES_PER_FLOP = 4.0


@dataclass(frozen=True)
class Costs:
    """Of each block: bytes of the tape, of what it refers to besides, of what enters, at work; and the time."""

    tapes: np.ndarray
    reads: np.ndarray
    entering: np.ndarray
    working: np.ndarray
    times: np.ndarray

    @staticmethod
    def of(chain: Chain) -> Costs:
        n = len(chain)
        crossing = [frozenset(chain.entering(k)) for k in range(n)]
        crossed = Counter(slot for slots in crossing for slot in slots)
        passing = [frozenset(slot for slot in slots if 2 * crossed[slot] <= n) for slots in crossing]
        rows, before = [], frozenset[int]()
        for k, slots in enumerate(passing):
            row, before = _block_costs(chain, k, slots, before)
            rows.append(row)
        entering = [sum(aval_bytes(chain.program.avals[s]) for s in slots) for slots in passing]
        tapes, reads, working, times = np.array(rows, float).reshape(-1, 4).T
        return Costs(tapes, reads, np.array(entering, float), working, times)


def _block_costs(chain: Chain, k: int, entering: frozenset, before: frozenset) -> tuple[tuple, frozenset]:
    """(bytes of the tape, of what it refers to besides, at work; time) of block k, and the values that its tape holds.

    ``before`` are those that the tape of the block before it holds.
    """
    part = chain.part(k, k + 1)
    avals = chain.program.avals
    closed = jc.trace_flat(chain.call(part), part.in_avals, "block")
    recording = recorded(closed, INTERPRETER, tuple(map(jc.is_differentiable, part.in_avals)))
    kept = set(recording.sources)
    outputs = frozenset(part.outputs[i] for kind, i in kept if kind == "output")
    inputs = {part.inputs[i] for kind, i in kept if kind == "input"} & (entering - before)
    tape = sum(aval_bytes(avals[s]) for s in outputs) + _residual_bytes(recording)
    widest = max((sum(aval_bytes(avals[s]) for s in e.outputs) for e in part.equations), default=0)
    types = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in part.in_avals]  # wherever they are laid out
    cost = jax.jit(jc.jaxpr_as_fun(closed)).lower(*types).cost_analysis() or {}
    flops, moved = (max(cost.get(name, 0.0), 0.0) for name in ("flops", "bytes accessed"))  # negative: unknown
    time = flops + BYTES_PER_FLOP * moved
    return (tape, sum(aval_bytes(avals[s]) for s in inputs), tape + 2 * widest, time), outputs


def _residual_bytes(recording: Recording) -> int:
    """The values that a tape keeps beside inputs and outputs, less what the compiler gets from something else that is
    kept."""
    program = from_jaxpr(recording.program)
    fused = {slot for e in program.equations if traits(e.primitive).fuses for slot in e.outputs}
    held = {"input": program.inputs, "output": program.outputs}
    residuals = [slot for slot in program.outputs[recording.n_outputs :] if not isinstance(slot, Const)]
    known = {held[kind][k] for kind, k in recording.sources if kind in held}
    known |= {slot for slot, _ in program.constants} | (set(residuals) - fused)
    for e in program.equations:
        if traits(e.primitive).fuses and all(isinstance(x, Const) or x in known for x in e.inputs):
            known.update(e.outputs)
    return sum(aval_bytes(program.avals[slot]) for slot in residuals if slot not in fused or slot not in known)


class Schedules:
    """H and N for all memory sizes at once: arrays over levels of memory, up to what keeping all would take."""

    def __init__(self, costs: Costs):
        self.costs, self.n = costs, len(costs.tapes)
        self.most = float((costs.tapes + costs.reads + costs.entering).sum() + costs.working.max(initial=0.0))
        self.unit = max(self.most / LEVELS, 1.0)
        self.held: dict = {}  # H
        self.free: dict = {}  # N
        self.steps: dict = {}  # where H is attained: how many blocks are computed again, 0 if the first is kept
        elapsed = np.concatenate([[0.0], np.cumsum(costs.times)])
        for width in range(1, self.n + 1):
            for start in range(self.n - width + 1):
                self._solve(start, start + width, elapsed)

    def everything(self) -> float:
        """The bytes in which nothing is computed again."""
        held = self.held[0, self.n]
        return self.unit * int(np.argmax(held == held.min()))

    def least(self) -> float:
        """The fewest bytes that a schedule fits with at most SWEEPS further sweeps."""
        held = self.held[0, self.n]
        return self.unit * int(np.argmax(held <= max(held.min(), SWEEPS * self.costs.times.sum())))

    def nest(self, limit: float) -> tuple:
        """The fastest nest (``program/blocks.py``) that fits ``limit`` bytes by the model, or else the least one."""
        level = min(int(max(limit, self.least()) / self.unit + 0.5), LEVELS)
        return self._held_nest(0, self.n, level)

    def _levels(self, size: float) -> int:
        return int(np.ceil(size / self.unit))

    def _less(self, values: np.ndarray, size: float) -> np.ndarray:
        """``values`` as a function of the memory before ``size`` bytes of it are taken."""
        d = min(self._levels(size), LEVELS + 1)
        return np.concatenate([np.full(d, np.inf), values[: LEVELS + 1 - d]])

    def _solve(self, start: int, stop: int, elapsed: np.ndarray) -> None:
        costs = self.costs
        fits = np.arange(LEVELS + 1) >= self._levels(costs.working[start])
        if stop == start + 1:
            kept = fresh = np.where(fits, 0.0, np.inf)
        else:
            after = self.free[start + 1, stop]
            kept = np.where(fits, self._less(after, costs.tapes[start]), np.inf)
            fresh = np.where(fits, self._less(after, costs.tapes[start] + costs.reads[start]), np.inf)
        options = [kept]
        for j in range(start + 1, stop):
            options.append(elapsed[j] - elapsed[start] + self.free[j, stop] + self.held[start, j])
        table = np.stack(options)
        self.steps[start, stop] = table.argmin(0)
        self.held[start, stop] = table.min(0)
        self.free[start, stop] = np.minimum(fresh, self._less(self.held[start, stop], costs.entering[start]))

    def _held_nest(self, start: int, stop: int, level: int) -> tuple:
        steps = int(self.steps[start, stop][level])
        if steps:
            return (self._held_nest(start, start + steps, level), *self._free_nest(start + steps, stop, level))
        return (start, *self._free_nest(start + 1, stop, level - self._levels(self.costs.tapes[start])))

    def _free_nest(self, start: int, stop: int, level: int) -> tuple:
        if start == stop:
            return ()
        below = level - self._levels(self.costs.entering[start])
        if below >= 0 and self.held[start, stop][below] <= self.free[start, stop][level]:
            return self._held_nest(start, stop, below)
        taken = self.costs.tapes[start] + self.costs.reads[start]
        return (start, *self._free_nest(start + 1, stop, level - self._levels(taken)))
