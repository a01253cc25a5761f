"""Traces and tracers of our own, where code comes from, and how users' derivative rules are called."""

from __future__ import annotations

import sys
from types import FrameType

import numpy as np
from jax._src import ad_util, core, source_info_util
from jax._src.interpreters import partial_eval as pe
from jax.custom_derivatives import SymbolicZero

from admodes.program.jax_compat.contacts import contact
from admodes.program.jax_compat.hijax import call_hi_primitive_p, face, stands_for
from admodes.program.jax_compat.jaxprs import trace_flat
from admodes.program.jax_compat.values import canonicalize, tangent_aval

Trace = core.Trace
Tracer = core.Tracer
set_current_trace = core.set_current_trace
take_current_trace = core.take_current_trace
ensure_no_leaks = core.ensure_no_leaks  # invalidates a trace; below jax.checking_leaks() also looks for its tracers


DROPPED = (
    "{} would make a constant of a value that is differentiated, and its derivative would be lost. Use jax.numpy in "
    "the place of math and numpy (x.at[i].set(y) in the place of writing into an array), x.astype(dtype) to convert, "
    "and jax.lax.stop_gradient(x) if x is to be a constant."
)


class _Differentiated(pe.DynamicJaxprTracer):
    """Something that JAX takes for a value which may be differentiated."""

    def __init__(self):
        self.aval = core.ShapedArray((), np.dtype(np.float32))


class DerivativeTracer(Tracer):
    """Base of the dual and tape tracers: a value that Python can decide on as long as it is concrete.

    A comparison, ``bool`` and ``int`` (an index, a number of steps) are constant nearby. Any other number, or numpy
    array, made of it would drop the derivative without a word; so these raise JAX's errors.
    """

    __slots__ = ()

    @property
    def primal(self):
        raise NotImplementedError

    def to_concrete_value(self):
        return core.to_concrete_value(self.primal)

    def _contents(self):
        """The value inside, at which JAX looks to find out whether a value is differentiated (in ``closure_convert``):
        it is."""
        return [("primal", self.primal), ("derivative", _Differentiated())]

    def __float__(self):
        raise core.ConcretizationTypeError(self, DROPPED.format("float(x)"))

    def __complex__(self):
        raise core.ConcretizationTypeError(self, DROPPED.format("complex(x)"))

    def item(self, *args):
        raise core.ConcretizationTypeError(self, DROPPED.format("x.item()"))

    def __array__(self, *args, **kwargs):
        error = core.TracerArrayConversionError(self)
        error.args = (f"{error.args[0]}\n{DROPPED.format('numpy')}",)
        raise error


class DerivativeTrace(Trace):
    """Base of the dual and tape traces: sends every kind of application to ``apply``, below the parent trace.

    ``apply(primitive, args, params)`` returns a list of results. Calls are inlined; custom derivative
    functions arrive as primitives whose ``params["subfuns"]`` are the user's functions.
    """

    def __init__(self, parent_trace):
        super().__init__()
        self.parent_trace = parent_trace
        self.requires_low = False
        self.is_applying = False  # what runs then is below this trace, and must not meet its tracers

    def apply(self, primitive, args, params) -> list:
        raise NotImplementedError

    def process_primitive(self, primitive, args, params, /):
        if primitive is call_hi_primitive_p:
            rewritten = stands_for(params["_prim"])
            if rewritten is not None:
                with core.set_current_trace(self):
                    return rewritten(*args)
            primitive = face(primitive, params)
        self.is_applying = True
        try:
            with core.set_current_trace(self.parent_trace):
                outs = self.apply(primitive, args, params)
        finally:
            self.is_applying = False
        return outs if primitive.multiple_results else outs[0]

    def stage_value(self, value):
        """The identity: a tracer of ours stays as it is, anything else is a matter of the parent."""
        ours = isinstance(value, Tracer) and value._trace is self
        return value if ours else self.parent_trace.stage_value(value)

    def process_call(self, primitive, fun, args, params, /):
        with core.set_current_trace(self):
            return fun.call_wrapped(*args)

    def process_custom_jvp_call(self, primitive, fun, jvp, args, /, *, symbolic_zeros):
        return self.process_primitive(primitive, args, {"subfuns": (fun, jvp), "symbolic_zeros": symbolic_zeros})

    def process_custom_vjp_call(self, primitive, fun, fwd, bwd, args, /, *, out_trees, symbolic_zeros):
        params = {"subfuns": (fun, fwd, bwd), "out_trees": out_trees, "symbolic_zeros": symbolic_zeros}
        return self.process_primitive(primitive, args, params)

    def process_shard_map(self, primitive, fun, args, **params):
        """The body is traced first: what it closes over comes out as operands, and may then be tracers of ours.

        A body that branches on values (the same on all devices) cannot be traced, and runs as it is.
        """
        structure: list = []

        def bind(*xs):
            structure[:] = [primitive.bind(*xs, subfuns=(fun,), **params)]
            return list(structure[0])

        def local(*xs):
            result = fun(*xs)
            structure[:] = [result.unpack_aux()[0]]
            return result

        try:
            with core.set_current_trace(self):
                closed = trace_flat(bind, list(map(core.typeof, args)), "shard_map")
        except (core.ConcretizationTypeError, core.TracerIntegerConversionError):
            params["subfuns"] = (local,)
        else:
            args, params = _only_equation(closed, args)
        outs = self.process_primitive(primitive, args, params)
        return structure[0].update(outs)


def _only_equation(closed, args) -> tuple[list, dict]:
    """The operands of the one equation of a jaxpr, and the parameters to bind it with."""
    (equation,) = closed.jaxpr.eqns
    known = dict(zip([*closed.jaxpr.constvars, *closed.jaxpr.invars], [*closed.consts, *args], strict=True))
    operands = [v.val if isinstance(v, core.Literal) else known[v] for v in equation.invars]
    return operands, equation.primitive.get_bind_params(equation.params)


def is_staging() -> bool:
    """True if primitives are only being recorded now (we are below a ``jit`` or ``make_jaxpr``)."""
    return isinstance(core.trace_ctx.trace, pe.DynamicJaxprTrace)


def is_tracing() -> bool:
    """True if any transformation is under way: a ``jit``, a ``vmap``, a derivative, ours or JAX's.

    An operation that is applied then may be recorded, and cannot be timed. :func:`is_staging` asks for the innermost
    trace alone: it is false in a ``vmap`` below a ``jit``.
    """
    return not core.trace_state_clean()


def current_place() -> str:
    """The user's line that runs now: below :func:`user_source` the equation's, else the innermost on the stack."""
    place = source_info_util.summarize(source_info_util.current())
    frame: FrameType | None = sys._getframe()
    while not place and frame is not None:
        if source_info_util.is_user_filename(frame.f_code.co_filename):
            place = f"{frame.f_code.co_filename}:{frame.f_lineno} ({frame.f_code.co_qualname})"
        frame = frame.f_back
    return place or "an unknown place"


def place_of(error: BaseException) -> str:
    """The user's line that raised an error, the innermost one."""
    place, traceback = "", error.__traceback__
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if source_info_util.is_user_filename(code.co_filename):
            place = f"{code.co_filename}:{traceback.tb_lineno} ({code.co_qualname})"
        traceback = traceback.tb_next
    return place or "an unknown place"


def exclude_from_sources(folder: str) -> None:
    """Frames of files in ``folder`` are not the user's code: sources do not name them, tracebacks leave them out.

    (With JAX_TRACEBACK_FILTERING=off tracebacks show them, as they show JAX's own.)
    """
    source_info_util.register_exclusion(folder)
    contact("hide_frames")(folder)


def source_summary(source) -> str:
    return source_info_util.summarize(source)


def user_source(source):
    """Context in which new equations (and errors) carry the source of the equation they derive from."""
    return source_info_util.user_context(source.traceback)


def own_source():
    """Context in which equations carry the line of the Python that runs, whatever equation is being derived from."""
    return source_info_util.user_context(None)


def symbolic_zero(aval) -> SymbolicZero:
    """The object that a user's rule with ``symbolic_zeros=True`` receives for a zero tangent."""
    return SymbolicZero(tangent_aval(aval))


def is_symbolic_zero(x) -> bool:
    return isinstance(x, (SymbolicZero, ad_util.Zero))


def call_jvp_rule(jvp, primals, tangents) -> tuple[list, list]:
    """Call a user's flattened ``custom_jvp`` rule; returns (outputs, tangents of the outputs)."""
    results = [x if is_symbolic_zero(x) else canonicalize(x) for x in jvp.call_wrapped(*primals, *tangents)]
    half = len(results) // 2
    return list(results[:half]), list(results[half:])


def forget_call(fun) -> None:
    """Let a custom function's own code count as not called: JAX expects either that or its rule, not both."""
    for store in fun.stores:
        if store is not None:
            store.reset()


def call_bwd_rule(bwd, residuals, cotangents) -> tuple[list, dict | None]:
    """Call a user's flattened ``custom_vjp`` backward rule: (cotangents of the operands, logs)."""
    found = bwd.call_wrapped(*residuals, *cotangents)
    cts, logs = found if isinstance(found, tuple) else (found, None)  # a pair since jax 0.11
    return list(cts), logs


def call_fwd_rule(fwd, out_trees, primals, active) -> tuple[list, list]:
    """Call a user's flattened ``custom_vjp`` forward rule; returns (outputs, residuals)."""
    flat = fwd.call_wrapped(*[v for pair in zip(primals, active, strict=True) for v in pair])
    _, residual_tree, forwarded = out_trees()
    n_own = residual_tree.num_leaves - sum(f is not None for f in forwarded)
    own = iter(flat[:n_own])
    residuals = [next(own) if f is None else primals[f] for f in forwarded]
    return list(flat[n_own:]), residuals
