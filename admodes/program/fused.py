"""What compilers rather compute again, where it is used, than keep: elementwise operations of next to no cost."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from jax import lax

from admodes.program.blocks import aval_bytes
from admodes.program.ir import Const, Program

FUSED = frozenset(
    {
        *(lax.add_p, lax.sub_p, lax.mul_p, lax.neg_p, lax.abs_p, lax.square_p, lax.integer_pow_p, lax.max_p, lax.min_p),
        *(lax.eq_p, lax.ne_p, lax.lt_p, lax.le_p, lax.gt_p, lax.ge_p, lax.and_p, lax.or_p, lax.not_p, lax.sign_p),
        *(lax.select_n_p, lax.convert_element_type_p, lax.broadcast_in_dim_p, lax.real_p, lax.imag_p, lax.conj_p),
    }
)
MOST = 8  # values that one is derived from


def derived(program: Program, known: Collection[int], wanted: Collection[int]) -> Program:
    """A program for those of the ``wanted`` slots that follow from values that are kept, by fused operations alone.

    Kept are the ``known`` slots, and the wanted ones that do not follow. What follows is read from no more bytes than
    it has itself, so that keeping it would not save any. The inputs of the result are slots that are kept.
    """
    sources: dict[int, frozenset[int] | None] = {slot: frozenset() for slot, _ in program.constants}
    sources |= {slot: frozenset([slot]) for slot in {*known, *(slot for slot in program.inputs if slot in wanted)}}

    def size(slots) -> int:
        return sum(aval_bytes(program.avals[slot]) for slot in slots)

    follows = []
    for e in program.equations:
        found = _union(sources, e.inputs) if e.primitive in FUSED else None
        for slot in e.outputs:
            sources[slot] = found
            if slot in wanted and found is not None and size(found) <= size([slot]):
                follows.append(slot)
            elif slot in wanted or slot in known:
                sources[slot] = frozenset([slot])
    leaves = sorted(frozenset().union(*(sources[slot] or () for slot in follows)))
    needed, equations = set(follows), []
    for e in reversed(program.equations):
        if not needed.isdisjoint(e.outputs) and e.outputs[0] not in leaves:
            equations.append(e)
            needed.update(x for x in e.inputs if not isinstance(x, Const))
    return replace(program, inputs=tuple(leaves), outputs=tuple(follows), equations=tuple(equations[::-1]))


def _union(sources: Mapping[int, frozenset[int] | None], inputs: tuple) -> frozenset[int] | None:
    found: frozenset[int] = frozenset()
    for x in inputs:
        if not isinstance(x, Const):
            of_x = sources.get(x)
            if of_x is None:
                return None
            found |= of_x
    return found if len(found) <= MOST else None
