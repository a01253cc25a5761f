"""Derivative rules that a library registered with JAX for primitives of its own.

Such a rule is the library's function, as the rule of a custom_jvp function is. JAX's own primitives are not served:
their derivatives come from this library's table alone.
"""

from __future__ import annotations

import sys
from functools import lru_cache

from jax.interpreters.ad import UndefinedPrimal, Zero, primitive_jvps, primitive_transposes

from admodes.program.jax_compat.hijax import HiPrimitive
from admodes.program.jax_compat.primitives import custom_jvp_call_p, custom_vjp_call_p
from admodes.program.jax_compat.values import tangent_aval, typeof


@lru_cache(None)
def _is_of_jax(primitive) -> bool:
    """True if a module of JAX's holds the primitive, as the one that defines it does."""
    modules = [m for name, m in sys.modules.items() if name.partition(".")[0] in ("jax", "jaxlib")]
    return any(value is primitive for module in modules for value in list(vars(module).values()))


def has_registered_rule(primitive) -> bool:
    """True if a library registered a derivative rule for this primitive, one of its own."""
    registered = primitive in primitive_jvps or primitive in primitive_transposes
    return registered and not _is_of_jax(primitive)


def has_own_rule(primitive) -> bool:
    """True if the derivative of an equation is the function of a user or of a library, which its text does not show."""
    custom = primitive in (custom_jvp_call_p, custom_vjp_call_p) or isinstance(primitive, HiPrimitive)
    return custom or has_registered_rule(primitive)


def registered_rules(primitive) -> tuple:
    """The functions (derivative, transpose) that are registered for a primitive, which need not be JAX's; or None."""
    return primitive_jvps.get(primitive), primitive_transposes.get(primitive)


def push_registered(primitive, primals, tangents, params) -> tuple[list, list] | None:
    """(results, their tangents) by the registered rule, None for a zero tangent; None if there is no such rule."""
    rule = primitive_jvps.get(primitive)
    if rule is None or _is_of_jax(primitive):
        return None
    given = [Zero(tangent_aval(typeof(p))) if t is None else t for p, t in zip(primals, tangents, strict=True)]
    outs, ts = rule(list(primals), given, **params)
    return (list(outs), [_present(t) for t in ts]) if primitive.multiple_results else ([outs], [_present(ts)])


def pull_registered(primitive, operands, active, cotangents, codomain, params) -> list | None:
    """The cotangents of the operands of a linear application, None for zero; None if no transpose is registered.

    Where ``active``, the operand is given by its type.
    """
    rule = primitive_transposes.get(primitive)
    if rule is None or _is_of_jax(primitive):
        return None
    given = [UndefinedPrimal(x) if on else x for x, on in zip(operands, active, strict=True)]
    gs = [Zero(tangent_aval(a)) if g is None else g for g, a in zip(cotangents, codomain, strict=True)]
    cts = rule(gs if primitive.multiple_results else gs[0], *given, **params)
    return [None] * len(operands) if cts is Zero else [_present(ct) for ct in cts]


def _present(tangent):
    return None if tangent is None or tangent is Zero or isinstance(tangent, Zero) else tangent
