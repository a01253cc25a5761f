"""A chain of parts: their Jacobians, multiplied or carried through each other in the order of a bracketing."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
from jax import lax

from admodes.linear.pattern import SparsityPattern
from admodes.modes.interpreter import INTERPRETER
from admodes.planner.cost.machine import Machine
from admodes.planner.cost.work import Work, work
from admodes.planner.elimination.bracketing import Bracket, bracket
from admodes.planner.matrices import Dense, Nonzeros, joined, places
from admodes.planner.sweeps.batched_sweep import batched, evaluate_once
from admodes.planner.task import Task
from admodes.planner.ways.cuts import Split, Stage, split, subprogram
from admodes.program import jax_compat as jc
from admodes.program.derived import instantiate, keep
from admodes.program.evaluate import evaluate
from admodes.program.ir import Const, Program, from_jaxpr


def part(program: Program, stage: Stage) -> Task:
    """The task of one stage: the values of its cut are differentiated, the plain ones are not."""
    inputs = (*stage.active, *stage.plain)
    outputs = (*stage.results, *stage.extras)
    inner = subprogram(program, stage.equations, inputs, outputs)
    closed = jc.trace_flat(lambda *xs: evaluate(inner, *xs), [program.avals[s] for s in inputs], "stage")
    active = (True,) * len(stage.active) + (False,) * len(stage.plain)
    return Task(closed, active, (True,) * len(stage.results) + (False,) * len(stage.extras))


class Matrices:
    """The Jacobians of stages as dense matrices that any candidate obtains; ``block_diagonal.Blocks`` has others."""

    count = 1  # of blocks
    pattern: SparsityPattern | None = None

    def work(self, method, inner: Task) -> Work:
        """Of the Jacobian of a stage."""
        return method.work(inner)

    def tables(self, method) -> Any:
        """The index arrays that it takes."""
        pattern = method.pattern
        return method.tables, None if pattern is None else places(pattern)

    def stage(self, k: int, method, tables, inner: Task, values) -> tuple[list, Any]:
        """The outputs and the Jacobian of stage k."""
        outs, found = method.jacobian(inner, tables[0], values)
        return outs, found if isinstance(found, Dense) else Dense(found.full((inner.m, inner.n), tables[1]))

    def matrix(self, array, form: str, start: int, stop: int) -> Any:
        """The Jacobian of some stages, from its ``"rows"`` or its ``"columns"``, which are rows of the array."""
        return Dense(array, transposed=form == "columns")

    def result_tables(self, form: str) -> Any:
        """The index arrays that :meth:`result` takes for a matrix of this form."""
        return None

    def result(self, matrix, dtype, tables) -> Dense | Nonzeros:
        """The Jacobian of all stages as a candidate returns it."""
        return Dense(lax.convert_element_type(matrix.array, dtype), matrix.transposed)


@dataclass(frozen=True, eq=False)
class Chained:
    """``methods[k]`` accumulates stage k, or is None where the bracketing carries products through it."""

    split: Split
    order: Bracket
    methods: tuple
    sizes: tuple[int, ...]  # of the cuts, or of what is in each block of them
    parts: tuple[Task, ...]  # of the program that it was planned on
    kind: Matrices
    name: str = "cuts"

    @property
    def pattern(self) -> SparsityPattern | None:
        return self.kind.pattern

    @property
    def passes(self) -> int:
        return sum(m.passes for m in self.methods if m is not None) + _carried(self.order, self.sizes)

    @property
    def detail(self) -> str:
        blocks = f"{self.kind.count} blocks, each " if self.kind.count > 1 else ""
        return f"{blocks}{' -> '.join(map(str, self.sizes))}, J = {self.order}"

    @cached_property
    def tables(self) -> Any:
        form = {"push": "columns", "pull": "rows", "multiply": "blocks"}[self.order.how]
        stages = tuple(None if m is None else self.kind.tables(m) for m in self.methods)
        return stages, self.kind.result_tables(form)

    def work(self, task: Task) -> Work:
        total = Work()
        for inner, method in zip(self.parts, self.methods, strict=True):
            total += Work() if method is None else self.kind.work(method, inner)
        for b in _brackets(self.order):
            if b.how == "multiply":
                first, _ = b.parts
                size = self.sizes[b.start] * self.sizes[first.stop] * self.sizes[b.stop]
                products = float(self.kind.count * size)
                total += Work(products=products, multiplications=products, kernels=1)
            elif b.how == "push":
                total += _sum(pushing_work(self.parts[k], self.sizes[b.start]) for k in _rest(b))
            elif b.how == "pull":
                total += _sum(pulling_work(self.parts[k], self.sizes[b.stop]) for k in _rest(b))
        moved = 2.0 * task.n * task.m / self.kind.count * task.dtype.itemsize
        return dataclasses.replace(total, peak=total.peak + moved) + Work(bytes=moved)

    def jacobian(self, task: Task, tables, args) -> tuple[list, Dense | Nonzeros]:
        """The outputs, and the Jacobian as one matrix."""
        program = task.program
        stage_tables, result_tables = tables
        env: dict = dict(program.constants) | dict(zip(program.inputs, args, strict=True))
        before = subprogram(program, self.split.prelude, (), ())
        made = [s for e in before.equations for s in e.outputs]
        inputs = sorted({x for e in before.equations for x in e.slots} - set(made))
        before = dataclasses.replace(before, inputs=tuple(inputs), outputs=tuple(made))
        env.update(zip(made, evaluate_once(before, [env[s] for s in inputs]), strict=True))
        linear: list = []
        seeds = {k: self.sizes[b.start if b.how == "push" else b.stop] for b in _brackets(self.order) for k in _rest(b)}
        for k, (stage, method) in enumerate(zip(self.split.stages, self.methods, strict=True)):
            inner = part(program, stage)
            values = [env[s] for s in (*stage.active, *stage.plain)]
            if method is None:
                outs, tape = _recorded(inner, values, seeds[k])
                linear.append((inner, tape))
            else:
                outs, matrix = self.kind.stage(k, method, stage_tables[k], inner, values)
                linear.append((inner, matrix))
            env.update(zip((*stage.results, *stage.extras), outs, strict=True))
        outputs = [o.value if isinstance(o, Const) else env[o] for o in program.outputs]
        return outputs, self.kind.result(self._multiplied(self.order, linear), task.dtype, result_tables)

    def _multiplied(self, b: Bracket, linear: Sequence):
        """The Jacobian of a bracket, from the matrices and tapes of its stages."""
        if b.how == "stage":
            return linear[b.start][1]
        found = [self._multiplied(inner, linear) for inner in b.parts]
        if b.how == "multiply":
            first, last = found
            return last.times(first)
        (matrix,) = found
        if b.how == "push":
            columns = matrix.columns
            for k in _rest(b):
                inner, tape = linear[k]
                sides = (inner.closed.in_avals, inner.active), (inner.closed.out_avals, inner.differentiated)
                columns = carry(tape.push, columns, *sides, columns=k == b.stop - 1)
            return self.kind.matrix(columns, "columns", b.start, b.stop)
        rows = matrix.rows
        for k in reversed(_rest(b)):
            inner, tape = linear[k]
            sides = (inner.closed.out_avals, inner.differentiated), (inner.closed.in_avals, inner.active)
            rows = carry(tape.pull, rows, *sides)
        return self.kind.matrix(rows, "rows", b.start, b.stop)


def _brackets(b: Bracket):
    yield b
    for inner in b.parts:
        yield from _brackets(inner)


def _rest(b: Bracket) -> range:
    """The stages that a push or pull goes through."""
    if b.how not in ("push", "pull"):
        return range(0)
    (inner,) = b.parts
    return range(inner.stop, b.stop) if b.how == "push" else range(b.start, inner.start)


def _carried(order: Bracket, sizes) -> int:
    through = {"push": lambda b: sizes[b.start], "pull": lambda b: sizes[b.stop]}
    return sum(through[b.how](b) for b in _brackets(order) if b.how in through)


def _sum(works) -> Work:
    return sum(works, Work())


def pushing_work(task: Task, seeds: int) -> Work:
    return work(task.pushing, (False,) * len(task.active) + (True,) * len(task.in_avals), seeds)


def pulling_work(task: Task, seeds: int) -> Work:
    return work(task.pulling, (False,) * len(task.active) + (True,) * len(task.out_avals), seeds)


def _recorded(task: Task, values: Sequence, count: int) -> tuple[list, Any]:
    """(outputs, tape) of a task; each entry of the tape will be used for ``count`` seeds."""
    known: list = []
    structure: Any = None

    def record(*values):
        nonlocal structure
        outs, tape = INTERPRETER.record_program(task.closed, values, task.active)
        leaves, structure = jax.tree_util.tree_flatten(tape)
        known.extend(None if isinstance(x, jc.Tracer) else x for x in leaves)
        return [*outs, *(x for x in leaves if isinstance(x, jc.Tracer))]

    program = from_jaxpr(jc.trace_flat(record, task.closed.in_avals, "record"))
    results = evaluate_once(program, values, often=count)
    n = len(task.closed.out_avals)
    found = iter(results[n:])
    return results[:n], structure.unflatten(next(found) if x is None else x for x in known)


def carry(apply: Callable, matrix, given: tuple, wanted: tuple, columns: bool = False):
    """Each row of a matrix, as (co)tangents, through a map; both sides of which are given as types and which count.

    ``columns``: the result will be transposed.
    """
    count = matrix.shape[0]
    seeds, at = [], 0
    for aval in keep(given[1], given[0]):
        size = math.prod(aval.shape)
        piece = lax.reshape(lax.slice_in_dim(matrix, at, at + size, axis=1), (count, *aval.shape))
        seeds.append(lax.convert_element_type(piece, aval.dtype))
        at += size

    def one(*parts):
        values = iter(parts)
        results = apply(tuple(next(values) if on else None for on in given[1]))
        return keep(wanted[1], instantiate(results, *wanted))

    program = from_jaxpr(jc.trace_flat(one, [jc.unstacked(jc.typeof(x)) for x in seeds], "carry"))
    _, parts = batched(program, (), seeds, 0, columns)
    return joined(parts, jax.dtypes.result_type(*parts))


def chained(task: Task, machine: Machine, best: Callable[[Task], Any]) -> Chained | None:
    """The cheapest chain of parts of a task, ``best`` being the best candidate for a part; None if it has no waist.

    A Jacobian without entries has none either.
    """
    if not task.n or not task.m:
        return None
    found = split(task.program, task.active, task.differentiated)
    if found is None:
        return None
    parts = tuple(part(task.program, stage) for stage in found.stages)
    options = [best(inner) for inner in parts]
    sizes = (task.n, *(inner.m for inner in parts))
    return bracketed(found, parts, [(o.seconds, o.method) for o in options], sizes, Matrices(), machine)


def bracketed(
    found: Split, parts: tuple[Task, ...], options: Sequence, sizes, kind: Matrices, machine: Machine
) -> Chained:
    """The chain in its best order; ``options`` are seconds and method for each stage by itself."""
    push = [machine.seconds(pushing_work(inner, sizes[0])) / sizes[0] for inner in parts]
    pull = [machine.seconds(pulling_work(inner, sizes[-1])) / sizes[-1] for inner in parts]
    unit = machine.product * kind.count  # the products of brackets are counted in multiply-adds
    order = bracket(
        sizes,
        accumulate=[s / unit for s, _ in options],
        push=[s / unit for s in push],
        pull=[s / unit for s in pull],
    )
    alone = {b.start for b in _brackets(order) if b.how == "stage"}
    methods = tuple(method if k in alone else None for k, (_, method) in enumerate(options))
    return Chained(found, order, methods, sizes, parts, kind)
