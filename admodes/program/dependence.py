"""Dependence on seeds: the values of a program that depend on them, and so come once for each of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from admodes.program import jax_compat as jc
from admodes.program.derived import fixed_point
from admodes.program.ir import Const, Program


def dependent(program: Program, sources: Iterable[int]) -> set[int]:
    """The slots whose values depend on those of ``sources``, with these."""
    found = set(sources)
    for e in program.equations:
        marked = [not isinstance(x, Const) and x in found for x in e.inputs]
        found.update(
            x for x, on in zip(e.outputs, reached(e.primitive, e.params, marked, len(e.outputs)), strict=True) if on
        )
    return found


def reached(primitive, params, marked: Sequence[bool], results: int) -> Sequence[bool]:
    """For each result of an equation, whether marked operands reach it."""
    if any(marked):
        if primitive is jc.scan_p:
            return jc.depends_on(jc.scan_parts(params)[1], carried(marked, params))
        if primitive is jc.while_p:
            return _of_while(marked, params)
        if primitive is jc.cond_p and not marked[0]:
            branches = (jc.depends_on(branch, marked[1:]) for branch in jc.branches(params))
            return [any(found) for found in zip(*branches, strict=True)]
    return [any(marked)] * results


def carried(marked: Sequence[bool], params) -> list[bool]:
    """The inputs of the body of a scan that marked operands reach, in some step."""
    loop, body = jc.scan_parts(params)
    consts, start, xs = loop.split(marked)
    carry = fixed_point(start, lambda on: jc.depends_on(body, [*consts, *on, *xs])[: loop.n_carry])
    return [*consts, *carry, *xs]


def _of_while(marked: Sequence[bool], params) -> Sequence[bool]:
    """The carries that marked operands reach; all of them if the number of steps depends on these."""
    loop = jc.while_parts(params)
    cond_consts, consts, start = loop.split(marked)
    carry = fixed_point(start, lambda on: jc.depends_on(loop.body, [*consts, *on]))
    (counts,) = jc.depends_on(loop.cond, [*cond_consts, *carry])
    return [True] * len(carry) if counts else carry
