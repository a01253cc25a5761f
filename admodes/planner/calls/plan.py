"""``plan``: a decision that can be looked at, run, drawn, saved and loaded."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.tree_util import tree_structure, treedef_is_leaf

from admodes.errors import PlanningError, StalePlanError
from admodes.linear.pattern import SparsityPattern
from admodes.modes import checks
from admodes.planner.calls.given import prepared, with_pattern
from admodes.planner.calls.hessian import gradient_of
from admodes.planner.calls.jacobian import finished, settings
from admodes.planner.calls.picture import picture
from admodes.planner.calls.report import describe, otherwise, why
from admodes.planner.calls.request import Call, Request, request
from admodes.planner.choice.candidates import Candidate, candidate
from admodes.planner.choice.decision import Decision, decide
from admodes.planner.cost import cache_folder
from admodes.planner.cost.machine import machine
from admodes.planner.task import Task
from admodes.planner.ways.checkpointed import Checkpointed, restored
from admodes.planner.ways.seeded import Seeded, compressed, reverse
from admodes.program import jax_compat as jc
from admodes.sparse.coloring import Coloring
from admodes.text_tables import WIDTH, clipped

VERSION = 3
# what reading a damaged archive may raise
DAMAGED = (*cache_folder.DAMAGED, OSError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True, eq=False, repr=False)
class Plan:
    """The way in which the Jacobian of a function is computed for arguments of certain shapes, and what the other ways
    would cost.

    ``str(plan)`` shows the candidates, the best first, with derivative passes, multiplications, flops, bytes moved,
    predicted and measured seconds and temporary memory, and says why the first was chosen.
    """

    decision: Decision
    request: Request
    key: tuple[Any, ...]
    _run: Callable[..., Any] = field(repr=False)

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """All candidates, the best first."""
        return self.decision.candidates

    @property
    def best(self) -> Candidate:
        return self.decision.best

    @property
    def pattern(self) -> SparsityPattern | None:
        """The sparsity pattern, if the choice depended on it."""
        return self.decision.pattern

    @property
    def why(self) -> str:
        """One sentence, with numbers."""
        return why(self.decision)

    @property
    def otherwise(self) -> str:
        """The changes that would change the choice."""
        return otherwise(self.decision)

    def jacobian(self, *args: Any, **kwargs: Any) -> Any:
        """The Jacobian at arguments of the planned types, as ``admodes.jacobian`` returns it.

        Where the plan is for a dtype, a weakly typed value of it is taken for one that is not.

        Raises:
          StalePlanError: arguments of another structure, shape or dtype, or not weakly typed as those planned for.
          TypeError: a type instead of a value.
        """
        call = self.request.call(args, kwargs)
        checks.values("plan.jacobian", call.leaves, args)
        _, result, aux = self._run(fitted(self.key, call))
        return (result, aux) if self.request.has_aux else result

    def hessian(self, *args: Any, **kwargs: Any) -> Any:
        """The Hessian at arguments of the planned types, of a plan that was made with ``hessian=True``.

        Raises:
          PlanningError: it is a plan of a Jacobian.
        """
        if not self.is_of_hessian:
            raise PlanningError("this plan is of a Jacobian: admodes.plan(f, x, hessian=True) plans a Hessian.")
        return self.jacobian(*args, **kwargs)

    @property
    def is_of_hessian(self) -> bool:
        return self.request.gradient_of is not None

    def draw(self, axes: Any = None) -> Any:
        """A picture of the plan as text: the chain of cuts, the steps whose states are kept, or the nonzeros by color.

        With matplotlib ``axes`` the nonzeros are drawn there, colored by the product that gives them.
        """
        return picture(self.best.method, self.pattern, axes)

    def save(self, file: str | Path) -> None:
        """Write the plan to a file of this name (in numpy's format ``.npz``) for :func:`load_plan`."""
        coloring = getattr(self.best.method, "coloring", None)
        arrays: dict[str, Any] = {}
        if self.decision.given is not None:
            arrays = {"given_rows": self.decision.given.rows, "given_cols": self.decision.given.cols}
        if coloring is not None:
            arrays |= {"rows": coloring.pattern.rows, "cols": coloring.pattern.cols}
            for name in ("columns", "rows"):
                if (colors := getattr(coloring, name)) is not None:
                    arrays[f"color_{name}"] = colors
        chosen = self.decision.settings
        header = {
            "version": VERSION,
            "fingerprint": self.decision.fingerprint,
            "shape": [self.decision.m, self.decision.n],
            "method": self.best.name,
            "detail": self.best.method.detail,
            "settings": {
                "format": chosen.form,
                "objective": chosen.objective,
                "chunk_size": self.chunk_size,
                "triangle": chosen.triangle,
            },
            "request": [self.request.argnums, self.request.has_aux, self.request.holomorphic, self.is_of_hessian],
            "arguments": array_arguments(self.request, self.key),
        }
        if coloring is not None:
            header["coloring"] = [coloring.kind, coloring.order, coloring.lower_bound, coloring.substitution]
        method = self.best.method
        if isinstance(method, Checkpointed):
            header["checkpoints"] = [method.plain_schedule, method.saved]
        with Path(file).open("wb") as out:
            np.savez_compressed(out, header=np.array(json.dumps(header)), **arrays)

    @property
    def chunk_size(self) -> int | None:
        """The number of seeds in flight at once (None: all)."""
        return getattr(self.best.method, "chunk", None)

    def to_dict(self) -> dict[str, Any]:
        """Everything that is printed, as plain data."""
        d = self.decision
        return {
            "shape": [d.m, d.n],
            "nonzeros": None if d.pattern is None else d.pattern.nnz,
            "objective": d.settings.objective,
            "why": self.why,
            "otherwise": self.otherwise,
            "candidates": [c.to_dict() for c in d.candidates],
            "refused": {r.name: r.reason for r in d.refused},
        }

    def __repr__(self) -> str:
        others = ", ".join(c.name for c in self.candidates[1:]) or "nothing"
        lines = [f"Plan({self.decision.heading})", f"  best: {self.best!r}", f"  others: {others}"]
        return "\n".join(map(clipped, lines))

    def __str__(self) -> str:
        return self.report()

    def report(self, width: int = WIDTH) -> str:
        """The text of ``str(plan)``, in lines of at most ``width`` characters."""
        return describe(self.decision, "Hessian" if self.is_of_hessian else "Jacobian", width)


def array_arguments(asked: Request, key: tuple) -> list | None:
    """[shape, dtype, whether weakly typed] of each argument, in order; None unless all are positional and arrays."""
    tree, are_arrays, _, types, _ = key
    chosen, others, keywords = tree.children()
    parts = [*chosen.children(), *others.children()]
    single = all(map(treedef_is_leaf, parts)) and keywords == tree_structure({}) and all(are_arrays)
    if not single or any(jc.is_extended(dtype) or dtype == jc.float0 for _, dtype, _ in types):
        return None
    numbers = (asked.argnums,) if isinstance(asked.argnums, int) else asked.argnums
    places = [k % len(parts) for k in numbers]
    places += [k for k in range(len(parts)) if k not in places]
    described = {k: [list(shape), str(dtype), weak] for k, (shape, dtype, weak) in zip(places, types, strict=True)}
    return [described[k] for k in range(len(parts))]


def fitted(key: tuple, call: Call) -> list:
    """The arrays of a call of the kind that ``key`` was planned for, in the planned types.

    Weak types become the planned ones, but not the reverse: what is computed with weak ones may be less precise.

    Raises:
      StalePlanError: the call is of another kind.
    """
    planned, given = key[3], call.key[3]
    same = call.key[0] == key[0] and [t[:2] for t in given] == [t[:2] for t in planned]
    if not same or any(weak and not now for (*_, weak), (*_, now) in zip(planned, given, strict=True)):

        def types(k):
            named = (f"{dtype}{list(shape)}{' (weakly typed)' if weak else ''}" for shape, dtype, weak in k[3])
            return ", ".join(named)

        raise StalePlanError(
            f"the plan is for arguments {key[0]} of types {types(key)}, but was given {call.key[0]} of types "
            f"{types(call.key)}. Make a plan for these with admodes.plan."
        )
    if (*call.key[:3], planned, *call.key[4:]) != key:
        raise StalePlanError(
            "the plan is for other values of the arguments that are fixed (integers, booleans, strings), or other "
            "settings of JAX. Make a plan for these with admodes.plan."
        )
    return [
        x if now == then else jc.convert_like(x, typed(then))
        for x, now, then in zip(call.leaves, given, planned, strict=True)
    ]


def typed(described: Sequence) -> jax.ShapeDtypeStruct:
    """A type from its shape, its dtype, and whether it is weak."""
    shape, dtype, weak = described
    return jax.ShapeDtypeStruct(tuple(shape), dtype, weak_type=weak)


def plan(
    fun: Callable[..., Any],
    *args: Any,
    argnums: int | Sequence[int] = 0,
    has_aux: bool = False,
    holomorphic: bool = False,
    format: str = "dense",
    objective: str = "time",
    memory_limit: int | float | str | None = None,
    measure: bool | None = None,
    chunk_size: int | None = None,
    mesh: jax.sharding.Mesh | None = None,
    pattern: SparsityPattern | None = None,
    coloring: Coloring | None = None,
    hessian: bool = False,
    triangle: str | None = None,
    **kwargs: Any,
) -> Plan:
    r"""The cheapest way to the Jacobian of ``fun`` at arguments of these shapes, and why.

    The candidates: plain forward and reverse mode; products compressed by a coloring of the sparsity pattern, of
    columns, rows or both; accumulation of the nonzeros from those of the local Jacobians; where the Jacobian, or each
    block on its diagonal, is full, cuts at the waists of the data-flow graph, with the best bracketing of the parts;
    where it is full, the elimination of whole arrays in the best order; for the objectives ``"multiplications"`` and
    ``"flops"`` the elimination number by number; and, where memory matters (the objective, a limit, a tape of 64 MiB),
    reverse mode that keeps a part of its tape (:func:`admodes.checkpoint`).

    Args:
      fun, args, kwargs: the function and where to plan. Values matter for ``measure`` and ``memory_limit`` only.
      argnums, has_aux, holomorphic, format, objective, memory_limit, measure, chunk_size, mesh: as for
        :func:`admodes.jacobian`.
      pattern: of the Jacobian, if you know one; it must cover the one that is detected.
      coloring: of such a pattern; the way is then the products that it asks for.
      hessian: plan the Hessian of a function in the place of its Jacobian; ``plan.hessian(x)`` runs it.
      triangle: as for :func:`admodes.hessian`.

    Returns:
      A :class:`Plan`: print it, run ``plan.jacobian(x)``, ``plan.draw()``, ``plan.save(file)``.

    Raises:
      PlanningError: the function cannot be traced, or nothing fits the memory limit; the message says what would.
      PatternError: the pattern that was given does not cover the Jacobian.
      TypeError: an argument that cannot be differentiated, or a ``pattern`` that is none.

    >>> import admodes, jax.numpy as jnp
    >>> plan = admodes.plan(lambda x: x[1:] * x[:-1], jnp.ones(1000), format="bcoo")
    >>> plan.pattern
    SparsityPattern(999 x 1000, 1998 nonzeros)
    >>> plan.jacobian(jnp.ones(1000)).nse
    1998

    References: Griewank and Walther, *Evaluating Derivatives*, 2nd ed., chapters 7 to 10; Coleman and Verma, SIAM J.
    Sci. Comput. 19 (1998); Griewank and Naumann, Math. Program. 95 (2003).
    """
    asked = _asked(fun, argnums, has_aux, holomorphic, hessian)
    chosen = settings(format, objective, memory_limit, measure, chunk_size, mesh, pattern, coloring, triangle)
    call = asked.call(args, kwargs)
    chosen = chosen.at(call.leaves)
    if measure:
        checks.values("plan(measure=True)", call.leaves, args)
    if jc.is_staging() or any(isinstance(x, jc.Tracer) for x in call.leaves):
        raise PlanningError(
            "admodes.plan was called while the function around it is traced (jit, vmap, grad); make the plan outside, "
            "or call admodes.jacobian, which plans where it is."
        )
    task = prepared(call.task(), chosen)
    return _plan(asked, call, task, decide(task, chosen, call.leaves))


def _asked(fun: Callable, argnums, has_aux: bool, holomorphic: bool, hessian: bool) -> Request:
    if not hessian:
        return request("plan", fun, argnums, has_aux, holomorphic)
    jc.check_callable(fun)
    argnums = checks.ensure_index(argnums)
    gradient = gradient_of(fun, argnums, has_aux, holomorphic, "jax")
    return request("plan", gradient, argnums, has_aux, holomorphic, fun)


def _plan(asked: Request, call: Call, task: Task, decision: Decision) -> Plan:
    made = finished(task, decision.best, decision.settings.form, call, value=False)
    return Plan(decision, asked, call.key, lambda leaves: made.unpack(made.run(leaves)))


def load_plan(file: str | Path, fun: Callable[..., Any], *args: Any, **kwargs: Any) -> Plan:
    r"""A plan that was saved, for the same function at arguments of the planned types.

    The function is traced and compared with the one that was planned, and the pattern is detected anew, so that a plan
    for another program is refused, never applied.

    Args:
      file: what :meth:`Plan.save` wrote.
      fun: the function.
      args, kwargs: its arguments; only types matter. May be left out if all are arrays (or floats) by position.

    Raises:
      TypeError: the arguments were left out, but are needed.
      StalePlanError: the file cannot be read, or is for another function, other shapes or another version.

    >>> import admodes, jax.numpy as jnp, tempfile, os
    >>> f = lambda x: x[1:] * x[:-1]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     admodes.plan(f, jnp.ones(5)).save(os.path.join(folder, "p.npz"))
    ...     admodes.load_plan(os.path.join(folder, "p.npz"), f).jacobian(jnp.ones(5)).shape
    (4, 5)
    """
    header, arrays = _read(file)
    if not args and not kwargs and header.get("arguments") is None:
        raise TypeError(
            f"the plan in {file} is for arguments that are not all arrays, each for itself, by position: pass the "
            "arguments to load_plan, as in admodes.load_plan(file, fun, x)."
        )
    try:
        argnums, has_aux, holomorphic, hessian = header["request"]
        if not args and not kwargs:
            args = tuple(_zeros(typed(described)) for described in header["arguments"])
        argnums = argnums if isinstance(argnums, int) else tuple(argnums)
        asked = _asked(fun, argnums, has_aux, holomorphic, hessian)
        call = asked.call(args, kwargs)
        chosen = settings(**header["settings"])
        if "given_rows" in arrays:
            given = SparsityPattern.build(arrays["given_rows"], arrays["given_cols"], tuple(header["shape"]))
            chosen = replace(chosen, pattern=given)
        task = prepared(call.task(), chosen)
        if task.fingerprint != header["fingerprint"]:
            raise StalePlanError(
                f"the plan in {file} is for another function, or for other shapes, than this one; make a new one "
                "with admodes.plan."
            )
        if "checkpoints" in header:
            best = _checkpointed(task, header, arrays, chosen)
        elif "coloring" not in header:
            decision = decide(task, chosen)
            found = [c for c in decision.candidates if c.name == header["method"]]
            found.sort(key=lambda c: c.method.detail != header["detail"])
            if not found:
                raise StalePlanError(f"the plan in {file} uses {header['method']!r}, which there is not for this task.")
            best = found[0]
        else:
            best = candidate(_compressed(task, header, arrays, chosen), task, machine(), chosen.form)
    except (*cache_folder.DAMAGED, IndexError) as error:
        if isinstance(error, StalePlanError):
            raise
        raise StalePlanError(f"the plan in {file} does not fit this function: {error}") from error
    decision = Decision(task.fingerprint, task.n, task.m, task.known_pattern, chosen, machine(), (best,))
    return _plan(asked, call, task, decision)


def _zeros(aval: jax.ShapeDtypeStruct) -> jax.Array:
    return jc.convert_like(jax.numpy.zeros(aval.shape, aval.dtype), aval)


def _checkpointed(task: Task, header: dict, arrays, chosen) -> Candidate:
    """The method of a saved plan that keeps a part of its tape."""
    colored = "coloring" in header
    base = _compressed(task, header, arrays, chosen) if colored else reverse(task, chunk=chosen.chunk_size)
    schedule, saved = header["checkpoints"]
    return candidate(restored(base, task, schedule, saved, header["method"]), task, machine(), chosen.form)


def _compressed(task: Task, header: dict, arrays, chosen) -> Seeded:
    """The compressed method of a saved plan, after its pattern and coloring have been checked."""
    kind, order, lower, substitution = header["coloring"]
    saved = SparsityPattern.build(arrays["rows"], arrays["cols"], tuple(header["shape"]))
    with_pattern(task, saved)
    columns, rows = (arrays.get(f"color_{name}") for name in ("columns", "rows"))
    for color, length in ((columns, task.n), (rows, task.m)):
        if color is None:
            continue
        if color.shape != (length,) or color.dtype.kind != "i" or color.max(initial=0) >= max(1, length):
            raise StalePlanError("the plan's colors are not one for each column (row).")
    method = compressed(Coloring(saved, kind, columns, rows, order, lower, substitution), chunk=chosen.chunk_size)
    _ = method.tables  # raises ColoringError, a ValueError, if the colors do not determine the entries
    return method


def _read(file) -> tuple[dict, dict]:
    try:
        with np.load(file, allow_pickle=False) as data:
            arrays = {name: data[name] for name in data.files}
        header = json.loads(str(arrays.pop("header")))
    except FileNotFoundError:
        raise
    except DAMAGED as error:
        raise StalePlanError(f"{file} cannot be read as a plan: {error}") from error
    if not isinstance(header, dict) or header.get("version") != VERSION:
        raise StalePlanError(f"{file} is of another version of plans; make a new one with admodes.plan.")
    return header, arrays
