"""Fingerprints, which tell one program from another: its equations, types and known constants, and what the text of
those hides."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from admodes.program import jax_compat as jc
from admodes.program.folding import is_known
from admodes.program.ir import Const, Program

ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def hashed(*items) -> str:
    """A hash of the text of some items."""
    return hashlib.sha256(str(items).encode()).hexdigest()


def digest(*programs: Program) -> str:
    """A hash of programs. The Python functions in them are not in it: see :func:`hidden` and :func:`has_rules`.

    Constants count by their entries; those that are not known, by their types.
    """
    found = hashlib.sha256()

    def enter(*items):
        found.update(str(items).encode() + b"\0")

    for program in programs:
        enter(program.inputs, [_operand(x) for x in program.outputs])
        for slot, value in program.constants:
            enter(slot, content(value))
        for e in program.equations:
            enter(e.primitive.name, list(map(_operand, e.inputs)), e.outputs)
            enter(ADDRESS.sub("", str(sorted(e.params.items()))))
            enter([content(x) for x in _hidden(e.params) if not _is_callback(x)])
        enter([(str(a), getattr(a, "weak_type", None), *jc.mesh_of(a)) for a in program.avals])
    return found.hexdigest()


def hidden(program: Program) -> tuple:
    """A key of what has no text: derivative rules and callbacks, which equal only themselves, and values in these.

    A rule may bring others of any order, so that functions with rules are told apart by the rules, not by what these
    were seen to do.
    """
    return tuple(key for e in program.equations for key in jc.hidden_in_equation(e, content))


def has_rules(program: Program) -> bool:
    """True if the program holds functions with derivative rules of the user's, whose equations are not its own."""
    return any(jc.has_own_rule(e.primitive) or jc.mentions(e.params, jc.has_own_rule) for e in program.equations)


def has_rules_of_users(program: Program) -> bool:
    """True if the program holds rules that need not be derivatives: those of JAX's own functions are."""
    return any(jc.holds_rule_of_user(e.primitive, e.params) for e in program.equations)


def _is_callback(x) -> bool:
    return hasattr(x, "callback_func")


def _hidden(x) -> Iterator[Any]:
    """The arrays and callbacks in parameters, those of inner programs included."""
    if isinstance(x, dict):
        x = list(jc.object_parts(x))
    if isinstance(x, (tuple, list)):
        for item in x:
            yield from _hidden(item)
    elif isinstance(x, (jc.ClosedJaxpr, jc.Jaxpr)):
        yield from getattr(x, "consts", ())
        for eqn in x.eqns:
            yield from _hidden(eqn.params)
    elif _is_callback(x) or isinstance(x, (np.ndarray, jax.Array)):
        yield x


def _operand(x) -> Any:
    return content(x.value) if isinstance(x, Const) else x


def content(value) -> tuple:
    """The part of a fingerprint for a constant: its entries, if a plan may use them."""
    if not is_known(value):
        return "unknown", str(jc.typeof(value))
    with jax.ensure_compile_time_eval():  # the words of a key are known, whoever traces
        array = np.asarray(jax.random.key_data(value) if jc.is_extended(jc.dtype_of(value)) else value)
    return str(jc.typeof(value)), array.shape, hashlib.sha256(array.tobytes()).hexdigest()
