r"""Discrete decisions, made beside the point: for each kind of kink or jump, the piece that holds at x + εv.

The rule table says which primitive has which kink (the trait ``kink``).

Each entry takes germs and returns germs. Its values are computed by primitives without kinks, from the operands and
masks that are constants; so they agree with the primitive's (where it does not jump) and have the piece's derivative.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import jax
import numpy as np
from jax import lax

from admodes.errors import UnsupportedPrimitiveError
from admodes.linear.maps import expand
from admodes.nonsmooth.germs import Germ, detach, order, same, side
from admodes.program import jax_compat as jc

# -- choosing ----------------------------------------------------------------------------------------------


def choose(mask, on_true: Germ, on_false: Germ) -> Germ:
    """One germ or the other, entry by entry."""
    rate = None
    if on_true.tangent is not None or on_false.tangent is not None:
        rate = lax.select(mask, _rate(on_true, mask.shape), _rate(on_false, mask.shape))
    return Germ(lax.select(mask, expand(on_true.primal, mask.shape), expand(on_false.primal, mask.shape)), rate)


def _rate(germ: Germ, shape):
    primal = jc.typeof(germ.primal)
    return lax.full(shape, 0, primal.dtype) if germ.tangent is None else expand(germ.tangent, shape)


def _shape(germs: Sequence[Germ]) -> tuple:
    return np.broadcast_shapes(*(np.shape(g.primal) for g in germs))


def maximum(a: Germ, b: Germ) -> Germ:
    """The larger one beside x (NaN if either is); at a tie that lasts, the first."""
    shape = _shape((a, b))
    later, _ = order(b, a, shape)
    return choose(lax.bitwise_or(later, expand(_is_nan(b), shape)), b, a)


def minimum(a: Germ, b: Germ) -> Germ:
    """The smaller one beside x (NaN if either is); at a tie that lasts, the first."""
    shape = _shape((a, b))
    earlier, _ = order(a, b, shape)
    return choose(lax.bitwise_or(earlier, expand(_is_nan(b), shape)), b, a)


def _equal(a, b, shape):
    return order(a, b, shape)[1]


def _is_nan(a: Germ):
    x = detach(a.primal)
    return lax.ne(x, x)


def _not(mask):
    return lax.bitwise_not(mask)


def _max(interpreter, primitive, germs, params):
    return [maximum(*germs)]


def _min(interpreter, primitive, germs, params):
    return [minimum(*germs)]


def _clamp(interpreter, primitive, germs, params):
    low, x, high = germs
    shape = np.shape(x.primal)
    below, above = order(low, x, shape)[0], order(x, high, shape)[0]
    return [choose(above, high, choose(below, low, x))]


def _abs(interpreter, primitive, germs, params):
    (z,) = germs
    if not jc.is_real(z.primal):
        return [_modulus(z)]
    _, negative = side(z)
    return [choose(negative, Germ(lax.neg(z.primal), lax.neg(z.tangent)), z)]


# -- norms -------------------------------------------------------------------------------------------------


def _root_at_zero(zero, half, second) -> tuple:
    """Where s = Σ yₖ² is zero: √s = ε √second; as a function of x it has there the gradient of half / √second."""
    rate = lax.sqrt(second)
    moves = lax.gt(rate, lax.full_like(rate, 0))
    unit = lax.div(half, lax.select(moves, rate, lax.full_like(rate, 1)))
    return lax.select(lax.bitwise_and(zero, moves), unit, lax.full_like(unit, 0)), rate


def _sqrt_of_squares(s: Germ, root: Callable) -> Germ:
    assert s.square is not None
    at = detach(s.primal)
    zero = same(at, lax.full_like(at, 0))
    one = lax.full_like(at, 1)
    regular = root(lax.select(zero, one, s.primal))
    unit, rate = _root_at_zero(zero, s.square.half, detach(s.square.second))
    slope = lax.div(s.tangent, lax.mul(lax.full_like(at, 2), root(lax.select(zero, one, at))))
    return Germ(lax.select(zero, unit, regular), lax.select(zero, rate, slope))


def _modulus(z: Germ) -> Germ:
    r"""|z|, at z = 0 with rate |ż| and derivative t ↦ Re(t conj ż)/|ż|."""
    at = detach(z.primal)
    radius = lax.abs(at)
    zero = same(radius, lax.full_like(radius, 0))
    rate = lax.abs(z.tangent)
    half = lax.real(lax.mul(z.primal, lax.conj(z.tangent)))
    unit, rate = _root_at_zero(zero, half, lax.square(rate))
    one = lax.full_like(at, 1)
    slope = lax.div(lax.real(lax.mul(lax.conj(at), z.tangent)), lax.select(zero, lax.full_like(radius, 1), radius))
    return Germ(lax.select(zero, unit, lax.abs(lax.select(zero, one, z.primal))), lax.select(zero, rate, slope))


def _sqrt(interpreter, primitive, germs, params):
    (s,) = germs
    if s.square is None:
        return interpreter.push_local(primitive, germs, params)
    return [_sqrt_of_squares(s, lambda x: primitive.bind(x, **params))]


def _pow(interpreter, primitive, germs, params):
    """The power 1/2 of squares is their root; below ``jit`` the exponent may be known only when it runs."""
    s, exponent = germs
    plain = interpreter.push_local(primitive, germs, params)
    if s.square is None or exponent.tangent is not None or not jc.is_real(exponent.primal):
        return plain
    root = _sqrt_of_squares(s, lambda x: primitive.bind(x, exponent.primal, **params))
    half = same(exponent.primal, np.array(0.5, jc.dtype_of(exponent.primal)))
    return [choose(expand(half, np.shape(s.primal)), root, plain[0])]


# -- comparisons and jumps ---------------------------------------------------------------------------------


def _comparison(answer: Callable) -> Callable:
    def decide(interpreter, primitive, germs, params):
        a, b = germs
        shape = _shape(germs)
        if not jc.is_real(a.primal):  # complex numbers are compared for equality only
            parts = [Germ(part(a.primal), None if a.tangent is None else part(a.tangent)) for part in _PARTS]
            others = [Germ(part(b.primal), None if b.tangent is None else part(b.tangent)) for part in _PARTS]
            equal = lax.bitwise_and(*(_equal(x, y, shape) for x, y in zip(parts, others, strict=True)))
            return [Germ(answer(None, None, equal))]
        greater, equal = order(a, b, shape)
        return [Germ(answer(greater, order(b, a, shape)[0], equal))]

    return decide


_PARTS = (lax.real, lax.imag)


def _sign(interpreter, primitive, germs, params):
    (x,) = germs
    positive, negative = side(x)
    at = primitive.bind(detach(x.primal))
    up = lax.select(positive, lax.full_like(at, 1), at)
    return [Germ(lax.select(negative, lax.full_like(at, -1), up))]


def _moving(x: Germ) -> tuple:
    """Masks: where x increases, and where it decreases."""
    return side(Germ(lax.full_like(x.primal, 0), x.tangent))


def _floor(interpreter, primitive, germs, params):
    (x,) = germs
    at = detach(x.primal)
    down = lax.floor(at)
    falls = lax.bitwise_and(same(at, down), _moving(x)[1])
    return [Germ(lax.select(falls, lax.sub(down, lax.full_like(at, 1)), down))]


def _ceil(interpreter, primitive, germs, params):
    (x,) = germs
    at = detach(x.primal)
    up = lax.ceil(at)
    rises = lax.bitwise_and(same(at, up), _moving(x)[0])
    return [Germ(lax.select(rises, lax.add(up, lax.full_like(at, 1)), up))]


def _round(interpreter, primitive, germs, params):
    (x,) = germs
    at = detach(x.primal)
    half = same(lax.sub(at, lax.floor(at)), lax.full_like(at, 0.5))
    rises, falls = _moving(x)
    out = lax.select(lax.bitwise_and(half, rises), lax.ceil(at), primitive.bind(at, **params))
    return [Germ(lax.select(lax.bitwise_and(half, falls), lax.floor(at), out))]


def _towards_zero(x: Germ):
    """The whole number that x is cut down to, beside x."""
    at = detach(x.primal)
    cut = lax.mul(lax.sign(at), lax.floor(lax.abs(at)))
    rises, falls = _moving(x)
    zero = lax.full_like(at, 0)
    inward = lax.bitwise_or(lax.bitwise_and(lax.gt(at, zero), falls), lax.bitwise_and(lax.lt(at, zero), rises))
    leaves = lax.bitwise_and(same(at, cut), inward)
    return lax.select(leaves, lax.sub(cut, lax.sign(at)), cut)


def _convert(interpreter, primitive, germs, params):
    (x,) = germs
    dtype = params["new_dtype"]
    if jax.dtypes.issubdtype(dtype, np.inexact) or not jc.is_real(x.primal):
        return interpreter.push_local(primitive, germs, params)
    if np.issubdtype(dtype, np.bool_):
        positive, negative = side(x)
        nan = _is_nan(x)
        return [Germ(lax.bitwise_or(nan, lax.bitwise_or(positive, negative)))]
    return [Germ(primitive.bind(_towards_zero(x), **params))]


def _rem(interpreter, primitive, germs, params):
    r"""x - trunc(x/y) y: where y divides x and |x/y| falls, the quotient is one less and the rest |y| more."""
    (rest,) = interpreter.push_local(primitive, germs, params)
    at = detach(rest.primal)
    x, y = (expand(jax.numpy.asarray(detach(g.primal)), at.shape) for g in germs)
    sign = lax.sign(x)
    zero = lax.full_like(at, 0)
    inward = lax.lt(lax.mul(sign, lax.select(same(at, zero), rest.tangent, zero)), zero)
    step = lax.mul(sign, lax.mul(lax.sign(y), expand(jax.numpy.asarray(germs[1].primal), x.shape)))
    pace = lax.mul(lax.mul(sign, lax.sign(y)), _rate(germs[1], x.shape))
    return [choose(inward, Germ(lax.add(rest.primal, step), lax.add(rest.tangent, pace)), rest)]


# -- extremes along axes -----------------------------------------------------------------------------------


def _winner(x: Germ, axes, largest: bool):
    """A mask with one entry along ``axes``: the extreme one beside x, the first where a tie lasts; none if x is NaN.

    The rates are compared once, by argmax: a compiler may compute them twice, and not to the same last digit.
    """
    at, rank = detach(x.primal), x.primal.ndim
    reduce = lax.reduce_max if largest else lax.reduce_min
    worst = np.array(-np.inf if largest else np.inf, at.dtype)
    hits = same(at, _repeat(reduce(at, axes), at.shape, axes))
    rates = lax.select(hits, x.tangent, lax.full_like(at, worst))
    order_of_axes = [a for a in range(rank) if a not in axes] + list(axes)
    front = [at.shape[a] for a in order_of_axes]
    rows = lax.reshape(
        lax.transpose(rates, order_of_axes), (*front[: rank - len(axes)], math.prod(front[rank - len(axes) :]))
    )
    last = rows.ndim - 1
    best = (lax.argmax if largest else lax.argmin)(rows, last, np.int32)
    mask = same(lax.broadcasted_iota(np.int32, rows.shape, last), lax.expand_dims(best, (last,)))
    back = [order_of_axes.index(a) for a in range(rank)]
    return lax.bitwise_and(hits, lax.transpose(lax.reshape(mask, front), back))


def _repeat(reduced, shape, axes):
    return lax.broadcast_in_dim(reduced, shape, [a for a in range(len(shape)) if a not in axes])


def _reduce_extreme(largest: bool) -> Callable:
    def decide(interpreter, primitive, germs, params):
        (x,) = germs
        axes = tuple(sorted(params["axes"]))
        mask = _winner(x, axes, largest)
        zero = lax.full_like(x.primal, 0)
        found = lax.reduce_or(mask, axes)
        value = lax.reduce_sum(lax.select(mask, x.primal, zero), axes)
        rate = lax.reduce_sum(lax.select(mask, x.tangent, zero), axes)
        fallback = primitive.bind(detach(x.primal), **params)  # NaN
        return [Germ(lax.select(found, value, fallback), rate)]

    return decide


def _arg_extreme(largest: bool) -> Callable:
    def decide(interpreter, primitive, germs, params):
        (x,) = germs
        axes = tuple(params["axes"])
        mask = _winner(x, axes, largest)
        (axis,) = axes
        places = lax.broadcasted_iota(params["index_dtype"], mask.shape, axis)
        index = lax.reduce_sum(lax.select(mask, places, lax.full_like(places, 0)), axes)
        plain = primitive.bind(detach(x.primal), **params)
        return [Germ(lax.select(lax.reduce_or(mask, axes), index, plain))]

    return decide


# -- order -------------------------------------------------------------------------------------------------


def _sort(interpreter, primitive, germs, params):
    """Keys at ties are ordered by their rates; the rates of all operands travel along."""
    n_keys = params["num_keys"]
    operands: list = []
    keys = 0
    place: list = []
    for i, g in enumerate(germs):
        place.append([len(operands), None])
        operands.append(g.primal)
        if g.tangent is not None and i < n_keys:
            place[i][1] = len(operands)
            operands.append(g.tangent)
        keys += (1 + (g.tangent is not None)) * (i < n_keys)
    for i, g in enumerate(germs):
        if g.tangent is not None and i >= n_keys:
            place[i][1] = len(operands)
            operands.append(g.tangent)
    outs = primitive.bind(*operands, **dict(params, num_keys=keys))
    return [Germ(outs[p], None if t is None else detach(outs[t])) for p, t in place]


def _top_k(interpreter, primitive, germs, params):
    """The first of the entries in falling order; at ties that last, those with the smaller index."""
    (x,) = germs
    axis = params["axis"] if "axis" in params else params["reduction_dimension"] % np.ndim(x.primal)
    places = lax.broadcasted_iota(np.int32, x.primal.shape, axis)
    keys = [Germ(lax.neg(x.primal), lax.neg(x.tangent)), Germ(places)]
    values, found = _sort(interpreter, lax.sort_p, keys, {"dimension": axis, "is_stable": True, "num_keys": 1})
    k = params["k"]

    def first(y):
        return lax.slice_in_dim(y, 0, k, axis=axis)

    return [Germ(lax.neg(first(values.primal)), lax.neg(first(values.tangent))), Germ(first(found.primal))]


# -- windows -----------------------------------------------------------------------------------------------


def _window_extreme(largest: bool) -> Callable:
    """The entries of each window, one array per offset, by pairs."""

    def decide(interpreter, primitive, germs, params):
        (x,) = germs
        worst = np.array(-np.inf if largest else np.inf, x.primal.dtype)
        margins = [(lo, hi, d - 1) for (lo, hi), d in zip(params["padding"], params["base_dilation"], strict=True)]
        padded = Germ(lax.pad(x.primal, worst, margins), lax.pad(x.tangent, np.zeros((), x.tangent.dtype), margins))
        shape = jc.typeof(primitive.bind(detach(x.primal), **params)).shape
        strides = params["window_strides"]
        entries = []
        for offset in np.ndindex(*params["window_dimensions"]):
            starts = [k * d for k, d in zip(offset, params["window_dilation"], strict=True)]
            ends = [a + (m - 1) * s + 1 for a, m, s in zip(starts, shape, strides, strict=True)]
            cut = partial(lax.slice, start_indices=starts, limit_indices=ends, strides=strides)
            entries.append(padded.map(cut))
        pick = maximum if largest else minimum
        while len(entries) > 1:
            pairs = [pick(a, b) for a, b in zip(entries[::2], entries[1::2], strict=False)]
            entries = pairs + entries[len(pairs) * 2 :]
        return entries

    return decide


def _refuse(interpreter, primitive, germs, params):
    raise UnsupportedPrimitiveError(primitive.name, jc.current_place(), "cannot be decided beside a point")


DECISIONS: dict[str, Callable] = {
    "larger": _max,
    "smaller": _min,
    "between": _clamp,
    "modulus": _abs,
    "sign": _sign,
    "root": _sqrt,
    "power": _pow,
    "greater": _comparison(lambda greater, less, equal: greater),
    "less": _comparison(lambda greater, less, equal: less),
    "not less": _comparison(lambda greater, less, equal: lax.bitwise_or(greater, equal)),
    "not greater": _comparison(lambda greater, less, equal: lax.bitwise_or(less, equal)),
    "equal": _comparison(lambda greater, less, equal: equal),
    "unequal": _comparison(lambda greater, less, equal: _not(equal)),
    "floor": _floor,
    "ceiling": _ceil,
    "rounding": _round,
    "rest": _rem,
    "cut": _convert,
    "largest": _reduce_extreme(largest=True),
    "smallest": _reduce_extreme(largest=False),
    "place of largest": _arg_extreme(largest=True),
    "place of smallest": _arg_extreme(largest=False),
    "order": _sort,
    "leading": _top_k,
    "largest in windows": _window_extreme(largest=True),
    "smallest in windows": _window_extreme(largest=False),
    "undecided": _refuse,
}
