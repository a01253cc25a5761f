"""Arguments that are mutable references: what is differentiated is the function of what they hold.

It also returns what they hold in the end, whose cotangent is what the reference for the gradient holds before.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
from jax.tree_util import tree_flatten, tree_flatten_with_path, tree_unflatten

from admodes.modes.flat import pair
from admodes.program import jax_compat as jc


def references_in(arguments: tuple, name: str) -> dict:
    """The references among the leaves of the arguments, by place. ValueError if one is there twice."""
    leaves, _ = tree_flatten_with_path(arguments)
    found = {i: x for i, (_, x) in enumerate(leaves) if jc.is_value(x) and jc.is_reference(jc.typeof(x))}
    first: dict = {}
    for i, x in found.items():
        other = first.setdefault(id(x), i)
        if other != i:
            places = " and ".join(f"args{jax.tree_util.keystr(leaves[k][0])}" for k in (other, i))
            raise ValueError(
                f"only one reference to a mutable array may be passed as an argument to {name}, which is "
                f"differentiated, but {places} are the same"
            )
    return found


def on_contents(fun: Callable, arguments: tuple, references: dict, has_aux: bool) -> tuple[Callable, tuple]:
    """A function that returns (what ``fun`` does, what the references hold in the end), and its arguments."""
    leaves, tree = tree_flatten(arguments)
    contents = tree_unflatten(tree, [x[...] if i in references else x for i, x in enumerate(leaves)])
    kinds = {i: jc.typeof(x).kind for i, x in references.items()}

    @functools.wraps(fun, updated=())
    def of_contents(*args):
        values = tree_flatten(args)[0]
        held = {i: jax.new_ref(values[i], kind=kind) for i, kind in kinds.items()}
        out = fun(*tree_unflatten(tree, [held.get(i, x) for i, x in enumerate(values)]))
        out, *aux = pair(out) if has_aux else (out,)
        result = out, [ref[...] for ref in held.values()]
        return (result, *aux) if has_aux else result

    return of_contents, contents
