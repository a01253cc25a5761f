"""Forward mode: ``jvp``, ``linearize`` and ``jacfwd``, with the signatures of their JAX namesakes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, overload

import jax
import numpy as np
from jax.tree_util import tree_flatten, tree_leaves, tree_map, tree_structure, tree_unflatten

from admodes.linear.algebra import LinearMap, structured
from admodes.modes import checks
from admodes.modes.flags import mirrored
from admodes.modes.flat import flat_function, select_arguments, std_basis, wraps
from admodes.modes.interpreter import Interpreter, interpreter_for
from admodes.modes.tape import Tape
from admodes.nonsmooth.approach import beside, directions_for
from admodes.nonsmooth.lexicographic import Lexicographic
from admodes.nonsmooth.limits import settled
from admodes.program import jax_compat as jc
from admodes.text_tables import clipped
from admodes.transforms.recorded import Settled, record


@overload
def jvp(
    fun: Callable[..., Any],
    primals: Sequence[Any],
    tangents: Sequence[Any],
    has_aux: Literal[False] = False,
    *,
    nan_safe: bool = False,
    ties: str = "jax",
) -> tuple[Any, Any]: ...


@overload
def jvp(
    fun: Callable[..., Any],
    primals: Sequence[Any],
    tangents: Sequence[Any],
    has_aux: bool,
    *,
    nan_safe: bool = False,
    ties: str = "jax",
) -> tuple[Any, ...]: ...


@jc.api_boundary
def jvp(
    fun: Callable[..., Any],
    primals: Sequence[Any],
    tangents: Sequence[Any],
    has_aux: bool = False,
    *,
    nan_safe: bool = False,
    ties: str = "jax",
) -> tuple[Any, ...]:
    r"""Value and directional derivative: (f(x), f'(x) ẋ), by dual numbers.

    Args:
      fun: a function of pytrees of arrays that returns a pytree of arrays.
      primals: tuple or list of the arguments x.
      tangents: the direction ẋ, of the structure, shapes and dtypes of ``primals`` (dtype ``float0`` for integers).
      has_aux: whether ``fun`` returns a pair (output, auxiliary data).
      nan_safe, ties: what happens where zeros meet infinite slopes, and at kinks (see :func:`admodes.grad`).

    Returns:
      ``(y, dy)``, or ``(y, dy, aux)`` with ``has_aux``; ``dy`` has the structure of ``y``.

    Raises:
      TypeError: structures or dtypes of primals and tangents differ.
      ValueError: shapes differ.

    >>> import admodes, jax.numpy as jnp
    >>> y, dy = admodes.jvp(lambda x: x**3, (2.0,), (1.0,))
    >>> float(y), float(dy)
    (8.0, 12.0)

    Reference: Griewank and Walther, *Evaluating Derivatives*, section 3.1.
    """
    jc.check_callable(fun)
    if not isinstance(primals, (tuple, list)) or not isinstance(tangents, (tuple, list)):
        raise TypeError(
            "primal and tangent arguments to admodes.jvp must be tuples or lists; "
            f"found {type(primals).__name__} and {type(tangents).__name__}."
        )
    fun, ties = resolved(fun, ties)
    found = pushed(interpreter_for(False, ties), fun, primals, tangents, has_aux)
    if not nan_safe:
        return found
    y, dy, *aux = found
    strong_at = lambda *xs: pushed(interpreter_for(True, ties), fun, type(primals)(xs), tangents, has_aux)[1]
    return (y, settled(dy, strong_at, tuple(primals)), *aux)


def pushed(
    interpreter: Interpreter,
    fun: Callable[..., Any],
    primals: Sequence[Any],
    tangents: Sequence[Any],
    has_aux: bool = False,
) -> tuple[Any, ...]:
    """(f(x), f'(x) ẋ), and the auxiliary data, by an interpreter."""
    (flat, given_tree), (flat_ts, ts_tree) = tree_flatten(primals), tree_flatten(tangents)
    if given_tree != ts_tree:  # type: ignore[operator]
        raise TypeError(
            "primal and tangent arguments to admodes.jvp must have the same tree structure; primals have tree "
            f"structure {given_tree} whereas tangents have tree structure {ts_tree}."
        )
    for p, t in zip(flat, flat_ts, strict=True):
        checks.tangent(p, t)
    flat = list(map(jc.canonicalize, flat))
    ts = [None if jc.dtype_of(t) == jc.float0 else jc.canonicalize(t) for t in flat_ts]
    flat_fun, result = flat_function(fun, tree_structure(tuple(primals)), has_aux)
    outs, out_ts = interpreter.push_function(flat_fun, flat, ts)
    n = result.tree.num_leaves
    out_ts = [jc.zeros(jc.typeof(o)) if t is None else jc.untyped(t) for o, t in zip(outs[:n], out_ts[:n], strict=True)]
    outs = list(map(jc.untyped, outs))
    values = result.tree.unflatten(outs[:n]), result.tree.unflatten(out_ts)
    return (*values, result.aux(outs[n:])) if has_aux else values


def resolved(fun: Callable[..., Any], ties: str, argnums: Any = None) -> tuple[Callable[..., Any], str]:
    """A function and a policy of the interpreter's: for ``"lexicographic"`` the function decided beside its arguments.

    ``argnums`` are those that move (by default all).
    """
    if ties != "lexicographic":
        interpreter_for(False, ties)  # an unknown policy is an error before any call
        return fun, ties

    @functools.wraps(fun, updated=())
    def decided(*args, **kwargs):
        numbers = tuple(range(len(args))) if argnums is None else argnums
        chosen, moving = select_arguments(fun, numbers, args, kwargs)
        return beside(chosen, directions_for(moving), Lexicographic())(*moving)

    return decided, "jax"


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["tape", "point"],
    meta_fields=["in_tree", "out_tree", "out_avals", "settle"],
)
@dataclass(frozen=True, eq=False, repr=False)
class Pushforward:
    """ẋ ↦ f'(x) ẋ at a fixed x, along a tape; a pytree. ``map`` is the same as a linear map that can be composed.

    ``settle`` says what replaces entries that are not finite, at the ``point`` (leaves); ``map`` has them as they are.
    """

    tape: Tape
    in_tree: Any
    out_tree: Any
    out_avals: tuple[Any, ...]
    point: tuple[Any, ...] = ()
    settle: Settled | None = None

    @property
    def out_nzs(self) -> Any:
        """Bools in the place of the leaves of the result: False where it is zero by its structure."""
        return mirrored([s is not None for s in self.tape.outputs], self.out_tree)

    @property
    def map(self) -> LinearMap:
        """f'(x) as a linear map, to be composed with others; of several arguments it takes a tuple."""
        return structured(self.tape, self.in_tree, self.out_tree)

    def __repr__(self) -> str:
        return clipped(f"Pushforward({self.map.types})")

    def __call__(self, *tangents: Any) -> Any:
        flat, tree = tree_flatten(tangents)
        if tree != self.in_tree:
            raise TypeError(f"expected {self.in_tree}, got {tree}")
        for aval, t in zip(self.tape.domain, flat, strict=True):
            expected, given = jc.tangent_aval(aval), jc.typeof(jc.canonicalize(t))
            if not jc.same_type(expected, given):
                raise ValueError(
                    "linearized function called on tangent values inconsistent with the original primal values:\n"
                    f"Got tangent aval {given} for primal aval {aval} but expected {expected}."
                )
        ts = tuple(None if jc.dtype_of(t) == jc.float0 else jc.canonicalize(t) for t in flat)
        outs = self.tape.push(ts)
        if self.settle is not None:
            outs = self.settle(self.point, lambda tape: tape.push(ts), outs)
        dense = [jc.zeros(a) if t is None else jc.untyped(t) for a, t in zip(self.out_avals, outs, strict=True)]
        return tree_unflatten(self.out_tree, dense)


@overload
def linearize(
    fun: Callable[..., Any],
    *primals: Any,
    has_aux: Literal[False] = False,
    in_nzs: Any = None,
    nan_safe: bool = False,
    ties: str = "jax",
) -> tuple[Any, Pushforward]: ...


@overload
def linearize(
    fun: Callable[..., Any],
    *primals: Any,
    has_aux: Literal[True],
    in_nzs: Any = None,
    nan_safe: bool = False,
    ties: str = "jax",
) -> tuple[Any, Pushforward, Any]: ...


@overload
def linearize(
    fun: Callable[..., Any],
    *primals: Any,
    has_aux: bool,
    in_nzs: Any = None,
    nan_safe: bool = False,
    ties: str = "jax",
) -> tuple[Any, ...]: ...


@jc.api_boundary
def linearize(
    fun: Callable[..., Any],
    *primals: Any,
    has_aux: bool = False,
    in_nzs: Any = None,
    nan_safe: bool = False,
    ties: str = "jax",
) -> tuple[Any, ...]:
    r"""Value at x and the linear map ẋ ↦ f'(x) ẋ, so that many directions cost one evaluation.

    Args:
      fun: a function of pytrees of arrays that returns a pytree of arrays.
      primals: the arguments x.
      has_aux: whether ``fun`` returns a pair (output, auxiliary data).
      in_nzs: a bool for each argument (or a tree of them for its parts): False says that its tangents are zero, and
        they are taken to be. The map's ``out_nzs`` tell, in the structure of the output, where its results are not.
      nan_safe, ties: what happens where zeros meet infinite slopes, and at kinks (see :func:`admodes.grad`).

    Returns:
      ``(y, push)`` or ``(y, push, aux)``. ``push(ẋ)`` takes a tangent for each argument, ``push.map`` is the
      :class:`admodes.LinearMap`.

    >>> import admodes, jax.numpy as jnp
    >>> y, push = admodes.linearize(jnp.sin, 0.0)
    >>> float(push(2.0))
    2.0
    """
    jc.check_callable(fun)
    fun, ties = resolved(fun, ties)
    outs, tape, in_tree, result = record(fun, primals, has_aux, interpreter_for(False, ties), in_nzs)
    avals = tuple(map(jc.typeof, outs[: result.tree.num_leaves]))
    push = Pushforward(tape, in_tree, result.tree, avals)
    if nan_safe:
        settle = Settled.of(fun, has_aux, ties, in_tree, tape, in_nzs)
        push = replace(push, point=tuple(tree_leaves(primals)), settle=settle)
    n, outs = result.tree.num_leaves, list(map(jc.untyped, outs))
    values = result.tree.unflatten(outs[:n]), push
    return (*values, result.aux(outs[n:])) if has_aux else values


def jacfwd(
    fun: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    holomorphic: bool = False,
    *,
    nan_safe: bool = False,
    ties: str = "jax",
) -> Callable[..., Any]:
    r"""Jacobian by forward mode: one pass per input, all in one batch.

    The result J has the structure ``tree_map(outputs) of tree_map(inputs)``, the leaf for an output of shape s and an
    input of shape r has shape s + r. Cost: about n evaluations of f for n inputs.

    Args:
      fun: the function.
      argnums: which positional arguments to differentiate, an int or a sequence of ints.
      has_aux: whether ``fun`` returns a pair (output, auxiliary data).
      holomorphic: whether ``fun`` is holomorphic; inputs and outputs must then be complex.
      nan_safe, ties: what happens where zeros meet infinite slopes, and at kinks (see :func:`admodes.grad`).

    Returns:
      A function of the arguments of ``fun`` that returns the Jacobian, or (Jacobian, aux).

    >>> import admodes, jax.numpy as jnp
    >>> admodes.jacfwd(lambda x: x**2)(jnp.array([1.0, 2.0])).tolist()
    [[2.0, 0.0], [0.0, 4.0]]
    """
    jc.check_callable(fun)
    argnums = checks.ensure_index(argnums)

    @wraps(fun, "Jacobian (forward mode)")
    @jc.api_boundary
    def jacfun(*args, **kwargs):
        checks.positional(argnums, args)
        partial_fun, dyn_args = select_arguments(fun, argnums, args, kwargs)
        for x in tree_leaves(dyn_args):
            checks.forward_input("jacfwd", holomorphic, x)
        partial_fun, policy = resolved(partial_fun, ties)

        def columns(*xs, safe):
            interpreter = interpreter_for(safe, policy)
            push: Callable[..., Any] = partial(pushed, interpreter, partial_fun, xs, has_aux=has_aux)
            return jax.vmap(push, out_axes=(None, -1, None) if has_aux else (None, -1))(std_basis(xs))

        y, jac, *aux = columns(*dyn_args, safe=False)
        if nan_safe:
            jac = settled(jac, lambda *xs: columns(*xs, safe=True)[1], tuple(dyn_args))
        tree_map(partial(checks.forward_output, "jacfwd", holomorphic), y)
        example = dyn_args[0] if isinstance(argnums, int) else dyn_args
        result = tree_map(lambda out, columns: _unravel_columns(example, out, columns), y, jac)
        return (result, *aux) if has_aux else result

    return jacfun


def _unravel_columns(example, out, columns):
    """Split the last axis of the Jacobian of one output into the leaves of ``example``."""
    leaves, tree = tree_flatten(example)
    sizes = np.cumsum([np.size(x) for x in leaves])[:-1]
    parts = jax.numpy.split(columns, sizes, axis=-1) if leaves else []
    shapes = [np.shape(out) + np.shape(x) for x in leaves]
    shaped = [jc.convert_like(part.reshape(shape), jc.typeof(out)) for part, shape in zip(parts, shapes, strict=True)]
    return tree_unflatten(tree, shaped)
