"""The only file that touches JAX's internals, so that an upgrade of JAX is one file's work.

``tests/program/test_jax_contracts.py`` checks each assumption made here and fails by name when a
new JAX breaks it. Verified with jax 0.10.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax
from jax._src import ad_util, api_util, core, dtypes, source_info_util, traceback_util, util
from jax._src import linear_util as lu
from jax._src.custom_derivatives import CustomVJPPrimal as CustomVJPPrimal
from jax._src.custom_derivatives import custom_jvp_call_p as custom_jvp_call_p
from jax._src.custom_derivatives import custom_vjp_call_p as custom_vjp_call_p
from jax._src.ad_checkpoint import remat_p as remat_p
from jax._src.ad_util import add_jaxvals_p as add_any_p
from jax._src.lax.control_flow.conditionals import cond_p as cond_p
from jax._src.lax.control_flow.loops import scan_p as scan_p
from jax._src.lax.control_flow.loops import while_p as while_p
from jax._src.pjit import jit_p as jit_p
from jax._src.tree_util import equality_errors_pytreedef as equality_errors_pytreedef
from jax.custom_derivatives import SymbolicZero
from jax._src.interpreters import partial_eval as pe

Aval = core.ShapedArray
ClosedJaxpr = core.ClosedJaxpr
DropVar = core.DropVar
Jaxpr = core.Jaxpr
Literal = core.Literal
Primitive = core.Primitive
Trace = core.Trace
Tracer = core.Tracer

float0 = jax.dtypes.float0
typeof = core.typeof
set_current_trace = core.set_current_trace
take_current_trace = core.take_current_trace
jaxpr_as_fun = core.jaxpr_as_fun
weak_cache = util.weakref_lru_cache
api_boundary = traceback_util.api_boundary
check_callable = api_util.check_callable
argnums_partial = api_util.argnums_partial2


# -- values and types ----------------------------------------------------------------------------


def canonicalize(x):
    """``x`` as JAX would see it: Python and numpy scalars become arrays, dtypes are canonical."""
    return x if isinstance(x, core.Tracer) else dtypes.canonicalize_value(x)


def dtype_of(x):
    """The dtype that ``x`` has as a JAX value (float0 arrays included)."""
    return x.dtype if getattr(x, "dtype", None) == float0 else dtypes.dtype(x)


def is_value(x) -> bool:
    """Whether ``x`` is something JAX computes with: an array, a tracer, a number."""
    return core.valid_jaxtype(x)


def one(x):
    """The cotangent 1 of a scalar output."""
    return lax.full_like(x, 1)


def check_arg(x) -> None:
    """Raise JAX's own TypeError when ``x`` is not a valid JAX value."""
    from jax._src import dispatch

    dispatch.check_arg(x)


def tangent_aval(aval):
    """The type of tangents (and cotangents) of a value of type ``aval``; dtype float0 for integers."""
    return aval.to_tangent_aval()


def is_differentiable(aval) -> bool:
    """Whether values of this type carry derivatives: real or complex floating point arrays."""
    return isinstance(aval, core.ShapedArray) and dtypes.issubdtype(aval.dtype, np.inexact)


def is_extended(dtype) -> bool:
    return dtypes.issubdtype(dtype, dtypes.extended)


def zeros(aval):
    """A zero tangent for a primal of type ``aval`` (a float0 array for integers)."""
    tangent = tangent_aval(aval)
    if tangent.dtype == float0:
        return np.zeros(tangent.shape, float0)
    return ad_util.zeros_like_aval(tangent)


def fill_zeros(aval):
    """Zeros of exactly this type (integers stay integers)."""
    return ad_util.zeros_like_aval(aval)


def same_type(a, b) -> bool:
    """Equal shape and dtype (weak types aside)."""
    return core.typematch(a, b)


def add_any(x, y):
    """x + y for two tangents of one type."""
    return ad_util.add_jaxvals(x, y)


def to_concrete_value(x):
    """The concrete value of ``x`` if it has one (so that ``if x > 0:`` works), else None."""
    return core.to_concrete_value(x)


# -- traces --------------------------------------------------------------------------------------


class DerivativeTrace(Trace):
    """Base of the dual and tape traces: sends every kind of application to ``apply``, below the parent trace.

    ``apply(primitive, args, params)`` returns a list of results. Calls are inlined; custom derivative
    functions arrive as primitives whose ``params["subfuns"]`` are the user's functions.
    """

    def __init__(self, parent_trace):
        super().__init__()
        self.parent_trace = parent_trace
        self.requires_low = False

    def apply(self, primitive, args, params) -> list:
        raise NotImplementedError

    def process_primitive(self, primitive, args, params, /):
        with core.set_current_trace(self.parent_trace):
            outs = self.apply(primitive, args, params)
        return outs if primitive.multiple_results else outs[0]

    def process_call(self, primitive, fun, args, params, /):
        with core.set_current_trace(self):
            return fun.call_wrapped(*args)

    def process_custom_jvp_call(self, primitive, fun, jvp, args, /, *, symbolic_zeros):
        return self.process_primitive(primitive, args, dict(subfuns=(fun, jvp), symbolic_zeros=symbolic_zeros))

    def process_custom_vjp_call(self, primitive, fun, fwd, bwd, args, /, *, out_trees, symbolic_zeros):
        params = dict(subfuns=(fun, fwd, bwd), out_trees=out_trees, symbolic_zeros=symbolic_zeros)
        return self.process_primitive(primitive, args, params)


def is_staging() -> bool:
    """Whether primitives are only being recorded now (we are below a ``jit`` or ``make_jaxpr``)."""
    return isinstance(core.trace_ctx.trace, pe.DynamicJaxprTrace)


def current_source():
    """The source of the code that is running now: the user's, below :func:`user_source` the equation's."""
    return source_info_util.current()


def exclude_from_sources(folder: str) -> None:
    """Frames of files in ``folder`` are not the user's code."""
    source_info_util.register_exclusion(folder)


def source_summary(source) -> str:
    return source_info_util.summarize(source)


def user_source(source):
    """Context in which new equations (and errors) carry the source of the equation they derive from."""
    return source_info_util.user_context(source.traceback)


# -- custom derivatives --------------------------------------------------------------------------


def symbolic_zero(aval) -> SymbolicZero:
    """The object that a user's rule with ``symbolic_zeros=True`` receives for a zero tangent."""
    return SymbolicZero(tangent_aval(aval))


def is_symbolic_zero(x) -> bool:
    return isinstance(x, (SymbolicZero, ad_util.Zero))


def call_jvp_rule(jvp, primals, tangents) -> tuple[list, list]:
    """Call a user's flattened ``custom_jvp`` rule; returns (outputs, tangents of the outputs)."""
    results = jvp.call_wrapped(*primals, *tangents)
    half = len(results) // 2
    return list(results[:half]), list(results[half:])


def call_fwd_rule(fwd, out_trees, primals, active) -> tuple[list, list]:
    """Call a user's flattened ``custom_vjp`` forward rule; returns (outputs, residuals)."""
    flat = fwd.call_wrapped(*[v for pair in zip(primals, active, strict=True) for v in pair])
    _, residual_tree, forwarded = out_trees()
    n_own = residual_tree.num_leaves - sum(f is not None for f in forwarded)
    own = iter(flat[:n_own])
    residuals = [next(own) if f is None else primals[f] for f in forwarded]
    return list(flat[n_own:]), residuals


# -- jaxprs --------------------------------------------------------------------------------------


def trace_flat(fun: Callable, avals: Sequence, name: str) -> ClosedJaxpr:
    """Trace a function from flat arguments of these types to a flat list into a jaxpr."""
    debug_info = api_util.debug_info(name, fun, tuple(avals), {})
    jaxpr, _, consts = pe.trace_to_jaxpr_dynamic(lu.wrap_init(fun, debug_info=debug_info), list(avals))
    return ClosedJaxpr(jaxpr, consts)


def close_jaxpr(jaxpr) -> ClosedJaxpr:
    """A jaxpr without free constants as a ClosedJaxpr (the same object each time)."""
    return pe.close_jaxpr(jaxpr) if not isinstance(jaxpr, ClosedJaxpr) else jaxpr


def open_jaxpr(closed: ClosedJaxpr) -> tuple[Jaxpr, list]:
    """A jaxpr without constants, and the constants, which become its leading arguments."""
    return pe.convert_constvars_jaxpr(closed.jaxpr), list(closed.consts)


def select_outputs(closed: ClosedJaxpr, indices: Sequence[int]) -> ClosedJaxpr:
    """The jaxpr that returns only these outputs; dead code is dropped."""
    outvars = [closed.jaxpr.outvars[i] for i in indices]
    jaxpr, _ = pe.dce_jaxpr(closed.jaxpr.replace(outvars=outvars), [True] * len(outvars), instantiate=True)
    return ClosedJaxpr(jaxpr, closed.consts)


def first_inputs(closed: ClosedJaxpr, n: int) -> ClosedJaxpr:
    """The jaxpr with its first ``n`` arguments only; it must not use the others."""
    return ClosedJaxpr(closed.jaxpr.replace(invars=closed.jaxpr.invars[:n]), closed.consts)


def unstacked(aval):
    """The type of one slice along the leading axis."""
    return core.mapped_leading_aval(aval.shape[0], aval)


def permute_inputs(closed: ClosedJaxpr, order: Sequence[int]) -> ClosedJaxpr:
    """The jaxpr whose k-th argument is argument ``order[k]`` of this one."""
    return ClosedJaxpr(closed.jaxpr.replace(invars=[closed.jaxpr.invars[i] for i in order]), closed.consts)


def output_sources(closed: ClosedJaxpr) -> list:
    """Where each output comes from: ("input", i), ("output", j) for a repetition of output j, or None."""
    inputs = {v: ("input", i) for i, v in enumerate(closed.jaxpr.invars)}
    sources: list = []
    seen: dict = {}
    for j, v in enumerate(closed.jaxpr.outvars):
        if isinstance(v, Literal):
            sources.append(None)
        else:
            sources.append(inputs.get(v) or seen.get(v))
            seen.setdefault(v, ("output", j))
    return sources


def depends_on(closed: ClosedJaxpr, inputs: Sequence[bool]) -> list[bool]:
    """For each output, whether any of the marked inputs reaches it."""
    marked = {v for v, on in zip(closed.jaxpr.invars, inputs, strict=True) if on}
    for eqn in closed.jaxpr.eqns:
        if any(v in marked for v in eqn.invars if not isinstance(v, Literal)) or eqn.effects:
            marked.update(eqn.outvars)
    return [not isinstance(v, Literal) and v in marked for v in closed.jaxpr.outvars]


@weak_cache
def compiled(closed: ClosedJaxpr) -> Callable:
    """A jaxpr as one compiled function; the compilation is cached with the jaxpr."""
    return jax.jit(jaxpr_as_fun(closed.replace()))


def is_saveable(policy, primitive, avals, params) -> bool:
    """Whether a ``jax.checkpoint`` policy keeps the results of an equation (None: nothing is kept)."""
    if policy is None:
        return False
    return pe.ensure_enum(policy(primitive, *avals, **params)) is not pe.Recompute
