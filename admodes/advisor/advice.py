"""Advice: each place of a program with its cost, ours on the same arguments, and the line to write."""

from __future__ import annotations

import inspect
import linecache
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from textwrap import fill
from typing import Any

import jax
import numpy as np
from jax.tree_util import tree_flatten, tree_leaves, tree_map, tree_unflatten

from admodes.advisor.watch import AT_ONCE, Place, Watch
from admodes.compare.check import errors
from admodes.compare.measure import measure, paired_ratio
from admodes.diagnosis import doctor
from admodes.diagnosis.report import shown_place
from admodes.planner.calls.plan import plan
from admodes.program import jax_compat as jc
from admodes.stand_in import JAX, in_place, ours
from admodes.text_tables import WIDTH, Brief, clipped, count, error, plural, ratio, seconds

JACOBIANS = ("jacfwd", "jacrev", "jacobian")
FASTER = 1.2  # a ratio of run times that is worth a change: medians of ten samples of 0.1 ms differ by up to that
ARRAYS = (jax.Array, np.ndarray, np.generic, float, complex)  # what jit takes as an input; the rest stays as it is
SAMPLES = 5  # of run time, each the best of a few bursts: more do not change a verdict about factors of 1.2


@dataclass(frozen=True, repr=False)
class Row(Brief):
    """A derivative at a place of somebody's code.

    Attributes:
      place: file and line.
      derivative: what is written there: ``jax.jacfwd(residuals)``.
      calls: how often it was called; ``traced`` of these only once, under ``jit`` or another transformation.
      shapes: the types of its arguments.
      seconds, our_seconds: run time under jit of JAX's derivative and of ours, medians of samples side by side; NaN
        where they could not be measured.
      temp_bytes, our_temp_bytes: peak memory of intermediate values.
      times_faster: their run time over ours, the median of the ratios of samples.
      difference: the largest difference of the two, relative to the largest entry.
      way: how ours is computed, where the planner decides.
      verdict: one or two sentences.
      write: the line to write instead; empty if it is to be left.
    """

    place: str
    derivative: str
    calls: int
    traced: int
    shapes: str
    seconds: float
    our_seconds: float
    temp_bytes: int
    our_temp_bytes: int
    times_faster: float
    difference: float
    way: str
    verdict: str
    write: str


@dataclass(repr=False)
class Advice(Brief):
    """A row for each derivative that was taken, the most expensive first; ``str()`` is a report."""

    rows: tuple[Row, ...] = ()
    watch: Watch = field(default_factory=Watch)

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain data."""
        return {"rows": [asdict(row) for row in self.rows]}

    def __str__(self) -> str:
        return self.report()

    def report(self, width: int = WIDTH) -> str:
        """The rows as text, in lines of at most ``width`` characters."""
        if not self.rows:
            return "no derivative was taken with JAX"
        return "\n\n".join(_paragraph(row, width) for row in self.rows)


def _paragraph(row: Row, width: int) -> str:
    often = plural(row.calls, "call") + (f", {row.traced} of them traced" if row.traced else "")
    lines = [f"{row.place}  {row.derivative}  ({often})"]
    source = linecache.getline(*_file_and_line(row.place)).strip()
    lines += [f"  {clipped(source, width - 2)}"] if source else []
    lines.append(clipped(f"  on {row.shapes}", width))
    if not math.isnan(row.seconds):
        by = f" by {row.way}" if row.way else ""
        memory = f"memory {count(row.temp_bytes, 'B')} and {count(row.our_temp_bytes, 'B')}"
        took = f"JAX {seconds(row.seconds)}, admodes {seconds(row.our_seconds)}{by}; {memory}; they differ by "
        lines.append(fill(took + error(row.difference), width, initial_indent="  ", subsequent_indent="  "))
    lines.append(fill(row.verdict, width, initial_indent="  -> ", subsequent_indent="     "))
    lines += [f"     write: {row.write}"] if row.write else []
    return "\n".join(lines)


def _file_and_line(place: str) -> tuple[str, int]:
    file, _, line = place.rpartition(":")
    return file, int(line)


@contextmanager
def advise(*, progress: Callable[[str], None] | None = None) -> Iterator[Advice]:
    """Watch the derivatives that a block takes with JAX; at its end, say what each costs and what would be faster.

    Inside of the block ``jax.grad``, ``value_and_grad``, ``jvp``, ``vjp``, ``linearize``, ``jacfwd``, ``jacrev``,
    ``jacobian`` and ``hessian`` do what they always do, also where libraries look them up or modules imported them
    before (the reach is that of :func:`admodes.as_jax`), and each call is noted with its place and arguments. At the
    end each derivative is run again under ``jit`` on the same arguments, by JAX and by admodes, side by side. The
    values of arguments that were traced are not known: normal random numbers, zeros for integers, stand for them.

    Args:
      progress: called with a line of text before each measurement.

    Yields:
      An :class:`~admodes.advisor.advice.Advice`; its ``rows`` are there after the block.

    >>> import admodes, jax, jax.numpy as jnp
    >>> with admodes.advise() as advice:
    ...     slope = jax.grad(lambda x: jnp.sum(x**2))(jnp.ones(3))
    >>> [(row.derivative, row.calls) for row in advice.rows]
    [('jax.grad(<lambda>)', 1)]
    """
    advice = Advice()
    try:
        with in_place(advice.watch.functions(JAX)):
            yield advice
    finally:
        rows = []
        for place in advice.watch.places.values():
            if progress:
                progress(f"measuring {_written(place)} of {Path(place.file).name}:{place.line} ...")
            rows.append(_row(place))
        advice.rows = tuple(sorted(rows, key=lambda row: -(0 if math.isnan(row.seconds) else row.seconds)))


def _written(place: Place) -> str:
    return f"jax.{place.name}({_name(place)})"


def _row(place: Place) -> Row:
    figures: dict[str, Any] = dict.fromkeys(("seconds", "our_seconds", "times_faster", "difference"), math.nan)
    figures |= {"temp_bytes": 0, "our_temp_bytes": 0, "way": "", "write": ""}
    leaves, tree = tree_flatten((place.args, place.keywords))
    rng = np.random.default_rng(0)
    leaves = [_filled(leaf, rng) for leaf in leaves]
    arrays = [
        k for k, leaf in enumerate(leaves) if isinstance(leaf, (jax.Array, np.ndarray, np.generic, float, complex))
    ]

    def of_arrays(run: Callable) -> Callable:
        def program(*values):
            full = list(leaves)
            for k, value in zip(arrays, values, strict=True):
                full[k] = value
            return run(*tree_unflatten(tree, full))

        return program

    args, keywords = tree_unflatten(tree, leaves)
    try:
        programs = {"jax": of_arrays(place.program(JAX)), "admodes": of_arrays(place.program(ours()))}
        found = measure(programs, [leaves[k] for k in arrays], rounds=SAMPLES, builds=1)
    except Exception as failure:  # somebody's function may raise anything when it is run once more
        figures |= _failed(place, failure)
    else:
        theirs, own = found["jax"], found["admodes"]
        figures |= {
            "seconds": theirs.seconds("run"),
            "our_seconds": own.seconds("run"),
            "temp_bytes": theirs.temp_bytes,
            "our_temp_bytes": own.temp_bytes,
            "times_faster": paired_ratio(theirs.run, own.run),
            "difference": _difference(own.value, theirs.value),
            "way": _way(place, args, keywords),
        }
        figures |= _verdict(place, figures, theirs.value, args, keywords)
    return Row(
        place=f"{place.file}:{place.line}",
        derivative=_written(place),
        calls=place.calls,
        traced=place.traced,
        shapes=", ".join(map(_type_text, tree_leaves((place.args, place.keywords)))),
        **figures,
    )


def _failed(place: Place, failure: Exception) -> dict[str, str]:
    """``verdict`` and ``write`` of what cannot be run once more."""
    if "RESOURCE_EXHAUSTED" not in str(failure) and not isinstance(failure, MemoryError):
        around = " (it may use values that were traced around it)" if place.traced else ""
        return {"verdict": f"It could not be measured alone{around}: {clipped(_in_one_line(failure), 200)}"}
    limit = {"write": f"admodes.{place.name}({_name(place)}, memory_limit='1GiB')"}
    return {"verdict": "It does not fit into memory; part of it can be computed twice."} | (
        limit if "memory_limit" in inspect.signature(ours()[place.name]).parameters else {}
    )


def _name(place: Place) -> str:
    return getattr(place.fun, "__name__", type(place.fun).__name__)


def _difference(own: Any, theirs: Any) -> float:
    numbers = [tree_map(lambda x: x if jc.is_differentiable(jc.typeof(x)) else 0.0, value) for value in (own, theirs)]
    return errors(*numbers)[1]


def _filled(leaf: Any, rng: np.random.Generator) -> Any:
    if not isinstance(leaf, jax.ShapeDtypeStruct):
        return leaf
    if jax.dtypes.issubdtype(leaf.dtype, np.inexact):
        return jax.numpy.asarray(rng.standard_normal(leaf.shape), leaf.dtype)
    return jax.numpy.zeros(leaf.shape, leaf.dtype)


def _type_text(leaf: Any) -> str:
    if not hasattr(leaf, "shape"):
        return type(leaf).__name__
    return f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"


def _in_one_line(failure: Exception) -> str:
    return f"{type(failure).__name__}: {failure}".splitlines()[0]


def _way(place: Place, args: Sequence, keywords: dict) -> str:
    """The planner's way, for Jacobians."""
    if place.name not in JACOBIANS or keywords:
        return ""
    argnums = place.named.get("argnums", place.options[0] if place.options else 0)
    best = plan(place.fun, *args, argnums=argnums, has_aux=place.named.get("has_aux", False)).best
    return f"{best.name} ({best.method.detail})"


def _verdict(place: Place, figures: dict, value: Any, args: tuple, keywords: dict) -> dict[str, str]:
    """``verdict`` and ``write``: the worst that was found, else the faster way."""
    name = _name(place)
    ours_name = "jacobian" if place.name in JACOBIANS else place.name
    if not all(np.all(np.isfinite(x)) for x in tree_leaves(value) if jc.is_differentiable(jc.typeof(x))):
        return {"verdict": _not_finite(place, args, keywords)}
    if not figures["difference"] <= _half_of_the_digits(value):
        return {"verdict": f"JAX and admodes differ: admodes.verify({name}, ...) says which of them is wrong."}
    if figures["times_faster"] >= FASTER:
        options = "".join(f", {key}={given!r}" for key, given in place.named.items() if place.name not in AT_ONCE)
        options = "".join(f", {given!r}" for given in place.options) + options
        verdict = f"{ratio(figures['times_faster'])} times as fast with admodes."
        return {"verdict": verdict, "write": f"admodes.{ours_name}({name}{options})"}
    return {"verdict": "Leave it as it is: no other way is faster."}


def _half_of_the_digits(value: Any) -> float:
    dtypes = [jc.typeof(x).dtype for x in tree_leaves(value) if jc.is_differentiable(jc.typeof(x))]
    return max((float(jax.numpy.finfo(dtype).eps) ** 0.5 for dtype in dtypes), default=0.0)


def _not_finite(place: Place, args: tuple, keywords: dict) -> str:
    """The doctor's finding: where a NaN or an infinity is born, and the cure."""
    points = args[0] if place.name == "jvp" else args
    has_aux = place.named.get("has_aux", False)

    def value(*args):
        found = place.fun(*args, **keywords)
        return found[0] if has_aux else found

    report = doctor(value, *points)
    born = report.value or report.reverse or report.forward
    if born is None:
        return "The derivative is not finite; admodes.doctor says more."
    return f"Not finite: {born.primitive} at {shown_place(born.source)}, {born.code}: {born.cure}"
