"""The cost of a compiled function: time to trace, lower, compile and run; flops, bytes and peak temporary memory.

Everything that is to be compared is measured interleaved: each round takes one sample of every function, in an order
of its own. A machine that slows down for a second then slows all of them, and the ratio of two samples of one
round is worth more than the ratio of two times taken a minute apart. Ratios are medians over those pairs.
"""

from __future__ import annotations

import ctypes
import gc
import platform
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax

# A sample is the best of a few bursts in a row: the scheduler interrupts some of them, hardly all, and the first finds
# what the call before it has left in caches and in the allocator.
BURST_SECONDS = 4e-4  # a burst repeats its call until it lasts about this long
BURSTS = 5  # in a sample
SAMPLE_SECONDS = 2.5e-2  # with fewer bursts where they would take longer than this together
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8  # of glibc's mallopt


@dataclass(frozen=True)
class Measurement:
    """The cost of one function. Times are samples in seconds, one per round."""

    trace: tuple[float, ...]
    lower: tuple[float, ...]
    compile: tuple[float, ...]
    run: tuple[float, ...]
    flops: float
    bytes: float
    temp_bytes: int
    value: Any

    def seconds(self, stage: str) -> float:
        """The median time of ``"trace"``, ``"lower"``, ``"compile"`` or ``"run"``."""
        return statistics.median(getattr(self, stage))


def paired_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the ratios of samples that were taken side by side.

    >>> paired_ratio([2.0, 20.0, 3.0], [1.0, 10.0, 3.0])
    2.0
    """
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def size_ratio(ours: float, theirs: float) -> float:
    """ours / theirs, where 0 / 0 is 1 (neither needs any).

    >>> size_ratio(0, 0), size_ratio(3, 2), size_ratio(1, 0)
    (1.0, 1.5, inf)
    """
    if theirs == 0:
        return 1.0 if ours == 0 else float("inf")
    return ours / theirs


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Collections at random moments would be charged to whoever runs then."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@cache
def keep_memory() -> None:
    """Have the process reuse the memory it has freed, from here on, instead of giving it back to the system.

    Writing 32 MiB to fresh pages takes ten times as long as to old ones, and whether a call gets old ones depends on
    what the heap looks like by chance: one contender could pay each time, and another not. Threads that start later
    share one heap: call it before JAX runs anything. (glibc only.)
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_ARENA_MAX, 1)
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def _seconds(call: Callable, times: int = 1) -> float:
    start = time.perf_counter()
    for _ in range(times):
        result = call()
    jax.block_until_ready(result)
    return (time.perf_counter() - start) / times


def _sampler(call: Callable[[], Any]) -> Callable[[], float]:
    """A function that takes one sample: seconds per call. ``call`` is made twice now, the first time untimed."""
    jax.block_until_ready(call())
    once = max(_seconds(call), 1e-7)
    times = max(1, round(BURST_SECONDS / once))
    bursts = min(BURSTS, max(1, round(SAMPLE_SECONDS / (times * once))))
    return lambda: min(_seconds(call, times) for _ in range(bursts))


def interleave(
    calls: Mapping[str, Callable[[], Any]], rounds: int, seconds: float = float("inf")
) -> dict[str, tuple[float, ...]]:
    """Seconds per call, one sample of every function per round; after ``seconds`` no round but the first is begun.

    Each round has an order of its own: what a call leaves of caches and of the allocator's memory, the next one finds.
    """
    keep_memory()
    samplers = {name: _sampler(call) for name, call in calls.items()}
    samples: dict[str, list[float]] = {name: [] for name in calls}
    deadline, order = time.perf_counter() + seconds, random.Random(0)
    with _no_garbage_collection():
        for k in range(rounds):
            if k and time.perf_counter() > deadline:
                break
            for name in order.sample(list(calls), len(calls)):
                samples[name].append(samplers[name]())
    return {name: tuple(s) for name, s in samples.items()}


class _Builder:
    """Takes one function through jit's stages again and again, keeping the times and the last executable."""

    def __init__(self, function: Callable, args: Sequence):
        self.function, self.args = function, args
        self.trace: list[float] = []
        self.lower: list[float] = []
        self.compile: list[float] = []
        self.compiled: Any = None
        self._trace()  # untimed: fills the caches of library functions that whoever comes second would find filled

    def _trace(self):
        return jax.jit(lambda *given: self.function(*given)).trace(*self.args)  # wrapped anew: no cache answers

    def sample(self, compile: bool) -> None:
        t0 = time.perf_counter()
        traced = self._trace()
        t1 = time.perf_counter()
        self.trace.append(t1 - t0)
        if compile:
            lowered = traced.lower()
            t2 = time.perf_counter()
            self.compiled = lowered.compile()
            self.lower.append(t2 - t1)
            self.compile.append(time.perf_counter() - t2)


def measure(
    functions: Mapping[str, Callable],
    args: Sequence,
    *,
    rounds: int = 10,
    builds: int = 3,
    traces: int = 3,
    build_seconds: float = float("inf"),
    run_seconds: float = float("inf"),
) -> dict[str, Measurement]:
    """Measure functions of the same arguments side by side, under ``jit``.

    Args:
      functions: what to measure, by name.
      args: their arguments.
      rounds: number of run time samples.
      builds: number of samples of lower and compile time.
      traces: number of samples of trace time, at least ``builds``.
      build_seconds: once this time is spent no function is compiled again.
      run_seconds: once this time is spent no further round of run time samples is begun.
    """
    builders = {name: _Builder(function, args) for name, function in functions.items()}
    deadline = time.perf_counter() + build_seconds
    with _no_garbage_collection():
        for k in range(max(traces, builds)):
            compile = k == 0 or (k < builds and time.perf_counter() < deadline)
            for builder in list(builders.values())[:: 1 if k % 2 == 0 else -1]:
                builder.sample(compile)
    compiled = {name: builder.compiled for name, builder in builders.items()}
    runs = interleave({name: _call(executable, args) for name, executable in compiled.items()}, rounds, run_seconds)
    return {
        name: Measurement(
            trace=tuple(builder.trace),
            lower=tuple(builder.lower),
            compile=tuple(builder.compile),
            run=runs[name],
            flops=_cost(compiled[name], "flops"),
            bytes=_cost(compiled[name], "bytes accessed"),
            temp_bytes=temp_bytes(compiled[name]),
            value=compiled[name](*args),
        )
        for name, builder in builders.items()
    }


def _call(compiled, args) -> Callable[[], Any]:
    return lambda: compiled(*args)


def _cost(compiled, key: str) -> float:
    """An entry of XLA's cost analysis; NaN where the backend gives none. Loop bodies count once, whatever the trips."""
    analysis = compiled.cost_analysis() or {}
    return float(analysis.get(key, float("nan")))


def temp_bytes(compiled) -> int:
    """Peak memory for intermediate values, in bytes: what is neither argument nor result."""
    analysis = compiled.memory_analysis()
    return 0 if analysis is None else int(analysis.temp_size_in_bytes)
