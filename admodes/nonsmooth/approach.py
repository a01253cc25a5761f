r"""Functions beside a point: the decided program of a user's function, and directions to approach along."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.tree_util import tree_flatten, tree_leaves, tree_unflatten

from admodes.modes.flat import flat_function
from admodes.nonsmooth.lexicographic import Lexicographic
from admodes.program import jax_compat as jc


def beside(fun: Callable, directions: Sequence, interpreter: Lexicographic) -> Callable:
    """``fun`` on the ray x + ε₁v₁ + ε₂v₂ + ... with 0 < ... ≪ ε₂ ≪ ε₁ ≪ 1, as a smooth function of x.

    Each of ``directions`` has the structure of the tuple of arguments.
    """

    def decided(*args):
        leaves, tree = tree_flatten(args)
        flat, result = flat_function(fun, tree, has_aux=False)
        for k, direction in reversed(list(enumerate(directions))):
            flat = _level(replace(interpreter, nested=k > 0), flat, tree_leaves(direction))
        outs = flat(*map(jc.canonicalize, leaves))
        return result.tree.unflatten(outs)

    return decided


def _level(interpreter, flat: Callable, direction) -> Callable:
    def pushed(*leaves):
        rates = [
            jc.canonicalize(v) if jc.is_differentiable(jc.typeof(x)) else None
            for x, v in zip(leaves, direction, strict=True)
        ]
        return interpreter.push_function(flat, leaves, rates)[0]

    return pushed


def generic_direction(args, salt: int = 0):
    """A direction in general position, the same for the same shapes: entries in (-1, 1) hashed from their places.

    Kinks of piecewise linear functions that do not hold along a whole neighbourhood are crossed, not followed, by all
    directions but a set of measure zero; a hash has no linear relations that would put it into that set.
    """
    leaves, tree = tree_flatten(args)
    return tree_unflatten(tree, [_hashed(jc.typeof(x), 3 + salt + 2 * k) for k, x in enumerate(leaves)])


def directions_for(args, direction=None) -> tuple:
    """``direction`` and then a generic one; without it a generic one, or two if 16-bit numbers may collide in one."""
    if direction is not None:
        return direction, generic_direction(args)
    moving = filter(jc.is_differentiable, map(jc.typeof, tree_leaves(args)))
    coarse = any(jax.dtypes.finfo(a.dtype).bits < 32 for a in moving)
    return (generic_direction(args), generic_direction(args, 1)) if coarse else (generic_direction(args),)


def _hashed(aval, salt: int):
    if not jc.is_differentiable(aval):
        return jc.zeros(aval)
    real = np.finfo(aval.dtype).dtype if np.issubdtype(aval.dtype, np.complexfloating) else aval.dtype
    parts = 2 if np.issubdtype(aval.dtype, np.complexfloating) else 1
    count = int(np.prod(aval.shape, dtype=int))
    spread = [_uniform(count, salt + k * 0x51ED27, real) for k in range(parts)]
    flat = lax.complex(*spread) if parts == 2 else spread[0]
    return lax.reshape(flat, aval.shape)


def _uniform(count: int, salt: int, dtype) -> Any:
    """The finaliser of MurmurHash3 (Appleby, 2011) on 0, 1, 2 ..."""
    h = lax.add(lax.iota(np.uint32, count), np.uint32(salt * 0x9E3779B9 % 2**32))
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, None)):
        h = lax.bitwise_xor(h, lax.shift_right_logical(h, np.uint32(shift)))
        if factor is not None:
            h = lax.mul(h, np.uint32(factor))
    whole = lax.bitcast_convert_type(lax.bitwise_or(h, np.uint32(1)), np.int32)  # odd: never zero
    wide = lax.convert_element_type(whole, np.float64 if dtype == np.float64 else np.float32)
    return lax.convert_element_type(lax.mul(wide, wide.dtype.type(2.0**-31)), dtype)


def approached(sweep: Callable, fun: Callable, args: tuple, direction=None) -> tuple:
    """``sweep(decided)`` = (result, gradient, ...) for ``fun`` decided beside ``args``, along ``direction``.

    Where the gradient is not finite and equalities have been decided, the sweep is made again with these answered as
    they are at the point: what they guard there, 0/0 say, does not exist beside it to first order.
    """
    directions, interpreter = directions_for(args, direction), Lexicographic()
    found = sweep(beside(fun, directions, interpreter))
    if not interpreter.met:
        return found

    def guarded():
        return sweep(beside(fun, directions, Lexicographic(guards=True)))

    finite = [jnp.all(jnp.isfinite(g)) for g in tree_leaves(found[1]) if jc.is_differentiable(jc.typeof(g))]
    settled = jnp.all(jnp.stack(finite)) if finite else True
    if isinstance(settled, jc.Tracer):
        return lax.cond(settled, lambda: found, guarded)
    return found if settled else guarded()
