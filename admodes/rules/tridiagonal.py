r"""Eigenvalues of symmetric tridiagonal matrices: ``jax.scipy.linalg.eigh_tridiagonal``.

JAX finds them by bisection, through which no derivative passes: each is ẇₖ = vₖᵀ Ṫ vₖ, and of the vectors
V̇ = V (F ⊙ Vᵀ Ṫ V) with Fⱼₖ = 1 / (wₖ - wⱼ). The vectors come from the dense matrix, which costs n³.

Reference: Magnus, Econometric Theory 1 (1985), theorem 1.
"""

from __future__ import annotations

import jax
from jax import lax
from jax import numpy as jnp

from admodes.program import jax_compat as jc


def _dense(d, e):
    return jnp.diag(d) + jnp.diag(e, 1) + jnp.diag(e, -1)


def _tangents(d, e, dt, et, w, *vectors):
    """Of the eigenvalues w (all, or some that follow one another), and of their vectors if there are any."""
    every, v = jnp.linalg.eigh(_dense(d, e))
    start = jnp.argmin(jnp.abs(every - w[0]))
    chosen = vectors[0] if vectors else lax.dynamic_slice_in_dim(v, start, w.size, 1)
    moved = _dense(dt, et) @ chosen
    dw = jnp.sum(chosen * moved, 0)
    if not vectors:
        return (dw,)
    own = jnp.arange(d.size)[:, None] == start + jnp.arange(w.size)
    gaps = jnp.where(own, 1, every[start + jnp.arange(w.size)] - every[:, None])
    return dw, v @ jnp.where(own, 0, v.T @ moved / gaps)


def _eigh_tridiagonal(fun, primals, tangents):
    outs = fun(*primals)
    args = (*primals[:2], *tangents[:2], *outs)
    axes = [0 if x.ndim > 1 else None for x in (*primals[:2], *tangents[:2])]
    batched = any(axis == 0 for axis in axes)
    rule = jax.vmap(_tangents, (*axes, *(0 for _ in outs))) if batched else _tangents
    return outs, tuple(rule(*args))


jc.own_derivative("eigh_tridiagonal", _eigh_tridiagonal)
