r"""Decisions on Taylor numbers: at a kink the piece that the series enters for t > 0.

Where two values tie, the first coefficient that differs decides: x(t) > y(t) for all small t > 0. Comparisons know both
answers, at the point and beside it. Values are those at the point; what a mask selects, by the answer beside it, are
the coefficients. Equalities keep the answer that they have at the point: they guard it (``where(x == 0, ...)``).

As in ``nonsmooth/decisions.py``, where numbers have one coefficient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jax import lax

from admodes.linear.maps import expand
from admodes.program import jax_compat as jc
from admodes.program.derived import present
from admodes.program.traits import traits
from admodes.series.numbers import Series, Terms, fixed


def decision_of(primitive, operands: Sequence[Series]) -> Callable | None:
    """The decision of an equation on real numbers; None if it is smooth, or decided at the point."""
    decide = DECISIONS.get(traits(primitive).kink)  # type: ignore[arg-type]
    return decide if decide is not None and all(jc.is_real(x.primal) or not x.moves for x in operands) else None


def order(a: Series, b: Series, shape) -> tuple:
    """Two masks: where a > b beside the point, and where all that is known of a and b is equal."""
    greater, equal = _level(a.primal, b.primal, shape)
    for k in range(1, max(len(a.known), len(b.known)) + 1):
        x, y = a[k], b[k]
        if x is None and y is None:
            continue
        like = y if x is None else x
        zero = lax.full_like(like, 0)
        more, same = _level(zero if x is None else x, zero if y is None else y, shape)
        greater = lax.bitwise_or(greater, lax.bitwise_and(equal, more))
        equal = lax.bitwise_and(equal, same)
    return greater, equal


def _level(x, y, shape) -> tuple:
    x, y = expand(x, shape), expand(y, shape)
    return lax.gt(x, y), lax.eq(x, y)


def _shape(operands) -> tuple:
    return np.broadcast_shapes(*(np.shape(x.primal) for x in operands))


def _selected(mask, a: Series, b: Series, value) -> Series:
    """``value`` with the coefficients of a where the mask holds, of b elsewhere."""
    shape = np.shape(mask)

    def at(k):
        x, y = a[k], b[k]
        if x is None and y is None:
            return None
        zero = lax.full(shape, 0, (y if x is None else x).dtype)
        return lax.select(mask, *(zero if c is None else expand(c, shape) for c in (x, y)))

    if any(x.tangent is not None and x.tangent.rule for x in (a, b)):
        return Series(value, Terms(rule=at))
    return fixed(value, [at(k) for k in range(1, max(len(a.known), len(b.known)) + 1)])


def _extreme(larger: bool) -> Callable:
    def decide(interpreter, primitive, operands, params):
        a, b = operands
        shape = _shape(operands)
        out = primitive.bind(a.primal, b.primal, **params)
        other, _ = order(b, a, shape) if larger else order(a, b, shape)
        return [_selected(other, b, a, out)]

    return decide


def _clamp(interpreter, primitive, operands, params):
    low, x, high = operands
    shape = np.shape(x.primal)
    out = primitive.bind(low.primal, x.primal, high.primal, **params)
    below, above = order(low, x, shape)[0], order(x, high, shape)[0]
    return [_selected(above, high, _selected(below, low, x, out), out)]


def _abs(interpreter, primitive, operands, params):
    (x,) = operands
    negative, _ = order(Series(lax.full_like(x.primal, 0)), x, np.shape(x.primal))

    def turned(k):
        return None if x[k] is None else lax.select(negative, lax.neg(x[k]), x[k])

    return [Series(primitive.bind(x.primal, **params), Terms(rule=turned))]


def _comparison(answer: Callable) -> Callable:
    def decide(interpreter, primitive, operands, params):
        a, b = operands
        greater, equal = order(a, b, _shape(operands))
        less, _ = order(b, a, _shape(operands))
        beside = answer(greater, less, equal)
        if interpreter.family is not None:  # within a slope, which is wanted beside the point
            return [Series(beside)]
        return [Series(primitive.bind(a.primal, b.primal, **params), Terms(beside=beside))]

    return decide


def _reduce_extreme(largest: bool) -> Callable:
    def decide(interpreter, primitive, operands, params):
        (x,) = operands
        axes = tuple(sorted(params["axes"]))
        reduce = lax.reduce_max if largest else lax.reduce_min
        worst = -np.inf if largest else np.inf
        out = primitive.bind(x.primal, **params)
        hits = lax.eq(x.primal, _repeated(out, x.primal.shape, axes))
        for c in x.known:
            if c is not None:
                best = reduce(lax.select(hits, c, lax.full_like(c, worst)), axes)
                hits = lax.bitwise_and(hits, lax.eq(c, _repeated(best, c.shape, axes)))
        count = lax.reduce_sum(lax.convert_element_type(hits, x.primal.dtype), axes)

        def at(k):
            c = x[k]
            if c is None:
                return None
            return lax.div(lax.reduce_sum(lax.select(hits, c, lax.full_like(c, 0)), axes), count)

        return [Series(out, Terms(rule=at))]

    return decide


def _repeated(reduced, shape, axes):
    return lax.broadcast_in_dim(reduced, shape, [a for a in range(len(shape)) if a not in axes])


def _sort(interpreter, primitive, operands, params):
    """Keys at ties are ordered by their coefficients; those of all operands travel along."""
    flat: list = []
    places: list = []
    keys = 0
    for i, x in enumerate(operands):
        own = [x.primal, *x.known] if x.moves else [x.primal]
        places.append([None if c is None else len(flat) + sum(present(own[:j])) for j, c in enumerate(own)])
        flat += [c for c in own if c is not None]
        keys = len(flat) if i < params["num_keys"] else keys
    outs = primitive.bind(*flat, **dict(params, num_keys=keys))
    return [fixed(outs[place], [None if k is None else outs[k] for k in rest]) for place, *rest in places]


DECISIONS: dict[str, Callable] = {
    "larger": _extreme(larger=True),
    "smaller": _extreme(larger=False),
    "between": _clamp,
    "modulus": _abs,
    "greater": _comparison(lambda greater, less, equal: greater),
    "less": _comparison(lambda greater, less, equal: less),
    "not less": _comparison(lambda greater, less, equal: lax.bitwise_or(greater, equal)),
    "not greater": _comparison(lambda greater, less, equal: lax.bitwise_or(less, equal)),
    "largest": _reduce_extreme(largest=True),
    "smallest": _reduce_extreme(largest=False),
    "order": _sort,
}
