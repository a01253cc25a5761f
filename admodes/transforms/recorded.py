"""Tapes of user functions, and what becomes of entries that are not finite in maps along them.

A map of ``vjp`` or ``linearize`` is applied later, and only then it is known where zeros meet infinite slopes. So with
``nan_safe`` it keeps the point and the function, to be recorded beside the point when that is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from jax.tree_util import tree_flatten, tree_leaves, tree_unflatten

from admodes.modes import checks
from admodes.modes.flags import flags_of_leaves
from admodes.modes.flat import Result, flat_function
from admodes.modes.interpreter import INTERPRETER, Interpreter, interpreter_for
from admodes.modes.tape import Tape
from admodes.nonsmooth.approach import directions_for
from admodes.nonsmooth.limits import settled
from admodes.program import jax_compat as jc


def record(
    fun: Callable[..., Any],
    primals: Sequence[Any],
    has_aux: bool,
    interpreter: Interpreter = INTERPRETER,
    in_nzs: Any = None,
) -> tuple[list[Any], Tape, Any, Result]:
    """Record ``fun`` at ``primals``: (flat outputs, tape to the outputs that are not auxiliary, in_tree, result).

    ``in_nzs`` are flags, by default True: which arguments have a derivative, if they are differentiable.
    """
    flat, in_tree = tree_flatten(primals)
    flat = list(map(jc.canonicalize, flat))
    for x in flat:
        jc.check_arg(x)
        checks.not_a_reference(x)
    wanted = flags_of_leaves(True if in_nzs is None else in_nzs, in_tree, "in_nzs")
    active = [on and jc.is_differentiable(jc.typeof(x)) for x, on in zip(flat, wanted, strict=True)]
    flat_fun, result = flat_function(fun, in_tree, has_aux)
    outs, tape = interpreter.record_function(flat_fun, flat, active, lambda: result.tree.num_leaves)
    return outs, tape, in_tree, result


@dataclass(frozen=True)
class Settled:
    """Replaces entries that are not finite in the results of a tape of ``fun`` (``nonsmooth/limits.py``).

    With ``one_sided`` the limits are those along the generic direction in which kinks have been decided.
    """

    fun: Callable[..., Any]
    has_aux: bool
    ties: str
    in_tree: Any
    active: tuple[bool, ...]
    one_sided: bool

    @staticmethod
    def of(
        fun: Callable[..., Any],
        has_aux: bool,
        ties: str,
        in_tree: Any,
        tape: Tape,
        in_nzs: Any,
        one_sided: bool = False,
    ) -> Settled:
        wanted = flags_of_leaves(True if in_nzs is None else in_nzs, in_tree, "in_nzs")
        active = tuple(on and jc.is_differentiable(a) for on, a in zip(wanted, tape.domain, strict=True))
        return Settled(fun, has_aux, ties, in_tree, active, one_sided)

    def __call__(self, point: Sequence[Any], sweep: Callable[[Tape], Sequence[Any]], found: Sequence[Any]) -> list[Any]:
        """The results ``found`` of a ``sweep`` along the tape at ``point`` (leaves); None stays None."""
        places = [k for k, x in enumerate(found) if x is not None and jc.is_differentiable(jc.typeof(x))]

        def strong_at(*moving):
            moved = iter(moving)
            xs = [next(moved) if on else x for on, x in zip(self.active, point, strict=True)]
            args = tree_unflatten(self.in_tree, xs)
            results = sweep(record(self.fun, args, self.has_aux, interpreter_for(True, self.ties), self._flags)[1])
            return [jc.zeros(jc.typeof(found[k])) if results[k] is None else results[k] for k in places]

        moving = tuple(self._moving(point))
        direction = None
        if self.one_sided:
            direction = tuple(self._moving(tree_leaves(directions_for(tree_unflatten(self.in_tree, point))[0])))
        new = dict(zip(places, settled([found[k] for k in places], strong_at, moving, direction), strict=True))
        return [new.get(k, x) for k, x in enumerate(found)]

    @property
    def _flags(self) -> Any:
        return tree_unflatten(self.in_tree, self.active)

    def _moving(self, leaves: Sequence[Any]) -> list[Any]:
        return [x for on, x in zip(self.active, leaves, strict=True) if on]
