"""Checkpointing policies for functions without loops: their chain of blocks stands for the steps."""

from __future__ import annotations

from collections.abc import Callable
from math import isqrt

from admodes.checkpointing.binomial import split
from admodes.checkpointing.policies import Checkpoints
from admodes.program.blocks import chain, is_loop
from admodes.program.ir import from_jaxpr


def has_loops(closed) -> bool:
    """True if a jaxpr holds a scan or a while loop, however deep."""
    return any(map(is_loop, from_jaxpr(closed).equations))


def in_segments(closed, checkpoints: Checkpoints) -> Callable:
    """The jaxpr as a function whose segments are checkpointed calls.

    "revolve" nests them by the binomial schedule, "sqrt" makes √n of n blocks, "every" makes one of the whole.
    """
    steps = chain(from_jaxpr(closed))
    return lambda *args: steps.evaluate(_nest(len(steps), checkpoints), args)


def _nest(n: int, checkpoints: Checkpoints) -> tuple:
    if checkpoints.policy == "every":
        return (tuple(range(n)),) if n else ()
    if checkpoints.policy == "sqrt":
        width = max(isqrt(n), 1)
        return tuple(tuple(range(k, min(k + width, n))) for k in range(0, n, width))
    return _binomial(0, n, checkpoints.slots)


def _binomial(start: int, stop: int, slots: int) -> tuple:
    """Blocks that are walked back with this many slots: what enters the left part is kept, the right has one fewer."""
    if stop - start <= 1 or slots == 1:
        return tuple(range(start, stop))
    middle = start + split(stop - start, slots)
    return (_binomial(start, middle, slots), *_binomial(middle, stop, slots - 1))
