"""Computing something a second time where the compiler would rather keep the first result, and the other way round.

XLA merges equal expressions, and before jaxlib 0.11 it removes ``optimization_barrier`` on the CPU before it does: what
is to be computed again for the sake of memory would be kept after all, or computed again long before it is needed. And
it fuses what makes an array with each of its uses: what is to be computed once would be computed anew for each of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
from jax import lax

from admodes.compilers.workarounds import KEPT_CALLS, SELECTED
from admodes.program import jax_compat as jc


def after(seeds: Sequence, values):
    """The leaves of ``values``, unchanged, but for all that a compiler can tell only known once a seed is.

    Each is select(p, x, 0) for a condition p on a seed that always holds. A select costs a pass over the value, mostly
    fused into its use; its derivative is a select, so that derivatives of any order, and batches, are computed again as
    well.
    """
    arrays = (s for s in seeds if s is not None and jc.is_array(s))
    seed = next((s for s in arrays if np.size(s) and jc.is_differentiable(jc.typeof(s))), None)
    if seed is None:
        return values
    if jc.is_laid_out(jc.typeof(seed)) or not SELECTED.on:
        return lax.optimization_barrier((values, seed))[0]
    holds = always(seed)
    return jax.tree_util.tree_map(lambda x: _chosen(holds, x), values)


def always(seed):
    """A condition on the bits of a seed (not an empty one) that holds, but not for all that XLA can tell.

    The number of ones in a word is at most its length.
    """
    seed = seed if jc.is_real(seed) else lax.real(seed)
    first = lax.reshape(lax.slice(seed, (0,) * np.ndim(seed), (1,) * np.ndim(seed)), ())
    word = np.dtype(f"uint{8 * first.dtype.itemsize}")
    ones = lax.population_count(lax.bitcast_convert_type(first, word))
    return lax.le(ones, np.array(8 * word.itemsize, word))


def stored(arrays: Sequence) -> list:
    """The arrays, unchanged, each computed once however often it is used: on CPU they pass a call that stays one."""
    if any(jc.is_laid_out(jc.typeof(x)) for x in arrays) or not KEPT_CALLS.enabled:
        return _barred(arrays)
    return lax.platform_dependent(list(arrays), cpu=jc.kept_call(list), default=_barred) if arrays else []


def _barred(arrays: Sequence) -> list:
    return list(lax.optimization_barrier(list(arrays)))


def _chosen(holds, x):
    if jc.is_reference(jc.typeof(x)) or jc.is_extended(jc.dtype_of(x)) or jc.dtype_of(x) == jc.float0:
        return x
    return lax.select(lax.broadcast(holds, np.shape(x)), x, lax.full_like(x, 0))
