"""Jaxprs: how they are made, and surgery on them.

The types and parameters of jaxprs change from one version of JAX to the next; elsewhere nobody takes one apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax
from jax._src import api_util, core, effects, source_info_util
from jax._src import linear_util as lu
from jax._src.interpreters import partial_eval as pe
from jax._src.sharding_impls import UnspecifiedValue
from jax.experimental.scheduling_groups import xla_metadata_call

from admodes.program.jax_compat.contacts import contact
from admodes.program.jax_compat.hijax import object_parts, stand_in
from admodes.program.jax_compat.values import weak_cache

ClosedJaxpr: Any = contact("ClosedJaxpr")  # one class with Jaxpr since jax 0.11
Jaxpr = core.Jaxpr
Literal = core.Literal
Primitive = core.Primitive
jaxpr_as_fun = core.jaxpr_as_fun


def trace_flat(fun: Callable, avals: Sequence, name: str) -> ClosedJaxpr:
    """Trace a function from flat arguments of these types to a flat list into a jaxpr.

    Raises UnexpectedTracerError where it closes over a tracer of a trace that is just being applied.
    """
    debug_info = api_util.debug_info(name, fun, tuple(avals), {})
    jaxpr, _, consts = pe.trace_to_jaxpr_dynamic(lu.wrap_init(fun, debug_info=debug_info), list(avals))
    for x in consts:
        if isinstance(x, core.Tracer) and getattr(x._trace, "is_applying", False):
            raise jax.errors.UnexpectedTracerError(
                f"a function with its own derivative rule (custom_jvp, custom_vjp) closes over {x}, a value that is "
                "differentiated: make that value an argument of the function."
            )
    return close(jaxpr, consts)


def close(jaxpr, consts: Sequence = ()) -> Any:
    """The jaxpr with these constants, as a ClosedJaxpr."""
    return jaxpr.with_consts(consts) if hasattr(jaxpr, "with_consts") else ClosedJaxpr(jaxpr, consts)


def inner(closed):
    """The jaxpr without its constants: what has ``invars``, ``constvars``, ``eqns`` and ``outvars``."""
    return getattr(closed, "jaxpr", closed)


def close_jaxpr(jaxpr) -> Any:
    """A jaxpr in the parameters of an equation as a ClosedJaxpr, the same object each time.

    One without constants comes as a copy: what is cached with the parameter may hold it without keeping itself alive.
    """
    own = _OWN_DERIVATIVES.get(inner(jaxpr).debug_info.func_name)
    if own is not None and not is_users(jaxpr):
        return _with_own_derivative(jaxpr, own)
    return jaxpr if len(getattr(jaxpr, "consts", ())) or _is_wrapped(jaxpr) else _copied(jaxpr)


_OWN_DERIVATIVES: dict[str, Callable] = {}  # of functions of JAX that are jitted, by name


def own_derivative(name: str, rule: Callable) -> None:
    """Give a jitted function of JAX's a derivative: ``rule(fun, primals, tangents)``, as of a custom_jvp function."""
    _OWN_DERIVATIVES[name] = rule


@weak_cache
def _with_own_derivative(closed: ClosedJaxpr, rule: Callable) -> ClosedJaxpr:
    evaluate = jaxpr_as_fun(closed.replace())
    fun = jax.custom_jvp(lambda *args: tuple(evaluate(*args)))
    fun.defjvp(lambda primals, tangents: rule(fun, primals, tangents))
    return trace_flat(fun, closed.in_avals, "own_derivative")


def _is_wrapped(jaxpr) -> bool:
    """True if this is a ClosedJaxpr around a Jaxpr (before jax 0.11)."""
    return ClosedJaxpr is not Jaxpr and isinstance(jaxpr, ClosedJaxpr)


@weak_cache
def _copied(jaxpr):
    return close(jaxpr.replace())


def shardings_of(params) -> tuple:
    """The shardings that a jit prescribes for its inputs and outputs; empty if it prescribes none."""
    shardings = params.get("in_shardings", ()), params.get("out_shardings", ())
    return shardings if any(not isinstance(s, UnspecifiedValue) for group in shardings for s in group) else ()


def constrained(closed: ClosedJaxpr, shardings: tuple) -> ClosedJaxpr:
    """The jaxpr of a jit with its prescribed shardings written out as constraints, so that it can be inlined."""
    return _constrained(closed, shardings) if shardings else closed


@weak_cache
def _constrained(closed: ClosedJaxpr, shardings: tuple) -> ClosedJaxpr:
    avals, fun = closed.in_avals, jaxpr_as_fun(closed.replace())

    def constrain(values, wanted):
        free = (isinstance(s, UnspecifiedValue) for s in wanted)
        return [x if f else lax.with_sharding_constraint(x, s) for x, s, f in zip(values, wanted, free, strict=True)]

    return trace_flat(lambda *args: constrain(fun(*constrain(args, shardings[0])), shardings[1]), avals, "constrained")


def open_jaxpr(closed: ClosedJaxpr) -> tuple[Jaxpr, list]:
    """A jaxpr without constants, and the constants, which become its leading arguments."""
    return pe.convert_constvars_jaxpr(inner(closed)), list(closed.consts)


def select_outputs(closed: ClosedJaxpr, indices: Sequence[int]) -> ClosedJaxpr:
    """The jaxpr that returns only these outputs; dead code is dropped."""
    outvars = [inner(closed).outvars[i] for i in indices]
    jaxpr, _ = pe.dce_jaxpr(inner(closed).replace(outvars=outvars), [True] * len(outvars), instantiate=True)
    return close(jaxpr, closed.consts)


def of_first_inputs(closed: ClosedJaxpr, n: int, indices: Sequence[int]) -> ClosedJaxpr:
    """The jaxpr for these outputs, which depend on nothing but the first ``n`` arguments; what has effects stays out.

    An equation with effects counts as dependent on all (:func:`depends_on`).
    """
    pure = [eqn for eqn in inner(closed).eqns if not eqn.effects]
    selected = select_outputs(close(inner(closed).replace(eqns=pure, effects=frozenset()), closed.consts), indices)
    return close(inner(selected).replace(invars=inner(selected).invars[:n]), selected.consts)


def unstacked(aval):
    """The type of one slice along the leading axis."""
    return core.mapped_leading_aval(aval.shape[0], aval)


def stacked(aval, length: int):
    """The type of ``length`` such values along a new leading axis."""
    return core.unmapped_leading_aval(length, aval)


def permute_inputs(closed: ClosedJaxpr, order: Sequence[int]) -> ClosedJaxpr:
    """The jaxpr whose k-th argument is argument ``order[k]`` of this one."""
    return close(inner(closed).replace(invars=[inner(closed).invars[i] for i in order]), closed.consts)


def output_sources(closed: ClosedJaxpr) -> list:
    """Where each output comes from.

    That is ("input", i), ("output", j) for a repetition of output j, ("literal", value), or None.
    """
    inputs = {v: ("input", i) for i, v in enumerate(inner(closed).invars)}
    sources: list = []
    seen: dict = {}
    for j, v in enumerate(inner(closed).outvars):
        if isinstance(v, Literal):
            sources.append(("literal", np.bool_(v.val) if isinstance(v.val, bool) else v.val))
        else:
            sources.append(inputs.get(v) or seen.get(v))
            seen.setdefault(v, ("output", j))
    return sources


def depends_on(closed: ClosedJaxpr, inputs: Sequence[bool]) -> list[bool]:
    """For each output, whether any of the marked inputs reaches it."""
    marked = {v for v, on in zip(inner(closed).invars, inputs, strict=True) if on}
    for eqn in inner(closed).eqns:
        if any(v in marked for v in eqn.invars if not isinstance(v, Literal)) or eqn.effects:
            marked.update(eqn.outvars)
    return [not isinstance(v, Literal) and v in marked for v in inner(closed).outvars]


@weak_cache
def compiled(closed: ClosedJaxpr) -> Callable:
    """A jaxpr as one compiled function; the compilation is cached with the jaxpr."""
    return jax.jit(jaxpr_as_fun(closed.replace()))


def kept_call(fun: Callable) -> Callable:
    """``fun`` as a call that XLA does not inline: nothing is fused with what is on the other side of it."""
    return xla_metadata_call(fun, inlineable="false")


def temporary_bytes(lowered: jax.stages.Lowered) -> int:
    """Bytes that a program needs beside its arguments and results, on each device; compiles it."""
    analysis = lowered.compile().memory_analysis()
    if analysis is None:
        raise RuntimeError(f"the backend '{jax.default_backend()}' does not tell how much memory a program needs")
    return analysis.temp_size_in_bytes


def is_saveable(policy, primitive, avals, params) -> bool:
    """True if a ``jax.checkpoint`` policy keeps the results of an equation (None: nothing is kept)."""
    if policy is None:
        return False
    return pe.ensure_enum(policy(primitive, *avals, **params)) is not pe.Recompute


def has_side_effects(closed: ClosedJaxpr) -> bool:
    """True if something happens outside the program that must not happen a second time (debugging output may)."""
    return bool(effects.remat_allowed_effects.filter_not_in(closed.effects))


def sharding_of_axes(aval, axes):
    """The layout that an array with these axes of ``aval`` must have, if the type says so (explicit sharding), else
    None.

    An axis None is a new one, whole on every device.
    """
    sharding = aval.sharding
    if sharding.mesh.empty:
        if jax.sharding.get_abstract_mesh().empty:
            return None
        return core.get_cur_mesh_sharding(jax.sharding.PartitionSpec(*(None for _ in axes)))
    partitions = tuple(None if axis is None else sharding.spec.partitions[axis] for axis in axes)
    return sharding.update(spec=sharding.spec.update(partitions=partitions))


def mentions(params: dict, wanted: Sequence | Callable) -> bool:
    """True if the sub-programs of an equation, however deep, hold an equation of a wanted primitive.

    ``wanted`` are primitives, or a function that says of a primitive whether it is wanted.
    """
    parts = dict(enumerate(object_parts(params)))
    wanted = wanted if callable(wanted) else tuple(wanted)
    return any(_mentions(jaxpr, wanted) for jaxpr in core.jaxprs_in_params(parts))


@weak_cache
def _mentions(jaxpr, wanted) -> bool:
    found = wanted if callable(wanted) else lambda primitive: primitive in wanted
    return any(found(stand_in(eqn)) or mentions(eqn.params, wanted) for eqn in jaxpr.eqns)


def count_equations(closed: ClosedJaxpr) -> int:
    """The number of equations of a jaxpr, with those of its sub-programs."""
    parts = (core.jaxprs_in_params(dict(enumerate(object_parts(eqn.params)))) for eqn in closed.eqns)
    return len(closed.eqns) + sum(count_equations(inner) for found in parts for inner in found)


def is_users(closed: ClosedJaxpr) -> bool:
    """True if the function that this jaxpr was traced from is the user's code, not the library's."""
    filename = inner(closed).debug_info.func_filename
    return filename is not None and source_info_util.is_user_filename(filename)
