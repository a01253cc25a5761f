"""Linear maps as matrices, and what applying them costs.

The columns are pushes of unit vectors, the rows pulls of them; both must give the same matrix.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from admodes.program import jax_compat as jc


class Applied(Protocol):
    """The part of a linear map that is needed here."""

    domain: Any
    codomain: Any

    def push(self, tangents: tuple[Any, ...]) -> tuple[Any, ...]: ...

    def pull(self, cotangents: tuple[Any, ...]) -> tuple[Any, ...]: ...


def materialise(linear: Applied, by: str = "push") -> dict[tuple[int, int], jax.Array]:
    """The matrices of a map: for each (result j, operand i) an array of shape (size of j, size of i).

    ``by="push"`` applies the map to the columns of the identity, ``"pull"`` its transpose to the rows.
    """
    sources, targets = (linear.domain, linear.codomain) if by == "push" else (linear.codomain, linear.domain)
    apply = linear.push if by == "push" else linear.pull
    blocks = {}
    for i, source in enumerate(sources):
        if not jc.is_differentiable(source):
            continue
        n = math.prod(source.shape)
        basis = jnp.eye(n, dtype=source.dtype).reshape(n, *source.shape)

        def seeded(seed, i=i):
            return apply(tuple(seed if k == i else None for k in range(len(sources))))

        for j, (result, target) in enumerate(zip(jax.vmap(seeded)(basis), targets, strict=True)):
            if not jc.is_differentiable(target):
                continue
            m = math.prod(target.shape)
            matrix = jnp.zeros((n, m), target.dtype) if result is None else result.reshape(n, m)
            blocks[(j, i) if by == "push" else (i, j)] = matrix.T if by == "push" else matrix
    return blocks


@dataclass(frozen=True)
class Cost:
    """Floating point operations and bytes read and written."""

    flops: float
    bytes: float


def cost(linear: Applied, by: str = "push") -> Cost:
    """The cost of one push (or pull) of a map, as XLA expects it."""
    avals = linear.domain if by == "push" else linear.codomain
    seeds = tuple(jax.ShapeDtypeStruct(a.shape, a.dtype) if jc.is_differentiable(a) else None for a in avals)
    apply = (lambda linear, seeds: linear.push(seeds)) if by == "push" else (lambda linear, seeds: linear.pull(seeds))
    analysis = jax.jit(apply).lower(linear, seeds).cost_analysis() or {}
    return Cost(float(analysis.get("flops", 0.0)), float(analysis.get("bytes accessed", 0.0)))
