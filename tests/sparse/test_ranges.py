"""Indices of which a range is known."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import admodes

X = np.array([0.3, -0.2, 0.9, 0.5, 1.3, 0.1])

# what is read, and from which of the six entries each result can come
READ = {
    "argmax of two": (lambda x: jnp.take(x, jnp.array([0, 1]) + jnp.argmax(x[:2])), [(0, 1), (1, 2)]),
    "one of the last, counted from the end": (lambda x: x[-1 - jnp.argmin(x[:3])], [(3, 4, 5)]),
    "a clipped start": (lambda x: lax.dynamic_slice(x, (jnp.clip(jnp.argmax(x), 1, 2),), (2,)), [(1, 2), (2, 3)]),
    "a remainder": (lambda x: x[jnp.argmax(x) % 2], [(0, 1)]),
    "twice a place": (lambda x: x[2 * jnp.argmax(x[3:])], []),
    "a comparison": (lambda x: x[jnp.where(jnp.argmax(x) < 6, 3, 5)], [(3,)]),
    "narrow integers": (lambda x: x[jnp.argmax(x[:2]).astype(jnp.int8)], [(0, 1)]),
    "wrapped ones": (lambda x: x[(jnp.argmax(x[:2]) + 255).astype(jnp.int8)], [(0, 1, 2, 3, 4, 5)]),
    "two axes": (lambda x: x.reshape(3, 2)[jnp.argmax(x[:2]), jnp.argmin(x[:2])], [(0, 1, 2, 3)]),
}


@pytest.mark.parametrize("name", READ)
def test_only_places_in_the_range_are_read(name):
    f, wanted = READ[name]
    found = admodes.sparsity(f, X).to_dense().reshape(-1, X.size)
    rng = np.random.default_rng(0)
    for _ in range(20):
        assert (found >= (np.asarray(jax.jacfwd(f)(rng.standard_normal(6))).reshape(-1, 6) != 0)).all()
    listed = [tuple(np.flatnonzero(row)) for row in found]
    if name == "twice a place":
        assert set(listed[0]) <= {0, 1, 2, 3, 4}  # each place between, as ranges have no gaps
    else:
        assert listed == wanted


def test_a_range_that_is_too_wide_is_any_place():
    x = np.linspace(0, 1, 100)
    assert admodes.sparsity(lambda x: x[jnp.argmax(x)], x).nnz == 100
    assert admodes.sparsity(lambda x: x[jnp.argmax(x[:30])], x).nnz == 30


def test_jacobians_with_such_patterns():
    f = lambda x: jnp.sin(jnp.take(x, jnp.array([0, 1, 2, 3]) + jnp.argmax(x[:2])))
    for x in (X, X[::-1].copy()):
        found = admodes.jacobian(f, format="bcoo")(x)
        np.testing.assert_allclose(found.todense(), jax.jacfwd(f)(x), rtol=1e-12)
        assert found.nse == 8


def test_equations_without_results():
    def f(x):
        jax.debug.callback(lambda: None)
        return x[jnp.argmax(x[:2])]

    assert admodes.sparsity(f, X).nnz == 2
