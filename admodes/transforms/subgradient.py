r"""Elements of the generalised derivative, and one-sided directional derivatives.

At a kink the chain rule with a fixed choice may give a slope that the function has nowhere near; these have one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax.numpy as jnp
from jax.tree_util import tree_map

from admodes.errors import NonsmoothError
from admodes.modes import checks
from admodes.modes.flat import select_arguments, wraps
from admodes.modes.interpreter import interpreter_for
from admodes.nonsmooth.approach import approached, beside, directions_for
from admodes.nonsmooth.lexicographic import Lexicographic
from admodes.nonsmooth.limits import settled
from admodes.program import jax_compat as jc
from admodes.transforms.forward import pushed
from admodes.transforms.reverse import decided, jacrev, strong_jacobian


def subgradient(
    fun: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    *,
    direction: Any = None,
) -> Callable[..., Any]:
    r"""An element of the Clarke subdifferential ∂f(x) of a scalar function, also where f has kinks.

    It is the limit of ∇f(x + εv) for ε ↓ 0: every discrete decision of the program (max, abs, where, cond, sort ...)
    is made as it falls beside x, in one forward sweep, and one reverse sweep differentiates what was chosen. Where f
    is differentiable this is the gradient, whatever the kinks inside cancel to.

    Args:
      fun: a function that returns a scalar.
      argnums: which positional arguments to differentiate, an int or a sequence of ints.
      has_aux: whether ``fun`` returns a pair (output, auxiliary data).
      direction: v, of the structure of the argument (of the tuple of arguments, if ``argnums`` is a sequence). By
        default a fixed direction in general position. Decisions that tie along v too are made along that one.

    Returns:
      A function of the arguments of ``fun`` that returns the element, or (element, aux) with ``has_aux``.

    Raises:
      UnsupportedPrimitiveError: a decision that cannot be made beside x (``lax.scatter_max``, say).

    It is an element of ∂f(x) if f is continuous and piecewise differentiable near x. Singularities are not kinks: √x at
    0 has slope infinity; norms, √(Σ xₖ²), are piecewise smooth and have v/‖v‖.

    >>> import admodes, jax
    >>> def identity(x):
    ...     return jax.nn.relu(x) - jax.nn.relu(-x)
    >>> float(admodes.grad(identity)(0.0)), float(admodes.subgradient(identity)(0.0))
    (0.0, 1.0)
    >>> [float(admodes.subgradient(jax.numpy.abs, direction=v)(0.0)) for v in (1.0, -1.0)]
    [1.0, -1.0]

    References: Khan and Barton, Optimization Methods and Software 30 (2015); Kakade and Lee, NeurIPS 2018, Algorithm 2.
    """
    both = decided(fun, argnums, has_aux, direction=_as_tuple(direction, argnums))

    @wraps(fun, "Element of the Clarke subdifferential")
    @jc.api_boundary
    def subgradient_fun(*args, **kwargs):
        value, element = both(*args, **kwargs)
        return (element, value[1]) if has_aux else element

    return subgradient_fun


def subjacobian(
    fun: Callable[..., Any], argnums: int | Sequence[int] = 0, *, direction: Any = None
) -> Callable[..., Any]:
    r"""An element of the generalised Jacobian of a function of arrays: the limit of f'(x + εv) for ε ↓ 0.

    Arguments are those of :func:`subgradient`, shapes those of :func:`admodes.jacrev`. All rows are taken
    beside x in the same place, so that the result is the Jacobian of one smooth piece.

    >>> import admodes, jax.numpy as jnp
    >>> admodes.subjacobian(jnp.sort, direction=jnp.array([1.0, -1.0]))(jnp.zeros(2)).tolist()
    [[0.0, 1.0], [1.0, 0.0]]

    Reference: Khan and Barton, Optimization Methods and Software 30 (2015).
    """
    jc.check_callable(fun)
    argnums = checks.ensure_index(argnums)
    direction = _as_tuple(direction, argnums)

    @wraps(fun, "Element of the generalised Jacobian")
    @jc.api_boundary
    def subjacobian_fun(*args, **kwargs):
        checks.positional(argnums, args)
        partial_fun, dyn_args = select_arguments(fun, argnums, args, kwargs)
        places = 0 if isinstance(argnums, int) else tuple(range(len(dyn_args)))

        def sweep(decided):
            rows = jacrev(decided, places)(*dyn_args)
            strong = strong_jacobian(decided, places)
            return None, settled(rows, strong, tuple(dyn_args), directions_for(dyn_args, direction)[0])

        return approached(sweep, partial_fun, dyn_args, direction)[1]

    return subjacobian_fun


def _as_tuple(direction, argnums):
    return (direction,) if direction is not None and isinstance(argnums, int) else direction


@jc.api_boundary
def directional(fun: Callable[..., Any], primals: Any, tangents: Any) -> Any:
    r"""The one-sided directional derivative f'(x; v) = lim (f(x + tv) - f(x))/t for t ↓ 0.

    Exact for piecewise smooth functions, where in general f'(x; -v) ≠ -f'(x; v).

    Args:
      fun: a function of one pytree x, or of several arguments if ``primals`` is a tuple.
      primals: x, or a tuple with all arguments.
      tangents: v, of the structure of ``primals``.

    Returns:
      f'(x; v) with the structure of the output. Below ``jit`` and ``vmap``, where nothing can be raised, entries of
      the output without one are NaN.

    Raises:
      NonsmoothError: f jumps at x in the direction v, or beside x it cannot be evaluated to first order (0/0).

    >>> import admodes, jax.numpy as jnp
    >>> [float(admodes.directional(jnp.abs, 0.0, v)) for v in (1.0, -2.0)]
    [1.0, 2.0]
    >>> float(admodes.directional(jnp.linalg.norm, jnp.zeros(2), jnp.array([3.0, 4.0])))
    5.0
    """
    jc.check_callable(fun)
    args, vectors = (primals, tangents) if isinstance(primals, tuple) else ((primals,), (tangents,))
    limit, rate = pushed(interpreter_for(True), beside(fun, (vectors,), Lexicographic(strict=True)), args, vectors)
    return tree_map(partial(_checked, fun), fun(*args), limit, rate)


def _checked(fun, value, limit, rate):
    """``rate``, if the value at the point is the limit of those beside it."""
    if not jc.is_differentiable(jc.typeof(value)):
        return rate
    value, limit = jnp.asarray(value), jnp.asarray(limit)
    slack = 16 * jnp.finfo(value.dtype).eps * jnp.maximum(jnp.abs(value), jnp.abs(limit))
    agrees = (jnp.abs(value - limit) <= slack) | (value == limit)
    settled = agrees & ~jnp.isnan(rate)
    if isinstance(settled, jc.Tracer) or bool(settled.all()):
        return jnp.where(settled, rate, jnp.nan)
    name = getattr(fun, "__name__", type(fun).__name__)
    if bool((~agrees & jnp.isfinite(limit)).any()):
        raise NonsmoothError(
            f"{name} jumps at this point: its value is {_shown(value)}, but beside it, in this direction, it tends to "
            f"{_shown(limit)}. There is no directional derivative. admodes.doctor names the equation.",
            jump=True,
        )
    raise NonsmoothError(
        f"{name} cannot be evaluated beside this point to first order: an operation there gives NaN (0/0, say). "
        "admodes.doctor names the equation."
    )


def _shown(x: Any) -> str:
    return str(x.item()) if x.ndim == 0 else f"{x.ravel()[:4].tolist()}{' ...' if x.size > 4 else ''}"
