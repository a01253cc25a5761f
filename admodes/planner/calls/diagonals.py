r"""Parts of Jacobians and Hessians: a diagonal, its sum, the blocks of a batch, without the rest of the matrix.

The products that a coloring for these entries asks for are enough (:mod:`admodes.sparse.partial`): one for a function
that acts element by element, few for a sparse Jacobian, and at most one for each column (row), in chunks, so that the
matrix itself is never there. Blocks that are the whole Jacobian may also be cut at a waist.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.tree_util import tree_unflatten

from admodes.errors import PlanningError
from admodes.linear.pattern import SparsityPattern
from admodes.modes import checks
from admodes.modes.flat import select_arguments, std_basis, wraps
from admodes.modes.interpreter import interpreter_for
from admodes.nonsmooth.limits import settled
from admodes.planner.calls.jacobian import Planned, settings, without_aux
from admodes.planner.calls.operators import Operator, forward_laplacian, one_argument, weights_like
from admodes.planner.calls.request import Request
from admodes.planner.choice.candidates import COLORING_SECONDS, Candidate, Method, candidate
from admodes.planner.choice.decision import MOST_PLANS
from admodes.planner.cost.machine import machine
from admodes.planner.task import REFUSALS, Task
from admodes.planner.ways.block_diagonal import blocked
from admodes.planner.ways.seeded import compressed
from admodes.program import jax_compat as jc
from admodes.program.kept import Kept
from admodes.sparse.coloring import coloring
from admodes.sparse.partial import color_for
from admodes.transforms.forward import pushed, resolved
from admodes.transforms.reverse import grad, strong_jacobian

# Bytes of the products that are in flight at once. Chosen: 64 MiB, which fit beside anything else. Four times less
# cuts the batch into more, smaller sweeps; four times more takes that memory.
SEED_BYTES = 2**26

# of recent tasks, for functions that are made anew in each step of a loop
_CHOSEN: Kept[Candidate] = Kept(MOST_PLANS)


# What a product with the Hessian costs, in directions of the forward pass: a forward and a backward sweep of duals,
# each with a value beside: an estimate from counting sweeps, not measured. It decides only where both ways cost alike.
PRODUCT_IN_DIRECTIONS = 3


class Part(Planned):
    """Some entries of a Jacobian: ``wanted(in_avals, out_avals)`` is their pattern."""

    decides = False

    def __init__(self, asked: Request, wanted: Callable, chunk_size: int | None):
        super().__init__(asked, settings("bcoo", chunk_size=chunk_size))
        self.wanted = wanted
        self._candidates: dict = {}

    def choose(self, task: Task, leaves) -> Candidate:
        if task.has_unknown_constants:
            return self._cheapest(task)
        return _CHOSEN.get((task.key, self.wanted, self.settings, machine()), lambda: self._cheapest(task))

    def candidate(self, args, kwargs) -> Candidate:
        """The way that calls with these arguments go."""
        call = self.request.call(args, kwargs)
        if not call.hashable or jc.is_staging():
            return self.choose(call.task(), None)
        if call.key not in self._candidates:
            self._candidates[call.key] = self.choose(call.task(), None)
        return self._candidates[call.key]

    def _cheapest(self, task: Task) -> Candidate:
        wanted = self.wanted(task.in_avals, task.out_avals)
        pattern = task.pattern.union(wanted)
        whole = pattern.nnz == wanted.nnz  # there is nothing else in the Jacobian
        methods: list[Method] = []
        for kind in ("column", "row") if task.rows_allowed else ("column",):
            length = task.m if kind == "column" else task.n
            chunk = self.settings.chunk_size or max(1, SEED_BYTES // max(1, length * task.dtype.itemsize))
            colors = coloring(wanted, kind, budget=COLORING_SECONDS) if whole else color_for(pattern, wanted, kind)
            methods.append(compressed(colors, chunk=chunk if chunk < colors.number else None))
        if whole and self.settings.chunk_size is None and not task.is_laid_out:
            chain = blocked(task.with_pattern(wanted), machine())
            methods += [] if chain is None else [chain]
        return _cheapest(methods, task)


def _cheapest(methods: list[Method], task: Task) -> Candidate:
    """The candidate of the least predicted time among those that no derivative rule in the function refuses."""
    found, refusals = [], []
    for method in methods:
        try:
            found.append(candidate(method, task, machine(), "bcoo"))
        except REFUSALS as error:
            refusals.append(error)
    if not found:
        raise refusals[0]
    return min(found, key=lambda c: c.seconds)


def diagonal(
    fun: Callable[..., Any], argnums: int = 0, has_aux: bool = False, *, chunk_size: int | None = None
) -> Callable[..., Any]:
    r"""The diagonal ∂f_i/∂x_i of the Jacobian of a function whose output is as large as its input.

    Args:
      fun: a function that returns an array (or pytree) of the shape of the argument that is differentiated.
      argnums: which positional argument.
      has_aux: whether ``fun`` returns a pair (output, auxiliary data).
      chunk_size: how many seeds are in flight at once; by default as many as fit 64 MiB.

    Returns:
      A function of the arguments of ``fun``; its result has the structure and shapes of the argument.

    Raises:
      ValueError: the shapes of output and argument differ.

    >>> import admodes, jax.numpy as jnp
    >>> admodes.diagonal(lambda x: x**2 + x[::-1])(jnp.array([1.0, 2.0, 3.0])).tolist()
    [2.0, 5.0, 6.0]

    Reference: Gebremedhin, Manne and Pothen, SIAM Review 47 (2005), section 8.
    """
    part = Part(one_argument("diagonal", fun, argnums, has_aux), _identity, chunk_size)

    @wraps(fun, "Diagonal of the Jacobian")
    @jc.api_boundary
    def diagonal_fun(*args, **kwargs):
        _, entries, aux = part(args, kwargs, value=False)
        leaves, tree = jax.tree_util.tree_flatten(args[argnums])
        cuts = [0, *itertools.accumulate(np.size(x) for x in leaves)]
        shaped = [
            entries.data[a:b].reshape(np.shape(x)) for x, (a, b) in zip(leaves, itertools.pairwise(cuts), strict=True)
        ]
        result = tree_unflatten(tree, shaped)
        return (result, aux) if has_aux else result

    return diagonal_fun


def laplacian(
    fun: Callable[..., Any],
    argnums: int = 0,
    has_aux: bool = False,
    *,
    weights: Any = None,
    chunk_size: int | None = None,
    nan_safe: bool = False,
    ties: str = "jax",
) -> Callable[..., Any]:
    r"""The Laplacian Δf = Σᵢ wᵢ ∂²f/∂xᵢ², for each entry of f's output.

    One forward pass carries the value, the Jacobian and the one sum (:func:`admodes.value_grad_laplacian`). If f is
    scalar and its Hessian sparse, so that P products with the Hessian give its diagonal and P < n/3 for the n entries
    of x, these are taken: such a product costs about three times what one direction of the pass does. Also with
    ``nan_safe`` and ``ties``, which are as in :func:`admodes.grad`; f must then be scalar.

    Args:
      fun: a function of real arrays that returns a pytree of arrays.
      argnums: which positional argument.
      has_aux: whether ``fun`` returns a pair (output, auxiliary data).
      weights: w, of the structure of the argument; by default 1.
      chunk_size: how many directions or products are in flight at once; by default as many as fit 64 MiB.
      nan_safe, ties: what happens where zeros meet infinite slopes, and at kinks.

    Returns:
      A function of the arguments of ``fun`` that returns Δf with the structure of f's output, or (Δf, aux).

    >>> import admodes, jax.numpy as jnp
    >>> float(admodes.laplacian(lambda x: jnp.sum(x**3))(jnp.array([1.0, 2.0])))
    18.0
    >>> admodes.laplacian(lambda x: x[0] * x**2)(jnp.array([1.0, 2.0])).tolist()
    [6.0, 2.0]

    Reference: Dangel et al., "Collapsing Taylor mode automatic differentiation", NeurIPS 2025.
    """
    asked = one_argument("laplacian", fun, argnums, has_aux)
    function, policy = resolved(fun, ties, (argnums,))
    products = Part(
        one_argument("laplacian", grad(function, argnums, has_aux, ties=policy), argnums, has_aux),
        _identity,
        chunk_size,
    )
    forward = Operator(asked, partial(forward_laplacian, chunk_size=chunk_size))
    plain = ties == "jax" and not nan_safe

    def trace(args, kwargs, given):
        _, entries, aux = products(args, kwargs, value=False)
        data = entries.data if given is None else entries.data * jax.numpy.concatenate([w.ravel() for w in given])
        total = data.sum()
        if nan_safe:
            chosen, moving = select_arguments(without_aux(function, has_aux), (argnums,), args, kwargs)
            total = settled(total, lambda x: _strong_trace(chosen, x, given), moving)
        return total, aux

    def is_sparse(args, kwargs) -> bool:
        n = sum(map(np.size, jax.tree_util.tree_leaves(args[argnums])))
        try:
            passes = products.candidate(args, kwargs).method.passes
        except (TypeError, PlanningError, NotImplementedError):  # not scalar; or there is no reverse mode
            return False
        return PRODUCT_IN_DIRECTIONS * passes < n

    @wraps(fun, "Laplacian")
    @jc.api_boundary
    def laplacian_fun(*args, **kwargs):
        checks.positional(argnums, args)
        given = weights_like("laplacian", weights, args[argnums])
        if not plain or _is_laid_out(args[argnums]) or is_sparse(args, kwargs):
            total, aux = trace(args, kwargs, given)
        else:
            _, _, total, aux = forward(args, kwargs, given)
        return (total, aux) if has_aux else total

    return laplacian_fun


def _is_laid_out(x) -> bool:
    """True if the types of arrays say how they are spread over devices."""
    return any(jc.is_array(leaf) and jc.is_laid_out(jc.typeof(leaf)) for leaf in jax.tree_util.tree_leaves(x))


def _strong_trace(fun: Callable, x, weights=None):
    """The sum of the diagonal of the Hessian with strong zeros, by products with each axis in turn."""
    (basis,) = std_basis((x,))
    gradient = strong_jacobian(fun, 0)

    def entry(v):
        (_, product) = pushed(interpreter_for(True), gradient, (x,), (v,))
        pairs = zip(jax.tree_util.tree_leaves(product), jax.tree_util.tree_leaves(v), strict=True)
        return sum((p * u).sum() for p, u in pairs)

    entries = jax.vmap(entry)(basis)
    return (entries if weights is None else entries * jax.numpy.concatenate([w.ravel() for w in weights])).sum()


def block_jacobian(
    fun: Callable[..., Any], argnums: int = 0, has_aux: bool = False, *, chunk_size: int | None = None
) -> Callable[..., Any]:
    r"""The diagonal blocks ∂f_b/∂x_b of the Jacobian of a function on a batch: examples by their leading index b.

    For f(x) of shape (B, *s) and x of shape (B, *r) the result has shape (B, *s, *r). The dependence of f_b on other
    examples is left out. For a function made by ``jax.vmap`` the blocks are the whole Jacobian.

    Raises:
      ValueError: output and argument are not single arrays with a leading axis of one length.

    >>> import admodes, jax, jax.numpy as jnp
    >>> f = jax.vmap(lambda x: jnp.stack([x[0] * x[1], x[0]]))
    >>> admodes.block_jacobian(f)(jnp.array([[1.0, 2.0], [3.0, 4.0]])).tolist()
    [[[2.0, 1.0], [1.0, 0.0]], [[4.0, 3.0], [1.0, 0.0]]]
    """
    part = Part(one_argument("block_jacobian", fun, argnums, has_aux), _blocks, chunk_size)

    @wraps(fun, "Block diagonal of the Jacobian")
    @jc.api_boundary
    def block_fun(*args, **kwargs):
        out, entries, aux = part(args, kwargs, value=True)
        result = entries.data.reshape(out.shape + np.shape(args[argnums])[1:])
        return (result, aux) if has_aux else result

    return block_fun


def _identity(in_avals, out_avals) -> SparsityPattern:
    if [a.shape for a in in_avals] != [a.shape for a in out_avals]:
        raise ValueError(
            f"the diagonal is that of a square Jacobian: output shapes {[a.shape for a in out_avals]} must be those of "
            f"the argument, {[a.shape for a in in_avals]}"
        )
    return SparsityPattern.identity(sum(math.prod(a.shape) for a in in_avals))


def _blocks(in_avals, out_avals) -> SparsityPattern:
    if (
        len(in_avals) != 1
        or len(out_avals) != 1
        or not in_avals[0].shape
        or in_avals[0].shape[:1] != out_avals[0].shape[:1]
    ):
        raise ValueError(
            "block_jacobian takes a function from one array to one array with the same leading axis, got shapes "
            f"{[a.shape for a in in_avals]} -> {[a.shape for a in out_avals]}"
        )
    batch = in_avals[0].shape[0]
    m, n = math.prod(out_avals[0].shape), math.prod(in_avals[0].shape)
    labels = np.repeat(np.arange(batch), m // max(batch, 1))
    groups = np.repeat(np.arange(batch), n // max(batch, 1))
    return SparsityPattern.shared(labels, groups, np.arange(n), (batch, n))
