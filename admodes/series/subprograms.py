r"""Sub-programs on Taylor numbers: calls, branches and loops become those of programs on values and coefficients.

A program on series is the given one with further operands and results, the coefficients that are not zero by their
structure. A trial finds them for the results, the least fixed point for the carries of a loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from admodes.program import jax_compat as jc
from admodes.program.derived import fixed_point, keep, merge, present
from admodes.program.evaluate import evaluate
from admodes.program.ir import from_jaxpr
from admodes.series.numbers import Series, fixed


def _flat(series: Sequence[Series], order: int) -> tuple:
    """The coefficients 1 to ``order`` of each in turn."""
    return tuple(c for x in series for c in (x.known + [None] * order)[:order])


def _together(primals, coefficients, order: int) -> list[Series]:
    return [fixed(p, coefficients[i * order : (i + 1) * order]) for i, p in enumerate(primals)]


def _types(active: tuple, avals, order: int) -> list:
    return [jc.tangent_aval(a) for i, a in enumerate(avals) for on in active[i * order : (i + 1) * order] if on]


def _zeros(coefficients, avals, wanted, order: int) -> list:
    filled = []
    for i, (c, on) in enumerate(zip(coefficients, wanted, strict=True)):
        filled.append((jc.zeros(avals[i // order]) if c is None else c) if on else None)
    return filled


@jc.weak_cache
def _expanded(closed, interpreter, active: tuple, wanted: tuple | None = None):
    """(values, coefficients that are active) -> (results, their coefficients), and which of these there are."""
    order, n = interpreter.order, len(closed.in_avals)
    found: list = []

    def sweep(*args):
        outs = interpreter.push_jaxpr(closed, _together(args[:n], merge(active, args[n:]), order))
        coefficients: Sequence = _flat(outs, order)
        if wanted is not None:
            coefficients = _zeros(coefficients, closed.out_avals, wanted, order)
        found[:] = present(coefficients)
        return [*(x.primal for x in outs), *keep(found, coefficients)]

    types = [*closed.in_avals, *_types(active, closed.in_avals, order)]
    return jc.trace_flat(sweep, types, "taylor"), tuple(found)


class _Operands:
    """The operands of an equation, their coefficients known, as a program on series takes them."""

    def __init__(self, interpreter, operands: Sequence[Series]):
        self.interpreter = replace(interpreter, family=None)
        self.order = order = interpreter.order
        self.primals = [x.primal for x in operands]
        self.coefficients = tuple(c for x in operands for c in _upto(x, order))
        self.active = present(self.coefficients)

    def arguments(self, first: int = 0) -> list:
        start = first * self.order
        return [*self.primals[first:], *keep(self.active[start:], self.coefficients[start:])]

    def results(self, flat, found: tuple) -> list[Series]:
        n = len(found) // self.order
        return _together(flat[:n], merge(found, flat[n:]), self.order)


def _upto(x: Series, order: int) -> list:
    return [None] * order if x.tangent is None else x.tangent.upto(order)


def _callee(body: str) -> Callable:
    return lambda params: jc.constrained(jc.substituted(jc.close_jaxpr(params[body])), jc.shardings_of(params))


def _call(inlined: Callable) -> Callable:
    def push(interpreter, primitive, operands, params):
        callee = inlined(params)
        types = (*callee.in_avals, *callee.out_avals)
        masks = any(getattr(a, "dtype", None) == np.bool_ for a in types)  # which know two answers
        if interpreter.family is not None or masks or jc.is_staging():
            return interpreter.push_jaxpr(callee, operands)
        own = _Operands(interpreter, operands)
        program, found = _expanded(callee, own.interpreter, own.active)
        return own.results(jc.compiled(program)(*own.arguments()), found)

    return push


def _remat(interpreter, primitive, operands, params):
    if any(jc.touched_references(params["jaxpr"])[0]):
        return interpreter.push_jaxpr(jc.close_jaxpr(params["jaxpr"]), operands)
    own = _Operands(interpreter, operands)
    program, found = _expanded(jc.close_jaxpr(params["jaxpr"]), own.interpreter, own.active)
    jaxpr, consts = jc.open_jaxpr(program)
    args = [*consts, *own.arguments()]
    prevent_cse = params["prevent_cse"]
    if isinstance(prevent_cse, tuple):
        prevent_cse = (True,) * len(consts) + prevent_cse + (True,) * (len(args) - len(consts) - len(operands))
    return own.results(primitive.bind(*args, **dict(params, jaxpr=jaxpr, prevent_cse=prevent_cse)), found)


def _cond(interpreter, primitive, operands, params):
    own = _Operands(interpreter, operands)
    active = own.active[own.order :]
    branches = jc.branches(params)
    each = [_expanded(b, own.interpreter, active)[1] for b in branches]
    wanted = tuple(map(any, zip(*each, strict=True)))
    programs = tuple(_expanded(b, own.interpreter, active, wanted)[0] for b in branches)
    flat = primitive.bind(own.primals[0], *own.arguments(1), **dict(params, branches=programs))
    return own.results(flat, wanted)


def _in_groups(program, n_values: Sequence[int], active: Sequence[tuple]) -> Any:
    """The program with its operands (values, all coefficients) in the order (values, coefficients) of each group."""
    order, value, coefficient = [], 0, sum(n_values)
    for n, on in zip(n_values, active, strict=True):
        order += [*range(value, value + n), *range(coefficient, coefficient + sum(on))]
        value, coefficient = value + n, coefficient + sum(on)
    return jc.permute_inputs(program, tuple(order))


@jc.weak_cache
def _scan_body(body, interpreter, loop, consts_on: tuple, carry_on: tuple, xs_on: tuple):
    """The body in scan's order of operands and results, and which coefficients of the outputs there are."""
    k, active = interpreter.order, consts_on + carry_on + xs_on
    c, n_out = loop.n_carry, len(body.out_avals)
    ys_on = _expanded(body, interpreter, active)[1][c * k :]
    program, _ = _expanded(body, interpreter, active, carry_on + ys_on)
    groups = loop.split(body.in_avals)
    program = _in_groups(program, list(map(len, groups)), (consts_on, carry_on, xs_on))
    middle = n_out + sum(carry_on)
    outs = (*range(c), *range(n_out, middle), *range(c, n_out), *range(middle, middle + sum(ys_on)))
    return jc.select_outputs(program, outs), ys_on


def _scan(interpreter, primitive, operands, params):
    own = _Operands(interpreter, operands)
    k, inner = own.order, own.interpreter
    loop, body = jc.scan_parts(params)
    a, b = loop.n_consts * k, (loop.n_consts + loop.n_carry) * k
    consts_on, carry_on, xs_on = own.active[:a], own.active[a:b], own.active[b:]
    carry_on = fixed_point(carry_on, lambda on: _expanded(body, inner, consts_on + on + xs_on)[1][: loop.n_carry * k])
    program, ys_on = _scan_body(body, inner, loop, consts_on, carry_on, xs_on)
    consts, carry, xs = loop.split(own.primals)
    starts = _zeros(own.coefficients[a:b], loop.split(body.in_avals)[1], carry_on, k)
    carries, outs = loop.bind(
        program,
        [*consts, *keep(consts_on, own.coefficients[:a])],
        [*carry, *keep(carry_on, starts)],
        [*xs, *keep(xs_on, own.coefficients[b:])],
    )
    n = len(ys_on) // k
    return own.results([*carries[: loop.n_carry], *outs[:n], *carries[loop.n_carry :], *outs[n:]], carry_on + ys_on)


@jc.weak_cache
def _while_body(body, interpreter, n_body: int, consts_on: tuple, carry_on: tuple):
    program, _ = _expanded(body, interpreter, consts_on + carry_on, carry_on)
    return _in_groups(program, (n_body, len(body.in_avals) - n_body), (consts_on, carry_on))


@jc.weak_cache
def _ignoring(closed, extra: tuple):
    """The same program with further arguments that it ignores."""
    n = len(closed.in_avals)
    return jc.trace_flat(lambda *args: evaluate(from_jaxpr(closed), *args[:n]), [*closed.in_avals, *extra], "condition")


def _while(interpreter, primitive, operands, params):
    """A loop that runs as often as at the point."""
    own = _Operands(interpreter, operands)
    k, inner, loop = own.order, own.interpreter, jc.while_parts(params)
    body, a, b = loop.body, loop.n_cond, loop.n_cond + loop.n_body
    consts_on = own.active[a * k : b * k]
    carry_on = fixed_point(own.active[b * k :], lambda on: _expanded(body, inner, consts_on + on)[1])
    carry_avals = body.in_avals[loop.n_body :]
    program = _while_body(body, inner, loop.n_body, consts_on, carry_on)
    condition = _ignoring(loop.cond, tuple(_types(carry_on, carry_avals, k)))
    starts = _zeros(own.coefficients[b * k :], carry_avals, carry_on, k)
    pushed = jc.WhileLoop(a, loop.n_body + sum(consts_on), condition, program)
    flat = pushed.bind(
        own.primals[:a],
        [*own.primals[a:b], *keep(consts_on, own.coefficients[a * k : b * k])],
        [*own.primals[b:], *keep(carry_on, starts)],
    )
    return own.results(flat, carry_on)


INLINED: dict[Any, Callable] = {  # calls, and the program that is called by the parameters
    **{call: _callee("jaxpr") for call in (jc.jit_p, jc.compute_on_p, jc.xla_metadata_call_p) if call is not None},
    jc.program_order_p: _callee("call_jaxpr"),
    jc.eval_jaxpr_p: _callee(jc.EVALUATED),
}
CALLS = {call: _call(inlined) for call, inlined in INLINED.items()}
SUBPROGRAMS: dict[Any, Callable] = {
    jc.remat_p: _remat,
    jc.cond_p: _cond,
    jc.scan_p: _scan,
    jc.while_p: _while,
}
