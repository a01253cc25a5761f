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

SMOOTH = "smooth"  # comparisons in the slope only guard it
SLOPE = "slope"  # the slope is decided where it compares; the value is continuous
COMPARISONS = ("greater", "less", "not less", "not greater", "equal", "unequal")
JUMPS = (*COMPARISONS, "sign", "floor", "ceiling", "rounding", "rest")  # of the value, by an amount that lasts
KINKS = (
    *(*JUMPS, "larger", "smaller", "between", "modulus", "root", "power", "cut", "order", "leading", "undecided"),
    *("largest", "smallest", "place of largest", "place of smallest", "largest in windows", "smallest in windows"),
)
COSTS = (
    *("free", "arithmetic", "elementwise", "selecting", "transcendental", "series", "iterated"),  # by entry
    *("moving", "padding", "joining", "gathering", "scattering", "reducing", "contracting", "solving"),  # by array
    *("calling", "branches", "loop"),  # by program
)


@dataclass(frozen=True)
class Advice:
    """The usual cure, in words, where a primitive has an infinite ``slope``, an ``overflow``, an operand outside of its
    ``domain`` or at a ``pole`` (operand number ``pole_of`` is ± ``pole_at``), or the digits of its result are lost in a
    difference (``loss``)."""

    slope: str = ""
    overflow: str = ""
    domain: str = ""
    pole: str = ""
    pole_of: int = 0
    pole_at: float = 0.0
    loss: str = ""


@dataclass(frozen=True)
class Traits:
    """Everything that is said of a primitive; the defaults stand for what is not said.

    ``cost``: one of :data:`COSTS`, which ``planner/cost/work.py`` turns into numbers; "arithmetic" is what compilers
    rather compute again than keep. If nothing is said it is counted as elementwise.
    ``multiplies``: one operand scales the other, which is what counts as a multiplication in a sweep.
    ``moves``: it copies and adds entries, so that all nonzeros of its Jacobian are 1.
    ``part``: each entry of the result is another entry of the only operand, at a fixed place.
    ``in_order``: the entries keep their order, where there are as many as before.
    ``reach``: the pattern of its map by the types of the operands, of a rule that computes with their values.
    ``products``: the products that a bilinear primitive adds up, its map -> entries of the result and of both factors.
    ``text``: its sign in formulas, before one operand or between two; or a function (words, **params) -> text or None.
    ``commutative``: two operands may be exchanged.
    ``host``: the same in numpy, (*operands, **params) -> results, or None where numpy does not agree to the last bit.
    ``kink``: what decides where it is not smooth. A function of other primitives that has the same value, with
    comparisons; :data:`SLOPE`, the comparisons in its partial derivatives; one of :data:`KINKS`, for which
    ``nonsmooth/decisions.py`` has code; or :data:`SMOOTH`. If nothing is said of an elementwise primitive, its
    slope is looked into.
    ``tie``: in words, where an operand is that sits on the kink. ``jump``: there the value jumps, not only the slope.
    ``rounds``: its results are rounded numbers; of which nothing is said, those of elementwise primitives are.
    ``series``: the recurrence of its Taylor coefficients (``rules/recurrences.py``); by default its slope.
    ``advice``: what to do where a value or a derivative is not finite.
    ``calls_out``: it calls a function of the user's when the program runs.
    """

    cost: str | None = None
    multiplies: bool = False
    moves: bool = False
    part: bool = False
    in_order: bool = False
    reach: Callable | None = None
    products: Callable | None = None
    text: str | Callable | None = None
    commutative: bool = False
    host: Callable | None = None
    kink: str | Callable | None = None
    tie: str | None = None
    jump: bool = False
    rounds: bool | None = None
    series: Callable | None = None
    advice: Advice = Advice()
    calls_out: bool = False

    def __post_init__(self):
        _check("cost", self.cost, COSTS)
        if not callable(self.kink):
            _check("kink", self.kink, (*KINKS, SLOPE, SMOOTH))

    @property
    def fuses(self) -> bool:
        """True if compilers compute it for next to nothing where it is used."""
        return self.cost in ("arithmetic", "selecting") or (self.moves and self.cost == "free")


def _check(name: str, said: str | None, known: tuple) -> None:
    if said is not None and said not in known:
        raise ValueError(f"{name}={said!r} is not known: there are {', '.join(map(repr, known))}")


_TRAITS: dict[Any, Traits] = {}
UNKNOWN = Traits()


def traits(primitive) -> Traits:
    """The traits of ``primitive``; an object has the traits of its class, or of one that this inherits from."""
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
