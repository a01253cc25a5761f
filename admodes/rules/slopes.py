"""Kinks of which nothing is said: they are found in the slope.

A piecewise function has a slope that compares: ``select(x > 0, 1, 0.1)``. Traced, the partial derivatives of an entry
are a program, in which the comparisons are seen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from jax.tree_util import tree_flatten

from admodes.program import jax_compat as jc
from admodes.program.traits import JUMPS, SLOPE, SMOOTH, traits
from admodes.rules.table import ElementwiseRule, lookup


def kink_of(primitive, avals: tuple, active: tuple, params: dict) -> str | Callable | None:
    """The decision behind a primitive, in the words of the trait ``kink``; None if it is smooth in the active
    operands."""
    said = traits(primitive).kink
    if said is not None:
        return None if said == SMOOTH else said
    rule = lookup(primitive)
    if not any(active) or not isinstance(rule, ElementwiseRule):
        return None
    operands = _Operands(tuple(a.dtype for a in avals), avals)
    return SLOPE if _slope_compares(rule, primitive, operands, active, tuple(params.items())) else None


@dataclass(frozen=True)
class _Operands:
    """Types of operands, alike if their dtypes are: whether a slope compares does not depend on shapes."""

    dtypes: tuple
    avals: tuple = field(compare=False)


@lru_cache(4096)
def _slope_compares(rule: ElementwiseRule, primitive, operands: _Operands, active, params) -> bool:
    return compares(_slopes(rule, primitive, operands.avals, active, params)[0])


def slopes_of(primitive, avals: tuple, active: tuple, params: dict) -> tuple[Any, Any]:
    """The partials of an elementwise primitive as a jaxpr (result, *operands) -> leaves, and the tree of their map."""
    return _slopes(lookup(primitive), primitive, avals, active, tuple(params.items()))


class _AsJax:
    """A policy at kinks, which a rule may ask of an interpreter; beside the point all policies are the same."""

    ties = "jax"


@lru_cache(4096)
def _slopes(rule, primitive, avals, active, params):
    trees = []

    def partials(*primals):
        leaves, tree = tree_flatten(rule.jacobian(_AsJax, primitive, primals[:1], primals[1:], active, dict(params)))
        trees.append(tree)
        return leaves

    (out,) = jc.trace_flat(lambda *xs: [primitive.bind(*xs, **dict(params))], avals, "value").out_avals
    return jc.trace_flat(partials, (out, *avals), "slopes"), trees[-1]


def compares(closed) -> bool:
    """True if a jaxpr holds an operation that jumps, however deep."""
    return any(jumps(eqn.primitive) or jc.mentions(eqn.params, jumps) for eqn in jc.inner(closed).eqns)


def jumps(primitive) -> bool:
    """True for comparisons, and for functions that are piecewise constant."""
    said = traits(primitive)
    return said.jump or said.kink in JUMPS


@lru_cache(4096)
def spelled_out(kink: Callable, avals: tuple, params: tuple):
    """The jaxpr of the function that a primitive is said to be."""
    return jc.trace_flat(lambda *xs: tree_flatten(kink(*xs, **dict(params)))[0], avals, "kink")
