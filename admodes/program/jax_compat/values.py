"""Values and their types: canonical forms, tangent types, zeros."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar, cast

import jax
import numpy as np
from jax import lax
from jax._src import ad_util, api_util, core, dtypes, literals, traceback_util, util
from jax._src.tree_util import equality_errors_pytreedef as equality_errors_pytreedef

from admodes.program.jax_compat.contacts import contact

F = TypeVar("F", bound=Callable)
Aval = core.ShapedArray
HiType = contact("HiType")  # of values that are not arrays
float0 = jax.dtypes.float0
typeof = core.typeof
to_concrete_value = core.to_concrete_value
weak_cache = util.weakref_lru_cache
check_callable = api_util.check_callable


ESCAPED = (
    "A value is used outside of the trace that made it. If it is an array among the nondiff_argnums of a custom_jvp or "
    "custom_vjp function, inside of jit, scan or cond: make it an ordinary argument of that function. JAX says: "
)


def api_boundary(fun: F) -> F:
    """``fun`` as users call it: tracebacks leave out what is inside, and say what a leaked tracer may come from."""

    @functools.wraps(fun)
    def called(*args, **kwargs):
        try:
            return fun(*args, **kwargs)
        except (jax.errors.UnexpectedTracerError, TypeError) as error:
            text = str(error)
            compiled_in = "No constant handler" in text and "Tracer" in text  # JAX met the tracer while lowering
            if text.startswith(ESCAPED) or not (compiled_in or isinstance(error, jax.errors.UnexpectedTracerError)):
                raise
            raise jax.errors.UnexpectedTracerError(f"{ESCAPED}{text}") from error

    return cast(F, traceback_util.api_boundary(called))


def operand_tree(tree):
    """The structure of a tree of operands, as the primitives that keep such structures want it."""
    return contact("operand_registry").flatten(tree)[1]


def canonicalize(x):
    """``x`` as JAX would see it: Python and numpy scalars become arrays, dtypes are canonical."""
    return x if isinstance(x, core.Tracer) else dtypes.canonicalize_value(x)


def dtype_of(x):
    """The dtype that ``x`` has as a JAX value (float0 arrays included); None if that is no array."""
    if getattr(x, "dtype", None) == float0:
        return x.dtype
    try:
        return dtypes.dtype(x)
    except TypeError:
        if isinstance(core.typeof(x), HiType):
            return None
        raise


def is_value(x) -> bool:
    """True if ``x`` is something JAX computes with: an array, a tracer, a number."""
    return core.valid_jaxtype(x)


def is_number(x) -> bool:
    """True if ``x`` is a number of Python's or numpy's, not an array: JAX gives it to rules as it is."""
    return isinstance(x, (bool, int, float, complex, np.generic)) or (
        isinstance(x, literals.TypedNdArray) and not x.shape
    )


def one(x):
    """The cotangent 1 of a scalar output."""
    aval = core.typeof(x)
    expected = cotangent_aval(aval)
    return lax.full_like(x, 1, sharding=None if expected == tangent_aval(aval) else expected.sharding)


def check_arg(x) -> None:
    """Raise JAX's own TypeError when ``x`` is not a valid JAX value."""
    from jax._src import dispatch

    dispatch.check_arg(x)


def tangent_aval(aval):
    """The type of tangents of a value of type ``aval``; dtype float0 for integers."""
    return aval.to_tangent_aval()


def cotangent_aval(aval):
    """The type of cotangents of a value of type ``aval``: what its devices hold copies of, they hold summands of."""
    return aval.to_ct_aval()


def is_differentiable(aval) -> bool:
    """True if values of this type carry derivatives: real or complex arrays, users' types with tangents like these."""
    if isinstance(aval, HiType):
        tangent = aval.to_tangent_aval()
        return isinstance(tangent, HiType) or tangent.dtype != float0
    return isinstance(aval, core.ShapedArray) and dtypes.issubdtype(aval.dtype, np.inexact)


def is_real(x) -> bool:
    """True if ``x`` is an array of real floating point numbers."""
    return dtypes.issubdtype(core.typeof(x).dtype, np.floating)


def is_reference(aval) -> bool:
    """True if values of this type are mutable references, through which derivatives would pass unseen."""
    return not isinstance(aval, (core.ShapedArray, core.AbstractToken, HiType))


def is_array(x) -> bool:
    """True if a value is an array (or a number), not of a type of the user's."""
    return isinstance(core.typeof(x), core.ShapedArray)


def arrays_in(aval) -> list:
    """The types of the arrays that a value of this type consists of."""
    return aval.lo_ty() if isinstance(aval, HiType) else [aval]


def is_without_derivative(aval) -> bool:
    """True if this is the type of references for which the user has asked that no derivative passes through them."""
    return getattr(aval, "kind", None) == "no_grad_no_remat"


def counter_dtype(n):
    """The unsigned type of numbers up to ``n``, a size that may be symbolic (and is then taken to be below 2³²)."""
    return np.dtype(np.uint64 if core.is_constant_dim(n) and n >= np.iinfo(np.uint32).max else np.uint32)


def is_extended(dtype) -> bool:
    return dtypes.issubdtype(dtype, dtypes.extended)


def _here(aval):
    """A type in the present context: in a shard_map, that of an array from outside which is whole on every device."""
    mesh = jax.sharding.get_abstract_mesh()
    if not isinstance(aval, core.ShapedArray) or mesh.empty or is_laid_out(aval):
        return aval
    if aval.sharding.mesh.empty or aval.sharding.mesh == mesh:
        return aval
    return aval.update(sharding=core.get_cur_mesh_sharding(jax.sharding.PartitionSpec(*(None for _ in aval.shape))))


def zeros(aval):
    """A zero tangent for a primal of type ``aval`` (a float0 array for integers)."""
    return ad_util.zeros_like_aval(_here(tangent_aval(aval)))


def cotangent_zeros(aval):
    """A zero cotangent for a primal of type ``aval``."""
    return ad_util.zeros_like_aval(_here(cotangent_aval(aval)))


def tangent_point(aval):
    """Where a function that is linear in a tangent of this type is recorded: at 1, since norms of 0 are degenerate."""
    zero = zeros(aval)
    return lax.exp(zero) if is_array(zero) and dtype_of(zero) != float0 else zero  # exp keeps all that the type says


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
    return lax.convert_element_type_p.bind(x, new_dtype=aval.dtype, weak_type=aval.weak_type, sharding=None)


def batch_of(x, aval):
    """``x`` reshaped to a batch of arrays of type ``aval`` along a new leading axis, laid out as that says."""
    axes = aval.sharding.spec.partitions
    explicit = any(axis is not None for axis in axes)
    layout = aval.sharding.update(spec=jax.sharding.PartitionSpec(None, *axes)) if explicit else None
    batch = convert_like(lax.reshape(x, (len(x), *aval.shape), out_sharding=layout), aval)
    return lax.pcast(batch, tuple(aval.mat.varying), to="varying") if aval.mat.varying else batch


def is_laid_out(aval) -> bool:
    """True if the type of an array says how it is spread over devices (explicit shardings)."""
    spec = aval.sharding.spec
    return bool(spec.unreduced or spec.reduced) or any(axis is not None for axis in spec.partitions)


def is_varying(aval) -> bool:
    """True if the array is a different one on each device (inside shard_map)."""
    return bool(aval.mat.varying)


def untyped(x):
    """The Python number or numpy array in the place of the typed one that :func:`canonicalize` makes of it."""
    if isinstance(x, literals.TypedNdArray):
        return x if x.dtype == float0 else x.val[()]
    for kind in (int, float, complex):
        if type(x) is getattr(literals, f"Typed{kind.__name__.capitalize()}"):
            return kind(x)
    return x
