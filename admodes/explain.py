r"""The evaluation trace of a derivative, line by line, as textbooks print it.

Forward mode shows each value with its tangent, α̇ₖ = Σ ∂αₖ/∂αᵢ α̇ᵢ, from the top down. Reverse mode shows each value
with its adjoint βᵢ = ∂y/∂αᵢ = Σ βₖ ∂αₖ/∂αᵢ, found from the bottom up.

Reference: Griewank and Walther, *Evaluating Derivatives*, 2nd ed., SIAM 2008, tables 1.3 (forward) and 1.4 (reverse).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from jax.tree_util import tree_flatten, tree_structure

from admodes.linear.maps import add
from admodes.modes.dual import Dual, push_equation
from admodes.modes.interpreter import INTERPRETER
from admodes.modes.record import Recorded, record_equation
from admodes.modes.tape import Recorder
from admodes.program import jax_compat as jc
from admodes.program.evaluate import live_equations, run
from admodes.program.ir import Const, Program
from admodes.program.text import Names, leaf_names, norm, type_text, value_text
from admodes.program.trace import trace
from admodes.text_tables import Brief, clipped, plural

HEADINGS = {"reverse": ("value α", "adjoint β"), "forward": ("value", "tangent")}


@dataclass(frozen=True, eq=False, repr=False)
class Row(Brief):
    """One line: the variable, how it was computed, its value, and its adjoint or tangent.

    ``derivative`` is None for values that carry none, such as integers and constants.
    """

    name: str
    formula: str
    value: np.ndarray
    derivative: np.ndarray | None

    def to_dict(self) -> dict[str, Any]:
        """The row in JSON's types; arrays of more than 16 entries by their type and norm."""
        derivative = None if self.derivative is None else _plain(self.derivative)
        return {"name": self.name, "formula": self.formula, "value": _plain(self.value), "derivative": derivative}


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """The lines of an evaluation trace; ``str()`` is the table, ``to_dict()`` fits JSON."""

    function: str
    mode: str
    rows: tuple[Row, ...]

    def __getitem__(self, name: str) -> Row:
        """The row of a variable."""
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(f"no variable {name!r}; there are {', '.join(row.name for row in self.rows)}")

    def to_dict(self) -> dict[str, Any]:
        return {"function": self.function, "mode": self.mode, "rows": [row.to_dict() for row in self.rows]}

    def __repr__(self) -> str:
        return clipped(f"Explanation({self.function}, {self.mode} mode, {plural(len(self.rows), 'line')})")

    def __str__(self) -> str:
        cells = [("variable", "operation", *HEADINGS[self.mode])]
        for row in self.rows:
            derivative = "" if row.derivative is None else value_text(row.derivative)
            cells.append((row.name, row.formula, value_text(row.value), derivative))
        widths = [max(len(line[k]) for line in cells) for k in range(4)]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in cells]
        rule = "-" * max(map(len, lines))
        how = {
            "reverse": "values from the top down, adjoints from the bottom up",
            "forward": "values and tangents together, from the top down",
        }[self.mode]
        return "\n".join([f"{self.function}, {self.mode} mode: {how}", lines[0], rule, *lines[1:]])


def explain(
    fun: Callable[..., Any], *args: Any, mode: str = "reverse", tangents: Any = None, cotangents: Any = None
) -> Explanation:
    r"""The evaluation trace of ``fun`` at ``args``, with the adjoint or the tangent of every intermediate value.

    Args:
      fun: a function of pytrees of arrays that returns a pytree of arrays.
      mode: ``"reverse"`` (adjoints) or ``"forward"`` (tangents).
      tangents: in forward mode the direction, a tuple like ``args``; all ones by default.
      cotangents: in reverse mode the weights of the outputs, structured like the output; all ones by default.

    Returns:
      An :class:`Explanation`; print it, or read its ``rows``. Inputs are x1, x2 ..., intermediate values v1, v2 ...,
      closed-over constants c1 ..., outputs y1, y2 ... Functions with derivatives of their own (``custom_jvp``) and
      loops stay one line.

    Raises:
      ValueError: an unknown mode, or seeds of another shape or for the other mode.
      TypeError: seeds of another structure.

    >>> import jax.numpy as jnp
    >>> from admodes.explain import explain
    >>> print(explain(lambda x1, x2: jnp.sin(x1) + x1 * x2, 0.0, 2.0))
    <lambda>, reverse mode: values from the top down, adjoints from the bottom up
    variable  operation  value α  adjoint β
    ---------------------------------------
    x1        input x1   0        3
    x2        input x2   2        0
    v1        sin(x1)    0        1
    v2        x1 * x2    0        1
    v3        v1 + v2    0        1
    y1        v3         0        1
    """
    if mode not in HEADINGS:
        raise ValueError(f"mode must be 'reverse' or 'forward', got {mode!r}.")
    if (tangents if mode == "reverse" else cotangents) is not None:
        raise ValueError(f"{mode} mode takes {'cotangents' if mode == 'reverse' else 'tangents'} as its seeds.")
    jc.check_callable(fun)
    flat, tree = tree_flatten(args)
    program = trace(fun, *args)
    program = replace(program, equations=tuple(live_equations(program)))
    flat = list(map(jc.canonicalize, flat))
    if mode == "forward":
        values, derivatives, outputs = _forward(program, flat, _seeds("tangents", tangents, tree, program.in_avals))
    else:
        out_tree = None if cotangents is None else tree_structure(jax.eval_shape(fun, *args))
        seeds = _seeds("cotangents", cotangents, out_tree, program.out_avals)
        values, derivatives, outputs = _reverse(program, flat, seeds)
    rows = _rows(program, leaf_names(fun, args), values, derivatives, outputs)
    return Explanation(getattr(fun, "__name__", type(fun).__name__), mode, rows)


def _seeds(what: str, given, tree, avals) -> list:
    """The flat seeds, ones by default; None where the type carries no derivative."""
    if given is None:
        leaves = [np.ones(a.shape, a.dtype) for a in avals]
    else:
        leaves, found = tree_flatten(tuple(given) if what == "tangents" else given)
        if found != tree:
            raise TypeError(f"{what} must be structured like the {_whose(what)}: expected {tree}, got {found}.")
    seeds: list = []
    for aval, seed in zip(avals, leaves, strict=True):
        if not jc.is_differentiable(aval):
            seeds.append(None)
            continue
        if np.shape(seed) != aval.shape:
            raise ValueError(f"{what} must have the shapes of the {_whose(what)}: {aval.shape}, got {np.shape(seed)}.")
        seeds.append(jax.numpy.asarray(seed, aval.dtype))
    return seeds


def _whose(what: str) -> str:
    return "arguments" if what == "tangents" else "output"


def _forward(program: Program, args, tangents):
    """Values and tangents of all slots, and (value, tangent) of each output."""
    values, derivatives = dict(zip(program.inputs, args, strict=True)), dict(zip(program.inputs, tangents, strict=True))

    def step(equation, duals, params):
        results = push_equation(INTERPRETER, equation.primitive, duals, params)
        values.update(zip(equation.outputs, [d.primal for d in results], strict=True))
        derivatives.update(zip(equation.outputs, [d.tangent for d in results], strict=True))
        return results

    outputs = run(program, step, list(map(Dual, args, tangents)), Dual)
    return values, derivatives, [(d.primal, d.tangent) for d in outputs]


def _reverse(program: Program, args, cotangents):
    """Values and adjoints of all slots, and (value, adjoint) of each output: one tape per equation, kept in order."""
    active = {slot for slot in program.inputs if jc.is_differentiable(program.avals[slot])}
    values = dict(zip(program.inputs, args, strict=True))
    tapes = []

    def step(equation, operands, params):
        recorder = Recorder(map(jc.typeof, operands))
        slots = recorder.inputs([not isinstance(x, Const) and x in active for x in equation.inputs])
        recorded = list(map(Recorded, operands, slots))
        results = record_equation(INTERPRETER, recorder, equation.primitive, recorded, params)
        outs = [r.primal for r in results]
        if any(r.slot is not None for r in results):
            active.update(slot for slot, r in zip(equation.outputs, results, strict=True) if r.slot is not None)
            tapes.append((equation, recorder.close([r.slot for r in results], list(map(jc.typeof, outs)))))
        values.update(zip(equation.outputs, outs, strict=True))
        return outs

    outs = run(program, step, args)
    adjoints: dict = {}
    for slot, g in zip(program.outputs, cotangents, strict=True):
        if slot in active:
            adjoints[slot] = add(adjoints.get(slot), g)
    for equation, tape in reversed(tapes):
        given = tuple(adjoints.get(slot) for slot in equation.outputs)
        if all(g is None for g in given):
            continue
        for slot, ct in zip(equation.inputs, tape.pull(given), strict=True):
            if ct is not None:
                adjoints[slot] = add(adjoints.get(slot), ct)
    return values, {slot: adjoints.get(slot) for slot in active}, list(zip(outs, cotangents, strict=True))


def _rows(program: Program, paths, values, derivatives, outputs) -> tuple[Row, ...]:
    names = Names(program)

    def row(slot, formula) -> Row:
        return Row(names(slot), formula, _host(values[slot]), _derivative(derivatives, slot, program.avals[slot]))

    rows = [row(slot, f"input {path}") for slot, path in zip(program.inputs, paths, strict=True)]
    rows += [Row(names(slot), "constant", _host(value), None) for slot, value in names.constants]
    for equation in names.equations:
        results = [(k, slot) for k, slot in enumerate(equation.outputs) if slot in names]
        rows += [row(slot, names.formula(equation, k)) for k, slot in results]
    for k, (slot, (value, derivative)) in enumerate(zip(program.outputs, outputs, strict=True), start=1):
        rows.append(Row(f"y{k}", names(slot), _host(value), None if derivative is None else np.asarray(derivative)))
    return tuple(rows)


def _host(value) -> np.ndarray:
    """The value as a numpy array; of a random key its words."""
    if not jc.is_array(value):
        raise TypeError(f"explain shows arrays and numbers, but the program has a {jc.typeof(value).str_short()}")
    return np.asarray(jax.random.key_data(value) if jc.is_extended(jc.dtype_of(value)) else value)


def _derivative(derivatives, slot, aval) -> np.ndarray | None:
    """A symbolic zero of a value that can carry a derivative is shown as 0; other values show nothing."""
    if slot not in derivatives or not jc.is_differentiable(aval):
        return None
    found = derivatives[slot]
    return np.zeros(aval.shape, aval.dtype) if found is None else np.asarray(found)


def _plain(array: np.ndarray):
    if array.size > 16 or np.iscomplexobj(array):
        return {"type": type_text(array), "norm": norm(array)}
    return array.astype(float).tolist() if array.dtype.kind not in "biu" else array.tolist()
