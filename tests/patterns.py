"""Comparing the sparsity pattern of a function's tape with its dense Jacobian."""

import jax
import numpy as np
from jax.tree_util import tree_leaves

import admodes


def check_pattern(fun, args, exact=True):
    """The pattern covers every nonzero of the Jacobian at ``args``; if ``exact``, it has no others.

    The arguments, so the nonzeros, must be generic: no entry of the Jacobian may vanish by chance.
    """
    args = tuple(args)
    pattern = admodes.linearize(fun, *args)[1].tape.pattern()
    jacobian = tree_leaves(jax.jacfwd(fun, argnums=tuple(range(len(args))))(*args))
    outs = tree_leaves(jax.eval_shape(fun, *args))
    for k, block in enumerate(jacobian):
        j, i = divmod(k, len(args))
        if outs[j].dtype.kind != "f":
            continue
        dense = np.asarray(block).reshape(outs[j].size, np.size(args[i])) != 0
        found = pattern[j, i].to_dense() if (j, i) in pattern else np.zeros_like(dense)
        assert found.shape == dense.shape
        assert not (dense & ~found).any(), f"block {j, i} misses nonzeros"
        assert not exact or not (found & ~dense).any(), f"block {j, i} has entries that are zero"
