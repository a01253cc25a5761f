"""Memory profiles: what the tape of a function keeps, value by value, and what the compiled gradient needs under each
policy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from jax.tree_util import tree_flatten, tree_leaves

from admodes.memory.checkpoint import checkpoint
from admodes.modes.flat import flat_function
from admodes.modes.interpreter import INTERPRETER, Interpreter
from admodes.modes.tape import Recorder
from admodes.program import jax_compat as jc
from admodes.program.agreement import temporary_bytes
from admodes.program.blocks import aval_bytes
from admodes.text_tables import Brief, clipped, count, plain, plural, table


@dataclass(frozen=True, repr=False)
class Residual(Brief):
    """A value that the tape keeps: its type, its size in bytes, and the equation that keeps it first."""

    aval: Any
    bytes: int
    primitive: str
    source: str

    @property
    def shape(self) -> tuple[int, ...]:
        return self.aval.shape

    @property
    def dtype(self) -> Any:
        return self.aval.dtype


@dataclass(frozen=True, eq=False, repr=False)
class MemoryProfile:
    """The residuals of a tape in the order of evaluation, each value once; arguments are not among them."""

    residuals: tuple[Residual, ...]
    fun: Callable[..., Any]
    args: tuple[Any, ...]

    @property
    def bytes(self) -> int:
        """The bytes that the tape keeps in all, beside the arguments."""
        return sum(r.bytes for r in self.residuals)

    def peaks(self, slots: tuple[int, ...] = (100, 10, 3)) -> dict[str, int]:
        """For each policy of :func:`admodes.checkpoint`, the bytes of temporaries of the compiled pullback."""
        policies = [("none", 1), ("every", 1), ("sqrt", 1), *(("revolve", s) for s in slots)]
        return {
            f"revolve, {s} slots" if policy == "revolve" else policy: _temporaries(
                checkpoint(self.fun, policy, slots=s), self.args
            )
            for policy, s in policies
        }

    def __repr__(self) -> str:
        largest = sorted(self.residuals, key=lambda r: -r.bytes)[:3]
        kept = ", ".join(f"{r.primitive} {count(r.bytes, 'B')}" for r in largest)
        return clipped(f"MemoryProfile({count(self.bytes, 'B')} in {plural(len(self.residuals), 'value')}: {kept} ...)")

    def __str__(self) -> str:
        largest = sorted(self.residuals, key=lambda r: -r.bytes)
        rows = [[r.primitive, r.source, r.aval.str_short(short_dtypes=True), count(r.bytes, "B")] for r in largest]
        title = f"the tape keeps {count(self.bytes, 'B')} in {len(rows)} values beside the arguments"
        return plain(table(title, ["kept by", "at", "type", "size"], rows, left=3))

    def plot(self, path: Any) -> None:
        """Draw what is kept along the program, and the peak under each policy, into a file."""
        from itertools import accumulate

        from matplotlib.figure import Figure

        figure = Figure(figsize=(10, 4), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.step(
            range(len(self.residuals) + 1), [0, *(x / 2**20 for x in accumulate(r.bytes for r in self.residuals))]
        )
        left.set(xlabel="values kept, in the order of evaluation", ylabel="MiB", title="what the tape keeps")
        peaks = self.peaks()
        right.barh(list(peaks), [x / 2**20 for x in peaks.values()])
        right.invert_yaxis()
        right.set(xlabel="MiB", title="temporaries of the compiled pullback")
        figure.savefig(path)


def memory_profile(fun: Callable[..., Any], *args: Any) -> MemoryProfile:
    r"""The values that reverse mode keeps of ``fun`` at arguments of these types: each residual's type, bytes and
    source line.

    Args:
      fun: a function of pytrees of arrays.
      args: its arguments; only their shapes and dtypes matter.

    Returns:
      A :class:`MemoryProfile`: printed, a table of the ``residuals``, the largest first; ``bytes`` is their sum,
      ``peaks()`` what the compiled pullback needs under each policy, and ``plot(path)`` draws both.

    Values that the compiler can do without (it fuses, and shares what is equal) are counted: it is what the tape holds.

    >>> import admodes, jax.numpy as jnp
    >>> profile = admodes.memory_profile(lambda x: jnp.sum(jnp.sin(jnp.tanh(x))), jnp.ones(1000, jnp.float32))
    >>> [(r.primitive, r.shape, r.bytes) for r in profile.residuals]
    [('tanh', (1000,), 4000), ('sin', (1000,), 4000)]
    """
    leaves, tree = tree_flatten(args)
    flat, _ = flat_function(fun, tree, has_aux=False)
    avals = [jc.typeof(jc.canonicalize(x)) if not isinstance(x, jax.ShapeDtypeStruct) else x for x in leaves]
    avals = [jc.Aval(a.shape, a.dtype) if isinstance(a, jax.ShapeDtypeStruct) else a for a in avals]
    keepers: list = []

    def record(*xs):
        recorder = _Listed(avals, keepers)
        slots = recorder.inputs([jc.is_differentiable(a) for a in avals])
        outs, slots = _Lister().continue_function(recorder, flat, xs, slots)
        tape = recorder.close(slots, map(jc.typeof, outs))
        return tree_leaves(tape)

    program = jc.trace_flat(record, avals, "profile")
    sources = jc.output_sources(program)
    kept = zip(keepers, program.out_avals, sources, strict=True)
    residuals = tuple(Residual(aval, aval_bytes(aval), *keeper) for keeper, aval, source in kept if source is None)
    return MemoryProfile(residuals, fun, args)


class _Listed(Recorder):
    """A recorder that writes down, for each residual of its tape, the primitive and the place of its equation."""

    def __init__(self, in_avals: Any, keepers: list):
        super().__init__(in_avals)
        self.keepers, self.primitive = keepers, ""

    def append(self, reads, jacobian, outs):
        keeper = self.primitive, jc.current_place()

        def listed():
            found = jacobian()
            self.keepers += [keeper] * len(tree_leaves(found))
            return found

        return super().append(reads, listed, outs)


@dataclass(frozen=True)
class _Lister(Interpreter):
    """Tells the recorder which primitive it is about."""

    def record_equation(self, recorder, primitive, values, params, outs=None):
        if isinstance(recorder, _Listed):
            recorder.primitive = primitive.name
        return super().record_equation(recorder, primitive, values, params, outs)


def _temporaries(fun: Callable, args: tuple) -> int:
    leaves, tree = tree_flatten(args)
    flat, _ = flat_function(fun, tree, has_aux=False)

    def pullback(*xs):
        outs, tape = INTERPRETER.record_function(flat, xs, [jc.is_differentiable(jc.typeof(x)) for x in xs])
        return outs, tape.pull(tuple(jc.one(x) if jc.is_differentiable(jc.typeof(x)) else None for x in outs))

    return temporary_bytes(jax.jit(pullback).lower(*leaves))
