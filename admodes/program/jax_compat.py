"""The only file that touches JAX's internals, so that an upgrade of JAX is one file's work.

``tests/program/test_jax_contracts.py`` checks each assumption made here and fails by name when a
new JAX breaks it. Verified with jax 0.10.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import jax
import numpy as np
from jax import lax
from jax._src import ad_util, api_util, core, dtypes, source_info_util, traceback_util, util
from jax._src import linear_util as lu
from jax._src import shard_map
from jax._src.custom_derivatives import CustomVJPPrimal as CustomVJPPrimal
from jax._src.custom_derivatives import custom_jvp_call_p as custom_jvp_call_p
from jax._src.custom_derivatives import custom_vjp_call_p as custom_vjp_call_p
from jax._src.ad_checkpoint import remat_p as remat_p
from jax._src.ad_util import add_jaxvals_p as add_any_p
from jax._src.callback import io_callback_p as io_callback_p
from jax._src.callback import pure_callback_p as pure_callback_p
from jax._src.core import pvary_p as pvary_p
from jax._src.core import reduced_vary_cast_p as reduced_vary_cast_p
from jax._src.custom_batching import custom_vmap_p as custom_vmap_p
from jax._src.custom_derivatives import linear_call_p as linear_call_p
from jax._src.custom_derivatives import remat_opt_p as remat_opt_p
from jax._src.debugging import debug_callback_p as debug_callback_p
from jax._src.debugging import debug_print_p as debug_print_p
from jax._src.debugging import inspect_sharding_p as inspect_sharding_p
from jax._src.ffi import ffi_call_p as ffi_call_p
from jax._src.lax import parallel as collectives  # its primitives are for rules/parallel.py
from jax._src.lax.lax import composite_p as composite_p
from jax._src.lax.lax import ragged_dot_general_p as ragged_dot_general_p
from jax._src.lax.control_flow.conditionals import cond_p as cond_p
from jax._src.lax.control_flow.loops import scan_p as scan_p
from jax._src.lax.control_flow.loops import while_p as while_p
from jax._src.lax.other import logaddexp as logaddexp
from jax._src.pjit import jit_p as jit_p
from jax._src.random import prng
from jax._src.random.core import random_gamma_p as random_gamma_p
from jax._src.pjit import sharding_constraint_p as sharding_constraint_p
from jax._src.pjit import reshard_p as reshard_p
from jax._src.pjit import layout_constraint_p as layout_constraint_p
from jax._src.lax.lax import tie_p as tie_p
from jax._src.core import stage_p as stage_p
from jax._src.lax.lax import dce_sink_p as dce_sink_p
from jax._src.ad_util import stop_gradient_p as stop_gradient_p
from jax._src.ad_checkpoint import name_p as name_p
from jax._src.core import empty_ref_p as empty_ref_p
from jax._src.core import free_ref_p as free_ref_p
from jax._src.core import freeze_p as freeze_p
from jax._src.core import ref_p as new_ref_p
from jax._src.sharding_impls import UnspecifiedValue
from jax._src.shard_map import shard_map_p as shard_map_p
from jax._src.state import discharge
from jax._src.state.discharge import run_state_p as run_state_p
from jax._src.state.primitives import addupdate_p as addupdate_p
from jax._src.state.primitives import get_p as get_p
from jax._src.state.primitives import swap_p as swap_p
from jax._src.tree_util import FlatTree
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
to_concrete_value = core.to_concrete_value
set_current_trace = core.set_current_trace
take_current_trace = core.take_current_trace
jaxpr_as_fun = core.jaxpr_as_fun
weak_cache = util.weakref_lru_cache
api_boundary = traceback_util.api_boundary
check_callable = api_util.check_callable
argnums_partial = api_util.argnums_partial2

random_bits_primitives = (  # keys and bits: nothing that could be differentiated
    prng.random_seed_p,
    prng.random_split_p,
    prng.random_fold_in_p,
    prng.random_bits_p,
    prng.random_wrap_p,
    prng.random_unwrap_p,
)


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


def is_reference(aval) -> bool:
    """Whether values of this type are mutable references, through which derivatives would pass unseen."""
    return not isinstance(aval, core.ShapedArray)


def is_without_derivative(aval) -> bool:
    """Whether this is the type of references for which the user has asked that no derivative passes through them."""
    return getattr(aval, "kind", None) == "no_grad_no_remat"


def is_extended(dtype) -> bool:
    return dtypes.issubdtype(dtype, dtypes.extended)


def zeros(aval):
    """A zero tangent for a primal of type ``aval`` (a float0 array for integers)."""
    return ad_util.zeros_like_aval(tangent_aval(aval))


def fill_zeros(aval):
    """Zeros of exactly this type (integers stay integers)."""
    return ad_util.zeros_like_aval(aval)


def same_type(a, b) -> bool:
    """Equal shape and dtype (weak types aside)."""
    return core.typematch(a, b)


def add_any(x, y):
    """x + y for two tangents of one type."""
    return ad_util.add_jaxvals(x, y)


def convert_like(x, aval):
    """``x`` in the dtype of ``aval``, weakly typed if that is; complex to real takes the real part."""
    return lax.convert_element_type_p.bind(x, new_dtype=aval.dtype, weak_type=aval.weak_type, sharding=aval.sharding)


# -- traces --------------------------------------------------------------------------------------


class DerivativeTracer(Tracer):
    """Base of the dual and tape tracers: a value that Python can look at as long as it is concrete."""

    __slots__ = ()

    @property
    def primal(self):
        raise NotImplementedError

    def to_concrete_value(self):
        return core.to_concrete_value(self.primal)

    def __float__(self):
        value = self.to_concrete_value()
        return super().__float__() if value is None else float(value)

    def __complex__(self):
        value = self.to_concrete_value()
        return super().__complex__() if value is None else complex(value)


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

    def stage_value(self, value):
        """The identity: a tracer of ours stays as it is, anything else is a matter of the parent."""
        ours = isinstance(value, Tracer) and value._trace is self
        return value if ours else self.parent_trace.stage_value(value)

    def process_call(self, primitive, fun, args, params, /):
        with core.set_current_trace(self):
            return fun.call_wrapped(*args)

    def process_custom_jvp_call(self, primitive, fun, jvp, args, /, *, symbolic_zeros):
        return self.process_primitive(primitive, args, dict(subfuns=(fun, jvp), symbolic_zeros=symbolic_zeros))

    def process_custom_vjp_call(self, primitive, fun, fwd, bwd, args, /, *, out_trees, symbolic_zeros):
        params = dict(subfuns=(fun, fwd, bwd), out_trees=out_trees, symbolic_zeros=symbolic_zeros)
        return self.process_primitive(primitive, args, params)

    def process_shard_map(self, primitive, fun, args, **params):
        structure: list = []

        def local(*xs):
            result = fun(*xs)
            structure[:] = [result.unpack_aux()[0]]
            return result

        outs = self.process_primitive(primitive, args, dict(params, subfuns=(local,)))
        return structure[0].update(outs)


def is_staging() -> bool:
    """Whether primitives are only being recorded now (we are below a ``jit`` or ``make_jaxpr``)."""
    return isinstance(core.trace_ctx.trace, pe.DynamicJaxprTrace)


def current_place() -> str:
    """The user's line that is running now: below :func:`user_source` the equation's, else the innermost on the stack."""
    place = source_info_util.summarize(source_info_util.current())
    frame: FrameType | None = sys._getframe()
    while not place and frame is not None:
        if source_info_util.is_user_filename(frame.f_code.co_filename):
            place = f"{frame.f_code.co_filename}:{frame.f_lineno} ({frame.f_code.co_qualname})"
        frame = frame.f_back
    return place or "an unknown place"


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


# -- references ----------------------------------------------------------------------------------


def abstract_results(primitive, avals, params):
    """The type of the result of an equation; a list of them for primitives with several."""
    return primitive.abstract_eval(*avals, **params)[0]


def empty(ref_aval):
    """An array of unspecified content, for a reference of this type."""
    return lax.empty(ref_aval.shape, ref_aval.dtype)


def has_references(closed: ClosedJaxpr) -> bool:
    """Whether references are created in the jaxpr."""
    return core.internal_mutable_array_effect in closed.effects


def without_references(closed: ClosedJaxpr) -> ClosedJaxpr:
    """The jaxpr with the contents of the references created in it as values."""
    return discharge.discharge_state(closed, should_discharge=False) if has_references(closed) else closed


def discharged(primitive, refs: Sequence[bool], avals, params) -> Callable | None:
    """A primitive with references among its operands (``refs``) as a pure function, or None.

    It takes their contents and returns (what replaces each of them, or None; the results of the primitive).
    """
    if "subfuns" in params:
        return None
    if (partial_rule := discharge._partial_discharge_rules.get(primitive)) is not None:
        outs = abstract_results(primitive, avals, params)
        return lambda *values: partial_rule(refs, avals, outs, *values, **params)
    if (rule := discharge._discharge_rules.get(primitive)) is not None:
        return lambda *values: rule(avals, (), *values, **params)
    return None


# -- sparse arrays -------------------------------------------------------------------------------


def sparse_definitions() -> dict[Primitive, Callable]:
    """The primitives of ``jax.experimental.sparse``, each with the function by which JAX defines its value."""
    from jax.experimental.sparse import api, bcoo, bcsr, coo, csr

    return {
        primitive: getattr(module, f"_{primitive.name}_impl")
        for module in (api, bcoo, bcsr, coo, csr)
        for primitive in vars(module).values()
        if isinstance(primitive, Primitive) and hasattr(module, f"_{primitive.name}_impl")
    }


def csr_rows(indices, indptr):
    """The row of each entry of a CSR matrix."""
    from jax.experimental.sparse.util import _csr_to_coo

    return _csr_to_coo(indices, indptr)[0]


# -- jaxprs --------------------------------------------------------------------------------------


def trace_flat(fun: Callable, avals: Sequence, name: str) -> ClosedJaxpr:
    """Trace a function from flat arguments of these types to a flat list into a jaxpr."""
    debug_info = api_util.debug_info(name, fun, tuple(avals), {})
    jaxpr, _, consts = pe.trace_to_jaxpr_dynamic(lu.wrap_init(fun, debug_info=debug_info), list(avals))
    return ClosedJaxpr(jaxpr, consts)


def close_jaxpr(jaxpr) -> ClosedJaxpr:
    """A jaxpr without free constants as a ClosedJaxpr (the same object each time)."""
    return pe.close_jaxpr(jaxpr) if not isinstance(jaxpr, ClosedJaxpr) else jaxpr


def shardings_of(params) -> tuple:
    """The shardings that a jit prescribes for its inputs and outputs; empty if it prescribes none."""
    shardings = params.get("in_shardings", ()), params.get("out_shardings", ())
    return shardings if any(not isinstance(s, UnspecifiedValue) for group in shardings for s in group) else ()


@weak_cache
def constrained(closed: ClosedJaxpr, shardings: tuple) -> ClosedJaxpr:
    """The jaxpr of a jit with its prescribed shardings written out as constraints, so that it can be inlined."""
    if not shardings:
        return closed
    avals, fun = closed.in_avals, jaxpr_as_fun(closed.replace())

    def constrain(values, wanted):
        free = (isinstance(s, UnspecifiedValue) for s in wanted)
        return [x if f else lax.with_sharding_constraint(x, s) for x, s, f in zip(values, wanted, free, strict=True)]

    return trace_flat(lambda *args: constrain(fun(*constrain(args, shardings[0])), shardings[1]), avals, "constrained")


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


def sharding_of_axes(aval, axes):
    """How an array with these axes of ``aval`` must be laid out, if the type says so (explicit sharding), else None."""
    sharding = aval.sharding
    if sharding.mesh.empty:
        if jax.sharding.get_abstract_mesh().empty:
            return None
        return core.get_cur_mesh_sharding(jax.sharding.PartitionSpec(*(None for _ in axes)))
    partitions = tuple(sharding.spec.partitions[axis] for axis in axes)
    return sharding.update(spec=sharding.spec.update(partitions=partitions))


# -- shard_map -------------------------------------------------------------------------------------


class LocalFunction:
    """The per-device function of a shard_map, from flat values to a flat list; ``out_specs`` are known once it has run."""

    def __init__(self, params):
        (self.fun,) = params["subfuns"]
        self.out_specs: list = []

    def __call__(self, *args) -> list:
        outs, specs = self.fun(*args).unpack_aux()
        self.out_specs = list(specs)
        return list(outs)


def cotangent_spec(spec):
    """How the cotangent of a value with this spec is laid out."""
    return spec.to_ct_spec()


@dataclass(frozen=True)
class ShardMap:
    """The static part of a shard_map: the mesh, and how operands are laid out on it."""

    mesh: Any
    in_specs: tuple
    check_vma: bool
    newly_manual_axes: frozenset
    debug_info: Any = field(compare=False)

    @staticmethod
    def of(params) -> ShardMap:
        info = params["debug_info"].with_unknown_names()
        specs = tuple(params["in_specs"])
        return ShardMap(params["mesh"], specs, params["check_vma"], params["newly_manual_axes"], info)

    def bind(self, fun, args, in_specs) -> list:
        """Run ``fun``, which returns (flat list, specs of its entries), on each device."""

        def flat(*xs):
            outs, specs = fun(*xs)
            return FlatTree.flatten(outs).with_aux(tuple(specs))

        outs = shard_map_p.bind(
            *args,
            subfuns=(flat,),
            mesh=self.mesh,
            in_specs=tuple(in_specs),
            check_vma=self.check_vma,
            newly_manual_axes=self.newly_manual_axes,
            debug_info=self.debug_info,
        )
        return list(outs)

    def per_device_spec(self, x):
        """The spec that lays values that differ by device along a leading axis."""
        return typeof(x).nospec(
            self.mesh, self.check_vma, shard_map._all_newly_manual_mesh_names(self.mesh, self.newly_manual_axes)
        )

    def _copies(self, spec) -> tuple:
        """The mesh axes along which a value with this spec is replicated."""
        return tuple(shard_map._unmentioned2(self.mesh, spec, self.newly_manual_axes))

    def divide_by_copies(self, g, spec):
        """Without replication tracking, each copy of a replicated result gets its share of the cotangent."""
        copies = math.prod(self.mesh.shape[name] for name in self._copies(spec))
        return g if self.check_vma or copies == 1 else lax.div(g, np.array(copies, g.dtype))

    def sum_over_copies(self, ct, spec):
        """Without replication tracking, the cotangent of a replicated operand is the sum over its copies."""
        names = self._copies(spec)
        return ct if self.check_vma or not names else lax.psum(ct, names)
