"""Structural primitives: they move entries."""
from __future__ import annotations

import numpy as np
from jax import lax

from admodes.rules.table import bilinear, linear, pattern_by_pull, pattern_by_push

linear(
    lax.transpose_p,
    lambda g, x, *, permutation: lax.transpose(g, np.argsort(permutation)),
    pattern=pattern_by_push,
)


def _pull_broadcast_in_dim(g, x, *dyn_shape, shape, broadcast_dimensions, sharding):
    expanded = [i for i in range(len(shape)) if i not in broadcast_dimensions]
    ones = [d for i, d in enumerate(broadcast_dimensions) if x.shape[i] == 1 and shape[d] != 1]
    axes = tuple(sorted(expanded + ones))
    return lax.reshape(lax.reduce_sum(g, axes), x.shape)


linear(lax.broadcast_in_dim_p, _pull_broadcast_in_dim, pattern=pattern_by_push)


def _pull_reduce_sum(g, x, *, axes, out_sharding=None):
    kept = [i for i in range(len(x.shape)) if i not in axes]
    return lax.broadcast_in_dim(g, x.shape, kept)


linear(lax.reduce_sum_p, _pull_reduce_sum, pattern=pattern_by_pull)
linear(
    lax.select_n_p,
    lambda g, which, *cases: [None, *(lax.select_n(which, *[g if i == k else lax.full_like(g, 0) for k in range(len(cases))]) for i in range(len(cases)))],
    places=None,
)
linear(lax.convert_element_type_p, lambda g, x, **_: lax.convert_element_type(g, x.dtype), pattern=pattern_by_push)
