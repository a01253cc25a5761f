"""Mutable references from outside of the differentiated function (those within it are no matter of rules).

No derivative passes through them: writing a value that is differentiated to one is an error, unless it was made with
``kind="no_grad_no_remat"``, which asks for that.
"""

from __future__ import annotations

from dataclasses import dataclass

from admodes.errors import UnsupportedPrimitiveError
from admodes.program import jax_compat as jc
from admodes.rules.table import LocalRule, program, register


def check_references(primitive, values) -> None:
    """A derivative must not vanish into a mutable reference."""
    types = map(jc.typeof, values)
    if any(jc.is_reference(a) and not jc.is_without_derivative(a) for a in types):
        reason = (
            "meets a mutable reference that was not created within the differentiated function, or is returned by it: "
            "no derivative passes through it"
        )
        raise UnsupportedPrimitiveError(primitive.name, jc.current_place(), reason)


@dataclass(frozen=True)
class ReferenceRule(LocalRule):
    """Constants: all that is written to a reference without derivative, or read from it."""

    kind = "reference"

    def evaluate(self, primitive, primals, params):
        check_references(primitive, primals)
        return super().evaluate(primitive, primals, params)

    def jacobian(self, interpreter, primitive, outs, primals, active, params):
        return None


for primitive in (jc.get_p, jc.swap_p, jc.addupdate_p, jc.new_ref_p):
    register(primitive, ReferenceRule(), cost="moving")

# a program on references to its operands, as a function of their contents
program(jc.run_state_p, jc.run_state_p.impl, cost="calling")
