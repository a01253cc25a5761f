"""Identities of the Python objects behind a program, about which its text says nothing: derivative rules, callbacks,
static values.

Functions of users are the same if they are the same object, as for ``jax.jit``: what a function closes over has no
text. JAX wraps them anew in each trace, so that its own wrappers are looked into.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax._src import config, core, util
from jax._src import linear_util as lu

from admodes.program.jax_compat.contacts import contact
from admodes.program.jax_compat.hijax import object_parts, stand_in
from admodes.program.jax_compat.jaxprs import is_users
from admodes.program.jax_compat.primitives import custom_jvp_call_p, custom_vjp_call_p, linear_call_p
from admodes.program.jax_compat.registered import has_own_rule, registered_rules
from admodes.program.jax_compat.values import weak_cache

ClosedJaxpr, HiPrim = contact("ClosedJaxpr"), contact("HiPrim")
# what belongs to the trace, not to the function: where results are left, marks, names for messages
PASSING = (core.Trace, lu.Store, lu.EqualStore, lu.DebugInfo)
PLAIN = (type(None), bool, int, float, complex, str, bytes, np.dtype, np.generic, enum.Enum)


def trace_context() -> tuple:
    """The settings of JAX that a trace depends on: what ``jax.jit`` traces anew for when it changes."""
    return config.trace_context()


def holds_rule_of_user(primitive, params) -> bool:
    """True if an equation, or one of its sub-programs, has a rule that JAX does not vouch for: it may be any function.

    (Told by the function that has the rule: the rule itself may be JAX's, around the user's.)
    """
    if primitive in (custom_jvp_call_p, custom_vjp_call_p):
        if is_users(params["call_jaxpr"]):
            return True
    elif has_own_rule(primitive) or primitive is linear_call_p:
        return True
    return any(map(_holds_rule_of_user, core.jaxprs_in_params(dict(enumerate(object_parts(params))))))


@weak_cache
def _holds_rule_of_user(jaxpr) -> bool:
    return any(holds_rule_of_user(stand_in(eqn), eqn.params) for eqn in jaxpr.eqns)


class Same:
    """A key that equals only those of the same object."""

    def __init__(self, of: Any):
        self.of = of

    def __eq__(self, other):
        return isinstance(other, Same) and self.of is other.of

    def __hash__(self):
        return id(self.of)


def hidden_in_equation(eqn, content) -> Iterator[Any]:
    """Keys of what the text of an equation hides: the primitive and its rules, objects and functions in parameters.

    ``content(array)`` is the key of a known array.
    """
    yield eqn.primitive
    yield registered_rules(eqn.primitive)
    for name, value in sorted(eqn.params.items()):
        yield name, _key(value, content, ())


def _key(x, content, above: tuple) -> Any:
    """A hashable key of an object that belongs to an equation; ``above`` are those that hold it."""
    if isinstance(x, PLAIN):
        return type(x), repr(x)
    if isinstance(x, PASSING) or type(x) is object:
        return None
    if any(x is y for y in above):
        return "itself"
    deeper = functools.partial(_key, content=content, above=(*above, x))
    if isinstance(x, jax.stages.Traced):
        return deeper(x.jaxpr)
    if isinstance(x, (ClosedJaxpr, core.Jaxpr)):
        consts = tuple(map(deeper, getattr(x, "consts", ())))
        text = str(x) if any(map(callable, above)) else None  # that of parameters has been seen
        return text, consts, tuple(key for eqn in x.eqns for key in hidden_in_equation(eqn, content))
    if isinstance(x, (tuple, list)):
        return type(x), tuple(map(deeper, x))
    if isinstance(x, dict):
        return dict, tuple((deeper(name), deeper(value)) for name, value in x.items())
    if isinstance(x, lu.WrappedFun):
        return deeper(x.f), tuple((code, deeper(parameters)) for code, parameters in x.transforms)
    if isinstance(x, util.Unhashable):
        return deeper(x.val)
    if isinstance(x, functools.partial):
        return functools.partial, deeper(x.func), deeper(x.args), deeper(x.keywords)
    if isinstance(x, HiPrim):
        return type(x), tuple((name, deeper(value)) for name, value in vars(x).items())
    if _is_wrapper(x):
        cells = dict(zip(x.__code__.co_freevars, x.__closure__, strict=True))
        cells.pop("cells", None)  # what JAX's _memoize has found so far
        try:
            return x.__code__, tuple((name, deeper(cell.cell_contents)) for name, cell in cells.items())
        except ValueError:  # a cell that is empty yet
            return Same(x)
    if isinstance(x, (np.ndarray, jax.Array)):
        return Same(x) if isinstance(x, core.Tracer) else content(x)
    try:
        hash(x)
    except TypeError:
        return Same(x)
    return type(x), x


def _is_wrapper(x) -> bool:
    """True if this is a function that JAX made around others."""
    return bool(getattr(x, "__closure__", None)) and str(getattr(x, "__module__", "")).partition(".")[0] == "jax"
