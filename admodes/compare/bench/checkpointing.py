"""``admodes bench checkpointing``: gradients in bounded memory beside jax.checkpoint's, equinox's and full storage."""

from __future__ import annotations

import importlib.util
import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import admodes
from admodes.checkpointing.binomial import fewest_steps
from admodes.compare import jax_ad
from admodes.compare.bench.suite import Benchmark, Goal, failure_of, worst
from admodes.compare.check import errors
from admodes.compare.measure import interleave, keep_memory, paired_ratio, size_ratio, temp_bytes
from admodes.errors import AdmodesError
from admodes.text_tables import count, error, ratio, seconds

WITHOUT_EQUINOX = "equinox is not installed (pip install 'admodes[bench]'): there is no case beside it"
RUN_SECONDS = 6.0  # for the samples of a case, beside one of each contender
LAYERS = 64
SLOTS = 100  # of while loops, ours and equinox's
LONGEST = {10: 100_000, 1000: 10_000}  # steps of while loops by size of their state: equinox's take seconds
TABLE = ((10, 3), (24, 3), (50, 5), (100, 5), (200, 10))  # (steps, slots), of the literature
SWEEP = tuple((length, slots) for length in (1, 2, 17, 100, 1000) for slots in (3, 8, 1000))


@dataclass(frozen=True)
class Case:
    """One gradient beside another's: seconds and temporary bytes of both (ours first), their ratios, the difference."""

    part: str
    name: str
    beside: str = ""
    run: tuple[float, float] = (math.nan, math.nan)
    temp_bytes: tuple[float, float] = (math.nan, math.nan)
    time_ratio: float = math.nan
    compile: float = math.nan
    steps_beyond: float = math.nan
    error: float = math.nan
    failure: str = ""

    @property
    def memory_ratio(self) -> float:
        return size_ratio(*self.temp_bytes)


class CheckpointingBenchmark(Benchmark):
    """Time and memory of gradients that compute again what they do not keep."""

    title = "admodes / the other (1.00: equal; below 1: admodes is cheaper)"
    columns = (
        *("program", "beside", "time", "memory", "run", "beside", "temp", "beside"),
        *("compile", "steps beyond", "rel. error"),
    )
    names = 2
    targets: Mapping[tuple[str, str], Mapping[str, float]] = {  # by the name of a part in PARTS and that in its cases
        ("steps", "steps"): {"steps_beyond": 0},
        ("nets", "net at equal memory"): {"time_ratio": 1.05, "memory_ratio": 1.0},
        ("nets", "net in a tenth of the memory"): {"time_ratio": 1.6, "memory_ratio": 0.1},
        ("whiles", "while"): {"time_ratio": 1.0, "memory_ratio": 1.0},
        ("stored", "full storage"): {"time_ratio": 3.0, "error": 1e-12},
        ("stored", "full storage, least"): {"error": 1e-12},
        ("long", "long"): {"mebibytes": 64, "compile": 5},
    }

    def goals(self) -> list[Goal]:
        """The worst of each figure of each part: infinity where the part failed or a figure is not known."""
        found = []
        failed = {case.part for case in self.cases if case.failure}
        for (whole, part), targets in self.targets.items():
            cases = [case for case in self.measured if case.part == part]
            for figure, target in targets.items() if cases or whole in failed else ():
                value = math.inf if whole in failed else worst(figures(case)[figure] for case in cases)
                found.append(Goal(f"{part}: {figure.replace('_', ' ')}, worst", value, target))
        return found

    def line(self, case: Case) -> list[str]:
        ratios = [ratio(case.time_ratio), ratio(case.memory_ratio)]
        sizes = [count(size, "B") if size == size else "-" for size in case.temp_bytes]
        beyond = "-" if math.isnan(case.steps_beyond) else f"{case.steps_beyond:g}"
        times = [*map(seconds, case.run), *sizes, seconds(case.compile)]
        return [f"{case.part}: {case.name}", case.beside, *ratios, *times, beyond, error(case.error)]


def figures(case: Case) -> dict[str, float]:
    """The figures of a case that can have a target."""
    names = ("time_ratio", "memory_ratio", "steps_beyond", "error", "compile")
    return {name: getattr(case, name) for name in names} | {"mebibytes": case.temp_bytes[0] / 2**20}


@dataclass(frozen=True)
class Built:
    """A function of some arguments, compiled."""

    call: Callable[[], Any]
    bytes: int
    compile: float


def build(fun: Callable, *args) -> Built:
    start = time.perf_counter()
    compiled = jax.jit(fun).lower(*args).compile()
    return Built(partial(compiled, *args), temp_bytes(compiled), time.perf_counter() - start)


def beside(part: str, contenders: Mapping[str, Built], pairs: Iterable[tuple[str, str]], rounds: int) -> list[Case]:
    """A case for each pair of contenders, all measured in turns; a name ends with what is compared after a colon."""
    samples = interleave({name: built.call for name, built in contenders.items()}, rounds, RUN_SECONDS)
    values = {name: built.call() for name, built in contenders.items()}
    cases = []
    for ours, theirs in pairs:
        both = contenders[ours], contenders[theirs]
        run = statistics.median(samples[ours]), statistics.median(samples[theirs])
        relative = errors(values[ours], values[theirs])[1]
        times = paired_ratio(samples[ours], samples[theirs])
        sizes = both[0].bytes, both[1].bytes
        cases.append(Case(part, ours, theirs, run, sizes, times, both[0].compile, error=relative))
    return cases


# -- steps ----------------------------------------------------------------------------------------


def steps_run(length: int, slots: int) -> int:
    """The number of steps of a scan that are really run again: not in the first sweep, nor where they are
    differentiated."""
    seen: list = []

    def step(x, _):
        jax.debug.callback(seen.append, x)
        return jnp.sin(x), None

    loop = admodes.checkpoint(lambda x: lax.scan(step, x, None, length=length)[0], "revolve", slots=slots)
    jax.block_until_ready(admodes.grad(loop)(1.0))
    jax.effects_barrier()
    return len(seen) - 2 * length


def schedules(rounds: int) -> Iterator[Case]:
    for name, known in (("table", TABLE), ("sweep to 1000", SWEEP)):
        # length − 1 steps lead to the last one
        beyond = [steps_run(n, slots) - (fewest_steps(n, slots) - (n - 1)) for n, slots in known]
        yield Case("steps", name, "optimum", steps_beyond=max(beyond, key=abs))


# -- a deep net -----------------------------------------------------------------------------------


def layer(x, weights):
    """A residual layer of two products."""
    return x + jnp.tanh(x @ weights[0]) @ weights[1]


def in_a_row(weights, x, kept=lambda layer: layer):
    """A net that is written out, ``kept`` around each layer."""
    for w in weights:
        x = kept(layer)(x, w)
    return jnp.mean(x**2)


def in_segments(weights, x, width=8):
    """The same with ``jax.checkpoint`` around segments of √n layers."""

    def segment(x, weights):
        for w in weights:
            x = layer(x, w)
        return x

    for k in range(0, len(weights), width):
        x = jax.checkpoint(segment)(x, weights[k : k + width])
    return jnp.mean(x**2)


def stacked(weights, x, kept=lambda layer: layer):
    """A net that is a loop over stacked weights, ``kept`` around each layer."""
    return jnp.mean(lax.scan(lambda x, w: (kept(layer)(x, w), None), x, weights)[0] ** 2)


def stacked_in_segments(weights, x, width=8):
    """The same with ``jax.checkpoint`` around segments of √n layers."""

    def segment(x, weights):
        return lax.scan(lambda x, w: (layer(x, w), None), x, weights)[0], None

    folded = jax.tree.map(lambda w: w.reshape(-1, width, *w.shape[1:]), weights)
    return jnp.mean(lax.scan(jax.checkpoint(segment), x, folded)[0] ** 2)


def nets(rounds: int, layers: int = LAYERS, batch: int = 512, units: int = 128, part: int = 10) -> Iterator[Case]:
    """At the memory of jax.checkpoint around each layer, and around segments; and at a tenth of jax.grad's.

    More examples than units: XLA would else have activations in the place of the weights' gradients, as no temporaries.
    """
    rng = np.random.default_rng(0)
    pairs = rng.standard_normal((2, layers, units, units)) * np.array([1.0, 0.1])[:, None, None, None] / units**0.5
    stack = tuple(jnp.asarray(pair, jnp.float32) for pair in pairs)
    x = jnp.asarray(rng.standard_normal((batch, units)), jnp.float32)
    row = [(a, b) for a, b in zip(*stack, strict=True)]
    kinds: tuple = (("loop", stacked, stacked_in_segments, stack), ("in a row", in_a_row, in_segments, row))
    for kind, net, segmented, weights in kinds:
        others = {
            "jax.grad": net,
            "jax.checkpoint, layers": partial(net, kept=jax.checkpoint),
            "jax.checkpoint, segments": segmented,
        }
        contenders = {name: build(jax_ad.value_and_grad(f), weights, x) for name, f in others.items()}
        plain, *limits = (contenders[name].bytes for name in others)
        names = [f"{kind}, as layers", f"{kind}, as segments", f"{kind}, a tenth"]
        for name, limit in zip(names, (*limits, plain // part), strict=True):
            contenders[name] = build(admodes.value_and_grad(net, memory_limit=limit), weights, x)
        yield from beside("net at equal memory", contenders, zip(names[:2], list(others)[1:], strict=True), rounds)
        tenth = {name: contenders[name] for name in (names[2], "jax.grad")}
        yield from beside("net in a tenth of the memory", tenth, [(names[2], "jax.grad")], rounds)


# -- loops ----------------------------------------------------------------------------------------


def step(y):
    return y + 0.01 * jnp.sin(y)


def while_loop(x, n, loop=lax.while_loop):
    """n steps, the number known at run time."""
    return jnp.sum(loop(lambda c: c[0] < n, lambda c: (c[0] + 1, step(c[1])), (0, x))[1] ** 2)


def scan(x, length):
    return jnp.sum(lax.scan(lambda y, _: (step(y), None), x, None, length=length)[0] ** 2)


def state(n: int) -> jax.Array:
    return jnp.linspace(0.1, 1.0, n)


def equinox_is_installed() -> bool:
    """True if there is the other library of checkpointed while loops to compare with."""
    return importlib.util.find_spec("equinox") is not None


def whiles(rounds: int, longest: Mapping[int, int] = LONGEST) -> Iterator[Case]:
    """Beside equinox's checkpointed loop with as many slots."""
    if not equinox_is_installed():
        return
    from equinox.internal import while_loop as online

    theirs = partial(while_loop, loop=partial(online, kind="checkpointed", checkpoints=SLOTS))
    for size, most in longest.items():
        for length in (n for n in (100, 1000, 10_000, 100_000) if n <= most):
            args = state(size), jnp.asarray(length)
            name = f"{length} steps of {size}"
            ours = build(admodes.value_and_grad(admodes.checkpoint(while_loop, slots=SLOTS)), *args)
            contenders = {name: ours, "equinox": build(jax_ad.value_and_grad(theirs), *args)}
            yield from beside("while", contenders, [(name, "equinox")], rounds)


def stored(rounds: int, lengths=(1000, 10_000, 100_000), sizes=(10, 1000)) -> Iterator[Case]:
    """Beside jax.grad of a scan, which keeps all: in the default memory, whatever T, and in a multiple of log₂ T.

    Of T = 100,000 steps the schedule runs 195,624 before it differentiates each with 4 log₂ T slots and the tapes of as
    many steps. With log₂ T of each it runs 377,434, and has a part of its own without a goal for the time: that alone
    is three times the time where a step costs what its derivative costs.
    """
    for size in sizes:
        for length in lengths:
            f, x, n = partial(scan, length=length), state(size), jnp.asarray(length)
            few, more = (max(round(factor * math.log2(length)), 1) for factor in (1, 4))
            ours = {
                "revolve": admodes.checkpoint(f),
                "while": partial(while_loop, n=n),
                f"revolve, {more} slots and tapes": admodes.checkpoint(f, slots=more, tapes=more),
            }
            fewest = {f"revolve, {few} slots and tapes": admodes.checkpoint(f, slots=few, tapes=few)}
            contenders = {"jax.grad": build(jax_ad.value_and_grad(f), x)}
            for name, g in (ours | fewest).items():
                contenders[f"{length} steps of {size}, {name}"] = build(admodes.value_and_grad(g), x)
            cases = beside("full storage", contenders, [(name, "jax.grad") for name in [*contenders][1:]], rounds)
            yield from cases[:-1]
            yield replace(cases[-1], part="full storage, least")


def long(rounds: int) -> Iterator[Case]:
    """Memory and compile time alone."""
    for size, length in ((1000, 100_000),):
        built = build(admodes.value_and_grad(admodes.checkpoint(partial(scan, length=length))), state(size))
        sizes = built.bytes, math.nan
        yield Case("long", f"{length} steps of {size}, revolve", temp_bytes=sizes, compile=built.compile)


PARTS: dict[str, Callable[[int], Iterator[Case]]] = {
    "steps": schedules,
    "nets": nets,
    "whiles": whiles,
    "stored": stored,
    "long": long,
}


def bench_checkpointing(
    parts: Iterable[str] = tuple(PARTS), *, rounds: int = 10, progress: Callable[[str], None] = lambda line: None
) -> CheckpointingBenchmark:
    """Measure gradients in bounded memory: the schedules, a deep net, while loops, long scans.

    Args:
      parts: names from :data:`PARTS`.
      rounds: samples of the run time, fewer where one takes seconds; all contenders of a case take turns.
      progress: called with a line before each part, and for each case.
    """
    if "whiles" in parts and not equinox_is_installed():
        progress(WITHOUT_EQUINOX)
    keep_memory()
    cases = []
    with jax.enable_x64(True):
        for part in parts:
            progress(part)
            try:
                for case in PARTS[part](rounds):
                    progress(f"  {case.name}")
                    cases.append(case)
            except AdmodesError as failure:
                cases.append(Case(part, part, failure=failure_of(failure)))
    return CheckpointingBenchmark(tuple(cases))
