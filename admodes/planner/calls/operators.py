"""Linear differential operators by collapsed Taylor mode: Laplacians, PDE operators, tensors of derivatives."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import numpy as jnp
from jax.tree_util import tree_flatten, tree_leaves, tree_unflatten

from admodes.modes.flat import std_basis, wraps
from admodes.modes.interpreter import INTERPRETER
from admodes.planner.calls.request import Call, Request, request
from admodes.program import jax_compat as jc
from admodes.series.calls import checked_order
from admodes.series.collapsed import collapsed
from admodes.series.directions import lines_for, tensor_lines
from admodes.series.interpreter import Taylor
from admodes.series.numbers import fixed

# Bytes of the directions that are in flight at once, as of seeds (``diagonals.py``): more are cut into chunks. Chosen,
# not measured: four times more takes that much more memory, four times fewer more passes.
DIRECTION_BYTES = 2**26


class Operator:
    """``run(fun, x, extra)`` of a flat function and its flat argument, for calls of a user's function.

    Called on values it is compiled, once for each kind of call.
    """

    def __init__(self, asked: Request, run: Callable):
        self.request, self.run = asked, run
        self._by_key: dict = {}

    def __call__(self, args, kwargs, extra: Any = None):
        call = self.request.call(args, kwargs)
        self._check(call)
        if jc.is_staging() or any(isinstance(x, jc.Tracer) for x in tree_leaves((call.leaves, extra))):
            return self._at(call, call.leaves, extra)
        if not call.hashable:
            return jax.jit(partial(self._at, call))(call.leaves, extra)
        found = self._by_key.get(call.key)
        if found is None:
            found = self._by_key[call.key] = jax.jit(partial(self._at, call.without_leaves()))
        return found(call.leaves, extra)

    def _check(self, call: Call) -> None:
        for x in call.leaves[: call.in_tree.num_leaves]:
            if not jc.is_real(x):
                raise TypeError(f"{self.request.name} takes real floating-point arguments, got {jc.typeof(x).dtype}")

    def _at(self, call: Call, leaves, extra):
        n = call.in_tree.num_leaves
        result = self.run(lambda *x: call.flat(*x, *leaves[n:]), list(leaves[:n]), extra, call)
        return result


def _outputs(call: Call, outs) -> tuple:
    """(outputs as a tree, auxiliary data)."""
    for x in outs[: call.result.tree.num_leaves]:
        if not jc.is_differentiable(jc.typeof(x)):
            raise TypeError(
                f"{call.request.name} takes functions with floating-point outputs, got {jc.typeof(x).dtype}"
            )
    return call.outputs(outs)


def _tree(call: Call, flat) -> Any:
    return tree_unflatten(call.result.tree, list(flat)[: call.result.tree.num_leaves])


# -- second order ----------------------------------------------------------------------------------------


def forward_laplacian(fun, x, extra, call, chunk_size: int | None, jacobian: bool = False) -> tuple:
    """(outputs, Jacobian or None, Σ w ∂²f, aux) in one pass: value, Jacobian, and one sum are carried."""
    sizes = [np.size(leaf) for leaf in x]
    n = sum(sizes)
    itemsize = max((jc.dtype_of(leaf).itemsize for leaf in x), default=8)
    chunk = min(n, chunk_size or max(1, DIRECTION_BYTES // max(1, n * itemsize)))
    weights = None if extra is None else jnp.concatenate([jnp.ravel(w) for w in extra])
    if chunk >= n:
        outs, (below,), totals = collapsed(fun, x, std_basis(x), weights, 2)
    else:
        outs, below, totals = _in_chunks(fun, x, weights, n, chunk, jacobian)
    value, aux = _outputs(call, outs)
    twice = _tree(call, [2 * t if jc.is_differentiable(jc.typeof(t)) else t for t in totals])
    return value, (_rows(call, below, x) if jacobian else None), twice, aux


def _in_chunks(fun, x, weights, n: int, chunk: int, jacobian: bool) -> tuple:
    number = math.ceil(n / chunk)
    weights = jnp.ones(n) if weights is None else weights
    weights = jnp.pad(weights, (0, number * chunk - n)).reshape(number, chunk)

    def part(start, w):
        row = start + jnp.arange(chunk)
        directions, first = [], 0
        for leaf in x:
            hits = row[:, None] == first + jnp.arange(np.size(leaf))
            directions.append(hits.reshape(chunk, *np.shape(leaf)).astype(jc.dtype_of(leaf)))
            first += np.size(leaf)
        outs, (below,), totals = collapsed(fun, x, directions, w, 2)
        return outs, (below if jacobian else []), totals

    outs, below, totals = jax.lax.map(lambda args: part(*args), (chunk * jnp.arange(number), weights))
    below = [b.reshape(number * chunk, *b.shape[2:])[:n] for b in below]
    return [y[0] for y in outs], below, [t.sum(0) for t in totals]


def _rows(call: Call, below, x) -> Any:
    """The Jacobian as ``jacfwd`` gives it: for each output the structure of the argument."""
    cuts = np.cumsum([np.size(leaf) for leaf in x])[:-1]

    def of_output(b):
        parts = jnp.split(jnp.moveaxis(b, 0, -1), cuts, axis=-1)
        return tree_unflatten(
            call.in_tree, [p.reshape(b.shape[1:] + np.shape(leaf)) for p, leaf in zip(parts, x, strict=True)]
        )

    return _tree(call, [of_output(b) for b in below[: call.result.tree.num_leaves]])


def weights_like(name: str, weights, x) -> list | None:
    """The leaves of the weights; they have the structure of x, each leaf its shape (or that of a scalar)."""
    if weights is None:
        return None
    flat, tree = tree_flatten(weights)
    leaves, expected = tree_flatten(x)
    if tree != expected:  # type: ignore[operator]
        raise TypeError(f"{name}: the weights have structure {tree}, but the argument has {expected}")
    for w, leaf in zip(flat, leaves, strict=True):
        if np.shape(w) not in ((), np.shape(leaf)):
            raise ValueError(f"{name}: weights of shape {np.shape(w)} for an argument of shape {np.shape(leaf)}")
    return [
        jnp.broadcast_to(jnp.asarray(w, jc.dtype_of(leaf)), np.shape(leaf))
        for w, leaf in zip(flat, leaves, strict=True)
    ]


def value_grad_laplacian(
    fun: Callable[..., Any],
    argnums: int = 0,
    has_aux: bool = False,
    *,
    weights: Any = None,
    chunk_size: int | None = None,
) -> Callable[..., Any]:
    r"""Value, gradient and Laplacian, (f, ∇f, Σᵢ wᵢ ∂²f/∂xᵢ²), in one forward pass.

    Args:
      fun: a function of real arrays; it may return several, and then ∇f is the Jacobian.
      argnums: which positional argument.
      has_aux: whether ``fun`` returns a pair (output, auxiliary data).
      weights: w, of the structure of the argument; by default 1.
      chunk_size: how many directions are in flight at once; by default as many as fit 64 MiB.

    Returns:
      A function of the arguments of ``fun`` that returns (f(x), ∇f(x), Δf(x)), or ((f(x), aux), ∇f(x), Δf(x)). The
      gradient has the structure of the argument, within that of the output; Δf(x) has that of the output.

    >>> import admodes, jax.numpy as jnp
    >>> value, slope, second = admodes.value_grad_laplacian(lambda x: jnp.sum(x**3))(jnp.array([1.0, 2.0]))
    >>> float(value), slope.tolist(), float(second)
    (9.0, [3.0, 12.0], 18.0)

    Reference: Li et al., Nature Machine Intelligence 6 (2024): the forward Laplacian.
    """
    operator = Operator(
        one_argument("value_grad_laplacian", fun, argnums, has_aux),
        partial(forward_laplacian, chunk_size=chunk_size, jacobian=True),
    )

    @wraps(fun, "Value, gradient and Laplacian")
    @jc.api_boundary
    def value_grad_laplacian_fun(*args, **kwargs):
        extra = weights_like("value_grad_laplacian", weights, args[argnums]) if args else None
        value, jacobian, second, aux = operator(args, kwargs, extra)
        return ((value, aux) if has_aux else value), jacobian, second

    return value_grad_laplacian_fun


def biharmonic(fun: Callable[..., Any], argnums: int = 0) -> Callable[..., Any]:
    r"""The biharmonic operator Δ²f = Σᵢⱼ ∂⁴f/∂xᵢ²∂xⱼ²: the forward Laplacian of the forward Laplacian.

    It carries about (n + 2)² values for n inputs; lines of fourth order would be n², with three coefficients on each.

    Args:
      fun: a function of real arrays.
      argnums: which positional argument.

    Returns:
      A function of the arguments of ``fun``; its result has the structure of the output.

    >>> import admodes, jax.numpy as jnp
    >>> float(admodes.biharmonic(lambda x: jnp.sum(x**4) + x[0] ** 2 * x[1] ** 2)(jnp.array([1.0, 2.0])))
    56.0
    """
    asked = one_argument("biharmonic", fun, argnums, False)

    def run(flat, x, extra, call):
        def inner(*y):
            return collapsed(flat, y, std_basis(list(y)), None, 2)[2]

        _, _, totals = collapsed(inner, x, std_basis(x), None, 2)
        return _tree(call, [4 * t for t in totals])

    operator = Operator(asked, run)

    @wraps(fun, "Biharmonic operator")
    @jc.api_boundary
    def biharmonic_fun(*args, **kwargs):
        return operator(args, kwargs)

    return biharmonic_fun


# -- any order -------------------------------------------------------------------------------------------


def differential_operator(terms: Mapping[tuple[int, ...], Any]) -> Callable[..., Callable[..., Any]]:
    r"""The linear differential operator Σ_α c_α ∂^α, to be applied to functions.

    Mixed derivatives are sums of derivatives along lines (``admodes/series/directions.py``), which one pass for each
    order of the operator gives, carrying the sum of the highest coefficients only.

    Args:
      terms: for each multi-index α, a tuple with one number for each entry of the argument, its coefficient c_α: a
        number, a scalar array, or a function of the argument that returns one. (0, ..., 0) is f itself.

    Returns:
      A function that takes f and returns the function x ↦ Σ_α c_α(x) ∂^αf(x), with the structure of f's output. Only
      the first argument of f is differentiated; it is an array, or a pytree whose leaves are counted one after another.

    Raises:
      ValueError: no terms, multi-indices of different lengths, or not of the length of the argument.
      TypeError: a multi-index that is no tuple of whole numbers from 0 on.

    >>> import admodes, jax.numpy as jnp
    >>> heat = admodes.differential_operator({(1, 0): 1.0, (0, 2): -0.5})  # ∂u/∂t - 1/2 ∂²u/∂x²
    >>> u = lambda tx: jnp.exp(-0.5 * tx[0]) * jnp.sin(tx[1])
    >>> abs(float(heat(u)(jnp.array([0.3, 0.7])))) < 1e-6
    True

    References: Griewank, Utke and Walther, Mathematics of Computation 69 (2000); Dangel et al., NeurIPS 2025.
    """
    if not isinstance(terms, Mapping) or not terms:
        raise ValueError(f"differential_operator takes a dict from multi-indices to coefficients, got {terms!r}")
    for index in terms:
        if not isinstance(index, tuple) or not all(isinstance(k, int) and k >= 0 for k in index):
            raise TypeError(f"a multi-index is a tuple of whole numbers, one per entry of the argument; got {index!r}")
    lengths = {len(index) for index in terms}
    if len(lengths) > 1:
        raise ValueError(f"multi-indices must have one length, the number of entries; got lengths {sorted(lengths)}")
    (n,) = lengths
    by_order: dict[int, dict] = {}
    for index, c in terms.items():
        by_order.setdefault(sum(index), {})[index] = c
    families = {k: Family.of(group) for k, group in by_order.items() if k}
    at_zero = by_order.get(0, {})

    def apply(fun: Callable[..., Any]) -> Callable[..., Any]:
        asked = one_argument("differential_operator", fun, 0, False)

        def run(flat, x, extra, call):
            total = [c for c in [extra[0]] if c is not None]
            outs = flat(*x) if total or not families else None
            sums = None if outs is None else [(total[0] if total else 0.0) * y for y in outs]
            for (order, family), coefficients in zip(families.items(), extra[1], strict=True):
                part = family.applied(flat, x, coefficients, order)
                sums = part if sums is None else [a + b for a, b in zip(sums, part, strict=True)]
            return _tree(call, sums)

        operator = Operator(asked, run)

        @wraps(fun, "Differential operator")
        @jc.api_boundary
        def operator_fun(*args, **kwargs):
            if args and sum(np.size(leaf) for leaf in tree_leaves(args[0])) != n:
                given = sum(np.size(leaf) for leaf in tree_leaves(args[0]))
                raise ValueError(f"the multi-indices are for an argument of {n} entries, but it has {given}")
            value = lambda c: c(args[0]) if callable(c) else c
            extra = (
                next((jnp.asarray(value(c)) for c in at_zero.values()), None),
                [family.given(value) for family in families.values()],
            )
            return operator(args, kwargs, extra)

        return operator_fun

    return apply


@dataclass(frozen=True, eq=False)
class Family:
    """Lines for the terms of one order: of the constant ones together, and for each given coefficient its own."""

    lines: np.ndarray
    constant: np.ndarray
    given_weights: np.ndarray  # a row for each given coefficient
    coefficients: tuple

    @staticmethod
    def of(group: dict) -> Family:
        constant = {a: c for a, c in group.items() if isinstance(c, (int, float))}
        others = {a: c for a, c in group.items() if a not in constant}
        parts = [lines_for(constant)] if constant else []
        parts += [lines_for({a: 1.0}) for a in others]
        place: dict[tuple, int] = {}
        for lines, _ in parts:
            for line in lines:
                place.setdefault(tuple(line), len(place))
        rows = np.zeros((len(parts), len(place)))
        for row, (lines, weights) in zip(rows, parts, strict=True):
            row[[place[tuple(line)] for line in lines]] = weights
        fixed_row = rows[0] if constant else np.zeros(len(place))
        return Family(np.array(list(place)), fixed_row, rows[len(parts) - len(others) :], tuple(others.values()))

    def given(self, value: Callable) -> list:
        """The coefficients that are not constant, as scalar arrays."""
        found = [jnp.asarray(value(c)) for c in self.coefficients]
        for c in found:
            if c.ndim:
                raise ValueError(f"a coefficient must be a scalar, got shape {c.shape}")
        return found

    def applied(self, flat: Callable, x, coefficients, order: int) -> list:
        """Σ_d w_d dᵏf/dv_dᵏ for each output."""
        dtype = jax.dtypes.result_type(*x)
        weights = jnp.asarray(self.constant, dtype)
        for c, row in zip(coefficients, self.given_weights, strict=True):
            weights = weights + c.astype(dtype) * jnp.asarray(row, dtype)
        if order == 1:
            along = weights @ jnp.asarray(self.lines, dtype)
            outs, ts = INTERPRETER.push_function(flat, x, _split(along[None], x, squeeze=True))
            return [jc.zeros(jc.typeof(y)) if t is None else t for y, t in zip(outs, ts, strict=True)]
        _, _, totals = collapsed(flat, x, _split(jnp.asarray(self.lines, dtype), x), weights, order)
        return [math.factorial(order) * t for t in totals]


def _split(rows, x, squeeze: bool = False) -> list:
    """Vectors over all entries of x as arrays for each leaf, with a leading axis over the vectors."""
    cuts = np.cumsum([np.size(leaf) for leaf in x])[:-1]
    parts = jnp.split(rows, cuts, axis=1)
    shaped = [p.reshape(len(rows), *np.shape(a)).astype(jc.dtype_of(a)) for p, a in zip(parts, x, strict=True)]
    return [p[0] for p in shaped] if squeeze else shaped


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True, repr=False)
class SymmetricTensor:
    """All partial derivatives of an order k, each once: ``values[i]`` is ∂^α for the multi-index ``indices[i]``.

    ``values`` has a leading axis over the C(n+k-1, k) multi-indices, before the axes of the output.
    """

    values: Any
    indices: tuple

    def __repr__(self) -> str:
        return (
            f"SymmetricTensor(order {sum(self.indices[0])}, {len(self.indices)} derivatives, {self.values.shape[1:]})"
        )

    def __getitem__(self, index: tuple[int, ...]) -> Any:
        """∂^α for a multi-index α."""
        return self.values[self.indices.index(tuple(index))]

    def dense(self) -> Any:
        """The full tensor, with k axes of length n after those of the output."""
        n, order = len(self.indices[0]), sum(self.indices[0])
        place = {index: i for i, index in enumerate(self.indices)}
        which = np.array([place[tuple(np.bincount(axes, minlength=n))] for axes in np.ndindex(*(n,) * order)], np.int32)
        full = self.values[which].reshape(*(n,) * order, *self.values.shape[1:])
        return jnp.moveaxis(full, range(order), range(-order, 0))

    def tree_flatten(self) -> tuple:
        return (self.values,), self.indices

    @classmethod
    def tree_unflatten(cls, indices, children) -> SymmetricTensor:
        (values,) = children
        return cls(values, indices)


def derivative_tensor(fun: Callable[..., Any], order: int) -> Callable[..., Any]:
    r"""All partial derivatives of an order k, each once, from the k-th derivatives along C(n+k-1, k) lines.

    Args:
      fun: a function whose first argument x is a real array or a pytree of them, with n entries in all.
      order: k, at least 1.

    Returns:
      A function of the arguments of ``fun`` that returns, for each leaf of the output, a :class:`SymmetricTensor`;
      its ``dense()`` has the k axes of length n last.

    Raises:
      ValueError: the order is less than 1.

    >>> import admodes, jax.numpy as jnp
    >>> third = admodes.derivative_tensor(lambda x: x[0] ** 2 * x[1], 3)(jnp.array([2.0, 5.0]))
    >>> round(float(third[2, 1]), 5), third.dense().shape
    (2.0, (2, 2, 2))

    Reference: Griewank, Utke and Walther, Mathematics of Computation 69 (2000).
    """
    order = checked_order("derivative_tensor", order)
    asked = one_argument("derivative_tensor", fun, 0, False)

    def run(flat, x, extra, call):
        indices, lines, matrix = tensor_lines(sum(np.size(leaf) for leaf in x), order)
        dtype = jax.dtypes.result_type(*x)

        def along(vs):
            series = [fixed(leaf, [v, *[None] * (order - 1)]) for leaf, v in zip(x, vs, strict=True)]
            outs = Taylor(order=order).push_series(flat, series)
            return [jc.zeros(jc.typeof(y.primal)) if y[order] is None else y[order] for y in outs]

        each = jax.vmap(along)(_split(jnp.asarray(lines, dtype), x))
        mixing = jnp.asarray(math.factorial(order) * matrix, dtype)
        tensors = [SymmetricTensor(jnp.tensordot(mixing, t, 1), tuple(indices)) for t in each]
        return tree_unflatten(call.result.tree, tensors)

    operator = Operator(asked, run)

    @wraps(fun, f"Derivatives of order {order}")
    @jc.api_boundary
    def tensor_fun(*args, **kwargs):
        return operator(args, kwargs)

    return tensor_fun


def one_argument(name, fun, argnums, has_aux) -> Request:
    asked = request(name, fun, argnums, has_aux, False)
    if not isinstance(asked.argnums, int):
        raise TypeError(f"{name} differentiates one argument: argnums must be an int, got {argnums!r}")
    return asked
