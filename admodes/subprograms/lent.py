"""Rules that come from outside, as two functions: one for the tangents, and its transpose for linear applications.

Libraries register such pairs with JAX for primitives of their own. A rule may apply its own primitive to the tangents:
while these are recorded to be transposed, the transpose is asked, as JAX does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from admodes.errors import UnsupportedPrimitiveError
from admodes.linear.maps import LinearMap, linear_map, static
from admodes.program import jax_compat as jc
from admodes.program.derived import present
from admodes.program.evaluate import bind
from admodes.rules import table
from admodes.rules.table import HigherOrderRule
from admodes.subprograms.custom import known_tangent, record_tangents


@dataclass(frozen=True, eq=False)
class _Application:
    """A primitive that is linear in some operands, and who transposes it; compared by identity."""

    primitive: Any
    params: dict
    transpose: Callable
    place: str


@linear_map
class LinearApplication(LinearMap):
    """An application that is linear in its active operands, by itself its Jacobian; the other operands are kept."""

    operands: tuple
    active: tuple = static()
    of: _Application = static()
    domain: tuple = static()
    codomain: tuple = static()

    def push(self, tangents):
        values = [
            x if not on else jc.zeros(a) if t is None else t
            for x, on, t, a in zip(self.operands, self.active, tangents, self.domain, strict=True)
        ]
        outs = bind(self.of.primitive, values, self.of.params)
        return tuple(o if jc.is_differentiable(a) else None for o, a in zip(outs, self.codomain, strict=True))

    def pull(self, cotangents):
        operands = [a if on else x for x, on, a in zip(self.operands, self.active, self.domain, strict=True)]
        cts = self.of.transpose(self.of.primitive, operands, self.active, cotangents, self.codomain, self.of.params)
        if cts is None:
            raise UnsupportedPrimitiveError(self.of.primitive.name, self.of.place, "has no registered transpose")
        return tuple(known_tangent(ct) if on else None for ct, on in zip(cts, self.active, strict=True))


@dataclass(frozen=True)
class LentRule(HigherOrderRule):
    """``tangents(primitive, primals, tangents, params)`` gives (results, their tangents), None being zero.

    ``transpose(primitive, operands, active, cotangents, codomain, params)`` gives the cotangents of an application that
    is linear in the active operands, of which only the types are given. Each returns None where it has no rule.
    """

    tangents: Callable
    transpose: Callable
    kind = "lent"

    def push(self, interpreter, primitive, primals, tangents, params):
        found = self.tangents(primitive, primals, tangents, params)
        if found is None:
            raise UnsupportedPrimitiveError(primitive.name, jc.current_place(), "has no registered derivative")
        outs, ts = found
        return outs, list(map(known_tangent, ts))

    def record(self, interpreter, recorder, primitive, primals, slots, params):
        if not recorder.linear:
            rule = lambda tangents: self.push(interpreter, primitive, primals, tangents, params)
            return record_tangents(interpreter, recorder, rule, primals, slots)
        active = present(slots)
        outs = bind(primitive, primals, params)
        application = _Application(primitive, params, self.transpose, jc.current_place())
        kept = tuple(None if on else x for x, on in zip(primals, active, strict=True))
        domain, codomain = tuple(map(jc.typeof, primals)), tuple(map(jc.typeof, outs))
        linear = LinearApplication(kept, active, application, domain, codomain)
        return outs, recorder.append(slots, lambda: linear, outs)


table.of_libraries = LentRule(jc.push_registered, jc.pull_registered)
