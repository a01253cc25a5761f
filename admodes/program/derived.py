"""Programs derived from a sub-program: its forward sweep, its recording, and walks along the tape.

Each is traced once per sub-program and choice of active inputs and cached with it, so that an eager
loop over a jitted function or a scan compiles its derivative once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax

from admodes.program import jax_compat as jc


def merge(active: Sequence[bool], values) -> tuple:
    """Spread ``values`` over the places that are active; None elsewhere."""
    it = iter(values)
    return tuple(next(it) if on else None for on in active)


def keep(active: Sequence[bool], values) -> list:
    """The values at the active places."""
    return [v for on, v in zip(active, values, strict=True) if on]


def present(values) -> tuple[bool, ...]:
    return tuple(v is not None for v in values)


def instantiate(values, avals, wanted: Sequence[bool]) -> list:
    """Replace None by zeros where a value is wanted, and drop values where none is."""
    return [(jc.zeros(a) if v is None else v) if w else None for v, a, w in zip(values, avals, wanted, strict=True)]


def tangent_avals(active, avals) -> list:
    return [jc.tangent_aval(a) for a in keep(active, avals)]


def fixed_point(active: tuple, step) -> tuple:
    """The least set of active carries of a loop that holds ``active`` and that ``step`` does not enlarge.

    A carry is active as soon as an active value reaches it in some iteration.
    """
    while True:
        grown = tuple(a or b for a, b in zip(active, step(active), strict=True))
        if grown == active:
            return active
        active = grown


@jc.weak_cache
def pushed(closed, interpreter, active: tuple, wanted: tuple | None = None):
    """(primals, active tangents) -> (outputs, their tangents), and which outputs have a tangent.

    ``wanted`` prescribes those; by default they are the ones that the forward sweep finds.
    """
    n = len(closed.in_avals)
    found: list = []

    def sweep(*args):
        outs, ts = interpreter.push_program(closed, args[:n], merge(active, args[n:]))
        if wanted is not None:
            ts = instantiate(ts, closed.out_avals, wanted)
        found[:] = present(ts)
        return [*outs, *keep(found, ts)]

    program = jc.trace_flat(sweep, [*closed.in_avals, *tangent_avals(active, closed.in_avals)], "push")
    return program, tuple(found)


@dataclass(frozen=True, eq=False)
class Recording:
    """A sub-program that returns its outputs and then the residuals of its tape, each distinct one once.

    ``sources`` says where each residual is found: ("input", i), ("output", j), ("literal", k) or ("residual", k).
    ``literals`` are the constants; ``active`` says which outputs have a derivative.
    """

    program: Any
    n_outputs: int
    sources: tuple
    literals: tuple
    active: tuple
    tree: Any

    @property
    def residual_avals(self) -> list:
        return self.program.out_avals[self.n_outputs :]

    def tape(self, inputs, outputs, residuals):
        """The tape, from the values at hand after the program has run."""
        values = {"input": inputs, "output": outputs, "literal": self.literals, "residual": residuals}
        return jax.tree_util.tree_unflatten(self.tree, [values[kind][k] for kind, k in self.sources])


@jc.weak_cache
def recorded(closed, interpreter, active: tuple, linear: bool = False) -> Recording:
    """The recording of a jaxpr with respect to its active inputs; in these it must be ``linear`` if so said."""
    found: list = []

    def sweep(*args):
        outs, tape = interpreter.record_program(closed, args, active, linear=linear)
        residuals, tree = jax.tree_util.tree_flatten(tape)
        references = [jc.origin_of_reference(x, args) for x in residuals]
        found[:] = [len(outs), present(tape.outputs), tree, references]
        # a program cannot return references (those are found elsewhere): zeros are in their places
        return [*outs, *(x if known is None else 0 for x, known in zip(residuals, references, strict=True))]

    full = jc.trace_flat(sweep, closed.in_avals, "record")
    n, out_active, tree, references = found
    returned = jc.output_sources(full)
    origins = [*returned[:n], *(known or origin for known, origin in zip(references, returned[n:], strict=True))]
    kept, sources = list(range(n)), []
    literals: list = []
    place: dict = {j: ("output", j) for j in range(n)}
    for j, origin in enumerate(origins[n:], start=n):
        if origin is None:
            place[j] = ("residual", len(kept) - n)
            kept.append(j)
        elif origin[0] == "literal":
            place[j] = ("literal", len(literals))
            literals.append(origin[1])
        else:
            place[j] = origin if origin[0] == "input" else place[origin[1]]
        sources.append(place[j])
    return Recording(jc.select_outputs(full, kept), n, tuple(sources), tuple(literals), out_active, tree)
