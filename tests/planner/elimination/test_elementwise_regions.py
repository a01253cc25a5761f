"""Elementwise regions: their partials are multiplied as arrays, and the Jacobians stay what they are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from admodes import problems
from admodes.planner.elimination.local_nonzeros import local_jacobians
from admodes.planner.ways.accumulation import accumulation
from admodes.program.trace import trace

N = 5
X, Y = np.linspace(-1.3, 2.1, N), np.linspace(0.4, 1.7, N)
MASK = np.array([1.0, 0.0, 2.0, 0.0, 3.0])

CASES = {
    "chain": (lambda x: jnp.sin(jnp.exp(jnp.cos(x))), (X,), 1),
    "squares": (lambda x: (x * x) * (x * x), (X,), 1),
    "two operands": (lambda x, y: jnp.sin(x * y) + jnp.cos(x / y), (X, Y), 2),
    "quotients": (lambda x, y: jnp.log(jnp.log(jnp.exp(x) + y * y + 3.0)) / (y / 2.0), (X, Y), 2),
    "two results": (lambda x, y: (jnp.sin(x * y), jnp.cos(x * y)), (X, Y), 4),
    "masks": (lambda x, y: jnp.where(x > 0, jnp.sin(x), y) * jnp.maximum(x, y), (X, Y), 2),
    "several ways": (
        lambda x: jax.lax.select_n((x > 0).astype(np.int32) + (x > 1), x, jnp.sin(x), jnp.exp(x)) ** 2,
        (X,),
        1,
    ),
    "signs": (lambda x, y: jnp.sin(-(x - y)), (X, Y), 1),
    "scalars": (lambda x, s: jnp.sin(x * jnp.exp(s)) * s, (X, np.float64(0.3)), 4),
    "axes of one entry": (lambda x, y: jnp.exp(jnp.sin(x[:, None]) * jnp.cos(y[None, :])), (X, Y), 4),
    "known factors": (lambda x: jnp.sin(2.0 * jnp.linspace(1.0, 2.0, N) * x) * 0.5, (X,), 1),
    "sums of known and others": (lambda x: 3.0 * x + jnp.sin(x) + 2.0 * x, (X,), 1),
    "single precision": (lambda x: jnp.sin(jnp.cos(x).astype(np.float32) ** 2).astype(np.float64) * x, (X,), None),
    "an output inside": (lambda x: (jnp.exp(x), jnp.sin(jnp.exp(x)) ** 2), (X,), None),
}


@pytest.mark.parametrize("name", CASES)
def test_the_jacobian_is_that_of_jax(name):
    fun, args, arrays = CASES[name]
    program = trace(fun, *args)
    active = (True,) * len(args)
    local = local_jacobians(program, active, regions=True)
    if arrays is not None:
        assert sum(size > 0 for size in local.sizes) == arrays
    found = accumulation(program, active)
    _, values = jax.jit(lambda *leaves: found(program, found.tables, leaves))(*args)
    dense = np.zeros(found.pattern.shape)
    dense[found.pattern.rows, found.pattern.cols] = values
    flat = lambda *xs: jnp.concatenate([jnp.ravel(y) for y in jax.tree.leaves(fun(*xs))])
    blocks = jax.jacobian(flat, argnums=tuple(range(len(args))))(*args)
    wanted = np.concatenate([np.reshape(b, (b.shape[0], -1)) for b in blocks], axis=1)
    np.testing.assert_allclose(dense, wanted, rtol=1e-6 if name == "single precision" else 1e-12, atol=1e-12)


def test_known_zeros_stay_in_the_pattern():
    found = accumulation(trace(lambda x: jnp.sin(jnp.exp(MASK * x)) * MASK, X), [True])
    assert found.pattern.nnz == np.count_nonzero(MASK)


def test_what_a_mask_leaves_out_does_not_count():
    """The square root has an infinite slope at 0, which the mask takes away, as in forward mode."""
    x = np.array([0.0, 4.0])
    fun = lambda x: jnp.where(x > 1, jnp.sqrt(x), 7.0)
    program = trace(fun, x)
    found = accumulation(program, [True])
    np.testing.assert_allclose(found(program, found.tables, [jnp.asarray(x)])[1], [0.0, 0.25])


def test_operations_are_counted():
    """sin(u) cos(v), u = x^2, v = x y: two partials of two factors or three, and a sum."""
    program = trace(lambda x, y: jnp.sin(x * x) * jnp.exp(x * y), X, Y)
    found = accumulation(program, [True, True])
    assert found.levels == 0
    assert found.multiplications == found.local.multiplications <= 7 * N
    assert found.additions <= 2 * N


def test_index_lists_become_shorter():
    """The dynamics of a cart and its pole are one region: sums of its partials are all that is left."""
    fun, args = problems.get("collocation").make(np.float64, n=20)
    program = trace(fun, *args)
    found = accumulation(program, [True])
    apart = local_jacobians(program, [True])
    assert found.levels == 1
    assert 2 * sum(found.local.sizes) < sum(apart.sizes)
