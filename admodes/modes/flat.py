"""The passage between users' functions of pytrees and the flat functions that the interpreters run.

Only here trees are taken apart and put together, so that rules and tapes know lists of arrays only.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.tree_util import tree_flatten, tree_unflatten

from admodes.program import jax_compat as jc

F = TypeVar("F", bound=Callable)


class Result:
    """The knowledge that a flat function gains about its outputs: their structure, and that of the auxiliary data."""

    tree: Any = None
    aux_tree: Any = None

    def aux(self, leaves):
        return tree_unflatten(self.aux_tree, leaves)


def flat_function(fun: Callable, in_tree, has_aux: bool) -> tuple[Callable, Result]:
    """``fun`` from flat leaves to flat leaves (outputs, then auxiliary data), and what its run will tell."""
    result = Result()

    def flat(*leaves):
        out = fun(*tree_unflatten(in_tree, leaves))
        aux: list = []
        if has_aux:
            out, auxiliary = pair(out)
            aux, result.aux_tree = tree_flatten(auxiliary)
        outs, result.tree = tree_flatten(out)
        for x in outs:
            if not jc.is_value(x):
                raise TypeError(f"function returned a value of type {type(x)}, which is not a valid JAX type")
        return [*outs, *aux]

    return flat, result


def pair(out):
    """The result of a function with auxiliary data; TypeError unless it is (output, auxiliary data)."""
    if not isinstance(out, (tuple, list)) or len(out) != 2:
        raise TypeError(
            "with has_aux=True, the function must return a two-element tuple (output, auxiliary_data), but got "
            f"{_describe(out)}"
        )
    return out


def _describe(out) -> str:
    return (
        f"a {type(out).__name__} of length {len(out)}" if isinstance(out, (tuple, list)) else f"a {type(out).__name__}"
    )


def select_arguments(fun: Callable, argnums, args: tuple, kwargs: dict) -> tuple[Callable, tuple]:
    """``fun`` as a function of the arguments at ``argnums`` only, and those; the others reach it as they are."""
    places = (argnums,) if isinstance(argnums, int) else argnums

    @functools.wraps(fun, updated=())
    def selected(*given):
        full = list(args)
        for place, value in zip(places, given, strict=True):
            full[place] = value
        return fun(*full, **kwargs)

    return selected, tuple(args[place] for place in places)


def std_basis(tree):
    """The standard basis of the space of ``tree``: each leaf gets a leading axis over all entries of all leaves."""
    leaves, treedef = tree_flatten(tree)
    sizes = [np.size(x) for x in leaves]
    n = sum(sizes)
    dtype = jax.dtypes.result_type(*leaves) if leaves else np.dtype(np.float32)
    flat = jax.numpy.eye(n, dtype=dtype)
    parts = jax.numpy.split(flat, np.cumsum(sizes)[:-1], axis=1) if leaves else []
    return tree_unflatten(treedef, [jc.batch_of(part, jc.typeof(x)) for part, x in zip(parts, leaves, strict=True)])


def wraps(fun: Callable, what: str) -> Callable[[F], F]:
    """Give a derivative the name and signature of ``fun``, and a docstring that says what it is."""

    def decorate(wrapped):
        wrapped = functools.wraps(fun, updated=())(wrapped)
        name = getattr(fun, "__name__", type(fun).__name__)
        wrapped.__doc__ = f"{what} of {name}; takes the arguments of {name}."
        return wrapped

    return decorate
