r"""Sums of directional derivatives of order k in one pass, by collapsed Taylor mode.

For Σ_d w_d ∂ᵏf/∂v_dᵏ the series along x + t v_d are pushed together. Their highest coefficients enter every equation
linearly: y_k = J x_k + (terms of lower order). So only the weighted sum of them is carried,

    Σ_d w_d y_{d,k} = J Σ_d w_d x_{d,k} + Σ_d w_d (terms of lower order)_d,

besides the value and the coefficients below k of each direction. For k = 2 and the unit vectors this is the forward
Laplacian: value, Jacobian, and one sum. Within loops and branches nothing is collapsed: there each direction has its
own coefficient of order k, and they are summed up afterwards.

References: Dangel, Siebert, Zeinhofer and Walther, "Collapsing Taylor mode automatic differentiation", NeurIPS 2025;
Li et al., "A computational framework for neural network-based variational Monte Carlo with forward Laplacian", Nature
Machine Intelligence 6 (2024).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
from jax import lax

from admodes.modes.dual import Dual, bind_without_rule, push_duals
from admodes.modes.interpreter import INTERPRETER, Interpreter
from admodes.program import jax_compat as jc
from admodes.program.derived import merge, present
from admodes.program.evaluate import bind
from admodes.rules.recurrences import plus
from admodes.rules.table import ProgramRule, lookup
from admodes.series.interpreter import Taylor
from admodes.series.numbers import fixed
from admodes.series.subprograms import INLINED


@dataclass(frozen=True, eq=False)
class Fan:
    """Coefficients along many directions: those below the order, each an array with a leading axis over the
    directions, and the sum of the highest; None is zero."""

    below: tuple
    total: Any = None


@dataclass(frozen=True, eq=False)
class Bundle:
    """A value and its :class:`Fan`; with ``tangent`` None it is a constant."""

    primal: Any
    tangent: Fan | None = None


@dataclass(frozen=True, eq=False)
class Collapsed(Interpreter):
    """Pushes bundles of series of one order. ``weights`` has an entry for each direction; None: they are all 1."""

    order: int = 2
    weights: Any = None

    dual: ClassVar[type] = Bundle

    def push_equation(self, primitive, duals: Sequence[Bundle], params: dict) -> list:
        primals = [x.primal for x in duals]
        if all(x.tangent is None for x in duals):
            return list(map(Bundle, bind(primitive, primals, params)))
        if primitive in INLINED:
            return push_duals(self, INLINED[primitive](params), duals)
        rule = lookup(primitive)
        if rule is None:
            return list(map(Bundle, bind_without_rule(primitive, primals, params)))
        if isinstance(rule, ProgramRule):
            tangents = [x.tangent for x in duals]
            return list(map(Bundle, *self.push_function(lambda *xs: rule.run(*xs, **params), primals, tangents)))
        outs = bind(primitive, primals, params)
        below = self._each(primitive, duals, params, len(outs))
        totals = self._linear(primitive, duals, params, len(outs))
        return [
            Bundle(out, _fan(own[:-1], plus(self._sum(own[-1]), total)))
            for out, own, total in zip(outs, below, totals, strict=True)
        ]

    def _each(self, primitive, duals, params, n: int) -> list:
        """For each result its coefficients along each direction, of the highest order the part of lower orders."""
        lower = tuple(c for x in duals for c in self._below(x))
        on = present(lower)
        if not any(on):
            return [[None] * self.order] * n
        found: list = []
        _use_again(params)

        def along(given):
            coefficients, m = merge(on, given), self.order - 1
            operands = [fixed(x.primal, [*coefficients[i * m : (i + 1) * m], None]) for i, x in enumerate(duals)]
            outs = Taylor(order=self.order, stores=False).push_equation(primitive, operands, params)
            flat = [y[k] for y in outs for k in range(1, self.order + 1)]
            found[:] = present(flat)
            return [c for c in flat if c is not None]

        results = jax.vmap(along)([c for c in lower if c is not None])
        flat = merge(found, results)
        return [list(flat[i * self.order : (i + 1) * self.order]) for i in range(n)]

    def _below(self, x: Bundle) -> tuple:
        return (None,) * (self.order - 1) if x.tangent is None else x.tangent.below

    def _linear(self, primitive, duals, params, n: int) -> list:
        """J Σ x_k"""
        totals = [Dual(x.primal, None if x.tangent is None else x.tangent.total) for x in duals]
        if all(x.tangent is None for x in totals):
            return [None] * n
        _use_again(params)
        return [y.tangent for y in INTERPRETER.push_equation(primitive, totals, params)]

    def _sum(self, c):
        if c is None:
            return None
        if self.weights is not None:
            weights = lax.convert_element_type(self.weights, c.dtype)
            c = lax.mul(c, lax.broadcast_in_dim(weights, c.shape, (0,)))
        return lax.reduce_sum(c, (0,))


def _use_again(params: dict) -> None:
    """Let the functions of a custom rule count as not called: JAX expects them to be called once."""
    for fun in params.get("subfuns", ()):
        if hasattr(fun, "stores"):
            jc.forget_call(fun)


def _fan(below, total) -> Fan | None:
    return None if total is None and not any(present(below)) else Fan(tuple(below), total)


def collapsed(fun: Callable, leaves: Sequence, directions: Sequence, weights: Any, order: int) -> tuple:
    """(f(x), coefficients below the order, Σ_d w_d f_{d,k}) along the lines x + t v_d, for a flat function.

    ``directions`` are the v_d, for each leaf of x an array with a leading axis over them. The coefficients are not
    multiplied by factorials. Below the order there is a list for each, from 1 on, of arrays with that axis.
    """
    fans = [Fan((v, *(None,) * (order - 2))) for v in directions]
    outs, found = Collapsed(order=order, weights=weights).push_function(fun, leaves, fans)
    n = len(directions[0])

    def coefficient(y, fan, k):
        c = None if fan is None else fan.total if k == order else fan.below[k - 1]
        if c is not None:
            return c
        zero = jc.zeros(jc.typeof(y))
        return zero if k == order else lax.broadcast(zero, (n,))

    each = [[coefficient(y, f, k) for y, f in zip(outs, found, strict=True)] for k in range(1, order + 1)]
    return outs, each[:-1], each[-1]
