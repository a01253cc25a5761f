"""``verify``: does everything that the library says about a Jacobian agree, and agree with JAX?"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import tree_leaves

from admodes.compare import jax_ad
from admodes.compare.check import errors
from admodes.errors import AdmodesError, ColoringError
from admodes.modes.flat import select_arguments
from admodes.nonsmooth.approach import generic_direction
from admodes.planner.calls.jacobian import finished, settings
from admodes.planner.calls.request import request
from admodes.planner.choice.candidates import candidates
from admodes.planner.cost.machine import machine
from admodes.program import jax_compat as jc
from admodes.program.fingerprint import has_rules_of_users
from admodes.sparse.coloring import coloring
from admodes.sparse.compress import decompression
from admodes.sparse.validate import missed_entries
from admodes.text_tables import Brief, clipped, plural
from admodes.transforms.forward import jacfwd, jvp
from admodes.transforms.reverse import jacrev

NEAR = 1e-3  # of the scale: by how much differences may change with the step where the function counts as smooth


@dataclass(frozen=True, repr=False)
class Finding(Brief):
    """One thing that was checked: ``error`` is the largest relative difference, ``problem`` what is wrong, if it is."""

    what: str
    error: float
    problem: str = ""


@dataclass(frozen=True, repr=False)
class Verification:
    """The findings of :func:`verify`. ``str()`` is a line for each check."""

    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        return not any(f.problem for f in self.findings)

    def __bool__(self) -> bool:
        return self.ok

    def __repr__(self) -> str:
        wrong = ", ".join(f.what for f in self.findings if f.problem)
        return clipped(f"Verification({plural(len(self.findings), 'check')}, {f'wrong: {wrong}' if wrong else 'ok'})")

    def __str__(self) -> str:
        width = max(len(f.what) for f in self.findings)
        lines = [f"{'ok ' if not f.problem else 'NO '} {f.what:<{width}}  {_note(f)}".rstrip() for f in self.findings]
        return "\n".join(lines)


def _note(f: Finding) -> str:
    return f.problem or (f"largest relative error {f.error:.1e}" if f.error else "")


def verify(
    fun: Callable[..., Any],
    *args: Any,
    argnums: int | Sequence[int] = 0,
    holomorphic: bool = False,
    rtol: float | None = None,
) -> Verification:
    r"""Check a function's Jacobian every way: modes, sparsity pattern, colorings and all candidates against JAX.

    Args:
      fun: a function of pytrees of arrays that returns a pytree of arrays.
      args: where; generic values find more than zeros do. Entries where JAX has NaN or infinity, in either of its
        modes, are not compared with it.
      argnums: which positional arguments to differentiate.
      holomorphic: whether ``fun`` is holomorphic.
      rtol: largest relative error (over the largest entry); by default 1e-10 for 64-bit results, 1e-4 for others.

    Returns:
      A :class:`Verification`: true if all agree; printed, it names what does not.

    Two that agree may both be wrong. So the derivative along one direction in general position is compared with
    central differences too, in entries where f is smooth (where differences to both sides agree); not if the function
    stops gradients, or has derivative rules of a user's, which need not be derivatives. Where JAX has no derivative,
    this and the agreement of the two modes is what is checked.

    >>> import admodes, jax.numpy as jnp
    >>> found = admodes.verify(lambda x: x[1:] * x[:-1], jnp.arange(1.0, 5.0))
    >>> found.ok
    True
    >>> [f.what for f in found.findings][:2]
    ['forward mode', 'reverse mode']
    """
    return Verification(tuple(_findings(fun, args, argnums, holomorphic, rtol)))


def _findings(fun, args, argnums, holomorphic, rtol) -> Iterator[Finding]:
    oracles = _oracles(fun, args, argnums, holomorphic)
    if not oracles:
        yield Finding("JAX has no derivative here: differences and the other mode are compared with", 0.0)
        oracles = [jacfwd(fun, argnums, holomorphic=holomorphic)(*args)]
    oracle, *others = oracles
    leaves = tree_leaves(oracle)
    wide = all(x.dtype.itemsize * (2 if x.dtype.kind == "f" else 1) >= 16 for x in leaves)
    tolerance = rtol if rtol is not None else 1e-10 if wide else 1e-4
    known = jax.tree_util.tree_map(lambda *xs: np.all([np.isfinite(x) for x in xs], axis=0), oracle, *others)
    expected = jax.tree_util.tree_map(_where, known, oracle)

    def compared(what: str, compute: Callable) -> Finding:
        try:
            relative = errors(jax.tree_util.tree_map(_where, known, compute()), expected)[1]
        except (AdmodesError, TypeError, ValueError) as error:
            return Finding(what, np.inf, f"{type(error).__name__}: {error}")
        good = relative <= tolerance
        return Finding(what, relative, "" if good else f"differs from JAX by {relative:.1e}, more than {tolerance:.0e}")

    if hidden := sum(int(x.size - x.sum()) for x in tree_leaves(known)):
        yield Finding(f"JAX has NaN or infinity in {hidden} entries, which are not compared", 0.0)
    yield compared("forward mode", lambda: jacfwd(fun, argnums, holomorphic=holomorphic)(*args))
    yield compared("reverse mode", lambda: jacrev(fun, argnums, holomorphic=holomorphic)(*args))
    call = request("verify", fun, argnums, False, holomorphic).call(args, {})
    task = call.task()
    stops = any(
        e.primitive is jc.stop_gradient_p or jc.mentions(e.params, (jc.stop_gradient_p,))
        for e in task.program.equations
    )
    if not (stops or has_rules_of_users(task.program) or holomorphic):
        yield from _differences(fun, args, argnums)
    yield _pattern(task, expected)
    for kind in ("column", "row", "bidirectional") if task.rows_allowed else ("column",):
        try:
            found = coloring(task.pattern, kind, budget=0.1)
            decompression(found)
            yield Finding(f"{kind} coloring, {found.number} colors", 0.0)
        except ColoringError as error:
            yield Finding(f"{kind} coloring", np.inf, str(error))
    for c in candidates(task, machine(), "dense", settings().options):

        def run(c=c):
            made = finished(task, c, "dense", call, value=False)
            return made.unpack(made.run(call.leaves))[1]

        yield compared(f"{c.name}: {c.method.detail}", run)


def _oracles(fun, args, argnums, holomorphic) -> list:
    """JAX's Jacobian by each of the modes that it has (a custom_vjp has no forward mode, a while loop no reverse)."""
    found = []
    for mode in (jax_ad.jacfwd, jax_ad.jacrev):
        with contextlib.suppress(TypeError, ValueError, NotImplementedError):
            found.append(mode(fun, argnums, holomorphic=holomorphic)(*args))
    return found


def _differences(fun, args, argnums) -> Iterator[Finding]:
    """The tangent along a direction against central differences, which know nothing of rules."""
    numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    chosen, moving = select_arguments(fun, numbers, args, {})
    direction = generic_direction(moving)
    tangents = tree_leaves(jvp(chosen, moving, direction)[1])
    coarse = max((float(np.finfo(np.asarray(x).dtype).eps) for x in tree_leaves(moving)), default=0.0)
    step = coarse ** (1 / 3) * max(1.0, *(float(np.max(np.abs(x), initial=0.0)) for x in tree_leaves(moving)))
    at = [
        tree_leaves(
            chosen(
                *jax.tree_util.tree_map(
                    lambda x, v, k=k: jnp.asarray(x + k * step * v, jnp.asarray(x).dtype), moving, direction
                )
            )
        )
        for k in (-2, -1, 0, 1, 2)
    ]
    worst, compared = 0.0, 0
    for tangent, *values in zip(tangents, *at, strict=True):
        low, left, here, right, high = (np.asarray(x) for x in values)
        central, wide = (right - left) / (2 * step), (high - low) / (4 * step)
        scale = max(float(np.max(np.abs(central), initial=0.0, where=np.isfinite(central))), coarse ** (1 / 3))
        sides = np.abs((right - 2 * here + left) / step)
        smooth = np.isfinite(central + wide) & (np.abs(central - wide) < NEAR * scale) & (sides < np.sqrt(NEAR) * scale)
        error = np.abs(np.asarray(tangent) - central)[smooth & np.isfinite(np.asarray(tangent))] / scale
        worst, compared = max(worst, float(error.max(initial=0.0))), compared + error.size
    problem = f"the derivative differs from that of the values by {worst:.1e}" if worst > 10 * NEAR else ""
    yield Finding(f"central differences along a direction, {compared} entries", worst, problem)


def _where(known, values):
    """The values that are compared, others as 0."""
    return np.where(known, values, 0)


def _pattern(task, oracle) -> Finding:
    """True if the pattern covers JAX's Jacobian."""
    rows = []
    flat = tree_leaves(oracle)
    for j, out in enumerate(task.out_avals):
        parts = flat[j * len(task.in_avals) : (j + 1) * len(task.in_avals)]
        sizes = [int(np.prod(a.shape, dtype=int)) for a in task.in_avals]
        blocks = [np.asarray(p).reshape(int(np.prod(out.shape)), n) for p, n in zip(parts, sizes, strict=True)]
        rows.append(np.concatenate(blocks, axis=1))
    dense = np.concatenate(rows) if rows else np.zeros((0, task.n))
    missed = missed_entries(task.pattern, dense)
    if len(missed):
        row, col = map(int, missed[0])
        return Finding("sparsity pattern", np.inf, f"misses entry ({row}, {col}), and {len(missed) - 1} more")
    m, n = task.pattern.shape
    return Finding(f"sparsity pattern, {task.pattern.nnz} of {m * n} entries", 0.0)
