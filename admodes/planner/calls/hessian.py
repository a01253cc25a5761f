"""Hessians: Jacobians of gradients, with what is known of them; and the value and the gradient along with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.tree_util import tree_leaves

from admodes.linear.pattern import SparsityPattern
from admodes.modes import checks
from admodes.modes.flat import pair, wraps
from admodes.planner.calls.jacobian import Planned, settings, without_aux
from admodes.planner.calls.request import request
from admodes.planner.calls.special_points import AtSpecialPoints, TieTest
from admodes.program import jax_compat as jc
from admodes.program.trace import UNTRACEABLE
from admodes.sparse.coloring import Coloring
from admodes.transforms.forward import resolved
from admodes.transforms.reverse import grad, jacrev, strong_jacobian, value_and_grad


def hessian(
    fun: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    holomorphic: bool = False,
    *,
    format: str = "dense",
    objective: str = "time",
    memory_limit: int | float | str | None = None,
    measure: bool | None = None,
    chunk_size: int | None = None,
    mesh: jax.sharding.Mesh | None = None,
    pattern: SparsityPattern | None = None,
    coloring: Coloring | None = None,
    triangle: str | None = None,
    nan_safe: bool | None = None,
    ties: str | None = None,
) -> Callable[..., Any]:
    r"""The Hessian ∇²f: the Jacobian of the gradient, planned as :func:`admodes.jacobian` is, its symmetry being used.

    (Not if the function has derivative rules of a user's, custom_jvp or custom_vjp, which need not be derivatives.)
    For a vector-valued f it holds one Hessian for each output, as JAX's. The options are those of
    :func:`admodes.jacobian`; the matrix of the formats other than ``"dense"`` has a row and a column for each entry of
    x. With ``triangle="lower"`` the formats ``"bcoo"`` and ``"scipy"`` hold the entries on and below the diagonal
    alone, as interior-point methods take them.

    ``nan_safe`` and ``ties`` are as in :func:`grad`. By default (None), and as long as no transformation is around it,
    entries that are not finite are settled as with ``nan_safe=True``; and where an equation of f (max, min or abs, of
    numbers or along axes) sits on a kink, entries whose limits from two sides agree are these limits: the average of
    the slopes at a kink inside says nothing about the second derivatives of a smooth function.

    >>> import admodes, jax.numpy as jnp
    >>> admodes.hessian(lambda x: x[0] ** 2 * x[1])(jnp.array([1.0, 2.0])).tolist()
    [[4.0, 2.0], [2.0, 0.0]]
    """
    jc.check_callable(fun)
    chosen = settings(format, objective, memory_limit, measure, chunk_size, mesh, pattern, coloring, triangle)
    special = AtSpecialPoints(nan_safe, ties or "jax", chosen.form)
    argnums = checks.ensure_index(argnums)
    numbers = (argnums,) if isinstance(argnums, int) else argnums

    function, policy = resolved(fun, ties or "jax", numbers)
    gradient = gradient_of(function, argnums, has_aux, holomorphic, policy)
    planned = Planned(request("hessian", gradient, argnums, has_aux, holomorphic, function), chosen)
    strong = without_aux(strong_jacobian(function, argnums, has_aux), has_aux)
    tied = TieTest()

    @wraps(fun, "Hessian")
    @jc.api_boundary
    def hessfun(*args, **kwargs):
        _, result, aux = planned(args, kwargs, value=False)
        known = not any(isinstance(x, jc.Tracer) for x in tree_leaves((args, kwargs))) and not jc.is_tracing()
        on_a_kink = ties is None and known and tied(planned.request.call(args, kwargs))
        result = special.settled(result, strong, argnums, args, kwargs)
        result = special.settled(result, strong, argnums, args, kwargs, True) if on_a_kink else result
        return (result, aux) if has_aux else result

    return hessfun


def gradient_of(fun: Callable, argnums, has_aux: bool, holomorphic: bool, ties: str) -> Callable:
    """The gradient of a function, or the rows of its Jacobian if it is no scalar."""

    def gradient(*args, **kwargs):
        def value():
            out = fun(*args, **kwargs)
            return pair(out)[0] if has_aux else out

        try:
            shape = getattr(jax.eval_shape(value), "shape", None)
        except UNTRACEABLE:
            shape = getattr(value(), "shape", None)
        transform = grad if shape == () else jacrev
        return transform(fun, argnums, has_aux, holomorphic, ties=ties)(*args, **kwargs)

    return gradient


def value_grad_and_hessian(
    fun: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    *,
    format: str = "dense",
    objective: str = "time",
    memory_limit: int | float | str | None = None,
    measure: bool | None = None,
    chunk_size: int | None = None,
    mesh: jax.sharding.Mesh | None = None,
    pattern: SparsityPattern | None = None,
    coloring: Coloring | None = None,
    triangle: str | None = None,
) -> Callable[..., tuple[Any, Any, Any]]:
    r"""A function that returns (f(x), ∇f(x), ∇²f(x)) of a scalar f, or ((f(x), aux), ∇f(x), ∇²f(x)), in one pass.

    Args:
      fun, argnums, has_aux, format, objective, memory_limit, measure, chunk_size, mesh, pattern, coloring, triangle:
        as for :func:`hessian`. Entries are not settled at special points.

    >>> import admodes, jax.numpy as jnp
    >>> value, gradient, H = admodes.value_grad_and_hessian(lambda x: x[0] ** 2 * x[1])(jnp.array([1.0, 2.0]))
    >>> float(value), gradient.tolist(), H.tolist()
    (2.0, [4.0, 1.0], [[4.0, 2.0], [2.0, 0.0]])
    """
    jc.check_callable(fun)
    argnums = checks.ensure_index(argnums)

    def gradient(*args, **kwargs):
        value, found = value_and_grad(fun, argnums, has_aux)(*args, **kwargs)
        return found, value

    asked = request("value_grad_and_hessian", gradient, argnums, True, False, without_aux(fun, has_aux))
    chosen = settings(format, objective, memory_limit, measure, chunk_size, mesh, pattern, coloring, triangle)
    planned = Planned(asked, chosen)

    @wraps(fun, "Value, gradient and Hessian")
    @jc.api_boundary
    def value_grad_and_hessfun(*args, **kwargs):
        found, result, value = planned(args, kwargs, value=True)
        return value, found, result

    return value_grad_and_hessfun


def value_and_hessian(
    fun: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    *,
    format: str = "dense",
    objective: str = "time",
    memory_limit: int | float | str | None = None,
    measure: bool | None = None,
    chunk_size: int | None = None,
    mesh: jax.sharding.Mesh | None = None,
    pattern: SparsityPattern | None = None,
    coloring: Coloring | None = None,
    triangle: str | None = None,
) -> Callable[..., tuple[Any, Any]]:
    """A function that returns (f(x), ∇²f(x)), or ((f(x), aux), ∇²f(x)): :func:`value_grad_and_hessian` in part."""
    both = value_grad_and_hessian(
        fun,
        argnums,
        has_aux,
        format=format,
        objective=objective,
        memory_limit=memory_limit,
        measure=measure,
        chunk_size=chunk_size,
        mesh=mesh,
        pattern=pattern,
        coloring=coloring,
        triangle=triangle,
    )

    @wraps(fun, "Value and Hessian")
    @jc.api_boundary
    def value_and_hessfun(*args, **kwargs):
        value, _, result = both(*args, **kwargs)
        return value, result

    return value_and_hessfun
