"""Functions of JAX's own, known by where their code stands: in traces and in jaxprs nothing else is left of them."""

from __future__ import annotations

from collections.abc import Callable

import jax
from jax._src import api_util
from jax._src.lax.other import logaddexp2 as logaddexp2

from admodes.program.jax_compat.contacts import contact
from admodes.program.jax_compat.jaxprs import inner, trace_flat
from admodes.program.jax_compat.values import weak_cache

is_accurate_sinc = jax.__version_info__ >= (0, 12)  # sinc and i0 are polynomials near 0 since
i0_core, sinc, hypot_parts = contact("_i0"), contact("sinc"), contact("_hypot")
i1_core = contact("i1_impl")
sqrtm, sqrtm_of_triangle = contact("_sqrtm"), contact("_sqrtm_triu")

_SUBSTITUTES: dict[str, Callable] = {}


def source_of(fun) -> str:
    """The name of a function, its file and line."""
    return str(api_util.fun_sourceinfo(fun))


def source_of_custom(params) -> str | None:
    """The same of the function that a custom_jvp equation applies."""
    info = params["subfuns"][0].debug_info
    return None if info is None else info.func_src_info


def substitute(fun, program: Callable) -> None:
    """Let calls of a jitted function be differentiated as ``program(*operands)``, which returns a list."""
    _SUBSTITUTES[source_of(fun)] = program


def substituted(closed):
    """The jaxpr of a call, or the one that stands in for it."""
    info = inner(closed).debug_info
    program = None if info is None else _SUBSTITUTES.get(info.func_src_info)
    return closed if program is None else _substitute(closed, program)


@weak_cache  # (of a jaxpr that must not be its own result, or it would keep itself alive)
def _substitute(closed, program: Callable):
    return trace_flat(program, closed.in_avals, "substitute")
