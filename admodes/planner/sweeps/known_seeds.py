r"""Known seeds: as far as a sweep takes them before they meet a value that depends on the arguments, it runs once.

The first layer of a net, from whichever side a sweep comes, multiplies the seeds of a coloring with weights; the edges
of a network gather those of their nodes. If weights and places are known too, the results are constants.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from admodes.planner.cost.work import bytes_of, depth_of, entries
from admodes.program.evaluate import evaluate
from admodes.program.folding import is_known
from admodes.program.ir import Const, Equation, Program
from admodes.program.traits import traits

# Multiply-adds that are saved, at least. Chosen. Four times less makes programs with constants for nothing.
LEAST = 100_000
# Multiply-adds in the time of gathering an entry. Chosen. An error moves the bound LEAST for programs that gather.
GATHERED = 30
# Bytes of constants, which a program holds and reads. Chosen. More would be read from memory rather than computed in
# a cache.
MOST = 2**22


@dataclasses.dataclass(frozen=True)
class Folding:
    """``ahead``: seeds -> values of a sweep; ``rest``: its arguments and these -> its results."""

    ahead: Program
    rest: Program

    def values(self, seeds: Sequence[np.ndarray]) -> list:
        """The values that ``ahead`` makes of seeds, each of which has a leading axis for their number."""
        with jax.ensure_compile_time_eval():
            return jax.jit(jax.vmap(lambda *seeds: evaluate(self.ahead, *seeds)))(*seeds)


def folding(program: Program, first_seed: int, count: int) -> Folding | None:
    """The split of a sweep whose inputs from ``first_seed`` on are ``count`` known seeds; None if that gains little."""
    seeds = program.inputs[first_seed:]
    constants = {slot for slot, value in program.constants if is_known(value)}
    known, varying, ahead = {*constants, *seeds}, set(seeds), []
    for e in program.equations:
        slots = set(e.slots)
        if slots <= known and not e.effects:
            known.update(e.outputs)
            if not varying.isdisjoint(slots):
                varying.update(e.outputs)
                ahead.append(e)
    if count * sum(_products(e, program) for e in ahead) < LEAST:
        return None
    numbers = set(map(id, ahead))
    later = [e for e in program.equations if id(e) not in numbers]
    read = {x for e in later for x in e.slots} | {x for x in program.outputs if not isinstance(x, Const)}
    made = tuple(x for x in dict.fromkeys([*seeds, *(x for e in ahead for x in e.outputs)]) if x in read)
    if count * sum(bytes_of(program.avals[x]) for x in made) > MOST:
        return None
    before = [e for e in program.equations if e.outputs and known.issuperset(e.outputs)]
    return Folding(
        dataclasses.replace(program, inputs=seeds, outputs=made, equations=tuple(before)),
        dataclasses.replace(program, inputs=(*program.inputs[:first_seed], *made), equations=tuple(later)),
    )


def _products(e: Equation, program: Program) -> int:
    """The multiply-adds of an equation, or what takes as long."""
    each = GATHERED if traits(e.primitive).cost == "gathering" else 0
    depth = depth_of(e.primitive, e.params, [program.type_of(x) for x in e.inputs])
    return entries(program.avals[e.outputs[0]]) * (depth or each)
