"""Patterns at a point."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import admodes

X = np.array([0.3, -0.2, 0.9, 0.5])

FUNCTIONS = {
    "max": lambda x: jnp.maximum(x, x[::-1]),
    "relu": lambda x: jax.nn.relu(x) * x[::-1],
    "where": lambda x: jnp.where(x > 0.4, jnp.sin(x), jnp.roll(x, 1)),
    "cond": lambda x: lax.cond(x[0] > 0.2, lambda x: x**2, lambda x: jnp.cumsum(x), x),
    "product": lambda x: jnp.outer(jnp.maximum(x, 0), x).ravel(),
    "scan": lambda x: lax.scan(lambda c, y: (c + y, c * y), x[0], x)[1],
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_pattern_at_a_point_lies_between_the_nonzeros_and_the_pattern(name):
    f = FUNCTIONS[name]
    found, everywhere = admodes.sparsity(f, X, local=True), admodes.sparsity(f, X)
    nonzero = np.asarray(jax.jacfwd(f)(X)) != 0
    assert (found.to_dense() >= nonzero).all()
    assert (found.to_dense() <= everywhere.to_dense()).all()
    if name != "scan":
        np.testing.assert_array_equal(found.to_dense(), nonzero)
        assert found.nnz < everywhere.nnz


def test_a_type_is_no_point():
    with pytest.raises(TypeError, match="local=True takes the pattern at values"):
        admodes.sparsity(jnp.sin, jax.ShapeDtypeStruct((3,), np.float64), local=True)
