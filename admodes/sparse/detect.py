r"""Sparsity detection: the patterns of the local Jacobians, multiplied as boolean matrices.

A sweep over the program carries, for each value, the pattern of its derivative with respect to the inputs (what forward
mode carries in numbers) and asks the same rules for the same linear maps; only, values that depend on the
inputs are tracers that stand for any value, so that the pattern is *global*: it holds for all inputs of these shapes.
Values that depend on no input are known, and used: indices, factors that are zero, predicates.

Reference: Griewank and Walther, *Evaluating Derivatives*, 2nd ed., section 7.1 (index domains).
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.tree_util import tree_flatten, tree_leaves, tree_unflatten

from admodes.errors import UnsupportedPrimitiveError
from admodes.linear.maps import Function, Linear, LinearMap
from admodes.linear.pattern import SparsityPattern
from admodes.modes.checks import ARRAYS, differentiable_argument, ensure_index, place, positional
from admodes.modes.flat import pair
from admodes.modes.interpreter import INTERPRETER, Interpreter
from admodes.program import jax_compat as jc
from admodes.program.evaluate import live_equations, run
from admodes.program.folding import evaluate_known, is_foldable, is_known
from admodes.program.ir import Program, from_jaxpr
from admodes.program.trace import trace
from admodes.program.traits import traits
from admodes.rules.table import LocalRule, lookup
from admodes.sparse.blocks import batched_blocks, full_blocks, identity_blocks, split_rows
from admodes.sparse.control_flow import HIGHER_ORDER
from admodes.sparse.local import local_pattern
from admodes.sparse.ranges import Range, choices, is_counted, range_of_result
from admodes.subprograms.callbacks import Refused
from admodes.subprograms.custom import recording_linear
from admodes.subprograms.lent import LentRule
from admodes.transforms.reverse import grad

TYPED = (*ARRAYS, jax.ShapeDtypeStruct)  # arguments of which shape and dtype count


@dataclass(frozen=True)
class Value:
    """A value: its type, its entries if they are known, and which inputs each entry can depend on (None: on none).

    ``range``: between what its entries lie, if they are integers and something is known of them.
    """

    aval: Any
    known: Any = None
    reach: SparsityPattern | None = None
    range: Range | None = None


class Detector(Interpreter):
    """An interpreter that, where others compute derivatives, finds their patterns.

    It stands in for the interpreter *and* the recorder that rules are handed: a slot is a pattern.
    """

    ties = "jax"
    linear = False  # what rules ask of a recorder: whether the map must be linear

    def __init__(self):
        self._placeholders: dict = {}

    # -- values that stand for any value ---------------------------------------------------------------

    def placeholder(self, aval):
        """A tracer of this type."""
        key = (str(aval), getattr(aval, "weak_type", False))
        if key not in self._placeholders:
            self._placeholders[key] = jc.fill_zeros(aval)
        return self._placeholders[key]

    def operand(self, value: Value):
        return self.placeholder(value.aval) if value.known is None else value.known

    # -- the sweep ---------------------------------------------------------------------------------------

    def walk(self, program: Program, values: Sequence[Value]) -> list[Value]:
        """The outputs of a program whose inputs are ``values``."""
        live = dataclasses.replace(program, equations=tuple(live_equations(program)))

        def step(equation, operands, params):
            return self.equation(equation, operands, params, [program.avals[s] for s in equation.outputs])

        return run(live, step, values, lambda x: Value(jc.typeof(x), x if is_known(x) else None))

    def equation(self, equation, operands: Sequence[Value], params: dict, avals: Sequence) -> list[Value]:
        """The results of an equation: at each of the places that it may read an array at, if these are few."""
        places = choices(equation.primitive, operands)
        if places is not None:
            reach = None
            for known in places:
                indices = [Value(v.aval, p.astype(v.aval.dtype)) for v, p in zip(operands[1:], known, strict=True)]
                (read,) = self._equation(equation, [operands[0], *indices], params, avals)
                reach = join(reach, read.reach)
            return [Value(avals[0], None, reach)]
        results = self._equation(equation, operands, params, avals)
        if len(avals) != 1 or results[0].known is not None or not is_counted(avals[0]):
            return results
        limits = range_of_result(equation.primitive, operands, params, avals[0])
        if limits is not None and np.array_equal(*limits):
            return [Value(avals[0], limits[0].astype(avals[0].dtype))]
        return [dataclasses.replace(results[0], range=limits)]

    def _equation(self, equation, operands: Sequence[Value], params: dict, avals: Sequence) -> list[Value]:
        primitive = equation.primitive
        unknown = [Value(a) for a in avals]
        if all(v.reach is None for v in operands):
            if not is_foldable(equation) or any(v.known is None for v in operands):
                return unknown
            return list(map(Value, avals, evaluate_known(primitive, [v.known for v in operands], params)))
        if primitive in HIGHER_ORDER:
            return HIGHER_ORDER[primitive](self, operands, params, avals)
        reach = traits(primitive).reach
        if reach is not None:
            known = tuple(v.known for v in operands)
            active = tuple(v.reach is not None for v in operands)
            domain = tuple(v.aval for v in operands)
            linear = Linear(known, active, primitive, tuple(params.items()), None, domain, tuple(avals))
            reaches = combined(reach(linear), [v.reach for v in operands], avals)
            return [Value(a, None, r) for a, r in zip(avals, reaches, strict=True)]
        rule = lookup(primitive)
        opaque = rule is None or isinstance(rule, Refused)
        if isinstance(rule, LentRule) or (self.linear and opaque):  # (what a user's rule applies to tangents is linear)
            blocks = full_blocks([v.aval for v in operands], avals)
            reaches = combined(blocks, [v.reach for v in operands], avals)
            return [Value(a, None, r) for a, r in zip(avals, reaches, strict=True)]
        if rule is None:
            raise UnsupportedPrimitiveError(primitive.name, equation.where)
        if isinstance(rule, LocalRule) and rule.is_zero([v.aval for v in operands]):
            return unknown
        primals, slots = [self.operand(v) for v in operands], [v.reach for v in operands]
        if isinstance(rule, Refused):
            rule.evaluate(primitive, primals, params)  # raises, as it does in every other mode
        if primitive is jc.custom_vjp_call_p and self.linear:  # its rule may apply the function itself, for ever
            body = jc.trace_flat(params["subfuns"][0].call_wrapped, [v.aval for v in operands], "body")
            return self.walk(from_jaxpr(body), operands)
        if isinstance(rule, LocalRule) and rule.definition is not None:  # its indices may be known
            run = lambda *xs: rule.definition(*xs, **params)
            reaches = self.continue_function(self, run, primals, slots)[1]
        elif isinstance(rule, LocalRule):
            outs = list(map(self.placeholder, avals))
            active = tuple(s is not None for s in slots)
            reaches = self.append(slots, lambda: rule.jacobian(self, primitive, outs, primals, active, params), outs)
        else:
            reaches = rule.record(self, self, primitive, primals, slots, params)[1]
        return [Value(a, None, r) for a, r in zip(avals, reaches, strict=True)]

    def append(self, reads, jacobian: Callable[[], LinearMap | None], outs) -> tuple:
        """The patterns of the results of a linear map whose operands have the patterns ``reads``."""
        linear = jacobian()
        if linear is None:
            return (None,) * len(outs)
        if isinstance(linear, Function):
            return self._through_function(linear, reads)
        return combined(self._blocks(linear), reads, list(map(jc.typeof, outs)))

    def _blocks(self, linear):
        """The pattern of a map; those of the solvers, which know none, are full for each matrix of a batch."""
        if type(linear).pattern is LinearMap.pattern:
            return batched_blocks(linear.domain, linear.codomain, 2)
        if getattr(linear, "primitive", None) is lax.fft_p:
            return batched_blocks(linear.domain, linear.codomain, len(dict(linear.params)["fft_lengths"]))
        return linear.pattern()

    def _through_function(self, linear: Function, reads):
        """A map that is given by code for its push (or pull): that code is a program with a pattern."""
        with recording_linear(self):
            return self._through_code(linear, reads)

    def _through_code(self, linear: Function, reads):
        if linear.given == "push":
            on = tuple(r is not None for r in reads)

            def push(*tangents):
                given = iter(tangents)
                ts = linear.apply(linear.residuals, tuple(next(given) if a else None for a in on))
                return self._present(ts, linear.codomain)

            points = [jc.tangent_aval(a) for a, a_on in zip(linear.domain, on, strict=True) if a_on]
            return tuple(v.reach for v in self._function(push, points, [r for r in reads if r is not None]))

        def pull(*cotangents):
            return self._present(linear.apply(linear.residuals, cotangents), linear.domain)

        sizes = [math.prod(a.shape) for a in linear.codomain]
        identities = identity_blocks(sizes)
        transposed = self._function(pull, [jc.tangent_aval(a) for a in linear.codomain], identities)
        total = None
        for value, before in zip(transposed, reads, strict=True):
            if value.reach is not None and before is not None:
                total = join(total, value.reach.transpose.compose(before))
        return (None,) * len(sizes) if total is None else tuple(split_rows(total, sizes))

    def _present(self, values, avals):
        return [jc.zeros(a) if v is None else v for v, a in zip(values, avals, strict=True)]

    def _function(self, fun, avals, reaches) -> list[Value]:
        return self.walk(from_jaxpr(jc.trace_flat(fun, list(avals), "pattern")), list(map(_active, avals, reaches)))

    # -- what rules ask of an interpreter ------------------------------------------------------------------

    def continue_program(self, recorder, closed, primals, slots):
        values = self.walk(from_jaxpr(closed), [self.value(p, s) for p, s in zip(primals, slots, strict=True)])
        return [self.operand(v) for v in values], [v.reach for v in values]

    def continue_function(self, recorder, fun, primals, slots):
        return self.continue_program(recorder, jc.trace_flat(fun, list(map(jc.typeof, primals)), "p"), primals, slots)

    def record_function(self, fun, primals, active, n_outputs=None, linear=False):
        """A tape of its own, with maps and not patterns: a rule derives a function from it, which is then walked."""
        return INTERPRETER.record_function(fun, primals, active, n_outputs, linear)

    def value(self, primal, reach) -> Value:
        known = primal if reach is None and is_known(primal) else None
        return Value(jc.typeof(primal), known, reach)


def combined(blocks: dict, reads, avals) -> tuple:
    """The patterns of results of types ``avals``: the sums of their blocks times the patterns of the operands."""
    results: list = [None] * len(avals)
    for (j, i), block in blocks.items():
        if reads[i] is not None and jc.is_differentiable(avals[j]):
            results[j] = join(results[j], block.compose(reads[i]))
    return tuple(results)


def _active(aval, reach) -> Value:
    return Value(aval, None, reach if jc.is_differentiable(aval) else None)


def join(a: SparsityPattern | None, b: SparsityPattern | None) -> SparsityPattern | None:
    """The union of two patterns, None being empty."""
    if a is None or b is None:
        return b if a is None else a
    return a.union(b)


# -- what users call --------------------------------------------------------------------------------------


def sparsity(
    fun: Callable[..., Any],
    *args: Any,
    argnums: int | Sequence[int] = 0,
    fixed_argnums: int | Sequence[int] = (),
    has_aux: bool = False,
    local: bool = False,
    **kwargs: Any,
) -> SparsityPattern:
    r"""The sparsity pattern of the Jacobian of ``fun``, valid for every input of the shapes of ``args``.

    Rows are the entries of the outputs, columns those of the arguments ``argnums``, in the order in which these are
    named; both flattened leaf by leaf.

    Args:
      fun: a function of pytrees of arrays that returns a pytree of arrays.
      args, kwargs: its arguments; arrays, or types (``jax.ShapeDtypeStruct``): only shapes and dtypes count. As for
        :func:`admodes.jacobian`, integers, booleans and strings that are not differentiated are fixed.
      argnums: which positional arguments to differentiate.
      fixed_argnums: arguments whose values may be used, because they will not change (an index array, a mask).
      has_aux: whether ``fun`` returns a pair (output, auxiliary data), the second of which has no rows.
      local: the pattern at these arguments alone: of the branches that they take, and without slopes that are 0 there.

    Returns:
      A :class:`~admodes.linear.pattern.SparsityPattern`: a superset of the nonzeros of the Jacobian at every input.

    Raises:
      TypeError, ValueError: ``argnums`` or ``fixed_argnums`` name no argument, or one twice; or an argument that is
        differentiated holds other things than real or complex numbers.
      PlanningError: the function decides on the values of its arguments in Python.
      UnsupportedPrimitiveError: a differentiated value reaches a primitive that has no rule.

    >>> import admodes, jax.numpy as jnp
    >>> from admodes.sparse import sparsity
    >>> print(sparsity(lambda x: x[1:] * x[:-1], jnp.ones(4)).to_dense().astype(int))
    [[1 1 0 0]
     [0 1 1 0]
     [0 0 1 1]]

    Reference: Griewank and Walther, *Evaluating Derivatives*, 2nd ed., section 7.1.
    """
    chosen = _places(argnums, args)
    fixed = _places(fixed_argnums, args) if np.size(fixed_argnums) else []
    order = [*chosen, *(k for k in range(len(args)) if k not in chosen)]  # columns come in the order of argnums
    leaves, tree = tree_flatten(([args[k] for k in order], kwargs))
    arrays = [isinstance(x, TYPED) for x in leaves]

    def ordered(*values):
        it = iter(values)
        given, keywords = tree_unflatten(tree, [next(it) if on else x for x, on in zip(leaves, arrays, strict=True)])
        out = fun(*(given[order.index(k)] for k in range(len(args))), **keywords)
        return pair(out)[0] if has_aux else out

    active: list[bool] = []
    known: list = []
    for k in order:
        own = tree_leaves(args[k])
        if k in chosen:
            _check_numbers(own, args)
        own = [x for x in own if isinstance(x, TYPED)]
        active += [k in chosen] * len(own)
        known += own if k in fixed and k not in chosen else [None] * len(own)
    dynamic = list(itertools.compress(leaves, arrays))
    rest = len(dynamic) - len(active)
    program, flags = trace(ordered, *dynamic), [*active, *[False] * rest]
    found = pattern_of_program(program, flags, [*known, *[None] * rest])
    return found.intersection(local_pattern(program, flags, dynamic)) if local else found


def hessian_sparsity(
    fun: Callable[..., Any],
    *args: Any,
    argnums: int | Sequence[int] = 0,
    fixed_argnums: int | Sequence[int] = (),
    has_aux: bool = False,
    **kwargs: Any,
) -> SparsityPattern:
    r"""The sparsity pattern of the Hessian of the scalar function ``fun``: that of its gradient, made symmetric.

    Arguments and errors are those of :func:`sparsity`.

    >>> import jax.numpy as jnp
    >>> from admodes.sparse import hessian_sparsity
    >>> print(hessian_sparsity(lambda x: x[0] * x[1] + x[2] ** 2 + x[3], jnp.ones(4)).to_dense().astype(int))
    [[0 1 0 0]
     [1 0 0 0]
     [0 0 1 0]
     [0 0 0 0]]
    """
    gradient = grad(fun, argnums, has_aux)
    pattern = sparsity(gradient, *args, argnums=argnums, fixed_argnums=fixed_argnums, has_aux=has_aux, **kwargs)
    return pattern.union(pattern.transpose)


def _check_numbers(leaves: Sequence, args: Sequence) -> None:
    """Raise TypeError unless the leaves are real or complex numbers."""
    for leaf in leaves:
        differentiable_argument("sparsity", leaf, args)
        if not isinstance(leaf, TYPED) or not jc.is_differentiable(jc.typeof(jc.canonicalize(leaf))):
            raise TypeError(
                f"sparsity is about derivatives with respect to real and complex numbers, but {place(leaf, args)} has "
                f"others: dtype {np.result_type(leaf)}"
            )


def _places(argnums, args) -> list[int]:
    """The arguments that are named, in this order."""
    argnums = ensure_index(argnums)
    positional(argnums, args)
    return [k % len(args) for k in ((argnums,) if isinstance(argnums, int) else argnums)]


def pattern_of_program(program: Program, active: Sequence[bool], known: Sequence | None = None) -> SparsityPattern:
    """The pattern of a program's outputs (rows) with respect to its ``active`` inputs (columns)."""
    sizes = [math.prod(a.shape) for a, on in zip(program.in_avals, active, strict=True) if on]
    columns = iter(identity_blocks(sizes))
    found: list[Value] = []

    def sweep():
        given = known or [None] * len(active)
        values = [
            _active(a, next(columns)) if on else Value(a, v)
            for a, on, v in zip(program.in_avals, active, given, strict=True)
        ]
        found.extend(Detector().walk(program, values))
        return []

    jc.trace_flat(sweep, [], "pattern")  # a trace in which tracers can stand for unknown values; it is thrown away
    rows = [v.reach or SparsityPattern.empty(math.prod(v.aval.shape), sum(sizes)) for v in found]
    return SparsityPattern.stack(rows) if rows else SparsityPattern.empty(0, sum(sizes))
