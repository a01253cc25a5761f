"""The rule table, one entry per primitive, by family."""

from admodes.rules import (  # noqa: F401
    bounded_scan,
    contractions,
    control,
    convolution,
    custom,
    effects,
    elementwise,
    fft,
    hijax,
    indexing,
    kinks,
    linalg,
    ordering,
    parallel,
    reductions,
    references,
    remat,
    scan,
    shard_map,
    solve,
    special,
    spectral,
    structural,
    while_loops,
    windows,
)
from admodes.rules.table import register, supported

__all__ = ["register", "supported"]
