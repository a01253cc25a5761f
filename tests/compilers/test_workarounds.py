"""Workarounds for compilers: each can be turned off, has an example, and helps where it is in use."""

import json
import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import admodes
from admodes.compare.bench.workarounds import EXAMPLES
from admodes.compilers.workarounds import STORED_VALUES, SWITCH, WORKAROUNDS

COMPILED = """if True:
    import json, jax
    jax.config.update("jax_enable_x64", True)
    from admodes.compare.bench.workarounds import EXAMPLES
    def compiled(name):
        fun, args = EXAMPLES[name][0]()
        return jax.jit(fun).lower(*args).compile()
    texts = {name: compiled(name).as_text() for name in ("small products", "transposed columns")}
    print(json.dumps({
        "stored values": compiled("stored values").cost_analysis()["transcendentals"],
        "selected copies": compiled("selected copies").memory_analysis().temp_size_in_bytes,
        "small products": texts["small products"].count(" dot("),
        "transposed columns": texts["transposed columns"].count("lhs_contracting_dims={0}, rhs_contracting_dims={1}"),
    }))
"""


def process(code: str, without: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, SWITCH: without}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)


def test_every_workaround_has_an_example():
    assert [w.name for w in WORKAROUNDS] == list(EXAMPLES)
    for make, _ in EXAMPLES.values():
        fun, args = make()
        jax.eval_shape(fun, *args)


@pytest.mark.slow
def test_where_it_is_in_use_a_workaround_helps_and_elsewhere_it_is_not_needed():
    every = ",".join(w.name for w in WORKAROUNDS)
    with_them, without = (json.loads(process(COMPILED, names).stdout) for names in ("", every))
    enabled = {w.name: w.enabled for w in WORKAROUNDS}
    for name, cost in with_them.items():
        assert (cost < without[name]) == enabled[name], f"{name}: {cost} with it, {without[name]} without"


def test_a_name_that_there_is_not():
    done = process("import admodes", "stored vaules")
    assert done.returncode
    assert "names stored vaules, but the workarounds are: stored values, kept calls" in done.stderr


def test_other_backends_run_the_natural_program(monkeypatch):
    matrix = np.ones((64, 32))

    def equations(offset):  # (not the same program twice, which would have one plan)
        f = lambda x: matrix @ jnp.sin(x + offset) * jnp.sum(x)
        return re.findall(r"optimization_barrier|inlineable", str(jax.make_jaxpr(admodes.jacobian(f))(jnp.ones(32))))

    assert STORED_VALUES.on
    assert equations(1.0)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert not STORED_VALUES.on
    assert not equations(2.0)


@pytest.mark.slow
def test_the_benchmark_runs():
    from admodes.compare.bench.workarounds import bench_workarounds

    (case,) = bench_workarounds(["small products"], rounds=1).cases
    assert case.ratio > 1
