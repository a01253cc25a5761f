"""The rule table: one entry per primitive, from which every mode is derived.

A rule answers one question: *given an equation and which of its operands are differentiated, what is
its local Jacobian?* The answer is a :class:`~admodes.linear.maps.LinearMap`. To support a primitive,
add one entry with the function that fits it:

================  ==================================================================================
``elementwise``   out[k] depends on operand[k] only: one partial derivative per operand
``linear``        linear in some operands jointly: the transpose (and how the pattern is found)
``structural``    linear, and entries are only moved, repeated and added
``bilinear``      linear in each of two operands separately: a transpose for each
``zero``          the derivative is zero wherever it exists
``function``      a function (residuals, tangents) -> tangents of the results, linear in the tangents
``program``       a function made of other primitives, differentiated in the place of this one
``higher_order``  primitives with sub-programs: how to push a dual through, how to record
================  ==================================================================================

Everything else there is to know of a primitive is said in the same line, in the words of
:class:`~admodes.program.traits.Traits`: what it costs, where it has a kink, how it is written.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax

from admodes.linear.maps import MINUS_ONE, ONE, Elementwise, Function, Linear, LinearMap, Sum
from admodes.program import jax_compat as jc
from admodes.program.traits import describe

_RULES: dict[Any, Any] = {}
of_libraries: Any = None  # the rule of primitives that bring one with them, entered by subprograms/lent.py
_LATE = {"jax.experimental.sparse": "admodes.rules.sparse_arrays"}


def _load_late() -> bool:
    """Load the rules for parts of JAX that are not imported with it, once the user has; whether any were loaded."""
    due = [part for part in _LATE if part in sys.modules]
    for part in due:
        importlib.import_module(_LATE.pop(part))
    return bool(due)


def lookup(primitive):
    """The rule of ``primitive``, or None; a library's own rule for a primitive of its own counts as one.

    An object has the rule of its class, or of one that this inherits from.
    """
    if isinstance(primitive, jc.HiPrimitive):
        return next((_RULES[kind] for kind in primitive.kinds if kind in _RULES), None)
    rule = _RULES.get(primitive)
    if rule is None and _load_late():
        rule = _RULES.get(primitive)
    if rule is None and jc.has_registered_rule(primitive):
        return of_libraries
    return rule


def register(primitive, rule, **traits) -> None:
    """Enter ``rule`` for ``primitive``, and what else is said of it; a rule that is there already is replaced.

    A primitive that is None is one that the installed version of JAX does not have: its rule is left out.
    """
    if primitive is not None:
        describe(primitive, **traits)
        _RULES[primitive] = rule


def unregister(primitive) -> None:
    """Remove the entry of ``primitive``."""
    del _RULES[primitive]


def entries() -> list:
    """The primitives that have an entry of their own, by name."""
    _load_late()
    return sorted(_RULES, key=lambda primitive: primitive.name)


def supported() -> dict[str, str]:
    """The table: the name of each primitive that has a rule, and the kind of its rule.

    >>> import admodes
    >>> admodes.rules.supported()["tanh"]
    'elementwise'
    """
    return {primitive.name: _RULES[primitive].kind for primitive in entries()}


class LocalRule:
    """A rule that gives the Jacobian from the operands and results of an equation that has been evaluated."""

    kind: str
    # (*operands, **params) -> the results by other primitives, where these tell more of the sparsity pattern
    definition: Callable[..., list] | None = None

    def evaluate(self, primitive, primals, params) -> tuple:
        """The results of the equation; overridden only where JAX's own value changes under differentiation."""
        out = primitive.bind(*primals, **params)
        return tuple(out) if primitive.multiple_results else (out,)

    def jacobian(self, interpreter, primitive, outs, primals, active, params) -> LinearMap | None:
        """The local Jacobian with respect to the operands with ``active[i]``; None if it is zero."""
        raise NotImplementedError

    def is_linear(self, primitive, avals: tuple, active: tuple, params) -> bool:
        """True if the results are linear in the operands with ``active[i]``; taken to be so if the rule cannot tell."""
        return True

    def is_zero(self, operands) -> bool:
        """True if the Jacobian is zero for all operands of the types that these have (values, or types themselves)."""
        return False


def _avals(values) -> tuple:
    return tuple(jc.typeof(v) for v in values)


@dataclass(frozen=True)
class ElementwiseRule(LocalRule):
    """``partials[i](out, *operands, **params)`` is ∂out/∂operand i, or ONE / MINUS_ONE, or None for zero.

    A primitive of any number of operands has a function in their place, which takes that number and returns them.
    """

    partials: tuple | Callable[[int], tuple]
    kind = "elementwise"

    def jacobian(self, interpreter, primitive, outs, primals, active, params):
        (out,) = outs
        rules = self.partials(len(primals)) if callable(self.partials) else self.partials
        partials = tuple(
            (d(out, *primals, **params) if callable(d) else d) if on else None
            for d, on in zip(rules, active, strict=True)
        )
        if all(d is None for d in partials):
            return None
        return Elementwise.build(partials, _avals(primals), _avals(outs))

    def is_linear(self, primitive, avals, active, params):
        return _partials_are_constant(self, primitive, avals, active, tuple(params.items()))

    def adds_up(self, primitive, avals, active, params) -> bool:
        """True if the result is a sum of multiples of the operands with ``active[i]`` alone, and of no difference."""
        if callable(self.partials):
            return False
        alone = not any(d == MINUS_ONE or (d == ONE and not on) for d, on in zip(self.partials, active, strict=True))
        return alone and self.is_linear(primitive, avals, active, params)


@lru_cache(4096)
def _partials_are_constant(rule: ElementwiseRule, primitive, avals, active, params) -> bool:
    def partials(*primals):
        outs = rule.evaluate(primitive, primals, dict(params))
        return jax.tree_util.tree_leaves(rule.jacobian(None, primitive, outs, primals, active, dict(params)))

    return not any(jc.depends_on(jc.trace_flat(partials, avals, "partials"), active))


def elementwise(primitive, *partials, **traits) -> None:
    """Register a primitive that acts entry by entry; one partial per operand.

    >>> from jax import lax
    >>> from admodes.rules.table import elementwise
    >>> elementwise(lax.exp_p, lambda out, x, **_: out, cost="transcendental")  # d exp(x) = exp(x) dx
    """
    register(primitive, ElementwiseRule(partials), **traits)


@dataclass(frozen=True)
class LinearRule(LocalRule):
    """``pull(g, *operands, **params)`` returns the cotangents of the operands at ``places``.

    Operands at the places where the primitive is linear arrive as types (``.shape``, ``.dtype``), the others as
    values. A cotangent may be given as a function without arguments, called only if that operand is differentiated.
    ``sparsity`` finds the pattern of a :class:`Linear` map, None meaning dense.
    """

    pull: Callable
    places: tuple | None
    sparsity: Callable | None = None
    kind = "linear"

    def jacobian(self, interpreter, primitive, outs, primals, active, params):
        places = range(len(primals)) if self.places is None else self.places
        on = tuple(a and i in places for i, a in enumerate(active))
        if not any(on):
            return None
        domain = _avals(primals)
        operands = tuple(
            None if i in places and jc.is_differentiable(aval) else x
            for i, (x, aval) in enumerate(zip(primals, domain, strict=True))
        )
        return Linear(operands, on, primitive, tuple(params.items()), self, domain, _avals(outs))

    def transpose(self, g, active, *operands, **params):
        cts = self.pull(g, *operands, **params)
        cts = cts if isinstance(cts, (tuple, list)) else (cts,)
        at = dict(zip(range(len(active)) if self.places is None else self.places, cts, strict=True))
        wanted = (at.get(i) if on else None for i, on in enumerate(active))
        return tuple(ct() if callable(ct) else ct for ct in wanted)

    def pattern(self, linear: Linear):
        return None if self.sparsity is None else self.sparsity(linear)


def linear(primitive, pull, *, places: tuple | None = (0,), pattern: Callable | None = None, **traits) -> None:
    """Register a primitive that is jointly linear in the operands at ``places`` (None: in all of them)."""
    register(primitive, LinearRule(pull, places, pattern), **traits)


def structural(primitive, pull, *, pattern: Callable, places: tuple | None = (0,), cost="moving", **traits) -> None:
    """Register a primitive as :func:`linear` does, which moves, repeats and adds entries: all nonzeros are 1."""
    linear(primitive, pull, places=places, pattern=pattern, cost=cost, moves=True, **traits)


@dataclass(frozen=True)
class BilinearRule(LocalRule):
    """Linear in operand 0 and in operand 1 separately: J = J₀ + J₁."""

    lhs: LinearRule
    rhs: LinearRule
    kind = "bilinear"

    def jacobian(self, interpreter, primitive, outs, primals, active, params):
        terms = []
        for place, rule in enumerate((self.lhs, self.rhs)):
            if active[place]:
                only = tuple(i == place for i in range(len(primals)))
                terms.append(rule.jacobian(interpreter, primitive, outs, primals, only, params))
        if len(terms) < 2:
            return terms[0] if terms else None
        return Sum(tuple(terms), _avals(primals), _avals(outs))

    def is_linear(self, primitive, avals, active, params):
        return not (active[0] and active[1])


def bilinear(primitive, pull_lhs, pull_rhs, *, pattern: Callable | None = None, **traits) -> None:
    """Register a product: ``pull_lhs(g, x, y, **params)`` is the cotangent of x, ``pull_rhs`` that of y."""
    rule = BilinearRule(LinearRule(pull_lhs, (0,), pattern), LinearRule(pull_rhs, (1,), pattern))
    register(primitive, rule, **traits)


@dataclass(frozen=True)
class ZeroRule(LocalRule):
    """The derivative is zero wherever it exists."""

    kind = "zero"

    def jacobian(self, interpreter, primitive, outs, primals, active, params):
        return None

    def is_linear(self, primitive, avals, active, params):
        return False

    def is_zero(self, operands):
        return True


def zero(*primitives, cost="elementwise", **traits) -> None:
    """Register primitives that are piecewise constant, or through which no derivative flows."""
    for primitive in primitives:
        register(primitive, ZeroRule(), cost=cost, **traits)


@dataclass(frozen=True)
class FunctionRule(LocalRule):
    """``push(outs, primals, tangents, **params)`` returns the tangents of the results (None for zero).

    Where ``residuals(outs, primals, **params)`` says what to keep (a tuple), it is ``push(*kept, tangents, **params)``.
    """

    push: Callable
    value: Callable | None = None
    residuals: Callable | None = None
    kind = "function"

    def evaluate(self, primitive, primals, params):
        if self.value is None:
            return super().evaluate(primitive, primals, params)
        return tuple(self.value(*primals, **params))

    def jacobian(self, interpreter, primitive, outs, primals, active, params):
        kept = (tuple(outs), tuple(primals))
        if self.residuals is not None:
            kept = tuple(self.residuals(*kept, **params))
        apply = Applied(self.push, tuple(params.items()))
        return Function(kept, active, apply, interpreter.transpose, "push", _avals(primals), _avals(outs))


@dataclass(frozen=True)
class Applied:
    """``push`` with its static parameters, comparable by value so that equal maps have equal pytree structure."""

    push: Callable
    params: tuple

    def __call__(self, residuals, tangents):
        return self.push(*residuals, tangents, **dict(self.params))


def function(primitive, push, *, value: Callable | None = None, residuals: Callable | None = None, **traits) -> None:
    """Register a primitive by the linear function of its tangents; the transpose is found by the reverse mode.

    ``value`` replaces the evaluation under differentiation where JAX's does too (cholesky's triangle, say).
    ``residuals`` selects or prepares what the push needs, by default all results and operands.
    """
    register(primitive, FunctionRule(push, value, residuals), **traits)


class HigherOrderRule:
    """A rule for a primitive with sub-programs. ``interpreter`` differentiates those.

    ``push(interpreter, primitive, primals, tangents, params)`` returns (results, their tangents);
    ``record(interpreter, recorder, primitive, primals, slots, params)`` returns (results, their slots),
    having appended to the recorder what leads from the operands' slots to them.
    """

    kind = "higher order"


def higher_order(primitive, rule: HigherOrderRule, *, cost="calling", **traits) -> None:
    """Register a primitive with sub-programs, or one whose derivative takes more than a local Jacobian."""
    register(primitive, rule, cost=cost, **traits)


@dataclass(frozen=True)
class ProgramRule(HigherOrderRule):
    """``run(*operands, **params)`` returns the results by other primitives; it is what is differentiated."""

    run: Callable
    kind = "program"

    def push(self, interpreter, primitive, primals, tangents, params):
        return interpreter.push_function(lambda *xs: self.run(*xs, **params), primals, tangents)

    def record(self, interpreter, recorder, primitive, primals, slots, params):
        return interpreter.continue_function(recorder, lambda *xs: self.run(*xs, **params), primals, slots)


def program(primitive, run: Callable, **traits) -> None:
    """Register a primitive by a list of results computed with primitives that have rules.

    For reductions whose derivative is the product rule along the tree of their partial results (``cumprod``, say).
    """
    register(primitive, ProgramRule(run), **traits)
