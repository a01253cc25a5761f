"""Evaluating equations on known values at once, on the host: what a compiler would fold away.

Common primitives are a line of numpy, which is their trait ``host``: a compilation for each shape would take longer
than the whole analysis. The others are evaluated by JAX.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from admodes.program import jax_compat as jc
from admodes.program.traits import traits


def is_known(x) -> bool:
    """True if ``x`` is a value that is here, not a tracer that stands for any, nor spread over several processes."""
    return x is not None and not isinstance(x, jc.Tracer) and jc.is_here(x)


def calls_out(primitive) -> bool:
    """True if it is a function of the user's, called when the program runs."""
    return traits(primitive).calls_out


def is_foldable(equation) -> bool:
    """True if an equation of known values may be evaluated ahead of time.

    Functions of the user's are called when the program runs, and only where it comes to them: one may raise an error on
    a branch that is never taken.
    """
    calls = calls_out(equation.primitive) or jc.mentions(equation.params, calls_out)
    return not (equation.effects or equation.primitive is jc.shard_map_p or calls)


def evaluate_known(primitive, operands: Sequence, params: dict) -> list:
    """The results of one equation whose operands are all known."""
    by_numpy = traits(primitive).host
    if by_numpy is not None and not any(jc.is_extended(jc.dtype_of(x)) for x in operands):
        out = by_numpy(*map(np.asarray, operands), **params)
        if out is not None:
            return out if primitive.multiple_results else [out]
    with jax.ensure_compile_time_eval(), jc.without_mesh():
        out = primitive.bind(*map(jax.numpy.asarray, operands), **params)
    results = out if primitive.multiple_results else [out]
    return [x if jc.is_extended(jc.dtype_of(x)) else np.asarray(x) for x in results]
