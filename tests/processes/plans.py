"""What is planned, in processes that differ in what they have measured, and in what else they do; printed as JSON."""

import hashlib
import json
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import start
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import admodes
from admodes.linear.pattern import SparsityPattern
from admodes.planner.choice.decision import label
from admodes.planner.cost import cache_folder, machine, timings
from admodes.planner.elimination.edge_elimination import search_edges
from admodes.planner.elimination.graph import ScalarGraph
from admodes.planner.elimination.search import search
from admodes.program import agreement
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
    edges = {(int(rng.integers(max(0, w - 12), min(w, n - 2))), w) for w in range(4, n) for _ in range(3)}
    return ScalarGraph(n, (0, 1, 2, 3), (n - 2, n - 1), tuple((u, w, None) for u, w in sorted(edges)))


def differ(rank: int) -> None:
    """Each process is calibrated as a strange machine of its own; the second one has more to do."""
    names = [name for name, _ in machine.as_rows(machine.NOMINAL)]
    strange = {name: 10.0 ** -(7 + (k + 3 * rank) % 5) for k, name in enumerate(names)}
    cache_folder.write(cache_folder.file("machine.json"), constants=strange)
    if rank == 0:
        time.sleep(0.2)  # the other one asks first
        assert machine.machine() == machine.Machine(**strange, measured=True)
    else:
        assert machine.machine() != machine.Machine(**strange, measured=True)
        threading.Thread(target=be_busy, daemon=True).start()


def be_busy() -> None:
    while True:
        sum(range(1000))


def planned(x, rank: int) -> dict:
    """Plans as they are printed, and programs as they are compiled."""
    found = {f"plan of {f.__name__}": str(admodes.plan(f, x)) for f in (sparse, waist)}
    known = admodes.plan(sparse, x)
    if rank == 1:  # of a day on which plain forward mode was the fastest
        (slow,) = (c for c in known.candidates if c.name == "forward")
        timings.remember(known.decision.fingerprint, "bcoo", {label(slow): 1e-9})
    found["with timings of one process"] = str(admodes.plan(sparse, x, format="bcoo"))
    found["timed together"] = str(admodes.plan(waist, x, measure=True))
    found["within a limit"] = str(admodes.plan(waist, x, memory_limit="20 kB"))
    functions = {
        "jacobian": admodes.jacobian(sparse, format="bcoo"),
        "hessian": admodes.hessian(lambda x: jnp.sum(sparse(x) ** 2)),
        "laplacian": admodes.laplacian(lambda x: jnp.sum(sparse(x) ** 2)),
        "gradient": admodes.grad(loop, memory_limit="60 kB"),
    }
    return found | {name: digest(jax.jit(f).lower(x).as_text()) for name, f in functions.items()}


def searched() -> dict:
    """Searches that take all the time that they are given."""
    graph, tall = random_graph(80), random_pattern(400, 300, 2500)
    vertices = search(graph, seconds=0.5)
    square = random_pattern(300, 300, 1200)
    return {
        "order": vertices.order,
        "edges": digest(search_edges(graph, vertices, seconds=0.3)),
        "colors": [colors(coloring(tall, kind, budget=0.3)) for kind in ("column", "row", "bidirectional")],
        "symmetric": colors(coloring(square.union(square.transpose), "symmetric", budget=0.3)),
    }


def colors(found) -> tuple:
    return str(found), digest([None if c is None else c.tolist() for c in (found.columns, found.rows)])


def main() -> None:
    rank = start.take_part()
    differ(rank)
    mesh = jax.make_mesh((4,), ("i",), axis_types=(AxisType.Auto,))
    x = jax.make_array_from_callback(X.shape, NamedSharding(mesh, P("i")), lambda index: X[index])
    results = planned(x, rank) | searched()
    if rank == 1:  # nobody else comes
        agreement.PATIENCE = 0.1
        assert agreement.agreed(("alone",), lambda: [1.5], by_first=True) == [1.5]
        y = jnp.ones(7)
        np.testing.assert_allclose(admodes.jacobian(lambda y: y[1:] * y[:-1])(y), jnp.eye(6, 7) + jnp.eye(6, 7, 1))
    print(json.dumps(results))


if __name__ == "__main__":
    main()
