"""What is computed once although a fusing compiler would compute it over and over."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import admodes
from admodes.compilers.workarounds import KEPT_CALLS
from admodes.planner.sweeps import stored_values as module
from admodes.planner.sweeps.stored_values import recomputed
from admodes.program import jax_compat as jc
from admodes.program.ir import from_jaxpr

N = 3000


def diffuse(u):
    return jnp.roll(u, 1) + jnp.roll(u, -1) - 2 * u + u * jnp.cos(u)


def runge_kutta(u, h=0.01):
    k1 = diffuse(u)
    k2 = diffuse(u + h / 2 * k1)
    k3 = diffuse(u + h / 2 * k2)
    k4 = diffuse(u + h * k3)
    return u + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def repeated(step, times):
    def f(u):
        for _ in range(times):
            u = step(u)
        return u

    return f


def flat(f, *args):
    return from_jaxpr(jc.trace_flat(lambda *args: [f(*args)], [jc.typeof(jnp.asarray(x)) for x in args], "f"))


def names(program, slots):
    return [e.primitive.name for e in program.equations if slots.intersection(e.outputs)]


@pytest.mark.parametrize("step", [diffuse, runge_kutta])
def test_what_is_stored_grows_with_the_depth_and_no_faster(step):
    counts = []
    for times in (2, 4, 6):
        program = flat(repeated(step, times), np.ones(N))
        chosen = recomputed(program)
        counts.append(len(chosen))
    assert counts[2] - counts[1] == counts[1] - counts[0] <= counts[0] + 2
    assert counts[0]


def test_stencils_of_stencils_are_evaluated_three_times():
    program = flat(lambda u: (lambda v: jnp.roll(v, 1) + jnp.roll(v, -1) + v * v)(jnp.sin(u)), np.ones(N))
    (times,) = module._evaluations(program, (), (), 1, 1.0, 0).values()
    assert times == pytest.approx(3)
    assert names(program, recomputed(program)) == ["sin"]


def test_what_does_not_depend_on_seeds_is_evaluated_for_each():
    program = flat(lambda x, s: jnp.exp(2 * x) * s, np.ones(500), np.ones(500))
    assert not recomputed(program, program.inputs[1:], 1)
    assert names(program, recomputed(program, program.inputs[1:], 8)) == ["exp"]


def test_what_is_read_as_an_array_is_in_memory():
    """XLA keeps the tangens, which a product with a matrix reads; and nobody reads the value of the function."""
    weights = np.ones((N, 2))

    def sweep(x, s):
        y = jnp.tanh(x)
        return y @ weights, (1 - y * y) * s

    program = from_jaxpr(jax.make_jaxpr(sweep)(np.ones(N), np.ones(N)))
    assert not recomputed(program, program.inputs[1:], 8)
    alone = from_jaxpr(jax.make_jaxpr(lambda x, s: (jnp.sin(x), jnp.cos(jnp.sin(x)) * s))(np.ones(N), np.ones(N)))
    assert names(alone, recomputed(alone, alone.inputs[1:], 1)) == []
    assert names(alone, recomputed(alone, alone.inputs[1:], 8, unread=1)) == ["cos"]


def test_what_is_cheap_small_or_in_memory_anyway_is_left_alone():
    cheap = lambda x: jnp.roll(2 * x, 1) + 2 * x
    small = lambda x: jnp.roll(jnp.sin(x), 1) + jnp.sin(x)
    kernel = lambda x: jnp.roll(jnp.cumsum(x), 1) + jnp.cumsum(x)
    keys = lambda x: x + jax.random.uniform(jax.random.wrap_key_data(jnp.zeros(2, jnp.uint32)), x.shape)
    assert not recomputed(flat(cheap, np.ones(N)))
    assert not recomputed(flat(small, np.ones(20)))
    assert not recomputed(flat(kernel, np.ones(N)))
    assert recomputed(flat(keys, np.ones(3))) is not None
    assert not recomputed(flat(small, np.ones(0)))


@pytest.mark.slow
def test_flops_of_a_sweep_grow_linearly_with_the_depth():
    """XLA counts twice what is fused into two kernels: without what is stored, 4 steps take 3.7 times as many as 2."""
    modes = np.sin(np.outer(np.arange(4.0), np.arange(N)))

    def flops(times):
        f = lambda p: repeated(runge_kutta, times)(p @ modes)
        return jax.jit(admodes.jacobian(f)).lower(jnp.ones(4)).compile().cost_analysis()["flops"]

    assert flops(4) < 2.5 * flops(2)


@pytest.mark.parametrize("loop", [False, True])
def test_jacobians_of_many_steps_equal_those_of_jax(loop):
    """In a row, and in a loop, whose body is treated alike."""
    n, steps = 100, 3
    scanned = lambda u: jax.lax.scan(lambda u, _: (runge_kutta(u), u[0]), u, None, length=steps)
    f = scanned if loop else repeated(runge_kutta, steps)
    u = np.random.default_rng(0).standard_normal(n)
    ours, theirs = jax.jit(admodes.jacobian(f)), jax.jit(jax.jacfwd(f))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13), ours(u), theirs(u))
    assert ("inlineable" if KEPT_CALLS.enabled else "optimization_barrier") in str(jax.make_jaxpr(ours)(u))
