"""The doctor: where a NaN is born, which kinks a point sits on, and what is usually done about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

import jax.numpy as jnp
from jax.tree_util import tree_flatten, tree_leaves, tree_map, tree_unflatten

from admodes.diagnosis import births
from admodes.diagnosis.examine import examine
from admodes.diagnosis.report import Finding, Report, shown_place
from admodes.diagnosis.ties import Kink, kinks, losses
from admodes.errors import NonsmoothError, UnsupportedPrimitiveError
from admodes.nonsmooth.approach import generic_direction
from admodes.nonsmooth.limits import settled
from admodes.program import jax_compat as jc
from admodes.transforms.reverse import strong, vjp
from admodes.transforms.subgradient import directional


def doctor(fun: Callable[..., Any], *args: Any) -> Report:
    r"""Examine a function at a point: the first equation that makes a value or a derivative that is not finite.

    The function is run equation by equation, through jit, scan, while, cond, checkpoints and custom rules; then the
    local Jacobians are walked forward, with a direction in general position, and backward, with ones for the outputs.

    Args:
      fun: the function, with one output or several.
      args: its arguments: arrays, not tracers. All of floating point are differentiated.

    Returns:
      A :class:`~admodes.diagnosis.report.Report`, to be printed, or read: ``report.reverse.source``.

    Raises:
      TypeError: there is nothing to differentiate by, or it is called below ``jit`` or another transformation.

    >>> import admodes, jax.numpy as jnp
    >>> def f(x):
    ...     return jnp.sum(jnp.where(x > 0, jnp.sqrt(x), 0.0))
    >>> report = admodes.doctor(f, jnp.array([4.0, 0.0]))
    >>> report.healthy, report.reverse.primitive, report.reverse.index, report.reverse.masked
    (False, 'sqrt', (1,), True)
    """
    jc.check_callable(fun)
    leaves = tree_leaves(args)
    if any(isinstance(x, jc.Tracer) for x in leaves):
        raise TypeError("admodes.doctor looks at values: call it outside of jit, vmap and other transformations")
    if not any(jc.is_differentiable(jc.typeof(jc.canonicalize(x))) for x in leaves):
        raise TypeError("there is nothing to differentiate by: no argument is of floating point (write 1.0 for 1)")
    log = examine(fun, args)
    found, value = births.values(log)
    moving = [jc.is_differentiable(jc.typeof(x)) for x in log.inputs]
    tangents = [t if on else None for t, on in zip(generic_direction(list(log.inputs)), moving, strict=True)]
    cotangents = [jnp.ones_like(o) if s is not None else None for o, s in zip(log.outs, log.slots, strict=True)]
    back, reverse = births.reverse(log, cotangents)
    _, forward = births.forward(log, tangents)
    seated = _together(kinks(log.steps))
    jumps = bool(seated) and _jumps(fun, args)
    culprits = [b for b in (value, reverse, forward) if b is not None]
    if reverse is not None and value is None:
        zero = _settles_at_zero(fun, args)
        for birth in back if zero is not True else ():
            birth.limit = zero is not None
    others = [b for b in (*found, *back) if b not in culprits and (b.masked_by is not None or b.incoming == 0)]
    return Report(
        getattr(fun, "__name__", type(fun).__name__),
        None if value is None else Finding.of(value),
        None if reverse is None else Finding.of(reverse),
        None if forward is None else Finding.of(forward),
        tuple(_distinct(map(Finding.of, others))),
        tuple(seated),
        tuple(_distinct(losses(log.steps))),
        jumps,
        tuple(dict.fromkeys(COMPARED.format(name, shown_place(place)) for name, place in log.compared)),
    )


COMPARED = (
    "the {} loop in {} reaches its result from an argument by comparisons only, as a bisection does; cure: a rule by "
    "the implicit function theorem (jax.lax.custom_root, jax.custom_jvp), or jax.lax.stop_gradient of that argument"
)


def _settles_at_zero(fun: Callable, args) -> bool | None:
    """True if strong zeros give the derivative; False if it has another limit; None if no limit was found."""
    leaves, tree = tree_flatten(tuple(args))
    leaves = [jnp.asarray(jc.canonicalize(x)) for x in leaves]

    def gradient(safe, *xs):
        y, pullback = (strong if safe else vjp)(lambda *ys: fun(*tree_unflatten(tree, ys)), *xs)
        return pullback(tree_map(jnp.ones_like, y))

    masked = gradient(True, *leaves)
    found = settled(gradient(False, *leaves), partial(gradient, True), tuple(leaves))
    pairs = [(a, b) for a, b in zip(masked, found, strict=True) if jc.is_differentiable(jc.typeof(a))]
    if any(bool(jnp.isnan(b).any()) for _, b in pairs):
        return None
    return all(bool(jnp.all(a == b)) for a, b in pairs)


def _together(found: Iterable[Kink]) -> list[Kink]:
    """Kinks of one line together: the steps of a loop, say."""
    merged: dict = {}
    for kink in found:
        key = (kink.primitive, kink.source, kink.what)
        if key in merged:
            merged[key] = replace(merged[key], count=merged[key].count + kink.count)
        else:
            merged[key] = kink
    return list(merged.values())


def _distinct(found: Iterable) -> list:
    """One of each primitive and line."""
    kept: dict = {}
    for x in found:
        kept.setdefault((x.primitive, x.source), x)
    return list(kept.values())


def _jumps(fun: Callable, args) -> bool:
    """True if the value is not the limit from two opposite directions in general position."""
    leaves, tree = tree_flatten(tuple(args))
    leaves = [jnp.asarray(jc.canonicalize(x)) for x in leaves]
    direction = generic_direction(leaves)
    opposite = [v if v.dtype == jc.float0 else -v for v in direction]
    try:
        for way in (direction, opposite):
            directional(fun, tree_unflatten(tree, leaves), tree_unflatten(tree, way))
    except NonsmoothError as error:
        return error.jump
    except UnsupportedPrimitiveError:
        return False
    return False
