r"""The tape: the local Jacobians of a program in the order of evaluation.

Pushing tangents along it is the linearised program; walking it backwards with cotangents is reverse
mode (x̄ += Jᵀ ȳ at each entry). A tape is itself a :class:`~admodes.linear.maps.LinearMap` and a pytree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from admodes.linear.maps import LinearMap, add, linear_map, static
from admodes.program import jax_compat as jc


@linear_map
class Tape(LinearMap):
    """``maps[k]`` takes the slots ``wiring[k][0]`` to the slots ``wiring[k][1]``; slot None carries no derivative.

    The first slots are the inputs; ``outputs`` are the slots of the results.
    """

    maps: tuple[LinearMap, ...]
    wiring: tuple[Any, ...] = static()
    outputs: tuple[int | None, ...] = static()
    domain: tuple[Any, ...] = static()
    codomain: tuple[Any, ...] = static()

    def push(self, tangents):
        slots = dict(enumerate(tangents))
        for jacobian, (reads, writes) in zip(self.maps, self.wiring, strict=True):
            given = tuple(None if s is None else slots.get(s) for s in reads)
            if any(t is not None for t in given):
                slots.update(zip(writes, jacobian.push(given), strict=True))
        return tuple(None if s is None else slots.get(s) for s in self.outputs)

    def pull(self, cotangents):
        slots: dict = {}
        for s, g in zip(self.outputs, cotangents, strict=True):
            if s is not None:
                slots[s] = add(slots.get(s), g)
        for jacobian, (reads, writes) in zip(reversed(self.maps), reversed(self.wiring), strict=True):
            given = tuple(None if s is None else slots.pop(s, None) for s in writes)
            if any(g is not None for g in given):
                for s, ct in zip(reads, jacobian.pull(given), strict=True):
                    if s is not None and ct is not None:
                        slots[s] = add(slots.get(s), ct)
        return tuple(slots.get(i) for i in range(len(self.domain)))

    def pattern(self):
        reach: dict = {i: {i: None} for i in range(len(self.domain))}  # slot -> input -> pattern, None the identity
        for jacobian, (reads, writes) in zip(self.maps, self.wiring, strict=True):
            for (j, i), block in jacobian.pattern().items():
                if reads[i] is None or writes[j] is None:
                    continue
                target = reach.setdefault(writes[j], {})
                for source, before in reach.get(reads[i], {}).items():
                    product = block if before is None else block.compose(before)
                    target[source] = target[source].union(product) if source in target else product
        return _blocks(self, reach)


def _blocks(tape, reach):
    import numpy as np

    from admodes.linear.pattern import SparsityPattern

    blocks = {}
    for j, s in enumerate(tape.outputs):
        for i, block in reach.get(s, {}).items():
            n = int(np.prod(tape.domain[i].shape, dtype=int))
            identity = SparsityPattern.build(np.arange(n), np.arange(n), (n, n))
            blocks[j, i] = identity if block is None else block
    return blocks


@dataclass(eq=False)
class Entry:
    """One recorded equation. Its Jacobian is built when the tape is closed, so that dead code never asks a rule."""

    number: int
    reads: tuple
    jacobian: Any  # () -> LinearMap
    stops: Any = None  # the slot whose value this one is, its derivative stopped


@dataclass(frozen=True)
class Slot:
    """Result number ``index`` of an entry; ``entry`` None: input number ``index``."""

    entry: Entry | None
    index: int


class Recorder:
    """Grows a tape; what it hands out are slots, and the tape holds only what the outputs reach.

    ``linear`` says that what is recorded now must be linear, being there to be transposed.
    """

    def __init__(self, in_avals, linear: bool = False):
        self.domain = tuple(in_avals)
        self.count = 0
        self.linear = linear

    def inputs(self, active) -> list:
        return [Slot(None, i) if on else None for i, on in enumerate(active)]

    def append(self, reads, jacobian, outs) -> tuple:
        """Append an equation: the slots it reads, a function that gives its Jacobian, and its results.

        Returns a slot for each result that carries a derivative.
        """
        self.count += 1
        entry = Entry(self.count, tuple(reads), jacobian)
        return tuple(Slot(entry, j) if jc.is_differentiable(jc.typeof(o)) else None for j, o in enumerate(outs))

    def close(self, outputs, out_avals) -> Tape:
        """The tape of everything that ``outputs`` (slots or None) depend on."""
        reachable: dict[int, Entry] = {}
        stack = [s.entry for s in outputs if s is not None and s.entry is not None]
        while stack:
            entry = stack.pop()
            if entry.number not in reachable:
                reachable[entry.number] = entry
                stack += [s.entry for s in entry.reads if s is not None and s.entry is not None]

        numbers: dict = {(None, i): i for i in range(len(self.domain))}

        def number(slot):
            return (
                None
                if slot is None
                else numbers.setdefault((slot.entry and slot.entry.number, slot.index), len(numbers))
            )

        maps, wiring = [], []
        for _, entry in sorted(reachable.items()):
            jacobian = entry.jacobian()
            if jacobian is None:
                continue
            writes = tuple(
                number(Slot(entry, j)) if jc.is_differentiable(a) else None for j, a in enumerate(jacobian.codomain)
            )
            maps.append(jacobian)
            wiring.append((tuple(map(number, entry.reads)), writes))
        return Tape(tuple(maps), tuple(wiring), tuple(map(number, outputs)), self.domain, tuple(out_avals))
