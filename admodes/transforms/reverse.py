"""Reverse mode: ``vjp``, ``grad``, ``value_and_grad`` and ``jacrev``, with the signatures of their JAX namesakes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal, overload

import jax
import numpy as np
from jax.tree_util import tree_flatten, tree_leaves, tree_map, tree_structure, tree_transpose, tree_unflatten

from admodes.memory.limit import limited
from admodes.modes import checks
from admodes.modes.contents import on_contents, references_in
from admodes.modes.flags import flags_of_leaves
from admodes.modes.flat import select_arguments, std_basis, wraps
from admodes.modes.interpreter import INTERPRETER, Interpreter, interpreter_for
from admodes.modes.pullback import Pullback
from admodes.nonsmooth.approach import approached, directions_for
from admodes.nonsmooth.limits import settled
from admodes.program import jax_compat as jc
from admodes.text_tables import memory_bytes
from admodes.transforms.forward import resolved
from admodes.transforms.recorded import Settled, record


@overload
def vjp(
    fun: Callable[..., Any],
    *primals: Any,
    has_aux: Literal[False] = False,
    saveable_args: Any = True,
    in_nzs: Any = None,
    nan_safe: bool = False,
    ties: str = "jax",
) -> tuple[Any, Pullback]: ...


@overload
def vjp(
    fun: Callable[..., Any],
    *primals: Any,
    has_aux: Literal[True],
    saveable_args: Any = True,
    in_nzs: Any = None,
    nan_safe: bool = False,
    ties: str = "jax",
) -> tuple[Any, Pullback, Any]: ...


@overload
def vjp(
    fun: Callable[..., Any],
    *primals: Any,
    has_aux: bool,
    saveable_args: Any = True,
    in_nzs: Any = None,
    nan_safe: bool = False,
    ties: str = "jax",
) -> tuple[Any, ...]: ...


@jc.api_boundary
def vjp(
    fun: Callable[..., Any],
    *primals: Any,
    has_aux: bool = False,
    saveable_args: Any = True,
    in_nzs: Any = None,
    nan_safe: bool = False,
    ties: str = "jax",
) -> tuple[Any, ...]:
    r"""Value at x and the pullback g ↦ gᵀ f'(x), by a tape.

    Args:
      fun: a function of pytrees of arrays that returns a pytree of arrays.
      primals: the arguments x. One may be a mutable reference: what is differentiated is what it holds, and the
        gradient is added to a reference (``pullback.with_refs``).
      has_aux: whether ``fun`` returns a pair (output, auxiliary data).
      saveable_args: a bool for each argument (or a tree of them for its parts): False says that the pullback must not
        keep it, and that you put it back into ``pullback.args_res`` before the call.
      in_nzs: the same for whether its cotangent is wanted: False makes it a constant, with cotangent zero.
        ``pullback.out_nzs`` tell, in the structure of y, where y depends on the others.
      nan_safe, ties: what happens at infinite slopes and at kinks (see :func:`grad`). Cotangents that are not finite
        are settled when the pullback is called, for which it keeps the function and its arguments;
        ``pullback.map`` and ``jaxpr`` have them as they are.

    Returns:
      ``(y, pullback)`` or ``(y, pullback, aux)``. ``pullback(g)``, with g of the structure, shapes and dtypes of y,
      returns a tuple with a cotangent for each argument (dtype ``float0`` for integer arguments). For complex
      values it is the transpose, not the conjugate transpose, as in JAX. ``pullback.map`` is f'(x) as an
      :class:`admodes.LinearMap`, of which the pullback is the transpose.

    >>> import admodes, jax.numpy as jnp
    >>> y, pullback = admodes.vjp(lambda a, b: a * b, 2.0, 3.0)
    >>> [float(ct) for ct in pullback(1.0)]
    [3.0, 2.0]

    Reference: Griewank and Walther, *Evaluating Derivatives*, section 3.2.
    """
    jc.check_callable(fun)
    name = getattr(fun, "__name__", type(fun).__name__)
    references = references_in(primals, name)
    if references:
        fun, primals = on_contents(fun, primals, references, has_aux)
    lexicographic = ties == "lexicographic"
    fun, ties = resolved(fun, ties)
    found = taped(fun, primals, has_aux, saveable_args, in_nzs, references, interpreter_for(False, ties), name)
    if not nan_safe and not lexicographic:
        return found
    y, pullback, *aux = found
    if not all(flags_of_leaves(saveable_args, pullback.in_tree, "saveable_args")):
        raise ValueError("nan_safe=True and ties='lexicographic' keep the arguments of vjp: leave out saveable_args")
    settle = Settled.of(fun, has_aux, ties, pullback.in_tree, pullback.tape, in_nzs, lexicographic)
    return (y, replace(pullback, point=tuple(tree_leaves(primals)), settle=settle), *aux)


def taped(
    fun: Callable[..., Any],
    primals: Sequence[Any],
    has_aux: bool = False,
    saveable_args: Any = True,
    in_nzs: Any = None,
    references: dict[int, Any] | None = None,
    interpreter: Interpreter = INTERPRETER,
    name: str = "",
) -> tuple[Any, ...]:
    """:func:`vjp` by an interpreter, whether its zeros are right or not; ``fun`` takes the contents of references."""
    outs, tape, in_tree, result = record(fun, primals, has_aux, interpreter, in_nzs)
    arguments, saveable = tree_leaves(primals), flags_of_leaves(saveable_args, in_tree, "saveable_args")
    out_tree, n = result.tree, result.tree.num_leaves
    if references:
        out_tree = out_tree.children()[0]
        for (i, reference), content in zip(references.items(), outs[out_tree.num_leaves : n], strict=True):
            if content is not arguments[i]:
                reference[...] = content
    out_avals = tuple(map(jc.typeof, outs[: out_tree.num_leaves]))
    pullback = Pullback.of(tape, arguments, saveable, tuple(references or ()), in_tree, out_tree, out_avals, name)
    values = out_tree.unflatten(outs[: out_tree.num_leaves]), pullback
    return (*values, result.aux(outs[n:])) if has_aux else values


def strong(fun: Callable[..., Any], *primals: Any, has_aux: bool = False, ties: str = "jax") -> tuple[Any, ...]:
    """:func:`vjp` with strong zeros, whether they are right or not (``nonsmooth/limits.py``)."""
    return taped(fun, primals, has_aux, interpreter=interpreter_for(True, ties))


def value_and_grad(
    fun: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    holomorphic: bool = False,
    allow_int: bool = False,
    *,
    nan_safe: bool = False,
    ties: str = "jax",
    memory_limit: int | float | str | None = None,
) -> Callable[..., tuple[Any, Any]]:
    r"""A function that returns (f(x), ∇f(x)) for a scalar f; the arguments are those of :func:`grad`.

    >>> import admodes
    >>> value, slope = admodes.value_and_grad(lambda x: x**2)(3.0)
    >>> float(value), float(slope)
    (9.0, 6.0)
    """
    lexicographic, limit = ties == "lexicographic", memory_bytes(memory_limit)
    if lexicographic and limit:
        raise ValueError(
            "memory_limit has no schedule for ties='lexicographic', which decides as it goes: leave out one"
        )
    interpreter_for(nan_safe, "jax" if lexicographic else ties)  # an unknown policy is an error before any call
    if lexicographic:
        return decided(fun, argnums, has_aux, holomorphic, allow_int)
    approach = limited(limit) if limit else None
    return differentiated(fun, argnums, has_aux, holomorphic, allow_int, ties, approach, nan_safe)


def decided(
    fun: Callable[..., Any],
    argnums: int | Sequence[int],
    has_aux: bool,
    holomorphic: bool = False,
    allow_int: bool = False,
    direction: Any = None,
) -> Callable[..., tuple[Any, Any]]:
    """x ↦ (f(x), ∇f(x)) as it is beside x: of the decided program, along a direction."""

    def approach(both, function, args):
        return approached(partial(both, direction=directions_for(args, direction)[0]), function, args, direction)

    return differentiated(fun, argnums, has_aux, holomorphic, allow_int, "jax", approach, True)


def differentiated(
    fun: Callable[..., Any],
    argnums: int | Sequence[int],
    has_aux: bool,
    holomorphic: bool,
    allow_int: bool,
    ties: str,
    approach: Callable[..., Any] | None,
    nan_safe: bool,
) -> Callable[..., tuple[Any, Any]]:
    """x ↦ (f(x), ∇f(x)) by a vjp; ``approach`` may put another function in its place."""
    jc.check_callable(fun)
    argnums = checks.ensure_index(argnums)

    @wraps(fun, "Value and gradient")
    @jc.api_boundary
    def value_and_grad_fun(*args, **kwargs):
        checks.positional(argnums, args)
        partial_fun, dyn_args = select_arguments(fun, argnums, args, kwargs)
        for x in tree_leaves(dyn_args):
            checks.reverse_input("grad", holomorphic, allow_int, x)

        def both(function, direction=None):
            value, pullback, *aux = vjp(function, *dyn_args, has_aux=has_aux, ties=ties)
            checks.scalar(value)
            tree_map(partial(checks.reverse_output, "grad", holomorphic), value)
            gradient = pullback(jc.one(value))
            if nan_safe:
                gradient = settled(gradient, partial(strong_gradient, function), tuple(dyn_args), direction)
            return value, gradient, *aux

        def strong_gradient(function, *xs):
            value, pullback, *_ = strong(function, *xs, has_aux=has_aux, ties=ties)
            return pullback(jc.one(value))

        value, gradient, *aux = approach(both, partial_fun, dyn_args) if approach else both(partial_fun)
        gradient = gradient[0] if isinstance(argnums, int) else gradient
        return ((value, *aux) if has_aux else value), gradient

    return value_and_grad_fun


def grad(
    fun: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    holomorphic: bool = False,
    allow_int: bool = False,
    *,
    nan_safe: bool = False,
    ties: str = "jax",
    memory_limit: int | float | str | None = None,
) -> Callable[..., Any]:
    r"""The gradient ∇f of a scalar function, in one sweep back along the tape whatever the number of inputs.

    Args:
      fun: a function that returns a scalar (an array of shape ``()``).
      argnums: which positional arguments to differentiate, an int or a sequence of ints.
      has_aux: whether ``fun`` returns a pair (output, auxiliary data).
      holomorphic: whether ``fun`` is holomorphic; inputs and outputs must then be complex.
      allow_int: whether integer inputs are allowed; their gradient has dtype ``float0``.
      nan_safe: what is done about entries that are not finite. Where a zero meets an infinite slope, the entry is 0 if
        that is its limit beside x on some side (a selection leaves it out there), or lies between those of two sides;
        else it is the limit (exp(log x) has slope 1 at 0); NaN if neither is known. To find out, the gradient is taken
        beside x a dozen times, if (under ``jit``: when) it is not finite at x.
      ties: what happens at kinks: "jax" as JAX chooses, "first", "average" (see ``rules/kinks.py``), or
        "lexicographic", as :func:`admodes.subgradient`.
      memory_limit: bytes, or a text such as "200MiB", that the compiled gradient may need beside its arguments and
        results. Where keeping everything needs more, the schedule with the least to compute again that fits is found
        by compiling a few candidates, once for each program; ``fun`` is traced, so that it cannot branch on values.

    Returns:
      A function of the arguments of ``fun`` that returns the gradient, or (gradient, aux) with ``has_aux``. The
      gradient has the structure of the argument (a tuple of such if ``argnums`` is a sequence).

    Raises:
      TypeError: the output is not a real scalar, or an input is an integer without ``allow_int``.
      admodes.errors.PlanningError: with ``memory_limit``, the function branches on values.
      admodes.errors.MemoryLimitError: (when it is called) nothing fits ``memory_limit``; it names the least that does.

    >>> import admodes, jax.numpy as jnp
    >>> admodes.grad(lambda x: jnp.sum(x**2))(jnp.array([1.0, 2.0])).tolist()
    [2.0, 4.0]
    """
    both = value_and_grad(
        fun, argnums, has_aux, holomorphic, allow_int, nan_safe=nan_safe, ties=ties, memory_limit=memory_limit
    )

    @wraps(fun, "Gradient")
    @jc.api_boundary
    def grad_fun(*args, **kwargs):
        value, gradient = both(*args, **kwargs)
        return (gradient, value[1]) if has_aux else gradient

    return grad_fun


def jacrev(
    fun: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    holomorphic: bool = False,
    allow_int: bool = False,
    *,
    nan_safe: bool = False,
    ties: str = "jax",
) -> Callable[..., Any]:
    r"""Jacobian by reverse mode: one sweep back per output, all in one batch.

    Shapes and arguments are those of :func:`admodes.jacfwd` (``nan_safe`` and ``ties`` those of :func:`grad`); the cost
    is about m evaluations of f for m outputs.

    >>> import admodes, jax.numpy as jnp
    >>> admodes.jacrev(lambda x: x**2)(jnp.array([1.0, 2.0])).tolist()
    [[2.0, 0.0], [0.0, 4.0]]
    """
    jc.check_callable(fun)
    argnums = checks.ensure_index(argnums)

    @wraps(fun, "Jacobian (reverse mode)")
    @jc.api_boundary
    def jacfun(*args, **kwargs):
        checks.positional(argnums, args)
        partial_fun, dyn_args = select_arguments(fun, argnums, args, kwargs)
        for x in tree_leaves(dyn_args):
            checks.reverse_input("jacrev", holomorphic, allow_int, x)
        direction = directions_for(dyn_args)[0] if ties == "lexicographic" else None
        function, policy = resolved(partial_fun, ties)

        def rows_at(*xs, safe):
            y, pullback, *aux = (strong if safe else vjp)(function, *xs, has_aux=has_aux, ties=policy)
            tree_map(partial(checks.reverse_output, "jacrev", holomorphic), y)
            return y, jax.vmap(pullback)(std_basis(y)), *aux

        y, jac, *aux = rows_at(*dyn_args, safe=False)
        if nan_safe or ties == "lexicographic":
            jac = settled(jac, lambda *xs: rows_at(*xs, safe=True)[1], tuple(dyn_args), direction)
        example = dyn_args[0] if isinstance(argnums, int) else dyn_args
        result = _blocks(y, example, jac[0] if isinstance(argnums, int) else jac)
        return (result, *aux) if has_aux else result

    return jacfun


def strong_jacobian(fun: Callable[..., Any], argnums: int | Sequence[int], has_aux: bool = False) -> Callable[..., Any]:
    """The Jacobian by reverse mode with strong zeros, whether they are right or not (``nonsmooth/limits.py``)."""

    def jacfun(*args, **kwargs):
        chosen, moving = select_arguments(fun, argnums, args, kwargs)
        y, pullback, *aux = strong(chosen, *moving, has_aux=has_aux)
        jac = jax.vmap(pullback)(std_basis(y))
        jacobian = _blocks(y, *((moving[0], jac[0]) if isinstance(argnums, int) else (moving, jac)))
        return (jacobian, *aux) if has_aux else jacobian

    return jacfun


def _blocks(y, example, jac):
    """The rows of a Jacobian, which have the structure of the input, with that of the output outside."""
    rows = tree_map(lambda x, block: _unravel_rows(y, x, block), example, jac)
    return tree_transpose(tree_structure(example), tree_structure(y), rows)


def _unravel_rows(example, x, rows):
    """Split the first axis of the Jacobian with respect to one input into the leaves of ``example``."""
    leaves, tree = tree_flatten(example)
    sizes = np.cumsum([np.size(y) for y in leaves])[:-1]
    parts = jax.numpy.split(rows, sizes, axis=0) if leaves else []
    shapes = [np.shape(y) + np.shape(x) for y in leaves]
    shaped = [jc.convert_like(part.reshape(shape), jc.typeof(x)) for part, shape in zip(parts, shapes, strict=True)]
    return tree_unflatten(tree, shaped)
