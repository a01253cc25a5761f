r"""Derivatives where 0 meets infinity: the limit of those beside the point, or the strong zero, or NaN.

Where a derivative is not finite there are three cases. A selection leaves an entry out, on one side at least: its
influence is a zero that stays one, whatever slope it meets (``linear/strong.py``). Or a slope vanishes at the point
only, and what it meets explodes there, as in exp(log x) at 0: the product has a limit. Or there is none.

Points beside x say which of them it is. There no factor vanishes that does not vanish on a whole neighbourhood, so
strong zeros are right, and the derivatives D(δ), D(2δ), D(4δ) at x + kδv tell by extrapolation, 2 D(δ) - D(2δ), whether
there is a limit. The step δ is the root of the rounding error, relative to the entries.

Reference: Richardson, Phil. Trans. A 210 (1911); for the limits of gradients, Clarke, Optimization and Nonsmooth
Analysis (1983), theorem 2.5.1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jax import lax
from jax.tree_util import tree_flatten, tree_leaves, tree_map, tree_unflatten

from admodes.nonsmooth.approach import generic_direction
from admodes.program import jax_compat as jc

STEPS = (1, 2, 4)
# by the bits of a number: what two extrapolations may differ by, relatively, and what counts as zero: the noise, eps/δ
TOLERANCES = {64: (1e-6, 1e-7), 32: (1e-3, 1e-3), 16: (1e-1, 1e-1)}


def settled(derivative, strong_at: Callable, args: tuple, direction=None):
    """``derivative``, its entries that are not finite replaced by what they are beside ``args``, if that is known.

    ``strong_at(*args)`` is the derivative with strong zeros, of the same structure. Along a ``direction`` that side is
    looked at, and the opposite one where it leads out of the domain; otherwise two in general position.
    """
    leaves = [x for x in tree_leaves(derivative) if _is_number(x)]
    finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in leaves])) if leaves else True

    def found():
        return _limits(derivative, strong_at, args, direction)

    if isinstance(finite, jc.Tracer):
        return lax.cond(finite, lambda: derivative, found)
    return derivative if finite else found()


def _is_number(x) -> bool:
    return jc.is_array(x) and jc.is_differentiable(jc.typeof(x))


def two_sided(derivative, at: Callable, args: tuple):
    """The limits of ``at(*args)`` beside the point where those from two sides agree, elsewhere ``derivative``."""
    leaves, tree = tree_flatten(derivative)
    results = []
    for x, halves in zip(leaves, _sides(at, args, generic_direction(args)), strict=True):
        if halves is None:
            results.append(x)
            continue
        (first, known, *_), (last, both, *_) = halves
        same = known & both & _close(first, last)
        results.append(jnp.where(same, first, x).astype(x.dtype))
    return tree_unflatten(tree, results)


def _limits(derivative, strong_at, args, direction):
    plain, tree = tree_flatten(derivative)
    strong = tree_leaves(strong_at(*args))
    given = generic_direction(args) if direction is None else direction
    results = []
    for x, s, halves in zip(plain, strong, _sides(strong_at, args, given), strict=True):
        if halves is None:
            results.append(x)
            continue
        if direction is not None:
            halves = [tuple(jnp.where(halves[0][-1], b, a) for a, b in zip(*halves, strict=True))]
        results.append(jnp.where(jnp.isfinite(x), x, _chosen(x, s, halves)).astype(x.dtype))
    return tree_unflatten(tree, results)


def _sides(at: Callable, args, direction) -> list:
    """For each array of the derivative what :func:`_limit` says on both sides; None for those that are no numbers."""
    points = [_moved(args, direction, side * k) for side in (1.0, -1.0) for k in STEPS]
    stacked = zip(*(tree_leaves(d) for d in _at_all(at, points)), strict=True)
    n = len(STEPS)
    return [(_limit(*found[:n]), _limit(*found[n:])) if _is_number(found[0]) else None for found in stacked]


def _at_all(strong_at, points: Sequence) -> list:
    """The derivative at each point: one after the other; as a loop if they are traced, so that it is compiled once."""
    if not any(isinstance(x, jc.Tracer) for x in tree_leaves(points)):
        return [strong_at(*point) for point in points]
    stacked = tree_map(lambda *xs: jnp.stack(xs), *points)
    found = lax.map(lambda point: strong_at(*point), stacked)
    return [tree_map(lambda x, k=k: x[k], found) for k in range(len(points))]


def _moved(args, direction, steps: float):
    """``args`` moved by so many steps along the direction."""

    def move(x, v):
        if not _is_number(jc.canonicalize(x)):
            return x
        x, v = jnp.asarray(x), jnp.asarray(v)
        size = jnp.where(jnp.isfinite(x), jnp.abs(x), 0)
        largest = jnp.max(size, initial=0.0)
        unit = jnp.where(size > 0, size, jnp.where(largest > 0, jnp.minimum(largest, 1.0), 1.0))
        way = v.astype(x.dtype) / length.astype(x.dtype)
        step = steps * float(jnp.finfo(x.dtype).eps) ** 0.5 * unit.astype(x.dtype) * way
        return jnp.where(jnp.isfinite(x), x + step, x)

    (leaves, tree), ways = tree_flatten(args), tree_leaves(direction)
    longest = [jnp.max(jnp.abs(v), initial=0.0).astype(jnp.float32) for v in ways if _is_number(v)]
    length = jnp.max(jnp.stack(longest))
    return tree_unflatten(tree, [move(x, v) for x, v in zip(leaves, ways, strict=True)])


def _limit(d1, d2, d4) -> tuple:
    """On one side: the limit, whether it is known, whether derivatives grow beyond all bounds, whether they are NaN."""
    tolerance, floor = TOLERANCES[jnp.finfo(d1.dtype).bits]
    once, twice = 2 * d1 - d2, 2 * d2 - d4
    scale = jnp.maximum(jnp.maximum(jnp.abs(d1), jnp.abs(d2)), jnp.abs(d4))
    known = jnp.isfinite(once) & (jnp.abs(once - twice) <= tolerance * scale + floor)
    grows = jnp.isinf(d1) | (jnp.abs(d1) > jnp.abs(d4))
    return once, known, grows, jnp.isnan(d1)


def _close(a, b):
    tolerance, floor = TOLERANCES[jnp.finfo(a.dtype).bits]
    return jnp.abs(a - b) <= tolerance * jnp.maximum(jnp.abs(a), jnp.abs(b)) + floor


def _moving_as(value, limit):
    """``value`` with the derivatives of ``limit``, the same but for rounding: those of a strong zero are zero."""
    return lax.stop_gradient(value) + (limit - lax.stop_gradient(limit))


def _chosen(plain, strong, sides: Sequence[tuple]):
    """Of an entry that is not finite: the strong zero if it is a limit, or between two; else the limit; else NaN."""
    nan = plain * jnp.nan  # and so are its derivatives
    accepted, at_point = jnp.zeros(plain.shape, bool), strong
    for limit, known, *_ in sides:
        same = known & _close(limit, strong)
        at_point = jnp.where(same & ~accepted, _moving_as(strong, limit), at_point)
        accepted |= same
    (first, known, grows, lost), (last, both, grow, lost_too) = sides[0], sides[-1]
    if not jnp.iscomplexobj(plain):
        between = (jnp.minimum(first, last) <= strong) & (strong <= jnp.maximum(first, last))
        accepted |= known & both & between
    unbounded = (grows | grow) & (grows | lost) & (grow | lost_too)
    accepted |= ~known & ~both & unbounded  # it is the value at the point alone
    accepted &= jnp.isfinite(strong)
    agreed = jnp.where(known & both & ~_close(first, last), nan, jnp.where(known, first, jnp.where(both, last, nan)))
    infinite = jnp.isinf(strong) & ~(known & both & _close(first, last))
    return jnp.where(accepted, at_point, jnp.where(infinite, strong, agreed))
