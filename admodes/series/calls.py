"""Taylor mode for users: ``jet``, ``taylor`` and ``derivative``."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jax.tree_util import keystr, tree_flatten, tree_flatten_with_path, tree_structure

from admodes.modes import checks
from admodes.modes.flat import flat_function, wraps
from admodes.program import jax_compat as jc
from admodes.rules.recurrences import scaled
from admodes.series.interpreter import Taylor
from admodes.series.numbers import fixed


@jc.api_boundary
def jet(
    fun: Callable[..., Any], primals: Sequence[Any], series: Sequence[Any], *, factorial_scaled: bool = True
) -> tuple[Any, Any]:
    r"""Derivatives of f along a curve: (f(x), (d f, d²f, ..., dᵏf)), all in one pass.

    With the curve x(t) = x + x₁ t + x₂ t²/2! + ... + x_k tᵏ/k! the results are the derivatives of t ↦ f(x(t)) at t = 0.
    The signature is that of ``jax.experimental.jet.jet``; arguments may be pytrees.

    Args:
      fun: a function of pytrees of arrays that returns a pytree of arrays.
      primals: tuple or list of the arguments x.
      series: for each argument the list of its derivatives x₁, x₂, ..., x_k, all lists of one length. A None among
        them is zero, and costs nothing.
      factorial_scaled: False if coefficients are meant, given and returned: x_j/j! in the place of derivatives.

    Returns:
      ``(y, ys)``. ``y`` is f(x); ``ys`` has the structure of ``y``, each leaf being a list of k arrays.

    Raises:
      ValueError: the lists have different lengths or none, or shapes differ.
      TypeError: structures or dtypes of primals and terms differ.

    At kinks (max, abs, a comparison) they are those of the piece that the curve enters for t > 0. The cost grows with
    k² at most.

    >>> import admodes, jax.numpy as jnp
    >>> y, (ys,) = admodes.jet(lambda x: (x**3,), (2.0,), ([1.0, 0.0, 0.0],))
    >>> float(y[0]), [float(d) for d in ys]
    (8.0, [12.0, 12.0, 6.0])

    Reference: Griewank and Walther, *Evaluating Derivatives*, 2nd ed., chapter 13.
    """
    jc.check_callable(fun)
    order, values, coefficients = _curve("jet", primals, series, factorial_scaled)
    return _pushed(fun, order, tree_structure(tuple(primals)), values, coefficients, factorial_scaled)


@jc.api_boundary
def taylor(fun: Callable[..., Any], primals: Any, tangents: Any, order: int) -> list[Any]:
    r"""The coefficients of t ↦ f(x + t v) up to tᵏ: the k-th is dᵏf(x + tv)/dtᵏ / k! at t = 0.

    Args:
      fun: a function of one pytree x, or of several arguments if ``primals`` is a tuple.
      primals: x, or a tuple with all arguments.
      tangents: v, of the structure of ``primals``.
      order: k, at least 1.

    Returns:
      A list of k + 1 results of the structure of the output, from f(x) on.

    Raises:
      ValueError: the order is less than 1, or shapes differ.
      TypeError: structures or dtypes differ.

    >>> import admodes, jax.numpy as jnp
    >>> [round(float(c), 5) for c in admodes.taylor(jnp.exp, 0.0, 2.0, 3)]  # 1 + 2t + (2t)²/2! + (2t)³/3!
    [1.0, 2.0, 2.0, 1.33333]
    """
    jc.check_callable(fun)
    order = checked_order("taylor", order)
    args, vectors = (primals, tangents) if isinstance(primals, tuple) else ((primals,), (tangents,))
    if not isinstance(vectors, tuple) or len(vectors) != len(args):
        raise TypeError(f"taylor takes a tuple of {len(args)} tangents for a tuple of primals, got {tangents!r}")
    lists = [[v, *[None] * (order - 1)] for v in vectors]
    _, values, coefficients = _curve("taylor", args, lists, False)
    y, ys = _pushed(fun, order, tree_structure(args), values, coefficients, False)
    tree: Any = tree_structure(y)
    each = tree.flatten_up_to(ys)
    return [y, *(tree.unflatten([terms[k] for terms in each]) for k in range(order))]


def derivative(fun: Callable[..., Any], order: int = 1) -> Callable[..., Any]:
    r"""The n-th derivative of a function of a scalar, f⁽ⁿ⁾(t); the result has the structure of the output.

    Args:
      fun: a function whose first argument is a scalar t; it may return a pytree of arrays.
      order: n, at least 1.

    Returns:
      A function of the arguments of ``fun``.

    Raises:
      ValueError: the order is less than 1.
      TypeError: t is not a scalar of a floating-point or complex dtype.

    >>> import admodes, jax.numpy as jnp
    >>> float(admodes.derivative(jnp.sin, 3)(0.0))
    -1.0
    """
    jc.check_callable(fun)
    order = checked_order("derivative", order)

    @wraps(fun, f"Derivative of order {order}")
    @jc.api_boundary
    def derivative_fun(t, *args, **kwargs):
        if not jc.is_value(t) or np.ndim(t):
            raise TypeError(f"derivative takes a function of a scalar, but its first argument is {t!r}")
        given = tree_structure((t,))
        value = _differentiable("derivative", "argument 0", t)
        coefficients = [[jc.one(value), *[None] * (order - 1)]]
        y, ys = _pushed(lambda x: fun(x, *args, **kwargs), order, given, [value], coefficients, False)
        tree: Any = tree_structure(y)
        return tree.unflatten([_times(terms[-1], math.factorial(order)) for terms in tree.flatten_up_to(ys)])

    return derivative_fun


def checked_order(name: str, order) -> int:
    """``order`` as an int; TypeError unless it is one, ValueError unless it is positive."""
    try:
        order = operator.index(order)
    except TypeError:
        raise TypeError(f"{name} takes a whole number as order, got {order!r}") from None
    if order < 1:
        raise ValueError(f"{name} takes an order of at least 1, got {order}: order 0 is the function itself")
    return order


def _differentiable(name: str, where: str, x):
    jc.check_arg(x)
    aval = jc.typeof(jc.canonicalize(x))
    if jc.is_reference(aval):
        checks.not_a_reference(x)
    if not jc.is_differentiable(aval):
        raise TypeError(
            f"{name} takes derivatives in arrays of floating-point or complex dtype, but {where} has dtype "
            f"{getattr(aval, 'dtype', aval)}: convert it, or close over it (lambda x: f(x, n))."
        )
    return jc.canonicalize(x)


def _curve(name: str, primals, series, factorial_scaled: bool) -> tuple[int, list, list]:
    """(order, flat values, for each the list of its coefficients): the arguments, checked."""
    for what, given in (("primals", primals), ("series", series)):
        if not isinstance(given, (tuple, list)):
            raise TypeError(f"{name} takes {what} as a tuple or list with one entry per argument, got {given!r}")
    if len(primals) != len(series):
        raise ValueError(f"{name} takes one series for each argument: {len(primals)} primals, {len(series)} series")
    for i, terms in enumerate(series):
        if not isinstance(terms, (tuple, list)):
            raise TypeError(f"the series of argument {i} must be a tuple or list of terms, got {terms!r}")
    lengths = sorted({len(terms) for terms in series})
    if len(lengths) != 1:
        raise ValueError(f"all series must have one length, which is the order; got lengths {lengths}")
    order = checked_order(name, lengths[0])
    values, coefficients = [], []
    for i, (primal, terms) in enumerate(zip(primals, series, strict=True)):
        leaves, tree = tree_flatten_with_path(primal)
        columns = [[None] * len(leaves) if t is None else _leaves(name, i, k, tree, t) for k, t in enumerate(terms, 1)]
        for j, (path, x) in enumerate(leaves):
            where = f"argument {i}{keystr(path)}"
            own = [column[j] for column in columns]
            if all(t is None or jc.dtype_of(t) == jc.float0 for t in own):
                jc.check_arg(x)
                values.append(jc.canonicalize(x))
                coefficients.append([None] * order)
                continue
            value = _differentiable(name, where, x)
            values.append(value)
            coefficients.append([_term(where, k, value, t, factorial_scaled) for k, t in enumerate(own, 1)])
    return order, values, coefficients


def _leaves(name, i, k, tree, term) -> list:
    leaves, structure = tree_flatten(term)
    if structure != tree:
        raise TypeError(f"{name}: term {k} of argument {i} has structure {structure}, but the argument has {tree}")
    return leaves


def _term(where: str, k: int, value, term, factorial_scaled: bool):
    if term is None:
        return None
    jc.check_arg(term)
    term = jc.canonicalize(term)
    expected, given = jc.tangent_aval(jc.typeof(value)), jc.typeof(term)
    if given.shape != expected.shape:
        raise ValueError(f"term {k} of {where} has shape {given.shape}, but its value has shape {expected.shape}")
    if given.dtype != expected.dtype:
        raise TypeError(
            f"term {k} of {where} has dtype {given.dtype}, but terms of this argument have {expected.dtype}"
        )
    return _times(term, 1 / math.factorial(k)) if factorial_scaled else term


def _times(x, factor):
    return scaled(jc.convert_like(x, jc.typeof(x)), factor) if factor != 1 else x


def _pushed(fun, order: int, in_tree, values, coefficients, factorial_scaled: bool) -> tuple[Any, Any]:
    flat, result = flat_function(fun, in_tree, False)
    outs = Taylor(order=order).push_series(flat, [fixed(x, c) for x, c in zip(values, coefficients, strict=True)])
    terms = []
    for y in outs:
        zero = lambda y=y: jc.zeros(jc.typeof(y.primal))
        own = [zero() if y[k] is None else y[k] for k in range(1, order + 1)]
        if factorial_scaled and jc.is_differentiable(jc.typeof(y.primal)):
            own = [_times(c, math.factorial(k)) for k, c in enumerate(own, 1)]
        terms.append([jc.untyped(c) for c in own])
    return result.tree.unflatten([jc.untyped(y.primal) for y in outs]), result.tree.unflatten(terms)
