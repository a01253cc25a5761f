"""Tasks, which plans are for: a traced function, the inputs that are differentiated, and what follows from these
alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import numpy as np

from admodes.errors import AdmodesError
from admodes.linear.pattern import SparsityPattern
from admodes.modes.interpreter import INTERPRETER
from admodes.planner.sweeps.batched_sweep import batched
from admodes.program import jax_compat as jc
from admodes.program.derived import instantiate, keep, merge, pushed
from admodes.program.fingerprint import content, digest, has_rules, hashed, hidden
from admodes.program.folding import is_known
from admodes.program.ir import Program, from_jaxpr
from admodes.program.trace import closed_jaxpr
from admodes.sparse.detect import pattern_of_program


@dataclass(frozen=True, eq=False)
class Task:
    """The Jacobian ∂(outputs)/∂(active inputs) of a jaxpr, as a matrix: m rows, n columns, leaf by leaf.

    ``differentiated`` says which outputs have rows (the others are values that a later part needs); ``symmetric``
    that the matrix is known to be (a Hessian); ``outputs_unread`` that nobody asks for the values of the function;
    ``has_given_pattern`` that sparse results have the entries of ``pattern``, whatever is known of them; ``is_lower``
    that they have those on and below the diagonal alone.
    """

    closed: Any
    active: tuple[bool, ...]
    differentiated: tuple[bool, ...]
    symmetric: bool = False
    outputs_unread: bool = False
    has_given_pattern: bool = False
    is_lower: bool = False

    @cached_property
    def program(self) -> Program:
        return from_jaxpr(self.closed)

    @cached_property
    def in_avals(self) -> list:
        """The types of the active inputs."""
        return keep(self.active, self.closed.in_avals)

    @cached_property
    def out_avals(self) -> list:
        """The types of the outputs that have rows."""
        return keep(self.differentiated, self.closed.out_avals)

    @cached_property
    def n(self) -> int:
        return sum(math.prod(a.shape) for a in self.in_avals)

    @cached_property
    def m(self) -> int:
        return sum(math.prod(a.shape) for a in self.out_avals)

    @cached_property
    def dtype(self) -> np.dtype:
        """The type of the entries."""
        return jax.dtypes.result_type(*(a.dtype for a in self.out_avals)) if self.out_avals else np.dtype(np.float32)

    @property
    def in_dtype(self) -> np.dtype:
        return jax.dtypes.result_type(*(a.dtype for a in self.in_avals)) if self.in_avals else np.dtype(np.float32)

    @property
    def rows_allowed(self) -> bool:
        """True if pulled rows are the Jacobian's: not for complex outputs of real inputs, where they lose a part."""
        return not jax.dtypes.issubdtype(self.dtype, np.complexfloating) or all(
            jax.dtypes.issubdtype(a.dtype, np.complexfloating) for a in self.in_avals
        )

    @property
    def is_real(self) -> bool:
        """True if no input or output is complex."""
        types = (*self.closed.in_avals, *self.closed.out_avals)
        return not any(jax.dtypes.issubdtype(a.dtype, np.complexfloating) for a in types)

    @property
    def is_laid_out(self) -> bool:
        """True if types say how values are spread over devices; index lists know nothing of that."""
        return any(isinstance(a, jc.Aval) and jc.is_laid_out(a) for a in self.program.avals)

    @property
    def is_varying(self) -> bool:
        """True if the program runs on one device of several, where collectives make the modes differ, as JAX's do."""
        return any(isinstance(a, jc.Aval) and jc.is_varying(a) for a in self.program.avals)

    @property
    def has_unknown_constants(self) -> bool:
        """True if it closes over values of an outer transformation."""
        return any(not is_known(value) for _, value in self.program.constants)

    @cached_property
    def pattern(self) -> SparsityPattern:
        whole = pattern_of_program(self.program, self.active)
        if all(self.differentiated):
            return whole
        sizes = [math.prod(a.shape) for a in self.closed.out_avals]
        return whole.take_rows(np.repeat(self.differentiated, sizes))

    @property
    def known_pattern(self) -> SparsityPattern | None:
        """The pattern if it has been detected, or given."""
        return self.__dict__.get("pattern")

    def with_pattern(self, pattern: SparsityPattern) -> Task:
        """The same task with a pattern that covers the one that would be detected."""
        copy = replace(self, has_given_pattern=True)
        given = content(pattern.rows), content(pattern.cols)
        copy.__dict__.update(pattern=pattern, fingerprint=hashed(self.fingerprint, *given))
        return copy

    def without_outputs(self) -> Task:
        """The same task where nobody asks for the values of the function."""
        copy = replace(self, outputs_unread=True)
        copy.__dict__.update(self.__dict__ | {"outputs_unread": True})
        return copy

    def lower_triangle(self) -> Task:
        """The same task with sparse results that are the lower triangle."""
        copy = replace(self, is_lower=True)
        copy.__dict__.update(self.__dict__ | {"is_lower": True})
        copy.__dict__.pop("key", None)
        return copy

    # -- the two sweeps, as programs ---------------------------------------------------------------------

    @cached_property
    def pushing(self) -> Any:
        """(inputs, active tangents) -> (outputs, tangents of the rows): forward mode as a jaxpr."""
        return pushed(self.closed, INTERPRETER, self.active, self.differentiated)[0]

    @cached_property
    def pulling(self) -> Any:
        """(inputs, cotangents of the rows) -> (outputs, active cotangents): reverse mode as a jaxpr."""
        k = len(self.active)

        def sweep(*flat):
            outs, tape = INTERPRETER.record_program(self.closed, flat[:k], self.active)
            cts = tape.pull(merge(self.differentiated, flat[k:]))
            return [*outs, *keep(self.active, instantiate(cts, self.closed.in_avals, self.active))]

        cotangents = [jc.tangent_aval(a) for a in self.out_avals]
        return jc.trace_flat(sweep, [*self.closed.in_avals, *cotangents], "pull")

    def sweep(
        self, program: Program, args: Sequence, seeds: Sequence, columns: bool = False, as_written: bool = False
    ) -> tuple[list, list]:
        """(outputs, results of one of the two sweeps), the results with a leading axis over seeds, as ``seeds`` have.

        ``columns``: the results will be transposed; ``as_written``: the program is left as it is.
        """
        return batched(program, args, seeds, len(self.closed.out_avals), columns, self.outputs_unread, as_written)

    # -- identity ------------------------------------------------------------------------------------------

    @cached_property
    def fingerprint(self) -> str:
        """Equal for tasks that one plan serves: the same equations on the same types, with the same known constants.

        Rules of the user's are told apart by the equations of the forward sweep (of the other one, if they refuse it).
        """
        sweeps = [from_jaxpr(self._differentiated_once())] if has_rules(self.program) else []
        return hashed(digest(self.program, *sweeps), self.active, self.differentiated, self.symmetric)

    def _differentiated_once(self) -> Any:
        """The forward sweep, or the reverse one where a rule in the function refuses that."""
        try:
            return self.pushing
        except REFUSALS as refusal:
            try:
                return self.pulling
            except REFUSALS:
                raise refusal from None

    @cached_property
    def key(self) -> tuple:
        """As the fingerprint, with what has no text: the Python functions behind rules and callbacks."""
        return self.fingerprint, hidden(self.program), self.is_lower


# what a derivative rule may raise where it is for the other mode only, or for none
REFUSALS = (TypeError, ValueError, NotImplementedError, RuntimeError, AdmodesError)


def task_of(fun: Callable, leaves: Sequence, active: Sequence[bool], rows: Callable[[], int]) -> Task:
    """The task of a function of flat arrays that returns a flat list, of which the first ``rows()`` are rows.

    Raises:
      PlanningError: the function decides on the values of its arguments in Python, so that it is no one program.
    """
    closed = closed_jaxpr(fun, *leaves)
    n_rows = rows()
    return Task(closed, tuple(active), tuple(j < n_rows for j in range(len(closed.out_avals))))
