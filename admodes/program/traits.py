r"""Traits of primitives: what there is to know of a primitive beside its derivative.

The rule table fills them, an entry at a time and in the line of the formula
(``elementwise(lax.log_p, slope, cost="transcendental")``); whoever counts, prints, folds or decides looks them up. So a
primitive that is entered by a user is known everywhere at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from admodes.program import jax_compat as jc


@dataclass(frozen=True)
class Traits:
    """What is said of a primitive; what is not said is the default.

    ``cost``: the class of its cost, which ``planner/cost/work.py`` turns into numbers. By entry of the result: "free",
    "arithmetic" (what compilers rather compute again than keep), "elementwise", "selecting", "transcendental",
    "series", "iterated"; what reads or writes arrays: "moving", "padding", "joining", "gathering", "scattering",
    "reducing", "contracting", "solving"; and what runs programs: "calling", "branches", "loop".
    ``multiplies``: one operand scales the other, which is what counts as a multiplication in a sweep.
    ``moves``: it copies and adds entries, so that all nonzeros of its Jacobian are 1.
    ``part``: each entry of the result is another entry of the only operand, at a fixed place.
    ``in_order``: the entries keep their order, where there are as many as before.
    ``text``: its sign in formulas, before one operand or between two; or a function (words, **params) -> text or None.
    ``commutative``: two operands may be exchanged.
    ``host``: the same in numpy, (*operands, **params) -> results, or None where numpy does not agree to the last bit.
    ``calls_out``: it calls a function of the user's when the program runs.
    """

    cost: str | None = None
    multiplies: bool = False
    moves: bool = False
    part: bool = False
    in_order: bool = False
    text: str | Callable | None = None
    commutative: bool = False
    host: Callable | None = None
    calls_out: bool = False

    @property
    def fuses(self) -> bool:
        """True if compilers compute it for next to nothing where it is used."""
        return self.cost in ("arithmetic", "selecting") or (self.moves and self.cost == "free")


_TRAITS: dict[Any, Traits] = {}
UNKNOWN = Traits()


def traits(primitive) -> Traits:
    """What was said of ``primitive``; an object has the traits of its class, or of one that this inherits from."""
    if isinstance(primitive, jc.HiPrimitive):
        return next((_TRAITS[kind] for kind in primitive.kinds if kind in _TRAITS), UNKNOWN)
    return _TRAITS.get(primitive, UNKNOWN)


def describe(*primitives, **said) -> None:
    """Say something of primitives, in the words of :class:`Traits`; what was said before and is not said again stays.

    A primitive that is None is one that the installed version of JAX does not have.
    """
    for primitive in primitives:
        if primitive is not None:
            _TRAITS[primitive] = replace(_TRAITS.get(primitive, UNKNOWN), **said)
