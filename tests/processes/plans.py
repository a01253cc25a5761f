"""What is planned, in processes that differ in what they have measured, and in what else they do; printed as JSON."""

import hashlib
import json
import threading
import time

import start

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import admodes
from admodes.linear.pattern import SparsityPattern
from admodes.planner import machine, measured
from admodes.planner.edges import search_edges
from admodes.planner.graph import ScalarGraph
from admodes.planner.search import search
from admodes.program.trace import trace
from admodes.sparse import coloring

X = np.linspace(0.2, 1.7, 64).reshape(4, 16)
MIX = np.cos(np.arange(256.0)).reshape(16, 16)


def sparse(x):
    return jnp.sin(x) * jnp.roll(x, 1, axis=1) + x**3


def waist(x):
    return jnp.outer(jnp.arange(64.0), jnp.tanh(MIX[:3] @ jnp.sum(x, 0))).sum(1)


def loop(x):
    return jnp.sum(jax.lax.scan(lambda y, _: (y + 0.01 * jnp.sin(y @ MIX), None), x, None, length=300)[0] ** 2)


def digest(x) -> str:
    return hashlib.sha256(str(x).encode()).hexdigest()[:16]


def random_pattern(m: int, n: int, entries: int) -> SparsityPattern:
    rng = np.random.default_rng(0)
    return SparsityPattern.build(rng.integers(m, size=entries), rng.integers(n, size=entries), (m, n))


def random_graph(n: int) -> ScalarGraph:
    rng = np.random.default_rng(1)
    edges = {(int(rng.integers(max(0, w - 12), w)), w) for w in range(4, n) for _ in range(3)}
    return ScalarGraph(n, (0, 1, 2, 3), (n - 2, n - 1), tuple((u, w, None) for u, w in sorted(edges)))


def be_busy() -> None:
    while True:
        sum(range(1000))


def differ(x) -> None:
    """The first process was calibrated on a strange machine, the second one has timings, and more to do."""
    strange = {name: 10.0 ** -(3 + k) for k, name in enumerate(machine.as_rows_names())}
    del strange, x


def main() -> None:
    raise NotImplementedError


if __name__ == "__main__":
    main()
