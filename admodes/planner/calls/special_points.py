"""Planned Jacobians at special points: kinks that a program sits on, entries that are not finite."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.tree_util import tree_leaves

from admodes.errors import UntraceableError
from admodes.modes.flat import select_arguments
from admodes.modes.interpreter import interpreter_for
from admodes.nonsmooth.limits import settled, two_sided
from admodes.planner.calls.request import Call
from admodes.program import jax_compat as jc
from admodes.program.evaluate import bind, run
from admodes.program.ir import from_jaxpr
from admodes.program.trace import closed_jaxpr
from admodes.transforms.reverse import strong_jacobian


@dataclass(frozen=True)
class AtSpecialPoints:
    """The wishes for special points: ``nan_safe`` (None: where the values are at hand) and ``ties`` as in
    :func:`admodes.grad`."""

    nan_safe: bool | None
    ties: str
    form: str

    def __post_init__(self):
        if self.ties != "lexicographic":
            interpreter_for(False, self.ties)  # an unknown policy is an error before any call
        if self.nan_safe and self.form == "compressed":
            raise ValueError("nan_safe=True settles entries, which format='compressed' does not have: use another one")

    def settled(self, jacobian, strong: Callable, argnums, args, kwargs, on_a_kink: bool = False):
        """A Jacobian whose entries that are not finite are replaced (see ``nonsmooth/limits.py``).

        ``strong`` is the function, without auxiliary data, whose derivatives inside have strong zeros. ``on_a_kink``
        all entries are, if their limits from two sides agree.
        """
        known = not any(isinstance(x, jc.Tracer) for x in tree_leaves((jacobian, args, kwargs)))
        if self.form == "compressed" or not (on_a_kink or self.nan_safe or (self.nan_safe is None and known)):
            return jacobian
        settle = two_sided if on_a_kink else settled
        chosen, moving = select_arguments(strong, argnums, args, kwargs)
        rows = strong_jacobian(chosen, 0 if isinstance(argnums, int) else tuple(range(len(moving))))
        if self.form == "dense":
            return settle(jacobian, rows, moving)
        if self.form == "bcoo":
            where = jacobian.indices[:, 0], jacobian.indices[:, 1]
            entries = settle(jacobian.data, lambda *xs: _matrix(rows(*xs), moving)[where], moving)
            return type(jacobian)((entries, jacobian.indices), shape=jacobian.shape, **_flags(jacobian))
        where = jacobian.tocoo().coords
        entries = settle(jnp.asarray(jacobian.data), lambda *xs: _matrix(rows(*xs), moving)[where], moving)
        jacobian.data = np.array(entries)
        return jacobian


def _flags(matrix) -> dict:
    return {"indices_sorted": matrix.indices_sorted, "unique_indices": matrix.unique_indices}


def _matrix(jacobian, inputs):
    """The m x n matrix of a Jacobian of blocks."""
    shapes = [np.shape(x) for x in tree_leaves(inputs)]
    blocks = tree_leaves(jacobian)
    flat = [b.reshape(-1, math.prod(shapes[k % len(shapes)])) for k, b in enumerate(blocks)]
    rows = [jnp.concatenate(flat[k : k + len(shapes)], 1) for k in range(0, len(flat), len(shapes))]
    return jnp.concatenate(rows, 0)


# -- ties -----------------------------------------------------------------------------------------------


def _equal(a, b):
    return lax.eq(*jnp.broadcast_arrays(a, b))


def _attained_twice(x, out, axes):
    return jnp.sum(x == jnp.expand_dims(out, axes), axes) > 1


# of each primitive with a kink: where its operands are at it
_TIES: dict = {
    lax.max_p: lambda params, out, a, b: _equal(a, b),
    lax.min_p: lambda params, out, a, b: _equal(a, b),
    lax.abs_p: lambda params, out, x: x == 0,
    lax.reduce_max_p: lambda params, out, x: _attained_twice(x, out, params["axes"]),
    lax.reduce_min_p: lambda params, out, x: _attained_twice(x, out, params["axes"]),
}


class TieTest:
    """A test for a function that sits on a kink of one of its equations; one compiled test for each kind of call."""

    def __init__(self):
        self._by_key: dict = {}

    def __call__(self, call: Call) -> bool:
        if not call.hashable:
            return False
        if call.key not in self._by_key:
            self._by_key[call.key] = _tie_test(call)
        test = self._by_key[call.key]
        return test is not None and bool(test(call.leaves))


def _tie_test(call: Call) -> Callable | None:
    assert call.primal is not None
    try:
        closed = closed_jaxpr(call.primal, *call.leaves)
    except UntraceableError:  # it decides in Python, on the side that the values are on
        return None
    if not any(e.primitive in _TIES for e in from_jaxpr(closed).equations):
        return None

    @jax.jit
    def test(leaves):
        found: list = []

        def step(equation, operands, params):
            outs = bind(equation.primitive, operands, params)
            tie = _TIES.get(equation.primitive)
            if tie is not None and jc.is_differentiable(jc.typeof(operands[0])):
                found.append(jnp.any(tie(params, outs[0], *operands)))
            return outs

        run(from_jaxpr(closed), step, list(leaves))
        return jnp.any(jnp.stack(found)) if found else False

    return test
