"""The distance of two derivatives, absolute and relative to the largest entry.

Every row of a comparison shows it, so that a fast mode that is wrong is seen to be.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np


def errors(actual: Any, expected: Any) -> tuple[float, float]:
    """The largest absolute and relative difference of two pytrees of arrays.

    The relative error of an array is max|a - e| / max|e|: its largest entry sets the scale, so that an entry that
    should be 0 does not make rounding look infinitely wrong. Where both are NaN, or the same infinity, they agree;
    where one is, and the other is not, both errors are infinite.

    Raises:
      TypeError: the pytrees have different structures, or two arrays different shapes or dtypes.

    >>> errors({"a": np.array([1.0, 2.5])}, {"a": np.array([1.0, 2.0])})
    (0.5, 0.25)
    """
    ours, theirs = map(jax.tree_util.tree_leaves, (actual, expected))
    tree: Any = jax.tree_util.tree_structure(actual)
    expected_tree: Any = jax.tree_util.tree_structure(expected)
    if tree != expected_tree:
        raise TypeError(f"the derivative has structure {tree}, but JAX's has {expected_tree}")
    pairs = [_array_errors(np.asarray(a), np.asarray(e)) for a, e in zip(ours, theirs, strict=True)]
    return max((p[0] for p in pairs), default=0.0), max((p[1] for p in pairs), default=0.0)


def _array_errors(a: np.ndarray, e: np.ndarray) -> tuple[float, float]:
    if (a.shape, a.dtype) != (e.shape, e.dtype):
        raise TypeError(f"the derivative is {a.dtype}{list(a.shape)}, but JAX's is {e.dtype}{list(e.shape)}")
    if a.size == 0 or a.dtype == jax.dtypes.float0:
        return 0.0, 0.0
    wide = np.complex128 if np.iscomplexobj(a) else np.float64
    a, e = a.astype(wide), e.astype(wide)
    agree = (a == e) | (np.isnan(a) & np.isnan(e))
    finite = np.isfinite(a) & np.isfinite(e)
    if not np.all(agree | finite):
        return float("inf"), float("inf")
    largest = float(np.max(np.abs(a[~agree] - e[~agree]), initial=0.0))
    scale = float(np.max(np.abs(e), where=np.isfinite(e), initial=0.0))
    return largest, largest / scale if scale else (float("inf") if largest else 0.0)
