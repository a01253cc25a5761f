r"""The machine: how long a unit of each kind of work takes, measured once and kept in the user's cache directory.

Reference: the model is the roofline, Williams, Waterman and Patterson, Comm. ACM 52(4) (2009) 65-76, with a constant
for each kernel that is started.
"""

from __future__ import annotations

import functools
import math
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
from jax import lax

from admodes.planner.cost import cache_folder
from admodes.planner.cost.work import Work
from admodes.program import jax_compat as jc
from admodes.program.agreement import agreed


@dataclass(frozen=True)
class Machine:
    """Seconds for a unit of each kind of :class:`~admodes.planner.cost.work.Work`.

    ``measured`` is false for the nominal constants, which hold the usual proportions of one CPU core.
    """

    element: float = 1e-10
    transcendental: float = 1.5e-9
    product: float = 4e-11
    joined: float = 3e-9
    gathered: float = 3e-9
    scattered: float = 5e-9
    byte: float = 1e-10
    kernel: float = 1.5e-6
    measured: bool = False

    def seconds(self, work: Work) -> float:
        """The seconds that the work takes: compute or memory, whichever is longer, then single elements, and the
        kernels."""
        compute = (
            work.elements * self.element
            + work.transcendentals * self.transcendental
            + work.products * self.product
            + work.joined * self.joined
        )
        single = work.gathered * self.gathered + work.scattered * self.scattered
        return max(compute, work.bytes * self.byte) + single + work.kernels * self.kernel


NOMINAL = Machine()


def _file() -> Path:
    return cache_folder.file("machine.json")


def _constants(data: dict) -> Machine:
    constants = data["constants"]
    if constants.keys() != asdict(NOMINAL).keys() - {"measured"}:
        raise ValueError("other constants are needed")
    if not all(0 < value < 1 for value in constants.values()):
        raise ValueError("there are constants that cannot be")
    return Machine(**constants, measured=True)


@functools.cache
def _load(path: Path, stamp: int) -> Machine | None:
    """The constants in the file; None if it is unreadable."""
    try:
        return cache_folder.read(path, _constants)
    except cache_folder.UnreadableError:
        return None


@functools.cache
def _rebuilt(path: Path, stamp: int) -> Machine:
    warnings.warn(f"the constants in {path} are unreadable: measuring anew, some seconds", stacklevel=7)
    try:
        return calibrate()
    except OSError as error:
        warnings.warn(f"the nominal constants are used, as measured ones cannot be kept: {error}", stacklevel=7)
        return NOMINAL


def machine() -> Machine:
    """The constants of this machine, or the nominal ones as long as :func:`calibrate` has not been run here.

    They are kept for each device and version of JAX. If that file is unreadable, they are measured again, unless a
    function is being traced. In a run of several processes all have those of the first one.
    """
    return Machine(**agreed(("machine",), lambda: asdict(_of_this_host()), by_first=True))


def _of_this_host() -> Machine:
    try:
        path = _file()
        stamp = path.stat().st_mtime_ns
    except OSError:
        return NOMINAL
    found = _load(path, stamp)
    return found or (NOMINAL if jc.is_tracing() else _rebuilt(path, stamp))


def calibrate(progress=lambda line: None) -> Machine:
    """Measure the constants of this machine and backend, and keep them. Takes some seconds."""
    path = _file()
    path.parent.mkdir(parents=True, exist_ok=True)  # raises now, not after the work, if that cannot be
    x = jnp.linspace(0.1, 0.9, 200_000, dtype=jnp.float32)
    indices = jnp.arange(x.size, dtype=jnp.int32) * 7919 % jnp.int32(8192)  # as tables do, near to each other
    square, rows = jnp.ones((512, 512), jnp.float32), jnp.ones((8, 16384), jnp.float32)
    large = jnp.ones(8_000_000, jnp.float32)
    small = jnp.ones(8, jnp.float32)

    def cheap(x):
        for k in range(2):
            x = lax.add(lax.mul(x, jnp.float32(0.9)), jnp.float32(k))
        return x

    def neighbours(s):
        return jnp.concatenate([s[:, 1:], s[:, :1]], 1) + jnp.concatenate([s[:, -1:], s[:, :-1]], 1)

    def transcendental(x):
        return lax.sin(x) + lax.exp(x) + lax.tanh(x) + lax.log(x)

    def kernels(x):
        for _ in range(20):  # a reduction of each result keeps the compiler from fusing them
            x = lax.mul(x, lax.reduce_sum(x, (0,)))
        return x

    constants = {}
    for name, fun, args, units in (
        ("element", cheap, (x,), 4 * x.size),
        ("transcendental", transcendental, (x,), 4 * x.size),
        ("product", lambda a: a @ a, (square,), 512**3),
        (
            "joined",
            lambda s: neighbours(neighbours(s)),
            (rows,),
            4 * rows.size,
        ),
        ("gathered", lambda x, i: jnp.sum((x[i] * x[i[::-1]]).reshape(-1, 2), 1), (x, indices), 2 * x.size),
        ("scattered", lambda x, i: jnp.zeros_like(x).at[i].add(x), (x, indices), x.size),
        ("byte", lambda x: x + 1, (large,), 8 * large.size),
        ("kernel", kernels, (small,), 20),
    ):
        progress(f"measuring {name} ...")
        constants[name] = best_seconds(fun, args) / units
    cache_folder.write(path, constants=constants)
    return Machine(**constants, measured=True)


def best_seconds(fun, args, *, budget: float = 0.3) -> float:
    """The fastest of the calls of a compiled function that fit a time budget: seconds."""
    compiled = jax.jit(fun).lower(*args).compile()
    jax.block_until_ready(compiled(*args))
    end, best = time.perf_counter() + budget, math.inf
    while True:
        start = time.perf_counter()
        jax.block_until_ready(compiled(*args))
        now = time.perf_counter()
        best = min(best, now - start)
        if now > end:
            return best


def as_rows(machine: Machine) -> list[list[str]]:
    """Name and value of each constant, for a table."""
    return [[name, f"{value:.2e} s"] for name, value in asdict(machine).items() if name != "measured"]
