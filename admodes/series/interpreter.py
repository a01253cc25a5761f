"""The interpreter that pushes Taylor numbers; the loop over equations and the traces are those of forward mode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from admodes.compilers.recompute import stored
from admodes.compilers.workarounds import STORED_SERIES
from admodes.modes.dual import DualTrace, push_duals
from admodes.modes.interpreter import Interpreter
from admodes.program import jax_compat as jc
from admodes.program.traits import traits
from admodes.rules.table import lookup
from admodes.series.expand import expand
from admodes.series.numbers import Series, fixed, forced

# Entries from which a series is stored, each coefficient by a kernel of its own. Measured for order 6: five times
# slower at 20,000 entries in a short formula, which is few kernels otherwise, twice as fast at 100,000 in a long one.
STORED_FROM = 2**16


@dataclass(frozen=True)
class Taylor(Interpreter):
    """Pushes series up to an ``order``.

    Within a slope there is a ``family``, the equations that have been met there, and series stay lazy. ``stores``: the
    coefficients of functions are computed once, whatever the compiler fuses (``compilers/workarounds.py``).
    """

    order: int = 1
    stores: bool = True
    family: Any = field(default=None, compare=False)

    dual: ClassVar[type] = Series

    def inside(self, family: dict) -> Taylor:
        """The interpreter for a slope."""
        return replace(self, family=family)

    def upto(self, order: int) -> Taylor:
        """The same for another order."""
        return replace(self, order=order)

    def push_equation(self, primitive, duals: Sequence[Series], params: dict) -> list:
        results = expand(self, primitive, duals, params)
        if self.family is not None:
            return results
        results = [forced(x, self.order) for x in results]
        if self.stores and self.order > 1 and jc.is_tracing() and _is_long(primitive) and STORED_SERIES.on:
            return list(map(_stored, results))
        return results

    def push_series(self, fun: Callable, operands: Sequence[Series]) -> list:
        """Run a flat function on series."""
        with jc.take_current_trace() as parent:
            trace = DualTrace(parent, self)
            with jc.ensure_no_leaks(trace):
                inputs = [trace.pack(x) for x in operands]  # type: ignore[arg-type]
                with jc.set_current_trace(trace):
                    results = trace.returned(fun(*inputs))
                    results = [None if x is None else trace.unpack(x) for x in results]
                del trace, inputs
        return results

    def push_jaxpr(self, closed, operands: Sequence[Series]) -> list:
        """A jaxpr on series."""
        if jc.has_references(closed):
            return self.push_series(jc.jaxpr_as_fun(closed), operands)
        return push_duals(self, closed, operands)


def _is_long(primitive) -> bool:
    """True for functions of an entry whose series takes a recurrence."""
    return lookup(primitive) is not None and traits(primitive).cost in ("elementwise", "transcendental", "series")


def _stored(x: Series) -> Series:
    """The same series, computed once."""
    known = [c for c in x.known if c is not None]
    if not known or np.size(x.primal) < STORED_FROM:
        return x
    primal, *rest = stored([x.primal, *known])
    at = iter(rest)
    return fixed(primal, [None if c is None else next(at) for c in x.known])
