"""Checks of arguments, with the exception classes and the reasons that JAX gives."""

from __future__ import annotations

import operator

import jax
import numpy as np
from jax.tree_util import keystr, tree_leaves_with_path

from admodes.program import jax_compat as jc

# what is an array among arguments that are not differentiated; other things are fixed
ARRAYS = (jax.Array, np.ndarray, np.generic, float, complex)


def ensure_index(argnums):
    """``argnums`` as an int or a tuple of ints; TypeError if it is neither."""
    try:
        return operator.index(argnums)
    except TypeError:
        try:
            return tuple(map(operator.index, argnums))
        except TypeError:
            raise TypeError(f"argnums must be an int or a sequence of ints, got {argnums!r}") from None


def positional(argnums, args) -> None:
    """Raise unless ``argnums`` names arguments among ``args`` (negative: from the end), each once.

    TypeError if there are too few arguments, ValueError for an ``argnums`` that is wrong in itself.
    """
    places = (argnums,) if isinstance(argnums, int) else argnums
    if not places:
        raise ValueError("argnums is empty: name at least one argument to differentiate")
    if min(places) < -len(args):
        raise ValueError(f"{argnums=} counts further back than the {len(args)} positional arguments")
    top = max(places)
    if top >= len(args):
        raise TypeError(
            f"differentiating with respect to {argnums=} requires at least {top + 1} positional arguments to be "
            f"passed by the caller, but got only {len(args)} positional arguments."
        )
    if len({place % len(args) for place in places}) < len(places):
        raise ValueError(f"{argnums=} names an argument twice: their derivatives are one; differentiate by it once")


def place(leaf, args) -> str:
    """The argument that ``leaf`` is (in), in words."""
    paths = ((k, path) for k, x in enumerate(args) for path, y in tree_leaves_with_path(x) if y is leaf)
    k, path = next(paths)
    return f"argument {k}" + (f" (at {keystr(path)})" if path else "")


def differentiable_argument(name: str, leaf, args) -> None:
    """Raise TypeError unless ``leaf``, which is in ``args``, is an array or a number, or at least its type is known."""
    if not jc.is_value(leaf):
        raise TypeError(
            f"{name} differentiates with respect to arrays and numbers, but {place(leaf, args)} is {leaf!r}, of type "
            f"{type(leaf).__name__}, which is not a valid JAX type. Set argnums to others, or make it an array."
        )


def values(name: str, leaves, args) -> None:
    """Raise TypeError if one of the ``leaves`` of ``args`` is a type (``jax.ShapeDtypeStruct``), not a value."""
    for leaf in leaves:
        if isinstance(leaf, jax.ShapeDtypeStruct):
            raise TypeError(
                f"{name} computes with values, but {place(leaf, args)} is a {leaf}: pass an array. "
                "(Types are enough for admodes.plan.)"
            )


def traced_output(x) -> None:
    """Raise TypeError unless ``x``, which a function that is traced returned, is an array or a number."""
    if not jc.is_value(x):
        raise TypeError(
            "a function that is traced must return arrays and numbers, in its auxiliary data (has_aux=True) too, but "
            f"this one returned {x!r}, of type {type(x).__name__}. Leave it out; or use admodes.jacrev, or "
            "admodes.grad without memory_limit, which return auxiliary data as they are."
        )


def not_a_reference(x) -> None:
    """Raise ValueError if ``x`` is a mutable reference: it has no cotangent."""
    if jc.is_reference(jc.typeof(x)):
        raise ValueError(
            f"a mutable reference ({jc.typeof(x).str_short()}) cannot be differentiated with respect to: pass its "
            "content, or close over it"
        )


def _is(dtype, kind) -> bool:
    return jax.dtypes.issubdtype(dtype, kind)


def _is_users(name: str, x) -> bool:
    """True if ``x`` is of a type of the user's, which says itself what its tangents are.

    Raises TypeError for Jacobians, which have a column or row for each entry of an array.
    """
    if jc.is_array(x):
        return False
    if name.startswith("jac"):
        raise TypeError(
            f"{name} takes derivatives entry by entry, but a value of type {jc.typeof(x).str_short()} is no array: "
            "use jvp, vjp or grad, or take its arrays as arguments and results."
        )
    return True


def reverse_input(name: str, holomorphic: bool, allow_int: bool, x) -> None:
    """The inputs that reverse mode takes: floats, complex with ``holomorphic``, integers with ``allow_int``."""
    jc.check_arg(x)
    if jc.is_reference(jc.typeof(x)):
        raise TypeError(
            f"{name} cannot differentiate with respect to a Ref-typed argument, a mutable reference, whose gradient is "
            "added to another one: use admodes.vjp, and with_refs of its pullback; or pass what it holds"
        )
    if _is_users(name, x):
        return
    dtype = jc.typeof(x).dtype
    if holomorphic and not _is(dtype, np.complexfloating):
        raise TypeError(f"{name} with holomorphic=True requires inputs with complex dtype, but got {dtype.name}.")
    if jc.is_extended(dtype) or _is(dtype, np.integer) or _is(dtype, np.bool_):
        if not allow_int:
            raise TypeError(
                f"{name} requires real- or complex-valued inputs (input dtype that is a sub-dtype of np.inexact), "
                f"but got {dtype.name}. If you want to use Boolean- or integer-valued inputs, use vjp or set "
                "allow_int to True."
            )
    elif not _is(dtype, np.inexact):
        raise TypeError(
            f"{name} requires numerical-valued inputs (input dtype that is a sub-dtype of np.bool_ or np.number), "
            f"but got {dtype.name}."
        )


def reverse_output(name: str, holomorphic: bool, x) -> None:
    """The outputs that reverse mode takes: floats, or complex ones with ``holomorphic``."""
    if _is_users(name, x):
        return
    dtype = jc.typeof(x).dtype
    if jc.is_extended(dtype):
        raise TypeError(f"{name} with output element type {dtype.name}")
    if holomorphic:
        if not _is(dtype, np.complexfloating):
            raise TypeError(f"{name} with holomorphic=True requires outputs with complex dtype, but got {dtype.name}.")
    elif _is(dtype, np.complexfloating):
        raise TypeError(
            f"{name} requires real-valued outputs (output dtype that is a sub-dtype of np.floating), but got "
            f"{dtype.name}. For holomorphic differentiation, pass holomorphic=True. For differentiation of "
            "non-holomorphic functions involving complex outputs, use admodes.vjp directly."
        )
    elif not _is(dtype, np.floating):
        raise TypeError(
            f"{name} requires real-valued outputs (output dtype that is a sub-dtype of np.floating), but got "
            f"{dtype.name}. For differentiation of functions with integer outputs, use admodes.vjp directly."
        )


def forward_input(name: str, holomorphic: bool, x) -> None:
    """The inputs that jacfwd takes: floats, or complex ones with ``holomorphic``."""
    jc.check_arg(x)
    if _is_users(name, x):
        return
    dtype = jc.typeof(x).dtype
    if jc.is_extended(dtype):
        raise TypeError(f"{name} with input element type {dtype.name}")
    if holomorphic:
        if not _is(dtype, np.complexfloating):
            raise TypeError(f"{name} with holomorphic=True requires inputs with complex dtype, but got {dtype.name}.")
    elif not _is(dtype, np.floating):
        raise TypeError(
            f"{name} requires real-valued inputs (input dtype that is a sub-dtype of np.floating), but got "
            f"{dtype.name}. For holomorphic differentiation, pass holomorphic=True. For differentiation of "
            "non-holomorphic functions involving complex inputs or integer inputs, use admodes.jvp directly."
        )


def forward_output(name: str, holomorphic: bool, x) -> None:
    """The outputs that jacfwd takes: complex ones if ``holomorphic``."""
    if _is_users(name, x):
        return
    dtype = jc.typeof(x).dtype
    if holomorphic and not _is(dtype, np.complexfloating):
        raise TypeError(f"{name} with holomorphic=True requires outputs with complex dtype, but got {dtype.name}.")


def scalar(x) -> None:
    """Raise TypeError unless ``x`` is one array of shape ()."""
    try:
        aval = jc.typeof(x)
    except TypeError as error:
        raise TypeError(f"Gradient only defined for scalar-output functions. Output was {x}.") from error
    if getattr(aval, "shape", None) != ():
        shape = getattr(aval, "shape", aval)
        raise TypeError(
            f"Gradient only defined for scalar-output functions. Output had shape: {shape}. "
            "For other outputs use admodes.jacrev, or admodes.vjp with a cotangent of that shape."
        )


def tangent(primal, t) -> None:
    """Raise unless ``t`` has the dtype (TypeError) and shape (ValueError) of a tangent of ``primal``."""
    expected = jc.tangent_aval(jc.typeof(primal))
    if not jc.is_array(primal):
        if not jc.same_type(jc.typeof(t), expected):
            raise TypeError(
                f"the tangent of a value of type {jc.typeof(primal).str_short()} must be of type "
                f"{expected.str_short()}, but this one is of type {jc.typeof(t).str_short()}."
            )
        return
    dtype = jc.dtype_of(t)
    if expected.dtype != dtype:
        raise TypeError(
            "primal and tangent arguments to admodes.jvp do not match; dtypes must be equal, or in case of int/bool "
            f"primal dtype the tangent dtype must be float0. Got primal dtype {jc.dtype_of(primal)} and so expected "
            f"tangent dtype {expected.dtype}, but got tangent dtype {dtype} instead."
        )
    if np.shape(primal) != np.shape(t):
        raise ValueError(
            "jvp called with different primal and tangent shapes; "
            f"Got primal shape {np.shape(primal)} and tangent shape as {np.shape(t)}"
        )


def cotangent(aval, g) -> None:
    """Raise ValueError unless ``g`` is a cotangent of an output of type ``aval``; for an integer any dtype will do."""
    expected, given = jc.cotangent_aval(aval), jc.typeof(g)
    if jc.same_type(given, expected):
        return
    if getattr(expected, "dtype", None) != jc.float0 or given.shape != expected.shape:
        raise ValueError(
            "unexpected JAX type (e.g. shape/dtype) for argument to VJP function: "
            f"got {given.str_short()}, but expected {expected.str_short()} because the corresponding output of the "
            f"differentiated function had JAX type {aval.str_short()}"
        )
