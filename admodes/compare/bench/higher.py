"""``admodes bench higher``: series along a line and Laplacians, beside ``jax.experimental.jet`` and nested derivatives.

The contenders of a case take turns within one run. A series is compared with the faster of jet and of nested
``jax.jvp``, a Laplacian with the trace of ``jax.hessian`` and with one written by hand for this net.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.jet import jet as jax_jet

import admodes
from admodes.compare.bench.suite import Benchmark, Goal, failure_of, worst
from admodes.text_tables import seconds

ORDERS = (3, 6, 10)
NESTED_UPTO = 6  # compiling nested derivatives of higher orders takes minutes
GOALS = {3: 1.0, 6: 0.6, 10: 0.2}


@dataclass(frozen=True)
class Case:
    """Seconds of one run, and of the compilation, of ours and of the others."""

    name: str
    order: int
    ours: float = math.nan
    others: dict[str, float] = field(default_factory=dict)
    compilation: float = math.nan
    failure: str = ""

    @property
    def fastest(self) -> tuple[str, float]:
        return min(self.others.items(), key=lambda item: item[1])

    @property
    def ratio(self) -> float:
        return self.ours / self.fastest[1]


class HigherBenchmark(Benchmark):
    """Derivatives of higher order beside those of others."""

    title = f"Higher orders on jax {jax.__version__}"
    columns = ("case", "fastest other", "order", "admodes", "other", "admodes / other", "compiled in")
    names = 2

    def goals(self) -> list[Goal]:
        """One for the series of each order, and one for each Laplacian."""
        series = [c for c in self.measured if c.name.startswith("series")]
        found = [
            Goal(f"series of order {k}", worst(c.ratio for c in series if c.order == k), GOALS[k])
            for k in sorted({c.order for c in series})
        ]
        return found + [Goal(c.name, c.ratio, 1.0) for c in self.measured if c not in series]

    def line(self, case: Case) -> list[str]:
        other, taken = case.fastest
        ratio = f"{case.ratio:.2f}"
        return [case.name, other, str(case.order), *map(seconds, (case.ours, taken)), ratio, seconds(case.compilation)]


def _weights(*sizes):
    rng = np.random.default_rng(0)
    sides = itertools.pairwise(sizes)
    return [jnp.asarray(rng.normal(size=(a, b)) / math.sqrt(a), np.float32) for a, b in sides]


def _points(*shape):
    return jnp.asarray(np.random.default_rng(1).normal(size=shape), np.float32)


def _net(matrices, x):
    for matrix in matrices[:-1]:
        x = jnp.tanh(x @ matrix)
    return (x @ matrices[-1])[..., 0]


def _chain(x):
    for _ in range(4):
        x = jnp.sin(x) * jnp.exp(-x * x) + jnp.tanh(x) / (1.5 + jnp.cos(x))
    return x


def _nested(fun, x, v, order):
    def slope(f):
        return lambda t: jax.jvp(f, (t,), (jnp.ones((), x.dtype),))[1]

    stages: list[Callable] = [lambda t: fun(x + t * v)]
    for _ in range(order):
        stages.append(slope(stages[-1]))
    return [f(jnp.zeros((), x.dtype)) for f in stages]


def _series(fun, x, order) -> tuple[dict[str, Callable], tuple]:
    contenders = {
        "admodes": lambda x, v: admodes.taylor(fun, x, v, order),
        "jet": lambda x, v: jax_jet(fun, (x,), ([v, *[jnp.zeros_like(v)] * (order - 1)],)),
    }
    if order <= NESTED_UPTO:
        contenders["nested jvp"] = lambda x, v: _nested(fun, x, v, order)
    return contenders, (x, _points(*x.shape))


def _by_hand(matrices, x):
    """The forward Laplacian of the net, written for it: h = tanh z, h' = 1 - h², h'' = -2 h h'."""
    h, jacobian, second = x, jnp.eye(len(x), dtype=x.dtype), jnp.zeros_like(x)
    for matrix in matrices[:-1]:
        h = jnp.tanh(h @ matrix)
        jacobian, second, slope = jacobian @ matrix, second @ matrix, 1 - h * h
        second = slope * second - 2 * h * slope * jnp.sum(jacobian**2, 0)
        jacobian = slope * jacobian
    return (second @ matrices[-1])[0]


def _laplacian(n: int) -> tuple[dict[str, Callable], tuple]:
    matrices = _weights(n, 256, 256, 256, 1)
    fun = lambda x: _net(matrices, x)
    contenders = {
        "admodes": jax.vmap(admodes.laplacian(fun)),
        "trace of hessian": jax.vmap(lambda x: jnp.trace(jax.hessian(fun)(x))),
        "by hand": jax.vmap(lambda x: _by_hand(matrices, x)),
    }
    return contenders, (_points(64, n),)


CASES: dict[str, tuple[tuple[int, ...], Callable]] = {
    "series of a net": (ORDERS, lambda k: _series(lambda x: _net(_weights(10, 256, 256, 1), x), _points(256, 10), k)),
    "series of a long formula": (ORDERS, lambda k: _series(_chain, _points(100_000), k)),
    "laplacian, 10 inputs": ((2,), lambda k: _laplacian(10)),
    "laplacian, 50 inputs": ((2,), lambda k: _laplacian(50)),
}


def measured(name: str, order: int, repeat: int) -> Case:
    """One case: all compiled first, then run in turns."""
    contenders, args = CASES[name][1](order)
    compiled, compilation = {}, {}
    for label, fun in contenders.items():
        start = time.perf_counter()
        compiled[label] = jax.jit(fun).lower(*args).compile()
        compilation[label] = time.perf_counter() - start
    taken: dict[str, list] = {label: [] for label in compiled}
    for k in range(repeat + 1):
        turns = list(compiled.items())
        for label, run in turns[k % len(turns) :] + turns[: k % len(turns)]:
            start = time.perf_counter()
            jax.block_until_ready(run(*args))
            taken[label].append(time.perf_counter() - start)
    best = {label: min(samples[1:]) for label, samples in taken.items()}
    return Case(name, order, best.pop("admodes"), best, compilation["admodes"])


def bench_higher(
    names: Iterable[str] = tuple(CASES), *, repeat: int = 5, progress: Callable[[str], None] = lambda line: None
) -> HigherBenchmark:
    """Run the named :data:`CASES`, each with all of its orders."""
    cases = []
    for name in names:
        for order in CASES[name][0]:
            progress(f"{name}, order {order}")
            try:
                cases.append(measured(name, order, repeat))
            except (RuntimeError, NotImplementedError) as error:
                cases.append(Case(name, order, failure=failure_of(error)))
    return HigherBenchmark(tuple(cases))
