r"""Kinks of primitives that the library has no code for: those that an entry of the table spells out, or its slope has.

An entry may give the function in other primitives; beside the point these are decided one by one. Or it says nothing,
and its slope compares. Then the slope itself is evaluated beside the point: that of the piece which holds there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import jax
from jax.tree_util import tree_unflatten

from admodes.errors import UnsupportedPrimitiveError
from admodes.nonsmooth.germs import Germ, detach
from admodes.program import jax_compat as jc
from admodes.program.dependence import dependent
from admodes.program.derived import present
from admodes.program.ir import from_jaxpr
from admodes.rules.slopes import jumps, slopes_of, spelled_out
from admodes.rules.table import lookup


def decided_by_function(kink: Callable, interpreter, primitive, germs: Sequence[Germ], params: dict) -> list:
    """The primitive as the function that it is said to be."""
    avals = tuple(jc.typeof(g.primal) for g in germs)
    return interpreter.push_germs(spelled_out(kink, avals, tuple(params.items())), germs)


def decided_by_slope(interpreter, primitive, germs: Sequence[Germ], params: dict) -> list:
    """The value at the point, with the slope that holds beside it."""
    primals, tangents = [g.primal for g in germs], [g.tangent for g in germs]
    active = present(tangents)
    closed, tree = slopes_of(primitive, tuple(map(jc.typeof, primals)), active, params)
    if _compares_its_result(closed):
        reason = (
            "cannot be decided beside a point, for its slope compares its own result: compare the operands instead, "
            "or say kink= with a function that has the same value (docs/how-to/add-a-primitive.md)"
        )
        raise UnsupportedPrimitiveError(primitive.name, jc.current_place(), reason)

    inside = replace(interpreter, within=(*interpreter.within, primitive))

    def slope(out, primals, tangents):
        given = iter(tangents)
        rates = [next(given) if on else None for on in active]
        return tree_unflatten(tree, inside.push_program(closed, [out, *primals], [None, *rates])[0])

    @jax.custom_jvp
    def attached(value, primals, tangents):
        return value

    def rule(inputs, moves):
        out = attached(*inputs)
        ts = tuple(t if on else None for t, on in zip(moves[1], active, strict=True))
        return out, slope(out, *inputs[1:]).push(ts)[0]

    attached.defjvp(rule)
    value = detach(primitive.bind(*primals, **params))
    rates = [t for t in tangents if t is not None]
    at = list(map(detach, primals))
    if primitive in interpreter.within:  # a slope that is made of the function itself, whose value is all it takes
        found = lookup(primitive).jacobian(interpreter, primitive, (value,), at, active, params)
    else:
        found = slope(value, at, rates)
    (rate,) = found.push(tuple(tangents))
    return [Germ(attached(value, primals, rates), detach(rate))]


def _compares_its_result(closed) -> bool:
    """True if a comparison in a program of slopes depends on its first input, the result of the primitive."""
    program = from_jaxpr(closed)
    varying = dependent(program, program.inputs[:1])
    return any(
        not varying.isdisjoint(e.slots) and (jumps(e.primitive) or jc.mentions(e.params, jumps))
        for e in program.equations
    )
