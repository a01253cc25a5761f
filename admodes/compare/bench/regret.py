"""``admodes bench regret``: the time of the way that the planner takes over that of the fastest of all candidates.

The functions are made up: of several kinds, in random sizes, by a generator with a seed, so that no constant is tuned
on them. Each candidate is really run, and so are the plain modes of this library and of JAX.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from admodes.compare import jax_ad
from admodes.compare.bench.suite import Benchmark, Goal, failure_of, geometric_mean, worst
from admodes.compare.measure import interleave, keep_memory
from admodes.errors import AdmodesError
from admodes.planner.calls.request import request
from admodes.planner.choice.decision import Settings, compiled, decide, label
from admodes.text_tables import seconds
from admodes.transforms.forward import jacfwd
from admodes.transforms.reverse import jacrev

RUN_SECONDS = 2.0  # for the samples of a function
SLOW = 50.0  # candidates predicted to take so many times as long as the best one are not run
LARGE = 2.0**30  # nor those of so many bytes of temporary memory


# -- the functions -------------------------------------------------------------------------------------

Made = tuple[Callable, np.ndarray, str]  # a function of one array, an argument, the format of its Jacobian


def _stencil(rng: np.random.Generator) -> Made:
    reach, depth = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    weights = rng.standard_normal(2 * reach + 1)

    def f(x):
        for _ in range(depth):
            x = jnp.tanh(sum(w * jnp.roll(x, k - reach) * x for k, w in enumerate(weights)))
        return x

    return f, rng.standard_normal(int(rng.integers(100, 20_000))), "bcoo"


def _graph(rng: np.random.Generator) -> Made:
    nodes = int(rng.integers(50, 5000))
    ends = rng.integers(0, nodes, (2, nodes * int(rng.integers(2, 6))))

    def f(x):
        flow = jnp.sin(x[ends[0]] - x[ends[1]]) * x[ends[0]]
        return jnp.zeros_like(x).at[ends[1]].add(flow)

    return f, rng.standard_normal(nodes), "bcoo"


def _loop(rng: np.random.Generator) -> Made:
    n, steps = int(rng.integers(2, 12)), int(rng.integers(20, 400))
    matrix = rng.standard_normal((n, n)) / n

    def f(p):
        def slope(y):
            return jnp.tanh(matrix @ y) * p - y

        def step(y, _):
            first = slope(y)
            second = slope(y + 0.05 * first)
            return y + 0.05 * (first + second), y

        last, path = lax.scan(step, jnp.ones(n), None, length=steps)
        return path if steps % 2 else last

    return f, rng.standard_normal(n), "dense"


def _batch(rng: np.random.Generator) -> Made:
    count, n, m = int(rng.integers(10, 2000)), int(rng.integers(2, 8)), int(rng.integers(2, 8))
    inner, outer = rng.standard_normal((n, 2 * n)), rng.standard_normal((2 * n, m))

    def f(x):
        return jnp.tanh(x.reshape(count, n) @ inner) @ outer

    return f, rng.standard_normal(count * n), "bcoo"


def _net(rng: np.random.Generator) -> Made:
    widths = rng.integers(5, 200, int(rng.integers(3, 6)))
    matrices = [rng.standard_normal(pair) / math.sqrt(pair[0]) for pair in itertools.pairwise(widths)]

    def f(x):
        for matrix in matrices:
            x = jnp.tanh(x @ matrix)
        return x

    return f, rng.standard_normal(widths[0]), "dense"


def _kernel(rng: np.random.Generator) -> Made:
    count, n, whole = int(rng.integers(5, 60)), int(rng.integers(1, 4)), bool(rng.integers(2))

    def f(x):
        points = x.reshape(count, n)
        squares = ((points[:, None] - points[None]) ** 2).sum(-1)
        return jnp.exp(-squares) @ jnp.sin(points) if whole else jnp.exp(-squares)

    return f, rng.standard_normal(count * n), "dense"


def _solve(rng: np.random.Generator) -> Made:
    n, kind = int(rng.integers(10, 120)), int(rng.integers(3))
    matrix, b = rng.standard_normal((n, n)) + 2 * n * np.eye(n), rng.standard_normal(n)

    def f(x):
        if kind == 0:
            return jnp.linalg.solve(matrix + jnp.diag(x), b)
        if kind == 1:
            return jax.scipy.linalg.solve_triangular(matrix + jnp.diag(x), b * x, lower=True)
        return lax.linalg.tridiagonal_solve(0.1 * x, 3 + x**2, 0.1 * x, jnp.asarray(b)[:, None])[:, 0]

    return f, rng.uniform(0.5, 1.5, n), "dense"


KINDS: dict[str, Callable[[np.random.Generator], Made]] = {
    "stencil": _stencil,
    "graph": _graph,
    "loop": _loop,
    "batch": _batch,
    "net": _net,
    "kernel": _kernel,
    "solve": _solve,
}


# the plain modes of this library and of JAX
PLAIN = {"forward": (jacfwd, jax_ad.jacfwd), "reverse": (jacrev, jax_ad.jacrev)}


# -- the measurement -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A function: what was chosen, what was fastest, and their seconds; ``plain`` is the fastest of the plain modes."""

    name: str
    shape: str = ""
    chosen: str = ""
    fastest: str = ""
    chosen_s: float = math.nan
    fastest_s: float = math.nan
    plain_s: float = math.nan
    tried: bool = False
    failure: str = ""

    @property
    def regret(self) -> float:
        return self.chosen_s / self.fastest_s

    @property
    def to_plain(self) -> float:
        return self.chosen_s / self.plain_s


class RegretBenchmark(Benchmark):
    """The chosen way beside the fastest one, over many functions."""

    title = "Regret of the planner"
    columns = ("function", "jacobian", "chosen", "fastest", "", "chosen", "fastest", "regret", "to plain modes")
    names = 5

    def goals(self) -> list[Goal]:
        if not self.measured:
            return []
        regrets = [c.regret for c in self.measured]
        plain = [c.to_plain for c in self.measured if not math.isnan(c.plain_s)]
        return [
            Goal(f"chosen / fastest, geometric mean of {len(regrets)}", geometric_mean(regrets), 1.05),
            Goal("chosen / fastest, worst", worst(regrets), 1.3),
            *([Goal("chosen / fastest plain mode, worst", worst(plain), 1.05)] if plain else []),
        ]

    def line(self, case: Case) -> list[str]:
        tried = "tried" if case.tried else "predicted"
        times = seconds(case.chosen_s), seconds(case.fastest_s)
        to_plain = "-" if math.isnan(case.plain_s) else f"{case.to_plain:.2f}"
        return [case.name, case.shape, case.chosen, case.fastest, tried, *times, f"{case.regret:.2f}", to_plain]


def run_case(name: str, made: Made, *, rounds: int) -> Case:
    """Let the planner choose as it does at a first call, and run all candidates in turn."""
    fun, x, form = made
    call = request("bench regret", fun, 0, False, False).call((x,), {})
    try:
        task = call.task()
        chosen = decide(task, Settings(form=form), call.leaves)
        best = chosen.best
        close = [c for c in chosen.candidates if c.seconds <= SLOW * best.seconds and c.temp_bytes <= LARGE]
        found = [best, *(c for c in close if c is not best)]
        names = {label(c): c.name for c in found}
        runs: dict = {label(c): partial(compiled(task, c, form), call.leaves) for c in found}
        for mode, transforms in PLAIN.items():
            if form == "dense" and mode in names.values():
                runs |= {f"{mode} {k}": partial(jax.jit(t(fun)), x) for k, t in enumerate(transforms)}
        samples = {key: min(taken) for key, taken in interleave(runs, rounds, RUN_SECONDS).items()}
    except AdmodesError as failure:
        return Case(name, failure=failure_of(failure))
    fastest = min(names, key=samples.__getitem__)
    return Case(
        name,
        f"{task.m} x {task.n}",
        best.name,
        names[fastest],
        samples[label(best)],
        samples[fastest],
        min((taken for key, taken in samples.items() if key not in names), default=math.nan),
        not math.isnan(best.measured_s),
    )


def bench_regret(
    kinds: Iterable[str] = tuple(KINDS),
    *,
    count: int = 9,
    seed: int = 0,
    rounds: int = 10,
    progress: Callable[[str], None] = lambda line: None,
) -> RegretBenchmark:
    """The regret over ``count`` functions of each of the named :data:`KINDS`."""
    keep_memory()
    cases = []
    for kind in kinds:
        for number in range(count):
            rng = np.random.default_rng([seed, number, *map(ord, kind)])
            name = f"{kind} {number}"
            progress(name)
            cases.append(run_case(name, KINDS[kind](rng), rounds=rounds))
    return RegretBenchmark(tuple(cases))
