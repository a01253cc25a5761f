"""Random programs: both modes agree with JAX, in value and derivative, run by Python and below jit.

``pytest -m slow tests/test_fuzz.py`` runs ten thousand programs (eleven minutes). Two such runs, with different seeds,
found no disagreement in 20,000; with the derivative of sin off by a thousandth, 24 of 40 programs disagreed.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import admodes
from tests.programs import MATRIX, VECTOR, programs

quick = settings(
    max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
)
thorough = settings(quick, max_examples=10_000, derandomize=False)


def point(seed):
    """Inputs and directions; one seed in four puts zeros at the kinks."""
    rng = np.random.default_rng(seed)
    draw = lambda shape: jnp.asarray(rng.normal(size=shape) * (rng.random(shape) < (0.5 if seed % 4 == 0 else 1)))
    return tuple(map(draw, ((), VECTOR, MATRIX))), tuple(map(draw, ((), VECTOR, MATRIX)))


def same(ours, theirs):
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-6, atol=2e-6 * (1 + np.max(np.abs(b), initial=0)))


def forward(lib, f, xs, ts):
    return lib.jvp(f, xs, ts)


def reverse(lib, f, xs, ts):
    y, pullback = lib.vjp(f, *xs)
    return y, pullback(jax.tree.map(jnp.cos, y))


def compare(f, seed, derive, jit):
    xs, ts = point(seed)
    run = lambda lib: (
        jax.jit(lambda xs, ts: derive(lib, f, xs, ts)) if jit else lambda xs, ts: derive(lib, f, xs, ts)
    )(xs, ts)
    same(run(admodes), run(jax))


@given(programs(modes=("jvp",)), st.integers(0, 1000), st.booleans())
@quick
def test_forward_mode(f, seed, jit):
    compare(f, seed, forward, jit)


@given(programs(modes=("vjp",)), st.integers(0, 1000), st.booleans())
@quick
def test_reverse_mode(f, seed, jit):
    compare(f, seed, reverse, jit)


@given(programs(max_steps=6), st.integers(1, 1000))
@settings(quick, max_examples=4)
def test_forward_over_reverse(f, seed):
    xs, ts = point(seed)
    gradient = lambda lib: lib.grad(lambda *xs: sum(jnp.sum(jnp.sin(y)) for y in f(*xs)), (0, 1, 2))
    same(
        jax.jit(lambda *xs: admodes.jvp(gradient(admodes), xs, ts))(*xs),
        jax.jit(lambda *xs: jax.jvp(gradient(jax), xs, ts))(*xs),
    )


@pytest.mark.slow
@given(programs(modes=("vjp",)), programs(modes=("jvp",)), st.integers(0, 10**6), st.integers(0, 9))
@settings(thorough, max_examples=5_000)
def test_ten_thousand_programs(f, g, seed, jit):
    compare(f, seed, reverse, jit == 0)
    compare(g, seed, forward, jit == 0)
