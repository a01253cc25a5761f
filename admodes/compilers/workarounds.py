"""The workarounds for compilers, in one list.

Each says for which backends it is (where nothing was measured, the natural program is run), on which version it was
found, and why. ``ADMODES_WITHOUT="stored values, small products"`` in the environment turns some off for a process.
``admodes bench workarounds`` runs each with and without, and so says when one no longer helps.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import jax
import jaxlib.version

SWITCH = "ADMODES_WITHOUT"  # read once, because programs and plans that are kept must be of one kind


@dataclass(frozen=True)
class Workaround:
    """One way around a compiler."""

    name: str
    because: str
    found_on: str = "jaxlib 0.10.2"
    needless_since: tuple[int, ...] = (1000,)  # the first jaxlib that compiles the natural program as well
    backends: tuple[str, ...] = ("cpu",)

    @property
    def enabled(self) -> bool:
        """True unless the compiler does not need it, or the environment turns it off."""
        return jaxlib.version.__version_info__ < self.needless_since and self.name not in _OFF

    @property
    def on(self) -> bool:
        """True if it is enabled and JAX's default backend is one of those that it is for."""
        return self.enabled and jax.default_backend() in self.backends


STORED_VALUES = Workaround(
    "stored values",
    "fused kernels compute a value anew for each of its uses: the cosines of n rows n times, a stencil of a stencil "
    "nine times",
)
KEPT_CALLS = Workaround(
    "kept calls",
    "XLA drops optimization_barrier on the CPU before it fuses, and keeps calls that are not inlineable",
    needless_since=(0, 11),
)
SMALL_PRODUCTS = Workaround(
    "small products", "a product of two small matrices is a call of a library, which takes as long as 1,000 sums"
)
RIGHT_HAND_SIDES = Workaround(
    "right-hand sides", "a triangular solve of many right-hand sides is a call that waits for threads of its own"
)
FEW_ROWS = Workaround(
    "few rows", "a few rows times a large matrix, g Wᵀ in double precision, take longer than W gᵀ and a transposition"
)
TRANSPOSED_COLUMNS = Workaround(
    "transposed columns", "a transposition is folded into the product that it follows, whose kernel is then a slow one"
)
RUNS = Workaround(
    "runs of nonzeros", "a scatter writes number by number, though it copies windows of several numbers at once"
)
SELECTED = Workaround(
    "selected copies",
    "equal expressions are merged after barriers are gone: what is to be computed again is kept",
    needless_since=(0, 11),
)
STORED_SERIES = Workaround(
    "stored series",
    "fused kernels compute the coefficients of a power series anew for each coefficient that is made of them",
)
WORKAROUNDS = (
    STORED_VALUES,
    KEPT_CALLS,
    SMALL_PRODUCTS,
    RIGHT_HAND_SIDES,
    FEW_ROWS,
    TRANSPOSED_COLUMNS,
    RUNS,
    SELECTED,
    STORED_SERIES,
)


def _switched_off() -> frozenset[str]:
    names = frozenset(filter(None, map(str.strip, os.environ.get(SWITCH, "").split(","))))
    unknown = names.difference(w.name for w in WORKAROUNDS)
    if unknown:
        there = ", ".join(w.name for w in WORKAROUNDS)
        raise ValueError(f"{SWITCH} names {', '.join(sorted(unknown))}, but the workarounds are: {there}")
    return names


_OFF = _switched_off()
