"""Tracing, flattening and evaluating programs."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from admodes.program.evaluate import evaluate, live_equations
from admodes.program.ir import Const, from_jaxpr
from admodes.program.trace import trace


def names(program):
    return [e.primitive.name for e in program.equations]


def test_jit_is_inlined_and_custom_rules_are_kept():
    f = jax.jit(lambda x: jax.nn.relu(jax.jit(jnp.sin)(x)) + lax.cond(True, jnp.cos, jnp.sin, x))
    assert names(trace(f, 1.0)) == ["sin", "custom_jvp_call", "cond", "add"] or "jit" not in names(trace(f, 1.0))
    kept = names(trace(lambda x: jax.checkpoint(jnp.sin)(lax.scan(lambda c, _: (c, None), x, None, length=2)[0]), 1.0))
    assert kept == ["scan", "remat2"]


def test_the_same_function_inlined_twice_gets_its_own_slots():
    g = jax.jit(lambda x: jnp.sin(x) * x)
    program = trace(lambda x: g(x) + g(x + 1), 2.0)
    assert names(program).count("sin") == 2
    np.testing.assert_allclose(evaluate(program, 2.0)[0], 2 * np.sin(2.0) + 3 * np.sin(3.0))
    outputs = [s for e in program.equations for s in e.outputs]
    assert len(outputs) == len(set(outputs))


def test_evaluation_reproduces_the_function_on_pytrees():
    f = lambda d: (d["a"] @ d["b"], {"s": jnp.sum(d["a"]), "c": 3.0})
    d = {"a": np.arange(6.0).reshape(2, 3), "b": np.ones(3)}
    program = trace(f, d)
    for got, expected in zip(evaluate(program, *jax.tree.leaves(d)), jax.tree.leaves(f(d)), strict=True):
        np.testing.assert_allclose(got, expected)
    assert [a.shape for a in program.in_avals] == [(2, 3), (3,)]


def test_constants_and_literal_outputs():
    table = np.arange(5.0)
    program = trace(lambda x: (x * table, 2.0), 3.0)
    np.testing.assert_allclose(evaluate(program, 3.0)[0], 3 * table)
    assert isinstance(program.outputs[1], Const)


def test_live_equations_drop_dead_code():
    def f(x):
        jnp.cos(x)
        return jnp.sin(x)

    program = trace(f, 1.0)
    assert names(program) == ["cos", "sin"]
    assert [e.primitive.name for e in live_equations(program)] == ["sin"]


def test_the_program_of_a_jaxpr_is_cached():
    closed = jax.make_jaxpr(jnp.sin)(1.0)
    assert from_jaxpr(closed) is from_jaxpr(closed)


def test_source_lines_are_the_users():
    program = trace(lambda x: jnp.sin(x), 1.0)
    assert "test_program.py" in program.equations[0].where
