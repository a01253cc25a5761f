"""Mutable references (``jax.new_ref``) and how programs are rid of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jax import lax
from jax._src import core
from jax._src.state import discharge

from admodes.program.jax_compat.contacts import contact
from admodes.program.jax_compat.jaxprs import ClosedJaxpr

DischargeContext = contact("DischargeContext")  # since jax 0.11, where all rules are of one kind
partial_rules = contact("_partial_discharge_rules")  # before it


def abstract_results(primitive, avals, params):
    """The type of the result of an equation; a list of them for primitives with several."""
    return primitive.abstract_eval(*avals, **params)[0]


def empty(ref_aval):
    """An array of unspecified content, for a reference of this type."""
    return lax.empty(ref_aval.shape, ref_aval.dtype)


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
