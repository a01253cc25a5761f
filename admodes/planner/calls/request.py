"""Between calls of a user's function and tasks: what is differentiated, what is an array, what is fixed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import numpy as np
from jax.tree_util import tree_flatten, tree_structure, tree_unflatten

from admodes.modes import checks
from admodes.modes.flat import Result, flat_function
from admodes.planner.task import Task, task_of
from admodes.program import jax_compat as jc
from admodes.program.fingerprint import has_rules_of_users
from admodes.program.ir import from_jaxpr
from admodes.program.trace import closed_jaxpr


@dataclass(frozen=True)
class Request:
    """A function and which Jacobian of it is wanted.

    ``gradient_of``: the function that it is the gradient of, if it is one; ``allow_int``: integers may be
    differentiated, to zeros.
    """

    name: str
    fun: Callable
    argnums: int | tuple[int, ...] = 0
    has_aux: bool = False
    holomorphic: bool = False
    gradient_of: Callable | None = None
    allow_int: bool = False

    def call(self, args: Sequence, kwargs: dict) -> Call:
        """The function at these arguments. Numbers, strings and so on that are not differentiated are fixed."""
        checks.positional(self.argnums, args)
        numbers = [self.argnums] if isinstance(self.argnums, int) else list(self.argnums)
        chosen = [k % len(args) for k in numbers]
        if len(set(chosen)) < len(chosen):
            raise ValueError(f"argnums names an argument twice: {self.argnums}")
        others = [k for k in range(len(args)) if k not in chosen]
        example = args[chosen[0]] if isinstance(self.argnums, int) else tuple(args[k] for k in chosen)
        leaves, tree = tree_flatten((tuple(args[k] for k in chosen), tuple(args[k] for k in others), kwargs))
        in_tree: Any = tree_structure(example)
        n_active = in_tree.num_leaves
        for leaf in leaves[:n_active]:
            checks.differentiable_argument(self.name, leaf, args)
            if self.allow_int:
                checks.reverse_input(self.name, self.holomorphic, True, leaf)
            else:
                checks.forward_input(self.name, self.holomorphic, leaf)
        arrays = tuple(k < n_active or isinstance(leaf, checks.ARRAYS) for k, leaf in enumerate(leaves))
        fixed = tuple(None if array else leaf for leaf, array in zip(leaves, arrays, strict=True))
        dynamic = [jc.canonicalize(leaf) for leaf, array in zip(leaves, arrays, strict=True) if array]

        def called(function: Callable, dynamic):
            given = iter(dynamic)
            full = [next(given) if array else value for array, value in zip(arrays, fixed, strict=True)]
            selected, rest, keywords = tree_unflatten(tree, full)
            placed = dict(zip([*chosen, *others], [*selected, *rest], strict=True))
            return function(*(placed[k] for k in range(len(args))), **keywords)

        fun = lambda *dynamic: called(self.fun, dynamic)
        of = self.gradient_of
        primal = None if of is None else lambda *dynamic: called(of, dynamic)
        flat, result = flat_function(fun, tree_structure((0,) * len(dynamic)), self.has_aux)
        types = tuple((a.shape, a.dtype, a.weak_type) for a in map(jc.typeof, dynamic))
        active = tuple(k < n_active and jc.is_differentiable(jc.typeof(x)) for k, x in enumerate(dynamic))
        key = (tree, arrays, tuple((type(value), value) for value in fixed), types, self._context(dynamic))
        return Call(self, dynamic, active, flat, result, in_tree, key, primal)

    @staticmethod
    def _context(dynamic: Sequence) -> tuple:
        """The other things that a trace depends on: settings of JAX, and the meshes of types."""
        meshes = jax.sharding.get_abstract_mesh(), *(jc.mesh_of(jc.typeof(x)) for x in dynamic)
        return jc.trace_context(), *meshes


@dataclass(frozen=True, eq=False)
class Call:
    """One call: ``leaves`` are the arrays, ``key`` is equal for calls that one compiled program serves."""

    request: Request
    leaves: list
    active: tuple[bool, ...]
    flat: Callable
    result: Result
    in_tree: Any
    key: tuple
    primal: Callable | None = None  # what the function is the gradient of

    @cached_property
    def domain(self) -> list:
        """The types of what is differentiated, integers included."""
        return [jc.typeof(x) for x in self.leaves[: self.in_tree.num_leaves]]

    def without_leaves(self) -> Call:
        """The same kind of call, which keeps no arrays alive."""
        kind = replace(self, leaves=[])
        kind.__dict__["domain"] = self.domain
        return kind

    @property
    def hashable(self) -> bool:
        try:
            hash(self.key)
        except TypeError:
            return False
        return True

    def task(self) -> Task:
        """Trace the function.

        Raises:
          TypeError: an output that has no Jacobian (an integer, say).
          PlanningError: it cannot be traced.
        """
        task = task_of(self._arrays, self.leaves, self.active, self._rows)
        if self._is_symmetric(task):
            task = replace(task, symmetric=True)
        for aval in task.out_avals:
            if not jc.is_differentiable(aval):
                raise TypeError(
                    f"{self.request.name} requires real- or complex-valued outputs, but one has dtype {aval.dtype}. "
                    "Return it beside the others as auxiliary data, with has_aux=True."
                )
            if self.request.holomorphic and not jax.dtypes.issubdtype(aval.dtype, np.complexfloating):
                raise TypeError(
                    f"{self.request.name} with holomorphic=True requires outputs with complex dtype, but got "
                    f"{aval.dtype.name}."
                )
        return task

    def _is_symmetric(self, task: Task) -> bool:
        """True if this is the Jacobian of a gradient: rules of users' in the function need not be derivatives."""
        square = [a.shape for a in task.out_avals] == [a.shape for a in task.in_avals]
        if self.primal is None or not square or has_rules_of_users(task.program):
            return False
        return not has_rules_of_users(from_jaxpr(closed_jaxpr(self.primal, *self.leaves)))

    def _arrays(self, *leaves) -> list:
        """The flat results: arrays, auxiliary data too."""
        outs = self.flat(*leaves)
        for x in outs[self._rows() :]:
            checks.traced_output(x)
        return outs

    def _rows(self) -> int:
        return self.result.tree.num_leaves

    def outputs(self, flat: Sequence):
        """(outputs, auxiliary data) from the flat results."""
        n = self.result.tree.num_leaves
        aux = self.result.aux(flat[n:]) if self.request.has_aux else None
        return tree_unflatten(self.result.tree, flat[:n]), aux


def request(name, fun, argnums, has_aux, holomorphic, gradient_of=None, allow_int=False) -> Request:
    jc.check_callable(fun)
    return Request(name, fun, checks.ensure_index(argnums), has_aux, holomorphic, gradient_of, allow_int)
