"""``compare``: the Jacobian of one function by every mode, with what each mode costs and how far it is from JAX's."""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from textwrap import fill
from typing import Any

import jax
import numpy as np

from admodes.compare import jax_ad
from admodes.compare.check import errors
from admodes.compare.fallback import borrowing
from admodes.compare.measure import Measurement, measure, paired_ratio
from admodes.compare.pareto import Points, curve, draw, front
from admodes.text_tables import WIDTH, Brief, Table, clipped, count, error, plain, plural, ratio, seconds, table
from admodes.transforms.forward import jacfwd
from admodes.transforms.reverse import jacrev


@dataclass(frozen=True, repr=False)
class Strategy(Brief):
    """A way to compute a Jacobian.

    ``jacobian(f, argnums=..., holomorphic=...)`` returns a function of the arguments of f, as :func:`admodes.jacfwd`
    does; ``passes(n, m)`` is how many derivative passes that takes with n inputs and m outputs; ``oracle`` is the
    function of JAX that the result is checked against.
    """

    name: str
    jacobian: Callable[..., Callable]
    passes: Callable[[int, int], int]
    oracle: Callable[..., Callable]


FORWARD = Strategy("forward", jacfwd, lambda n, m: n, jax_ad.jacfwd)
REVERSE = Strategy("reverse", jacrev, lambda n, m: m, jax_ad.jacrev)
STRATEGIES = {strategy.name: strategy for strategy in (FORWARD, REVERSE)}


@dataclass(frozen=True, repr=False)
class Row(Brief):
    """The cost of one mode. Times are medians in seconds; ``nan`` is what the backend does not tell.

    Attributes:
      mode: the mode's name, or the name of JAX's function in the oracle rows.
      passes: derivative passes: columns pushed, or rows pulled.
      flops: floating point operations of the compiled program by XLA's count (a loop body counts once).
      bytes: bytes that its operations read and write, by XLA's count.
      trace_s: Python function to jaxpr.
      compile_s: jaxpr to executable.
      run_s: one call of the executable.
      temp_bytes: peak memory for intermediate values.
      abs_error: largest |J - J_oracle|.
      rel_error: the same over the largest |J_oracle| of the block.
      oracle: the function of JAX it was checked against.
      run_ratio: run time over the oracle's, the median of samples taken side by side.
    """

    mode: str
    passes: int
    flops: float
    bytes: float
    trace_s: float
    compile_s: float
    run_s: float
    temp_bytes: int
    abs_error: float
    rel_error: float
    oracle: str
    run_ratio: float


@dataclass(frozen=True, repr=False)
class Comparison:
    """The findings of :func:`compare`: a row per mode and a row per oracle. ``str()`` is a table."""

    function: str
    inputs: int
    outputs: int
    rows: tuple[Row, ...]
    oracle_rows: tuple[Row, ...]
    repeat: int
    device: str
    jax_version: str
    borrowed: tuple[str, ...] = ()

    def __getitem__(self, mode: str) -> Row:
        """The row of a mode (or of an oracle, by its name)."""
        for row in (*self.rows, *self.oracle_rows):
            if row.mode == mode:
                return row
        raise KeyError(f"no mode {mode!r}; there are {', '.join(row.mode for row in self.rows)}")

    def to_dict(self) -> dict[str, Any]:
        """Everything, as plain data."""
        return asdict(self) | {"pareto": list(self.pareto)}

    @property
    def pareto(self) -> tuple[str, ...]:
        """The modes (and oracles) that no other beats in both run time and temporary memory, by memory."""
        return front(self._points)

    @property
    def _points(self) -> Points:
        return {row.mode: (row.temp_bytes, row.run_s) for row in (*self.rows, *self.oracle_rows)}

    def curve(self) -> str:
        """Time against memory of all rows, as text."""
        return curve(self._points)

    def plot(self, file: Any, format: str = "png") -> None:
        """Draw time against memory of all rows into a file (a path, or a binary handle), with matplotlib."""
        draw(self._points, file, f"{self.function}: {self.outputs} x {self.inputs}", format)

    def to_json(self, indent: int | None = 2) -> str:
        """Everything, as JSON; numbers that JSON does not have (NaN, infinity) become null."""
        return json.dumps(finite(self.to_dict()), indent=indent)

    def __repr__(self) -> str:
        runs = ", ".join(f"{row.mode} {seconds(row.run_s)}" for row in (*self.rows, *self.oracle_rows))
        head = f"Comparison({self.function}: {self.outputs} x {self.inputs}, on {self.device})"
        return "\n".join(map(clipped, [head, f"  run: {runs}"]))

    def __str__(self) -> str:
        return plain(comparison_table(self), fill(conclusion(self), WIDTH))


BAR = 12  # characters of the longest bar; the table keeps within 80 characters up to about 20


def comparison_table(comparison: Comparison) -> Table:
    """One line per mode, then one per oracle; the length of a bar is the run time."""
    columns = ["mode", "run time", "run", "passes", "flops", "bytes", "temp", "trace", "compile"]
    columns += ["abs. err", "rel. err", "/ JAX", "Pareto"]
    best = comparison.pareto
    longest = max(row.run_s for row in (*comparison.rows, *comparison.oracle_rows))

    def line(row: Row) -> list[str]:
        costs = ["█" * max(1, round(BAR * row.run_s / longest)), seconds(row.run_s), f"{row.passes}"]
        costs += [count(row.flops), count(row.bytes, "B"), count(row.temp_bytes, "B")]
        costs += [seconds(row.trace_s), seconds(row.compile_s)]
        mark = "*" if row.mode in best else ""
        if row.mode == row.oracle:
            return [row.mode, *costs, "", "", "", mark]
        return [row.mode, *costs, error(row.abs_error), error(row.rel_error), ratio(row.run_ratio), mark]

    return table(
        f"{comparison.function}: {plural(comparison.inputs, 'input')}, {plural(comparison.outputs, 'output')}",
        columns,
        [line(row) for row in (*comparison.rows, *comparison.oracle_rows)],
        left=2,
        caption=_caption(comparison),
        spare=("abs. err", "bytes", "trace", "flops", "compile", "passes", "Pareto"),
    )


def _caption(comparison: Comparison) -> str:
    samples = plural(comparison.repeat, "sample")
    by_oracle: dict[str, list[str]] = {}
    for row in comparison.rows:
        by_oracle.setdefault(row.oracle, []).append(row.mode)
    checked = "; ".join(f"{', '.join(modes)} against {oracle}" for oracle, modes in by_oracle.items())
    lines = [
        f"Jacobian under jit on {comparison.device}; times are medians of {samples}, interleaved.",
        f"Checked: {checked}; '/ JAX' is the run time over its.",
    ]
    lines.append("Pareto: no other is better in both run and temp.")
    if comparison.borrowed:
        lines.append(f"Rules borrowed from JAX: {', '.join(comparison.borrowed)}.")
    return "\n".join(lines)


ALIKE = 1.2  # a ratio of run times: medians of ten samples of 0.1 ms differ by up to that on a busy machine


def conclusion(comparison: Comparison) -> str:
    """One sentence: which mode is the fastest, by how much, and why."""
    fastest, *others = sorted(comparison.rows, key=lambda row: row.run_s)
    if not others:
        return f"Only {fastest.mode} was measured."
    slowest = others[-1]
    times = slowest.run_s / fastest.run_s
    if times < ALIKE:
        names = ", ".join(row.mode for row in comparison.rows)
        return f"No difference: {names} take the same time within {100 * (times - 1):.0f}%."
    why = f"{plural(fastest.passes, 'pass', 'passes')} instead of {slowest.passes}"
    if fastest.passes == 0:
        why = f"no passes, where {slowest.mode} takes {slowest.passes}: the local derivatives are multiplied directly"
    elif fastest.passes >= slowest.passes:
        why = f"{plural(fastest.passes, 'pass', 'passes')}, each of them cheaper"
    return f"{fastest.mode} is {ratio(times)} times as fast as {slowest.mode}: {why}."


def finite(data: Any) -> Any:
    """``data`` with None in the place of NaN and infinities, which JSON does not have."""
    if isinstance(data, Mapping):
        return {key: finite(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [finite(value) for value in data]
    return None if isinstance(data, float) and not np.isfinite(data) else data


def compare(
    f: Callable[..., Any],
    *args: Any,
    argnums: int | Sequence[int] = 0,
    modes: Sequence[str | Strategy] | None = None,
    repeat: int = 10,
    holomorphic: bool = False,
    fallback: str | None = None,
) -> Comparison:
    r"""The modes side by side on one function: what each costs, and how far its Jacobian is from JAX's.

    Each mode computes ∂f/∂x as a whole under ``jit``, checked against :func:`jax.jacfwd` or :func:`jax.jacrev`, which
    are measured too. Samples are interleaved, so that a change in the machine's speed meets all modes alike.

    Args:
      f: a function of pytrees of arrays that returns a pytree of arrays. It must be traceable by ``jit``; arguments
        that are not differentiated and hold no arrays (numbers, strings, None) stay as they are.
      args: where to differentiate.
      argnums: which positional arguments to differentiate.
      modes: names, or :class:`Strategy` objects of your own; all that are known by default.
      repeat: number of run time samples. Trace and compile times are medians of up to three, of fewer where
        compiling is slow.
      holomorphic: whether f is holomorphic; inputs and outputs must then be complex.
      fallback: ``"jax"`` borrows JAX's rule for each primitive that has none in the table, and says so.

    Returns:
      A :class:`Comparison`.

    Raises:
      ValueError: an unknown mode or fallback, or ``repeat`` below 1.
      UnsupportedPrimitiveError: a primitive has no rule, and ``fallback`` is None.

    >>> import jax.numpy as jnp
    >>> from admodes.compare import compare
    >>> result = compare(lambda x: jnp.sum(x**2), jnp.arange(5.0), repeat=1)
    >>> [(row.mode, row.passes, row.abs_error) for row in result.rows]
    [('forward', 5, 0.0), ('reverse', 1, 0.0)]
    """
    strategies = [find_strategy(mode) for mode in (STRATEGIES if modes is None else modes)]
    if repeat < 1:
        raise ValueError(f"repeat must be at least 1, got {repeat}")
    if fallback not in (None, "jax"):
        raise ValueError(f"fallback must be None or 'jax', got {fallback!r}")
    numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    numbers = tuple(number + len(args) if number < 0 else number for number in numbers)
    g, given, positions = _arrays_only(f, args, numbers)
    where = positions[0] if isinstance(argnums, int) else positions

    rules: AbstractContextManager[list[str]] = borrowing(g, given) if fallback == "jax" else nullcontext([])
    differentiate = {"argnums": where, "holomorphic": holomorphic}
    functions = {s.name: s.jacobian(g, **differentiate) for s in strategies}
    oracles = {s.oracle.__name__: s.oracle(g, **differentiate) for s in strategies}
    with rules as borrowed:
        measured = measure(
            {**functions, **{f"jax.{name}": oracle for name, oracle in oracles.items()}},
            given,
            rounds=repeat,
            builds=min(repeat, 3),
            build_seconds=BUILD_SECONDS,
        )

    n = _size([given[i] for i in positions])
    m = _size(jax.eval_shape(g, *given))
    row = partial(_row, measured, n, m)
    by_oracle = {s.oracle.__name__: s for s in reversed(strategies)}
    return Comparison(
        function=getattr(f, "__name__", type(f).__name__),
        inputs=n,
        outputs=m,
        rows=tuple(row(s.name, s) for s in strategies),
        oracle_rows=tuple(row(f"jax.{name}", ORACLES.get(name, by_oracle[name])) for name in oracles),
        repeat=repeat,
        device=jax.devices()[0].device_kind,
        jax_version=jax.__version__,
        borrowed=tuple(borrowed),
    )


BUILD_SECONDS = 3.0
ORACLES = {"jacfwd": FORWARD, "jacrev": REVERSE}  # how many passes they take


def find_strategy(mode: str | Strategy) -> Strategy:
    """The strategy of that name."""
    if isinstance(mode, Strategy):
        return mode
    if mode not in STRATEGIES:
        close = difflib.get_close_matches(str(mode), STRATEGIES, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"unknown mode {mode!r}; there are {', '.join(map(repr, STRATEGIES))}.{hint}")
    return STRATEGIES[mode]


def _arrays_only(f: Callable, args: tuple, numbers: tuple[int, ...]) -> tuple[Callable, tuple, tuple[int, ...]]:
    """f as a function of its array arguments: (that function, its arguments, where the differentiated ones are)."""
    for number in numbers:
        if not 0 <= number < len(args):
            raise ValueError(f"argnums names argument {number}, but f was given {len(args)} argument(s)")
    kept = [i for i, arg in enumerate(args) if i in numbers or _holds_arrays(arg)]

    def g(*arrays):
        full = list(args)
        for i, array in zip(kept, arrays, strict=True):
            full[i] = array
        return f(*full)

    return g, tuple(args[i] for i in kept), tuple(kept.index(number) for number in numbers)


def _holds_arrays(arg: Any) -> bool:
    leaves = jax.tree_util.tree_leaves(arg)
    return bool(leaves) and all(isinstance(leaf, (jax.Array, np.ndarray, np.generic)) for leaf in leaves)


def _size(tree: Any) -> int:
    return sum(int(np.size(leaf)) for leaf in jax.tree_util.tree_leaves(tree))


def _row(measured: Mapping[str, Measurement], n: int, m: int, name: str, strategy: Strategy) -> Row:
    ours, oracle = measured[name], f"jax.{strategy.oracle.__name__}"
    theirs = measured[oracle]
    absolute, relative = errors(ours.value, theirs.value)
    return Row(
        mode=name,
        passes=strategy.passes(n, m),
        flops=ours.flops,
        bytes=ours.bytes,
        trace_s=ours.seconds("trace"),
        compile_s=ours.seconds("lower") + ours.seconds("compile"),
        run_s=ours.seconds("run"),
        temp_bytes=ours.temp_bytes,
        abs_error=absolute,
        rel_error=relative,
        oracle=oracle,
        run_ratio=paired_ratio(ours.run, theirs.run),
    )
