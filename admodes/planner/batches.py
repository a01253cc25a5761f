"""A sweep for many seeds at once, in which some values pass through memory though a compiler would fuse them.

What takes long and is the same for all seeds would, fused, be computed anew for each of them: the cosines of a
Jacobian of n outputs n times. And what uses a sum over the seeds' entries would be computed in the kernel of the sum,
which is made for sums and reads all else from memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax

from admodes.planner.work import KIND
from admodes.program.evaluate import bind, run
from admodes.program.ir import Const, Program
from admodes.rules.again import stored

MANY = 4000  # values that take long, or are added up: fewer are computed as fast as they are stored
FEWER = 4  # entries to a sum, at least: longer results are as good as what they come from
KERNELS = frozenset({"reducing", "solving", "scattering", "gathering"})
OPAQUE = frozenset({"dot_general", "conv_general_dilated", "scan", "while", "cond"})


def batched(program: Program, args: Sequence, seeds: Sequence, n_outputs: int) -> tuple[list, list]:
    """(outputs, results with a leading axis over the seeds) of a program at the same ``args`` for all ``seeds``."""
    sweep = _Sweep(program.inputs[len(args) :], len(seeds[0]) if seeds else 1)

    def one(*seeds):
        flat = run(program, sweep.step, [*args, *seeds])
        return flat[:n_outputs], flat[n_outputs:]

    return jax.vmap(one, out_axes=(None, 0))(*seeds)


class _Sweep:
    """``varying`` are the slots that depend on seeds, ``near`` those of them that no kernel lies before."""

    def __init__(self, seeds: Sequence[int], count: int):
        self.varying, self.near = set(seeds), set(seeds)
        self.repeated = count - 1

    def step(self, equation, operands, params) -> Sequence:
        """Evaluate one equation."""
        results = bind(equation.primitive, operands, params)
        return stored(results) if self._passes_memory(equation, operands, results) else results

    def _passes_memory(self, equation, operands, results) -> bool:
        name = equation.primitive.name
        kind = KIND.get(name)
        sources = self.varying.intersection(x for x in equation.inputs if not isinstance(x, Const))
        if not sources:
            return kind == "transcendental" and self.repeated * results[0].size >= MANY
        self.varying.update(equation.outputs)
        if not sources <= self.near:
            return False
        if kind not in KERNELS and name not in OPAQUE:
            self.near.update(equation.outputs)
        size = operands[0].size if kind == "reducing" else 0
        return self.repeated * size >= MANY and FEWER * results[0].size <= size
