"""``jacobian`` and ``value_and_jacobian``: JAX's calling conventions, with a plan behind them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from admodes.errors import UntraceableError
from admodes.linear.pattern import SparsityPattern
from admodes.modes import checks
from admodes.modes.flat import wraps
from admodes.planner.calls.given import prepared
from admodes.planner.calls.request import Call, Request, request
from admodes.planner.calls.special_points import AtSpecialPoints
from admodes.planner.calls.untraced import untraced
from admodes.planner.choice.candidates import Candidate
from admodes.planner.choice.decision import MOST_PLANS, Run, Settings, compiled, decide
from admodes.planner.matrices import FORMATS, blocks
from admodes.planner.task import Task
from admodes.program import jax_compat as jc
from admodes.program.kept import Kept
from admodes.sparse.coloring import Coloring, check_pattern
from admodes.sparse.compress import decompression
from admodes.text_tables import Brief, memory_bytes, whole_number
from admodes.transforms.forward import resolved
from admodes.transforms.reverse import jacrev


def jacobian(
    fun: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    holomorphic: bool = False,
    allow_int: bool = False,
    *,
    format: str = "dense",
    objective: str = "time",
    memory_limit: int | float | str | None = None,
    measure: bool | None = None,
    chunk_size: int | None = None,
    mesh: jax.sharding.Mesh | None = None,
    pattern: SparsityPattern | None = None,
    coloring: Coloring | None = None,
    nan_safe: bool = False,
    ties: str = "jax",
) -> Callable[..., Any]:
    r"""The Jacobian ∂f/∂x, by whichever way is the cheapest for this function and these shapes.

    The first call for each structure, shape and dtype of the arguments makes a plan (:func:`admodes.plan`), compiles it
    and keeps it. As under ``jax.jit``, ``fun`` must be pure: what it reads from outside of its arguments is read when
    it is traced. Among the arguments that are not differentiated, all but arrays (integers, strings, objects) are
    fixed, as are static arguments there: each new value is a new plan, and an object that is changed in place, but
    equal to what it was, is not read again. Nor are the rules of custom functions and what callbacks close over.
    Settings that ``jax.jit`` traces anew for make a new plan. A function that decides on values in Python (``if x[0] >
    0:``) is no one program; without options it is run on the values, in the mode that :func:`admodes.choose_mode` says.

    Args:
      fun: a function of pytrees of arrays that returns a pytree of arrays.
      argnums: which positional arguments to differentiate, an int or a sequence of ints.
      has_aux: whether ``fun`` returns a pair (output, auxiliary data).
      holomorphic: whether ``fun`` is holomorphic; inputs and outputs must then be complex.
      allow_int: whether to differentiate integers and booleans too; their blocks are 0 (of their dtype, as in JAX), and
        matrices have no columns for them.
      format: ``"dense"``: for each leaf of the output the structure of the input, leaves of shape
        ``output.shape + input.shape``, as JAX; otherwise one matrix of shape (m, n), rows and columns being the entries
        of the outputs and inputs, leaf by leaf: ``"bcoo"`` (:class:`jax.experimental.sparse.BCOO`), ``"scipy"`` (a
        ``scipy.sparse.csr_array``, whose arrays are the caller's own; not under jit), or ``"compressed"``
        (:class:`CompressedJacobian`, the products that a coloring asks for).
      objective: what is made small: ``"time"``, ``"flops"``, ``"memory"`` or ``"multiplications"``.
      memory_limit: temporary memory that must not be exceeded, in bytes or as ``"200MiB"``; seeds are then chunked.
        Under ``jit`` and ``vmap`` it holds for the Jacobian as a program of its own, at a single point.
      measure: time the best three candidates rather than trust the prediction; remembered from then on. By default
        (None) candidates are timed at the first call if their predictions lie within a factor of three, and compiling
        them is quick; with False none are.
      chunk_size: how many seeds are in flight at once; by default all.
      mesh: devices over which the seeds of plain and compressed modes are split; by default those over which JAX
        spreads the arguments.
      pattern: of the Jacobian, if you know one; it must cover the one that is detected.
      coloring: of such a pattern (:func:`admodes.coloring`), which is then the way that is gone.
      nan_safe: what is done about entries that are not finite, as in :func:`admodes.grad`; not for ``"compressed"``.
      ties: what happens at kinks, as in :func:`admodes.grad`. With ``"first"`` and ``"average"`` nothing is planned:
        the dense Jacobian is taken row by row.

    Returns:
      A function of the arguments of ``fun`` that returns the Jacobian, or (Jacobian, aux).

    Raises:
      PlanningError: the function cannot be traced (shapes depend on values; or it decides on them, and there are
        options, or it is under ``jit``), or nothing fits the memory limit.
      TypeError: inputs that are not real (or, with ``holomorphic``, complex), or outputs that have no derivative.

    >>> import admodes, jax.numpy as jnp
    >>> admodes.jacobian(lambda x: x**2)(jnp.array([1.0, 2.0])).tolist()
    [[2.0, 0.0], [0.0, 4.0]]
    >>> print(admodes.jacobian(lambda x: x**2, format="scipy")(jnp.array([1.0, 2.0])).data)
    [2. 4.]

    Reference: Griewank and Walther, *Evaluating Derivatives*, 2nd ed., chapters 7 to 10.
    """
    options = (format, objective, memory_limit, measure, chunk_size, mesh, pattern, coloring)
    both = _planned("jacobian", fun, argnums, has_aux, holomorphic, allow_int, options, nan_safe, ties)

    @wraps(fun, "Jacobian")
    @jc.api_boundary
    def jacfun(*args, **kwargs):
        _, result, aux = both(args, kwargs, value=False)
        return (result, aux) if has_aux else result

    return jacfun


def value_and_jacobian(
    fun: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    holomorphic: bool = False,
    allow_int: bool = False,
    *,
    format: str = "dense",
    objective: str = "time",
    memory_limit: int | float | str | None = None,
    measure: bool | None = None,
    chunk_size: int | None = None,
    mesh: jax.sharding.Mesh | None = None,
    pattern: SparsityPattern | None = None,
    coloring: Coloring | None = None,
    nan_safe: bool = False,
    ties: str = "jax",
) -> Callable[..., tuple[Any, Any]]:
    r"""A function that returns (f(x), ∂f/∂x), or ((f(x), aux), ∂f/∂x); the arguments are those of :func:`jacobian`.

    >>> import admodes, jax.numpy as jnp
    >>> value, J = admodes.value_and_jacobian(lambda x: x**2)(jnp.array([1.0, 2.0]))
    >>> value.tolist(), J.tolist()
    ([1.0, 4.0], [[2.0, 0.0], [0.0, 4.0]])
    """
    name, options = (
        "value_and_jacobian",
        (format, objective, memory_limit, measure, chunk_size, mesh, pattern, coloring),
    )
    planned = _planned(name, fun, argnums, has_aux, holomorphic, allow_int, options, nan_safe, ties)

    @wraps(fun, "Value and Jacobian")
    @jc.api_boundary
    def value_and_jacfun(*args, **kwargs):
        value, result, aux = planned(args, kwargs, value=True)
        return ((value, aux) if has_aux else value), result

    return value_and_jacfun


def _planned(name, fun, argnums, has_aux, holomorphic, allow_int, options, nan_safe, ties) -> Callable:
    """(args, kwargs, value) -> (outputs, Jacobian, aux), settled where that is asked for."""
    chosen = settings(*options)
    jc.check_callable(fun)
    special = AtSpecialPoints(nan_safe, ties, chosen.form)
    if ties not in ("jax", "lexicographic"):
        if chosen.form != "dense":
            raise ValueError(f"ties={ties!r} is for format='dense', which is then not planned but taken row by row")
        return _by_rows(fun, argnums, has_aux, holomorphic, allow_int, nan_safe, ties)
    argnums = checks.ensure_index(argnums)
    numbers = (argnums,) if isinstance(argnums, int) else argnums
    function, _ = resolved(fun, ties, numbers)
    planned = Planned(request(name, function, argnums, has_aux, holomorphic, allow_int=allow_int), chosen)

    def both(args, kwargs, value):
        outputs, result, aux = planned(args, kwargs, value)
        return outputs, special.settled(result, without_aux(function, has_aux), argnums, args, kwargs), aux

    return both


def _by_rows(fun, argnums, has_aux, holomorphic, allow_int, nan_safe, ties) -> Callable:
    """As :func:`_planned`, in reverse mode, with a policy for ties that plans do not know."""
    rows = jacrev(fun, argnums, has_aux, holomorphic, allow_int, nan_safe=nan_safe, ties=ties)

    def both(args, kwargs, value):
        result, aux = rows(*args, **kwargs) if has_aux else (rows(*args, **kwargs), None)
        return (without_aux(fun, has_aux)(*args, **kwargs) if value else None), result, aux

    return both


def without_aux(fun: Callable, has_aux: bool) -> Callable:
    """The function without its auxiliary data."""
    return (lambda *args, **kwargs: fun(*args, **kwargs)[0]) if has_aux else fun


def settings(
    format: str = "dense",
    objective: str = "time",
    memory_limit: int | float | str | None = None,
    measure: bool | None = None,
    chunk_size: int | None = None,
    mesh: jax.sharding.Mesh | None = None,
    pattern: SparsityPattern | None = None,
    coloring: Coloring | None = None,
    triangle: str | None = None,
) -> Settings:
    if format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(map(repr, FORMATS))}, got {format!r}")
    if mesh is not None and not isinstance(mesh, jax.sharding.Mesh):
        raise TypeError(f"mesh must be a jax.sharding.Mesh, got {type(mesh).__name__}")
    if mesh is not None:  # the seeds are laid out by constraints, which are for automatic axes
        mesh = jax.sharding.Mesh(mesh.devices, mesh.axis_names)
    size = None if chunk_size is None else whole_number("chunk_size", chunk_size)
    if pattern is not None:
        check_pattern(pattern)
    if coloring is not None and not isinstance(coloring, Coloring):
        raise TypeError(f"coloring must be what admodes.coloring returns, got {type(coloring).__name__}")
    return Settings(objective, memory_bytes(memory_limit), measure, size, mesh, format, pattern, coloring, triangle)


# (finished plan, its method) of recent tasks, for Jacobians that are made anew in each step of a loop
_RUNS: Kept[tuple[Finished, Any]] = Kept(MOST_PLANS)


class Planned:
    """A Jacobian with its plans: one for each kind of call, made when the first such call comes."""

    decides = True  # or chooses in a way of its own

    def __init__(self, asked: Request, chosen: Settings):
        self.request, self.settings = asked, chosen
        self._by_key: dict = {}  # for concrete calls: no trace is needed to find the run

    def __call__(self, args, kwargs, value: bool):
        """(outputs, Jacobian, auxiliary data); outputs are None if ``value`` is false."""
        call = self.request.call(args, kwargs)
        checks.values(self.request.name, call.leaves, args)
        traced = jc.is_staging() or any(isinstance(x, jc.Tracer) for x in call.leaves)
        key = None if traced or not call.hashable else (call.key, self.settings.at(call.leaves), jc.is_tracing())
        found = None if key is None else self._by_key.get(key)
        if found is None:
            found = self._plan(call, value, traced)
            if key is not None and not found.depends_on_a_trace:
                self._by_key[key] = found
        return found.unpack(found.run(call.leaves))

    def choose(self, task: Task, leaves) -> Candidate:
        """The way to go for a task; ``leaves`` are arguments to measure with, if there are values."""
        return decide(task, self.settings.at(leaves), leaves).best

    def _plan(self, call: Call, value: bool, traced: bool):
        try:
            task = call.task()
        except UntraceableError:
            if jc.is_staging() or not self.decides or self.settings != Settings():
                raise
            return Finished(untraced(call.without_leaves(), value), lambda returned: returned, False)
        task = prepared(task, self.settings)
        chosen = self.choose(task, None if traced else call.leaves)
        if task.has_unknown_constants or jc.is_staging():
            return finished(task, chosen, self.settings.form, call, value)
        structure = call.in_tree, call.result.tree, call.result.aux_tree, tuple(call.domain), call.key[-1]
        # (methods are told apart by identity: those of equal tasks come from one decision)
        key = (task.key, id(chosen.method), self.settings.form, structure, value, self.request.gradient_of is not None)
        kind, form = call.without_leaves(), self.settings.form
        return _RUNS.get(key, lambda: (finished(task, chosen, form, kind, value), chosen.method))[0]


@dataclass(frozen=True, eq=False)
class Finished:
    """A function of the leaves of calls of a kind, and what makes (outputs, Jacobian, aux) of that which it returns."""

    run: Callable
    unpack: Callable
    depends_on_a_trace: bool


def finished(task, chosen, form: str, call: Call, value: bool) -> Finished:
    """A plan, ready for calls of this kind."""
    domain = call.domain

    def finish(outs, entries):
        outputs, aux = call.outputs(outs)
        if form == "dense":
            pulled = call.request.gradient_of is None
            entries = blocks(entries, task.out_avals, domain, call.result.tree, call.in_tree, pulled)
        return (outputs if value else None), entries, aux

    run = compiled(task if value or call.request.has_aux else task.without_outputs(), chosen, form, finish)

    def unpack(returned):
        outputs, entries, aux = returned
        return outputs, matrix(entries, run, form, chosen.method), aux

    return Finished(run, (lambda returned: returned) if form == "dense" else unpack, task.has_unknown_constants)


def matrix(entries, run: Run, form: str, method) -> Any:
    """The m x n matrix with these entries, in a sparse form."""
    shape = (run.task.m, run.task.n)
    if form == "compressed":
        columns, rows = entries
        return CompressedJacobian(columns, rows, method.coloring)
    assert run.pattern is not None
    if form == "scipy":
        if isinstance(entries, jc.Tracer):
            raise TypeError(
                "format='scipy' gives a matrix on the host, which a function that is traced (jit, vmap, grad) cannot "
                "return; use format='bcoo' there."
            )
        from scipy.sparse import csr_array

        pattern = run.pattern.matrix
        arrays = np.array(entries), pattern.indices.copy(), pattern.indptr.copy()  # the user's own, to be written to
        return csr_array(arrays, shape=shape)
    from jax.experimental.sparse import BCOO

    return BCOO((entries, run.indices), shape=shape, indices_sorted=True, unique_indices=True)


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True, repr=False)
class CompressedJacobian(Brief):
    """The products that a coloring asks for: ``columns`` are the rows (J s)ᵀ, ``rows`` the rows sᵀ J (or None).

    >>> import admodes, jax.numpy as jnp
    >>> J = admodes.jacobian(lambda x: x**2, format="compressed")(jnp.array([1.0, 2.0]))
    >>> J.coloring.number, J.values().tolist()
    (1, [2.0, 4.0])
    """

    columns: Any
    rows: Any
    coloring: Coloring

    def values(self) -> jax.Array:
        """The nonzeros, in the order of ``coloring.pattern``."""
        return decompression(self.coloring)(self.columns, self.rows)

    def tree_flatten(self) -> tuple[tuple[Any, Any], Coloring]:
        return (self.columns, self.rows), self.coloring

    @classmethod
    def tree_unflatten(cls, coloring: Coloring, products: tuple[Any, Any]) -> CompressedJacobian:
        columns, rows = products
        return cls(columns, rows, coloring)
