"""``admodes bench workarounds``: what is written for a compiler (``compilers/workarounds.py``), with and without it.

Each runs in processes of its own, because the switch is read when the library is imported: with and without in turn,
several times, and the smallest time of each counts.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from admodes.compare.bench.suite import Benchmark, Goal, failure_of
from admodes.compilers.workarounds import SWITCH, WORKAROUNDS
from admodes.planner.calls.jacobian import jacobian
from admodes.program import jax_compat as jc
from admodes.series.calls import taylor
from admodes.text_tables import count, seconds
from admodes.transforms.reverse import grad

RUN_SECONDS = 1.0  # that a process repeats its program, after it is compiled
LIMIT = 300  # seconds for one process


def _random(*shape):
    return np.random.default_rng(0).standard_normal(shape) / math.sqrt(shape[0])


def _stencils() -> tuple[Callable, tuple]:
    def f(x):
        for _ in range(3):
            x = x[1:-1] + jnp.sin(x[2:] - 2 * x[1:-1] + x[:-2]) * jnp.exp(x[1:-1])
        return x

    return jacobian(f, format="bcoo"), (_random(20_000),)


def _small_loop() -> tuple[Callable, tuple]:
    matrix = _random(5, 5)

    def f(x):
        return jax.lax.scan(lambda x, _: (x + 0.1 * jnp.tanh(matrix @ x), x), x, length=500)[1]

    return jacobian(f), (_random(5),)


def _systems() -> tuple[Callable, tuple]:
    matrix, b = _random(200, 200) + 3 * np.eye(200), _random(200)
    return jacobian(lambda x: jax.scipy.linalg.solve_triangular(matrix + jnp.diag(x), b)), (_random(200),)


def _wide() -> tuple[Callable, tuple]:
    inner, outer = _random(4000, 400), _random(400, 8)
    return jacobian(lambda x: jax.checkpoint(jnp.tanh)(x @ inner) @ outer), (_random(4000),)


def _columns() -> tuple[Callable, tuple]:
    inner, outer = _random(64, 512), _random(512, 3000)
    return jacobian(lambda x: jnp.tanh(x @ inner) @ outer), (_random(64),)


def _blocks() -> tuple[Callable, tuple]:
    matrix = _random(16, 16)
    return jacobian(lambda x: jnp.tanh(x @ matrix)), (_random(128, 16),)


def _layers() -> tuple[Callable, tuple]:
    matrix = _random(128, 128)

    @jax.checkpoint
    def block(y):
        for _ in range(4):
            y = jnp.tanh(y @ matrix)
        return y

    def f(x):
        for _ in range(4):
            x = block(x)
        return x.sum()

    return grad(f), (_random(1000, 128),)


def _series() -> tuple[Callable, tuple]:
    def f(x):
        for _ in range(4):
            x = jnp.sin(x) * jnp.exp(-x * x) + jnp.tanh(x) / (1.5 + jnp.cos(x))
        return x

    return lambda x: taylor(f, x, x, 3), (_random(100_000),)


EXAMPLES: dict[str, tuple[Callable, str]] = {  # a program for each, and the figure that is better with it
    "stored values": (_stencils, "time"),
    "kept calls": (_stencils, "time"),
    "small products": (_small_loop, "time"),
    "right-hand sides": (_systems, "time"),
    "few rows": (_wide, "time"),
    "transposed columns": (_columns, "time"),
    "runs of nonzeros": (_blocks, "time"),
    "selected copies": (_layers, "memory"),
    "stored series": (_series, "time"),
}


@dataclass(frozen=True)
class Case:
    """A workaround and its example: seconds or bytes with it and without it."""

    name: str
    figure: str = ""
    found_on: str = ""
    with_it: float = math.nan
    without: float = math.nan
    failure: str = ""

    @property
    def ratio(self) -> float:
        return self.without / self.with_it


class WorkaroundsBenchmark(Benchmark):
    """Every workaround with and without it."""

    title = f"Workarounds on jax {jax.__version__}"
    columns = ("workaround", "of", "found on", "with", "without", "without / with")
    names = 3

    def goals(self) -> list[Goal]:
        """A workaround that is in use and no longer helps had better go."""
        enabled = {w.name for w in WORKAROUNDS if w.enabled}
        return [Goal(f"{c.name} helps", c.ratio, 1.0, at_least=True) for c in self.measured if c.name in enabled]

    def line(self, case: Case) -> list[str]:
        text = seconds if case.figure == "time" else lambda x: count(x, "B")
        figures = text(case.with_it), text(case.without), f"{case.ratio:.2f}"
        return [case.name, case.figure, case.found_on, *figures]


def figures(name: str) -> dict[str, float]:
    """Time and temporary memory of an example, in this process."""
    make, _ = EXAMPLES[name]
    fun, args = make()
    lowered = jax.jit(fun).lower(*args)
    compiled = lowered.compile()
    taken: list[float] = []
    end = time.perf_counter() + RUN_SECONDS
    while len(taken) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        jax.block_until_ready(compiled(*args))
        taken.append(time.perf_counter() - start)
    return {"time": min(taken), "memory": float(jc.temporary_bytes(lowered))}


def _in_a_process(name: str, without: bool) -> dict[str, float]:
    environment = {**os.environ, SWITCH: name if without else "", "JAX_ENABLE_X64": "1"}
    command = [sys.executable, "-m", "admodes.compare.bench.workarounds", name]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    return json.loads(done.stdout.splitlines()[-1])


def bench_workarounds(
    names: Iterable[str] = tuple(EXAMPLES), *, rounds: int = 3, progress: Callable[[str], None] = lambda line: None
) -> WorkaroundsBenchmark:
    """Run the examples of the named :data:`admodes.compilers.workarounds.WORKAROUNDS`, with each and without."""
    found_on = {w.name: w.found_on for w in WORKAROUNDS}
    cases = []
    for name in names:
        progress(name)
        figure = EXAMPLES[name][1]
        try:
            pairs = [(_in_a_process(name, False)[figure], _in_a_process(name, True)[figure]) for _ in range(rounds)]
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            cases.append(Case(name, figure, found_on[name], failure=failure_of(error)))
            continue
        with_it, without = (min(values) for values in zip(*pairs, strict=True))
        cases.append(Case(name, figure, found_on[name], with_it, without))
    return WorkaroundsBenchmark(tuple(cases))


if __name__ == "__main__":
    print(json.dumps(figures(sys.argv[1])))
