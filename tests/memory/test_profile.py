"""What the tape keeps: each value once, with its size and the line that keeps it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import admodes

X = jax.ShapeDtypeStruct((100, 16), jnp.float32)
W = jax.ShapeDtypeStruct((16, 16), jnp.float32)


def recurrent(w, x):
    h = jnp.tanh(x @ w)
    h = lax.scan(lambda h, _: (jnp.sin(h @ w), None), h, None, length=50)[0]
    return jnp.sum(h**2)


def test_each_value_is_listed_once_with_its_line():
    profile = admodes.memory_profile(recurrent, W, X)
    sizes = {(r.primitive, r.shape): r.bytes for r in profile.residuals}
    assert sizes["tanh", (100, 16)] == 6400
    assert sizes["scan", (50, 100, 16)] == 320_000
    assert profile.bytes == sum(r.bytes for r in profile.residuals)
    assert all("test_profile.py" in r.source and r.dtype == jnp.float32 for r in profile.residuals)
    text = str(profile)
    assert "320 kB" in text
    assert "test_profile.py:17" in text


def test_arguments_and_repetitions_are_not_counted():
    profile = admodes.memory_profile(lambda x: jnp.sin(x) * x * x, jnp.ones(7))
    assert [r.shape for r in profile.residuals] == [(7,)] * len(profile.residuals)
    assert profile.bytes <= 3 * 7 * 8
    assert admodes.memory_profile(lambda x: 2.0 * jnp.sum(x), jnp.ones(7)).residuals == ()


def test_integers_and_python_numbers_may_be_arguments():
    profile = admodes.memory_profile(lambda x, n: x**n, 2.0, 3)
    assert profile.bytes < 100


def test_peaks_fall_with_what_is_kept(tmp_path):
    f = lambda x: jnp.sum(lax.scan(lambda c, _: (jnp.sin(jnp.sin(c)), None), x, None, length=400)[0])
    profile = admodes.memory_profile(f, np.ones(200))
    peaks = profile.peaks(slots=(5,))
    assert peaks["none"] > peaks["every"] > peaks["sqrt"] > peaks["revolve, 5 slots"]
    pytest.importorskip("matplotlib")
    profile.plot(tmp_path / "profile.png")
    assert (tmp_path / "profile.png").stat().st_size > 1000
