"""Patterns of blocks: identities, and full ones, for each operand and result of a map."""

from __future__ import annotations

import itertools
import math

import numpy as np

from admodes.linear.pattern import SparsityPattern
from admodes.program import jax_compat as jc


def identity_blocks(sizes) -> list[SparsityPattern]:
    """One below the other, these patterns (of so many rows each) are an identity."""
    total, starts = sum(sizes), np.cumsum([0, *sizes])
    return [SparsityPattern.identity(n, total, int(a)) for n, a in zip(sizes, starts, strict=False)]


def split_rows(pattern, sizes) -> list[SparsityPattern]:
    cuts = np.cumsum([0, *sizes])
    return [pattern.take_rows(slice(a, b)) for a, b in itertools.pairwise(cuts)]


def full_blocks(domain, codomain) -> dict:
    """Each result may depend on all of each operand."""
    return {
        (j, i): SparsityPattern.dense(math.prod(out.shape), math.prod(arg.shape))
        for j, out in enumerate(codomain)
        for i, arg in enumerate(domain)
        if jc.is_differentiable(out) and jc.is_differentiable(arg)
    }


def batched_blocks(domain, codomain, core: int) -> dict:
    """Full blocks, one for each index of the leading axes that all arrays share, the last ``core`` axes aside."""
    avals = [a for a in (*domain, *codomain) if jc.is_differentiable(a)]
    rank = min((len(a.shape) for a in avals), default=0)
    longest = max((len(a.shape) for a in avals), default=0)
    depth = 0
    while depth < min(rank, longest - core) and len({a.shape[depth] for a in avals}) == 1:
        depth += 1
    blocks = {}
    for j, out in enumerate(codomain):
        for i, arg in enumerate(domain):
            if jc.is_differentiable(out) and jc.is_differentiable(arg):
                n, batch = math.prod(arg.shape), math.prod(arg.shape[:depth])
                labels = np.repeat(np.arange(batch), math.prod(out.shape[depth:]))
                groups = np.repeat(np.arange(batch), math.prod(arg.shape[depth:]))
                blocks[j, i] = SparsityPattern.shared(labels, groups, np.arange(n), (batch, n))
    return blocks
