"""How long detection and coloring take on large problems, and how much memory: run with Python, prints a table."""

import resource
import time

import jax
import jax.numpy as jnp
import numpy as np

from admodes.sparse import coloring, hessian_sparsity, sparsity
from admodes.sparse.compress import decompression

SIDE, LINE = 1000, 10**6


def line(x):
    return x[2:] - 2 * x[1:-1] + x[:-2]


def ring(x):
    return jnp.roll(x, 1) - 2 * x + jnp.roll(x, -1)


def torus(u):
    return sum(jnp.roll(u, s, axis) for s in (1, -1) for axis in (0, 1)) - 4 * u


def brusselator(w):
    u, v = w
    return jnp.stack([torus(u) + u * u * v, torus(v) - u * u * v])


def arrowhead(x):
    return jnp.concatenate([jnp.sum(x * x)[None], x[1:] * x[0]])


def rosenbrock(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


CASES = (
    ("3-point line", line, (LINE,), "column"),
    ("3-point ring", ring, (LINE,), "column"),
    ("5-point torus", torus, (SIDE, SIDE), "column"),
    ("Brusselator", brusselator, (2, 300, 300), "column"),
    ("arrowhead", arrowhead, (10**5,), "bidirectional"),
    ("Rosenbrock", rosenbrock, (LINE,), "symmetric"),
)


def main():
    print(f"{'problem':15} {'variables':>10} {'nonzeros':>10} {'colors':>7} {'bound':>6}  detect   color  decompress")
    for name, fun, shape, kind in CASES:
        x = jax.ShapeDtypeStruct(shape, np.float32)
        start = time.perf_counter()
        pattern = (hessian_sparsity if kind == "symmetric" else sparsity)(fun, x)
        detected = time.perf_counter()
        colors = coloring(pattern, kind, shapes=[shape])
        colored = time.perf_counter()
        decompression(colors)
        end = time.perf_counter()
        times = f"{detected - start:6.2f} s {colored - detected:5.2f} s {end - colored:5.2f} s"
        print(f"{name:15} {np.prod(shape):10} {pattern.nnz:10} {colors.number:7} {colors.lower_bound:6} {times}")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")


if __name__ == "__main__":
    main()
