"""The rule table, one entry per primitive, by family."""

from admodes.rules import (  # noqa: F401
    advice,
    contractions,
    convolution,
    elementwise,
    fft,
    indexing,
    kinks,
    linalg,
    ordering,
    parallel,
    reductions,
    references,
    solve,
    special,
    spectral,
    structural,
    tridiagonal,
    windows,
)
from admodes.rules.table import register, supported

__all__ = ["register", "supported"]
