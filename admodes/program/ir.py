"""Program: a flat SSA form of a jaxpr, with ``jit`` and ``closed_call`` inlined.

Values live in numbered slots. Equations with rules of their own that hold sub-programs
(``custom_jvp``, ``custom_vjp``, remat, scan, while, cond) are kept as equations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from admodes.program import jax_compat as jc


@dataclass(frozen=True)
class Const:
    """An operand that is written into the program: a literal."""

    value: Any


@dataclass(frozen=True, eq=False)
class Equation:
    """``outputs = primitive(*inputs, **params)``; inputs are slots or :class:`Const`."""

    primitive: Any
    params: dict
    inputs: tuple
    outputs: tuple[int, ...]
    source: Any
    effects: frozenset = frozenset()

    @property
    def slots(self) -> tuple[int, ...]:
        """The operands that are slots."""
        return tuple(x for x in self.inputs if not isinstance(x, Const))

    @property
    def where(self) -> str:
        """The user's source line that made this equation."""
        return jc.source_summary(self.source)


@dataclass(frozen=True, eq=False)
class Program:
    """A straight-line program.

    ``inputs`` and ``outputs`` are slots (outputs may be :class:`Const`); ``constants`` pairs slots with
    the values that the traced function closed over; ``avals[slot]`` is the type of each value.
    """

    inputs: tuple[int, ...]
    outputs: tuple
    constants: tuple[tuple[int, Any], ...]
    equations: tuple[Equation, ...]
    avals: tuple

    @property
    def in_avals(self) -> tuple:
        return tuple(self.avals[i] for i in self.inputs)

    @property
    def out_avals(self) -> tuple:
        return tuple(map(self.type_of, self.outputs))

    def type_of(self, operand):
        """Of a slot, or of a :class:`Const`."""
        return jc.typeof(operand.value) if isinstance(operand, Const) else self.avals[operand]


@jc.weak_cache
def from_jaxpr(closed: jc.ClosedJaxpr) -> Program:
    """The program of a jaxpr (cached with it)."""
    return _Flattener().flatten(closed)


class _Flattener:
    def __init__(self):
        self.avals: list = []
        self.equations: list[Equation] = []
        self.constants: list[tuple[int, Any]] = []

    def new_slot(self, aval) -> int:
        self.avals.append(aval)
        return len(self.avals) - 1

    def flatten(self, closed) -> Program:
        inputs = tuple(self.new_slot(v.aval) for v in jc.inner(closed).invars)
        outputs = self.inline(closed, inputs)
        return Program(inputs, outputs, tuple(self.constants), tuple(self.equations), tuple(self.avals))

    def inline(self, closed, inputs, call=None) -> tuple:
        """Append the equations of ``closed`` applied to ``inputs``; returns its outputs.

        ``call`` is the source of the call, if the code of ``closed`` is not the user's: it was traced where the user
        called it first, which need not be here.
        """
        env: dict = dict(zip(jc.inner(closed).invars, inputs, strict=True))
        for var, value in zip(jc.inner(closed).constvars, closed.consts, strict=True):
            env[var] = self.new_slot(var.aval)
            self.constants.append((env[var], value))

        def read(atom):
            return Const(atom.val) if isinstance(atom, jc.Literal) else env[atom]

        for eqn in jc.inner(closed).eqns:
            args = tuple(map(read, eqn.invars))
            if (body := jc.inlined(eqn)) is not None:
                callee = jc.constrained(body, jc.shardings_of(eqn.params))
                results = self.inline(callee, args, call or (None if jc.is_users(callee) else eqn.source_info))
            else:
                results = tuple(self.new_slot(v.aval) for v in eqn.outvars)
                self.equations.append(
                    Equation(
                        jc.face(eqn.primitive, eqn.params),
                        eqn.params,
                        args,
                        results,
                        call or eqn.source_info,
                        frozenset(eqn.effects),
                    )
                )
            env.update(zip(eqn.outvars, results, strict=True))
        return tuple(map(read, jc.inner(closed).outvars))
