"""Mutable references (``jax.new_ref``) and how programs are rid of them.

A derivative rule is about values; so a program that writes to a reference becomes one that returns its content.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax import lax
from jax._src import core
from jax._src.state import discharge
from jax._src.state.types import ReadEffect, RefEffect

from admodes.program.jax_compat.contacts import contact
from admodes.program.jax_compat.jaxprs import ClosedJaxpr, inner, trace_flat
from admodes.program.jax_compat.values import is_reference, weak_cache

DischargeContext = contact("DischargeContext")  # since jax 0.11, where all rules are of one kind
partial_rules = contact("_partial_discharge_rules")  # before it


def abstract_results(primitive, avals, params):
    """The type of the result of an equation; a list of them for primitives with several."""
    return primitive.abstract_eval(*avals, **params)[0]


def empty(ref_aval):
    """An array of unspecified content, for a reference of this type."""
    return lax.empty(ref_aval.shape, ref_aval.dtype)


def origin_of_reference(x, arguments: Sequence) -> tuple | None:
    """The origin of a reference that a function which is being traced meets; None for other values.

    That is ("input", i), or ("literal", x) for one from outside. (One made within is a matter of JAX's: None.)
    """
    if not is_reference(core.typeof(x)):
        return None
    i = next((i for i, argument in enumerate(arguments) if argument is x), None)
    if i is not None:
        return "input", i
    return None if getattr(x, "_trace", None) is core.trace_ctx.trace else ("literal", x)


def touched_references(closed: ClosedJaxpr) -> tuple[tuple[bool, ...], tuple[bool, ...]]:
    """The inputs that are references that the program itself reads or writes, and those that it writes."""
    touches = [e for e in closed.effects if isinstance(e, RefEffect)]
    return _inputs_of(closed, touches), _inputs_of(closed, [e for e in touches if not isinstance(e, ReadEffect)])


def _inputs_of(closed, found) -> tuple[bool, ...]:
    names = {e.input for e in found}
    return tuple(v in names for v in inner(closed).invars)


@weak_cache
def on_contents(closed: ClosedJaxpr, kinds: tuple, touched: tuple[bool, ...], written: tuple[bool, ...]) -> Any:
    """The program on the contents of the references that it touches; it also returns what is in those it has written.

    Within, it works on references of the same ``kinds``, which nobody else sees.
    """

    def fun(*contents):
        places = zip(contents, kinds, touched, strict=True)
        args = [jax.new_ref(x, kind=kind) if on else x for x, kind, on in places]
        outs = core.jaxpr_as_fun(closed)(*args)
        return [*outs, *(x[...] for x, on in zip(args, written, strict=True) if on)]

    avals = [a.inner_aval if on else a for a, on in zip(closed.in_avals, touched, strict=True)]
    return trace_flat(fun, avals, "references")


def has_references(closed: ClosedJaxpr) -> bool:
    """True if references are created in the jaxpr."""
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
    rule = discharge._discharge_rules.get(primitive)
    if DischargeContext is not None:
        outs = abstract_results(primitive, avals, params)
        context = DischargeContext(
            avals, outs if primitive.multiple_results else [outs], refs, strip_memory_space=False
        )
        return None if rule is None else lambda *values: rule(context, *values, **params)
    if primitive in partial_rules:
        outs = abstract_results(primitive, avals, params)
        return lambda *values: partial_rules[primitive](refs, avals, outs, *values, **params)
    return None if rule is None else lambda *values: rule(avals, (), *values, **params)
