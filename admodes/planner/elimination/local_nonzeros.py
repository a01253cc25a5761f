r"""The nonzeros of the local Jacobians of a program: where they are, and what they are.

Each nonzero is known now (a copied entry, a factor that does not depend on x), or is a multiple of one of the numbers
that a program computes at run time: a partial, a factor, or a product of a local Jacobian with a seed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from jax import lax

from admodes.errors import PlanningError
from admodes.linear.maps import Elementwise, Linear, LinearMap, Over, Sum, linear_map, static
from admodes.linear.pattern import SparsityPattern
from admodes.modes.interpreter import INTERPRETER
from admodes.modes.record import Recorded, record_equation
from admodes.modes.tape import Entry, Recorder, Tape
from admodes.planner.elimination.elementwise_regions import joined
from admodes.planner.elimination.formulas import Entries
from admodes.planner.sweeps.batched_sweep import evaluate_once
from admodes.program import jax_compat as jc
from admodes.program.common_subexpressions import merge_common
from admodes.program.evaluate import bind, evaluate, run
from admodes.program.folding import evaluate_known, is_foldable, is_known
from admodes.program.ir import Program, from_jaxpr
from admodes.program.traits import traits
from admodes.rules.solve import TriangularSolve
from admodes.sparse.columns import color_columns
from admodes.sparse.compress import seeds
from admodes.sparse.detect import Detector, Value, identity_blocks

# Seconds of a coloring of a local Jacobian, of which a program may have many. Chosen. Less may cost a color, a
# product of each run; more is paid at planning, for each map.
COLORING_SECONDS = 0.02


class TooLarge(Exception):
    """There are more products of nonzeros than allowed: ``count`` at least."""

    def __init__(self, count: int):
        self.count = count
        super().__init__(f"at least {count} products of nonzeros")


@dataclass(frozen=True, eq=False)
class Block:
    """∂(slot ``target``)/∂(slot ``source``)."""

    source: int
    target: int
    entries: Entries


@dataclass(frozen=True, eq=False)
class Local:
    """The local Jacobians of a program, by equation, and the program of their numbers.

    ``outputs`` are the slots of the program's outputs (None: no derivative); the first slots are its inputs.
    ``program`` takes constants (number ``places[k]`` of the program that is differentiated, or ``known[k]`` if that is
    None) and then the arguments; it returns the outputs and flat arrays, the numbers being these one after the other.
    It does so many ``multiplications`` and ``additions`` of partials.
    """

    blocks: tuple[tuple[Block, ...], ...]
    outputs: tuple
    program: Program
    places: tuple
    known: tuple
    sizes: tuple[int, ...]
    multiplications: int = 0
    additions: int = 0

    def values(self, program: Program, known: Sequence, args: Sequence, unread: bool = False) -> tuple[list, list]:
        """The outputs of ``program`` (traced here or elsewhere) and the flat arrays, at ``args``.

        ``unread``: nobody asks for the outputs.
        """
        constants = [x if k is None else program.constants[k][1] for k, x in zip(self.places, known, strict=True)]
        results = evaluate_once(self.program, [*constants, *args], unread=len(self.outputs) if unread else 0)
        return results[: len(self.outputs)], results[len(self.outputs) :]

    @property
    def closed(self):
        """The program as a jaxpr."""
        return jc.trace_flat(lambda *args: evaluate(self.program, *args), self.program.in_avals, "local")


def local_jacobians(program: Program, active: Sequence[bool], most: float = math.inf, regions: bool = False) -> Local:
    """The local Jacobians of a program with respect to its active inputs; of ``regions`` of it that are elementwise.

    Raises:
      TooLarge: they have more than ``most`` nonzeros together.
      PlanningError: complex numbers are differentiated, or a rule uses values of an outer transformation.
    """
    found: Any = None

    def sweep(*primals):
        nonlocal found
        outs, tape = _record(program, active, primals)
        if not is_real(tape):
            raise PlanningError("the nonzeros of local Jacobians are accumulated for real numbers only")
        numbers, blocks, count = _Numbers(), [], 0
        maps, wiring, *counts = joined(tape) if regions else (tape.maps, tape.wiring, 0, 0)
        for jacobian, (reads, writes) in zip(maps, wiring, strict=True):
            patterns = jacobian.pattern()
            count += sum(p.nnz for (j, i), p in patterns.items() if reads[i] is not None and writes[j] is not None)
            if count > most:
                raise TooLarge(count)
            parts = nonzeros(jacobian, [s is not None for s in reads], numbers)
            blocks.append(tuple(Block(reads[i], writes[j], e) for j, i, e in parts if writes[j] is not None))
        found = tape.outputs, tuple(blocks), tuple(a.size for a in numbers.arrays), counts
        return [*outs, *numbers.arrays]

    closed = jc.trace_flat(sweep, program.in_avals, "local")
    jaxpr, constants = jc.open_jaxpr(closed)
    numbered = {id(value): k for k, (_, value) in enumerate(program.constants)}
    places = tuple(numbered.get(id(value)) for value in constants)
    known = tuple(None if k is not None else value for k, value in zip(places, constants, strict=True))
    if any(x is not None and not is_known(x) for x in known):
        raise PlanningError("a derivative rule closes over values of an outer transformation")
    outputs, blocks, sizes, counts = found
    return Local(blocks, outputs, merge_common(from_jaxpr(jc.close_jaxpr(jaxpr))), places, known, sizes, *counts)


def _record(program: Program, active: Sequence[bool], primals):
    """The outputs and the tape of a program; what depends on no input is evaluated now."""
    recorder = Recorder(map(jc.typeof, primals))
    detector = Detector()

    def step(equation, operands, params):
        values, slots = [x.primal for x in operands], tuple(x.slot for x in operands)
        if is_foldable(equation) and not any(slots) and all(map(is_known, values)):
            return list(map(Recorded, evaluate_known(equation.primitive, values, params)))
        if equation.primitive is lax.linalg.triangular_solve_p and operands[0].slot is not None:
            return [_solved(recorder, operands, params)]
        results = record_equation(INTERPRETER, recorder, equation.primitive, operands, params)
        for entry in {id(r.slot.entry): r.slot.entry for r in results if r.slot is not None}.values():
            if entry is not None and entry.reads == slots:  # the equation as a whole
                _with_pattern(entry, detector, equation, operands, params, [program.avals[s] for s in equation.outputs])
        return results

    results = run(program, step, list(map(Recorded, primals, recorder.inputs(active))), Recorded)
    outs = [r.primal for r in results]
    return outs, recorder.close([r.slot for r in results], map(jc.typeof, outs))


def _solved(recorder: Recorder, operands, params) -> Recorded:
    """A triangular solve by two maps, X' = A⁻¹ (B' - A' X): each has few nonzeros beside those of their product."""
    a, b = operands
    (x,) = bind(lax.linalg.triangular_solve_p, [a.primal, b.primal], params)
    linear = TriangularSolve(
        a.primal, x, (True, True), tuple(params.items()), (jc.typeof(a.primal), jc.typeof(b.primal)), (jc.typeof(x),)
    )
    right = lambda a, b: [lax.sub(b, linear.moved(a))]
    _, (slot,) = INTERPRETER.continue_function(recorder, right, [a.primal, b.primal], [a.slot, b.slot])
    (slot,) = recorder.append((None, slot), lambda: replace(linear, x=None, active=(False, True)), [x])
    return Recorded(x, slot)


def is_real(tape: Tape) -> bool:
    """True if no derivative on the tape is complex: only then are its maps the matrices of their entries."""
    avals = [a for m in tape.maps for a in (*m.domain, *m.codomain)]
    return not any(jc.is_differentiable(a) and np.issubdtype(a.dtype, np.complexfloating) for a in avals)


@linear_map
class Detected(LinearMap):
    """A map that knows no pattern of its own, with one that the detector found in its code."""

    linear: LinearMap
    blocks: dict = static()
    forward_only: bool = static()

    domain = property(lambda self: self.linear.domain)
    codomain = property(lambda self: self.linear.codomain)

    def push(self, tangents):
        return self.linear.push(tangents)

    def pull(self, cotangents):
        return self.linear.pull(cotangents)

    def pattern(self):
        return self.blocks


def _with_pattern(entry: Entry, detector: Detector, equation, operands, params, avals) -> None:
    build: Callable[[], LinearMap | None] = entry.jacobian

    def jacobian():
        linear = build()
        if linear is None or isinstance(linear, (Elementwise, Linear, Sum)):
            return linear
        sizes = [math.prod(jc.typeof(x.primal).shape) if x.slot is not None else 0 for x in operands]
        reaches = [None if x.slot is None else r for x, r in zip(operands, identity_blocks(sizes), strict=True)]
        known = [x.primal if r is None and is_known(x.primal) else None for x, r in zip(operands, reaches, strict=True)]
        values = [Value(jc.typeof(x.primal), k, r) for x, k, r in zip(operands, known, reaches, strict=True)]
        cuts = [0, *itertools.accumulate(sizes)]
        blocks = {}
        for j, result in enumerate(detector.equation(equation, values, params, avals)):
            for i, (a, b) in enumerate(itertools.pairwise(cuts)):
                if result.reach is not None and reaches[i] is not None:
                    blocks[j, i] = SparsityPattern(result.reach.table[:, a:b], result.reach.labels)
        return Detected(linear, blocks, equation.primitive is jc.while_p or jc.mentions(params, [jc.while_p]))

    entry.jacobian = jacobian


class _Numbers:
    """Flat arrays whose entries are numbered one after the other; what is the same array is there once."""

    def __init__(self):
        self.arrays: list = []
        self._first: dict = {}
        self._kept: list = []  # so that no other array gets its id
        self._count = 0

    def start(self, array, kind: str = "", make: Callable = lambda x: x) -> int:
        """The number of the first entry of ``make(array)``; ``kind`` says what that makes of the array."""
        key = (id(array), kind)
        if key not in self._first:
            self._kept.append(array)
            made = make(array)
            self.arrays.append(lax.reshape(made, (made.size,)))
            self._first[key], self._count = self._count, self._count + made.size
        return self._first[key]


def nonzeros(jacobian: LinearMap, active: Sequence[bool], numbers: _Numbers) -> Iterator[tuple[int, int, Entries]]:
    """(result, operand, nonzeros) of the blocks of a map; ``numbers`` takes up those that are not known."""
    if isinstance(jacobian, Sum):
        for term in jacobian.terms:
            on = [a and b for a, b in zip(active, term.active, strict=True)]
            yield from nonzeros(term, on, numbers)
    elif isinstance(jacobian, Elementwise):
        for (_, i), pattern in jacobian.pattern().items():
            if active[i]:
                yield 0, i, _of_partial(jacobian, i, pattern, numbers)
    elif isinstance(jacobian, Linear) and (products := traits(jacobian.primitive).products) is not None:
        (i,) = np.flatnonzero(jacobian.active)
        yield 0, int(i), _of_factor(jacobian, products, int(i), numbers)
    elif isinstance(jacobian, Linear) and only_moves(jacobian):
        for (j, i), pattern in jacobian.pattern().items():
            if active[i]:
                yield j, i, Entries.known(pattern.rows, pattern.cols, np.ones(pattern.nnz), pattern.shape)
    else:
        yield from _by_products(jacobian, active, numbers)


def only_moves(linear: Linear) -> bool:
    """True if all nonzeros of the map are 1, at places that are known."""
    known = all(x is None or is_known(x) for x in linear.operands)
    return known and traits(linear.primitive).moves


def _of_partial(jacobian: Elementwise, i: int, pattern: SparsityPattern, numbers: _Numbers) -> Entries:
    d, kind, (out,) = jacobian.partials[i], jacobian.kinds[i], jacobian.codomain
    rows, cols, shape = pattern.rows, pattern.cols, pattern.shape
    if d is None:
        return Entries.known(rows, cols, np.full(rows.size, float(kind)), shape)
    if is_known(d):
        partial = np.asarray(d).astype(np.float64)
        with np.errstate(divide="ignore"):
            partial = 1.0 / partial if kind is Over else partial
        return Entries.known(rows, cols, np.broadcast_to(partial, out.shape).ravel()[rows], shape)

    def make(d):
        d = lax.convert_element_type(d, out.dtype)
        return lax.div(np.ones((), out.dtype), d) if kind is Over else d

    start = numbers.start(d, f"{out.dtype} {kind is Over}", make)
    places = np.broadcast_to(np.arange(start, start + d.size).reshape(d.shape), out.shape).ravel()
    return Entries(rows, cols, np.ones(rows.size), places[rows], shape)


def _of_factor(linear: Linear, products: Callable, place: int, numbers: _Numbers) -> Entries:
    """The nonzeros of a product are entries of the other factor."""
    other, shape = linear.operands[1 - place], (linear.codomain[0].size, linear.domain[place].size)
    rows, *factors = products(linear)
    cols, places = factors[place], factors[1 - place]
    if is_known(other):
        values = np.asarray(other).astype(np.float64).ravel()[places]
        there = values != 0
        return Entries.known(rows[there], cols[there], values[there], shape)
    return Entries(rows, cols, np.ones(rows.size), places + numbers.start(other), shape)


def _by_products(jacobian: LinearMap, active: Sequence[bool], numbers: _Numbers) -> Iterator[tuple[int, int, Entries]]:
    """The nonzeros of a map from its products with seeds, compressed by a coloring of its own pattern."""
    patterns = {key: p for key, p in jacobian.pattern().items() if active[key[1]] and p.nnz}
    if not patterns:
        return
    ways = {"push": _colored(patterns, 1)}
    if not (isinstance(jacobian, Detected) and jacobian.forward_only):
        ways["pull"] = _colored(patterns, 0)
    way = min(ways, key=lambda w: sum(int(c.max()) + 1 for c in ways[w].values()))
    known = all(map(is_known, jax.tree_util.tree_leaves(jacobian)))
    for k, colors in ways[way].items():
        if known:
            with jax.ensure_compile_time_eval():
                products = _products(jacobian, way, k, colors)
        else:
            products = _products(jacobian, way, k, colors)
        for (j, i), pattern in patterns.items():
            if (i if way == "push" else j) == k:
                rows, cols = pattern.rows, pattern.cols
                own, across = (cols, rows) if way == "push" else (rows, cols)
                product = products[j if way == "push" else i]
                places = colors[own] * (product.size // product.shape[0]) + across
                if known:
                    values = np.asarray(product).astype(np.float64).ravel()[places]
                    yield j, i, Entries.known(rows, cols, values, pattern.shape)
                else:
                    places += numbers.start(product)
                    yield j, i, Entries(rows, cols, np.ones(rows.size), places, pattern.shape)


def _colored(patterns: dict, side: int) -> dict[int, np.ndarray]:
    """For each operand (``side`` 1; result: 0) the colors of its entries, those of one color in no common row (column).

    Entries without nonzeros have color -1.
    """
    groups: dict[int, list] = {}
    for key in patterns:
        groups.setdefault(key[side], []).append(patterns[key] if side else patterns[key].transpose)
    return {
        k: color_columns(SparsityPattern.stack(stack).matrix, ("natural", "largest_first"), COLORING_SECONDS)[0]
        for k, stack in groups.items()
    }


def _products(jacobian: LinearMap, way: str, k: int, colors: np.ndarray) -> list:
    """The products with the seeds of operand (result) k: for each result (operand) an array with a leading axis."""
    given, wanted = (jacobian.domain, jacobian.codomain) if way == "push" else (jacobian.codomain, jacobian.domain)
    batch = seeds(colors, given[k].dtype).reshape(-1, *given[k].shape)

    def product(seed):
        found = getattr(jacobian, way)(tuple(seed if n == k else None for n in range(len(given))))
        return [jc.zeros(a) if x is None and jc.is_differentiable(a) else x for x, a in zip(found, wanted, strict=True)]

    if len(batch) == 1:
        return [None if x is None else lax.expand_dims(x, (0,)) for x in product(batch[0])]
    return jax.vmap(product)(jax.numpy.asarray(batch))  # a rule of a user's that is called here takes JAX's arrays
