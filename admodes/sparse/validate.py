"""A check that a sparsity pattern misses nothing.

A nonzero outside of the pattern would be added to another entry without a word, the worst that compression can do.
"""

from __future__ import annotations

import numpy as np


def missed_entries(pattern, jacobian) -> np.ndarray:
    """The nonzeros (NaN included) of a Jacobian that a pattern does not cover."""
    jacobian = np.asarray(jacobian)
    return np.argwhere((jacobian != 0) & ~pattern.to_dense())
