r"""Parts of Jacobians and Hessians: a diagonal, its sum, the blocks of a batch, without the rest of the matrix.

The products that a coloring for these entries asks for are enough (:mod:`admodes.sparse.partial`): one for a function
that acts element by element, few for a sparse Jacobian, and at most one for each column (row), in chunks, so that the
matrix itself is never there. Blocks that are the whole Jacobian may also be cut at a waist.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.tree_util import tree_unflatten

from admodes.linear.pattern import SparsityPattern
from admodes.modes.flat import select_arguments, std_basis, wraps
from admodes.modes.interpreter import interpreter_for
from admodes.nonsmooth.limits import settled
from admodes.planner.calls.jacobian import Planned, settings, without_aux
from admodes.planner.calls.request import Request, request
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


class Part(Planned):
    """Some entries of a Jacobian: ``wanted(in_avals, out_avals)`` is their pattern."""

    decides = False

    def __init__(self, asked: Request, wanted: Callable, chunk_size: int | None):
        super().__init__(asked, settings("bcoo", chunk_size=chunk_size))
        self.wanted = wanted

    def choose(self, task: Task, leaves) -> Candidate:
        if task.has_unknown_constants:
            return self._cheapest(task)
        return _CHOSEN.get((task.key, self.wanted, self.settings, machine()), lambda: self._cheapest(task))

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
    part = Part(_one_argument("diagonal", fun, argnums, has_aux), _identity, chunk_size)

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
    chunk_size: int | None = None,
    nan_safe: bool = False,
    ties: str = "jax",
) -> Callable[..., Any]:
    r"""The Laplacian Δf = Σᵢ ∂²f/∂xᵢ² of a scalar function: the sum of the diagonal of its Hessian.

    Arguments and errors are those of :func:`diagonal` and :func:`admodes.grad`, ``nan_safe`` and ``ties`` too.

    >>> import admodes, jax.numpy as jnp
    >>> float(admodes.laplacian(lambda x: jnp.sum(x**3))(jnp.array([1.0, 2.0])))
    18.0
    """
    _one_argument("laplacian", fun, argnums, has_aux)  # raises, if it is not one
    function, policy = resolved(fun, ties, (argnums,))
    second = diagonal(grad(function, argnums, has_aux, ties=policy), argnums, has_aux, chunk_size=chunk_size)

    @wraps(fun, "Laplacian")
    @jc.api_boundary
    def laplacian_fun(*args, **kwargs):
        result = second(*args, **kwargs)
        entries, aux = result if has_aux else (result, None)
        total = sum(x.sum() for x in jax.tree_util.tree_leaves(entries))
        if nan_safe:
            chosen, moving = select_arguments(without_aux(function, has_aux), (argnums,), args, kwargs)
            total = settled(total, lambda x: _strong_trace(chosen, x), moving)
        return (total, aux) if has_aux else total

    return laplacian_fun


def _strong_trace(fun: Callable, x):
    """The sum of the diagonal of the Hessian with strong zeros, by products with each axis in turn."""
    (basis,) = std_basis((x,))
    gradient = strong_jacobian(fun, 0)

    def entry(v):
        (_, product) = pushed(interpreter_for(True), gradient, (x,), (v,))
        pairs = zip(jax.tree_util.tree_leaves(product), jax.tree_util.tree_leaves(v), strict=True)
        return sum((p * u).sum() for p, u in pairs)

    return jax.vmap(entry)(basis).sum()


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
    part = Part(_one_argument("block_jacobian", fun, argnums, has_aux), _blocks, chunk_size)

    @wraps(fun, "Block diagonal of the Jacobian")
    @jc.api_boundary
    def block_fun(*args, **kwargs):
        out, entries, aux = part(args, kwargs, value=True)
        result = entries.data.reshape(out.shape + np.shape(args[argnums])[1:])
        return (result, aux) if has_aux else result

    return block_fun


def _one_argument(name, fun, argnums, has_aux) -> Request:
    asked = request(name, fun, argnums, has_aux, False)
    if not isinstance(asked.argnums, int):
        raise TypeError(f"{name} differentiates one argument: argnums must be an int, got {argnums!r}")
    return asked


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
