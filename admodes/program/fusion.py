"""Fusion: the values that compilers rather compute again, where they are used, than keep: elementwise operations of
next to no cost, and parts of what is there."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from admodes.program.blocks import aval_bytes
from admodes.program.ir import Const, Program
from admodes.program.traits import traits

MOST = 8  # values that one is derived from


def derived(program: Program, known: Collection[int], wanted: Collection[int]) -> Program:
    """A program for those of the ``wanted`` slots that follow from values that are kept, by fused operations alone.

    Kept are the ``known`` slots, and the wanted ones that do not follow. A value that follows reads no more bytes (of a
    part of a value: those of the part) than it has itself, so that keeping it would not save any. The inputs of the
    result are slots that are kept.
    """
    kept = {*known, *(slot for slot in program.inputs if slot in wanted)}
    reads: dict[int, frozenset[int] | None] = {slot: frozenset() for slot, _ in program.constants}
    reads |= {slot: frozenset([slot]) for slot in kept}

    def size(slots) -> int:
        return sum(aval_bytes(program.avals[slot]) for slot in slots)

    follows = []
    for e in program.equations:
        said = traits(e.primitive)
        found = _union(reads, e.inputs) if said.fuses or said.part else None
        for slot in e.outputs:
            reads[slot] = frozenset([slot]) if found and said.part else found
            if slot in wanted and found is not None and size(reads[slot] or ()) <= size([slot]):
                follows.append(slot)
            elif slot in wanted or slot in known:
                reads[slot] = frozenset([slot])
                kept.add(slot)
    needed, equations = set(follows), []
    for e in reversed(program.equations):
        if not (needed - kept).isdisjoint(e.outputs):
            equations.append(e)
            needed.update(e.slots)
    leaves = tuple(sorted(needed & kept))
    return replace(program, inputs=leaves, outputs=tuple(follows), equations=tuple(equations[::-1]))


def _union(reads: Mapping[int, frozenset[int] | None], inputs: tuple) -> frozenset[int] | None:
    found: frozenset[int] = frozenset()
    for x in inputs:
        if not isinstance(x, Const):
            of_x = reads.get(x)
            if of_x is None:
                return None
            found |= of_x
    return found if len(found) <= MOST else None
