"""Computing something a second time where the compiler would rather keep the first result.

XLA merges equal expressions, and on CPU it removes ``optimization_barrier`` before it does: what is to be computed
again for the sake of memory would be kept after all, or computed again long before it is needed.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
from jax import lax

from admodes.program import jax_compat as jc


def after(seeds: Sequence, values):
    """The leaves of ``values``, unchanged, but for all that a compiler can tell only known once a seed is.

    Each is select(p, x, 0) for a condition p on the bits of a seed that is always true: the number of ones in a word is
    at most its length, which XLA does not use. A select costs a pass over the value, mostly fused into its use; its
    derivative is a select, so that derivatives of any order, and batches, are computed again as well.
    """
    seed = next((s for s in seeds if s is not None and s.size and jc.is_differentiable(jc.typeof(s))), None)
    if seed is None:
        return values
    if jc.is_laid_out(jc.typeof(seed)):
        return lax.optimization_barrier((values, seed))[0]
    seed = seed if jc.is_real(seed) else lax.real(seed)
    first = lax.reshape(lax.slice(seed, (0,) * seed.ndim, (1,) * seed.ndim), ())
    word = np.dtype(f"uint{8 * first.dtype.itemsize}")
    ones = lax.population_count(lax.bitcast_convert_type(first, word))
    always = lax.le(ones, np.array(8 * word.itemsize, word))
    return jax.tree_util.tree_map(lambda x: _chosen(always, x), values)


def _chosen(always, x):
    if jc.is_extended(jc.dtype_of(x)) or jc.dtype_of(x) == jc.float0:
        return x
    return lax.select(lax.broadcast(always, np.shape(x)), x, lax.full_like(x, 0))
