"""Sweeps for many seeds: what compilers must not compute anew for each of them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import admodes

N = 64


@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_transcendentals_are_computed_once_for_all_seeds(mode):
    rows = {"forward": 2 * N, "reverse": N // 2}[mode]
    matrix = np.random.default_rng(0).standard_normal((rows, N))

    def f(x):
        return matrix @ jnp.sin(x) * jnp.sum(x)

    x = jnp.linspace(0.1, 1.0, N)
    compiled = jax.jit(admodes.jacobian(f)).lower(x).compile()
    np.testing.assert_allclose(compiled(x), jax.jacobian(f)(x), rtol=1e-12)
    assert compiled.cost_analysis()["transcendentals"] <= 2 * N  # a sine and a cosine each


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x / (1 + jnp.sum(x**2)),
        lambda x: jax.nn.softmax(x) * jnp.max(x),
        lambda x: jnp.outer(x[:8], x).sum(1) * jnp.cumsum(jnp.exp(x))[:8],
        lambda x: jax.lax.fori_loop(0, 3, lambda _, y: y - y.mean() * jnp.cos(x), x),
        lambda x: (x - x.mean()) ** 3 * jnp.where(jnp.sum(x) > 0, x, 1.0),
    ],
)
def test_jacobians_of_sums_equal_those_of_jax(f):
    x = jnp.linspace(-0.4, 1.0, N)
    expected = jax.jacobian(f)(x)
    np.testing.assert_allclose(admodes.jacobian(f)(x), expected, rtol=1e-10, atol=1e-12)
    batch = jnp.stack([x, x**2])
    np.testing.assert_allclose(
        jax.vmap(admodes.jacobian(f))(batch), jax.vmap(jax.jacobian(f))(batch), rtol=1e-10, atol=1e-12
    )


def test_a_few_rows_of_a_wide_net():
    """The rows are multiplied by the large matrix from the right; the same under vmap, and in derivatives of both."""
    rng = np.random.default_rng(0)
    inner, outer = rng.standard_normal((700, 100)) / 26, rng.standard_normal((100, 5))
    f = lambda x: jax.checkpoint(jnp.tanh)(x @ inner) @ outer  # (no network of matrices)
    x, v = rng.standard_normal((2, 700))
    ours, theirs = admodes.jacobian(f), jax.jacrev(f)
    assert "dot_general[dimension_numbers=(([1], [1]), ([], []))" in str(jax.make_jaxpr(ours)(x)).replace("\n", "")
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-13)
    close(jax.jit(ours)(x), theirs(x))
    close(jax.jit(jax.vmap(ours))(jnp.stack([x, v])), jax.vmap(theirs)(jnp.stack([x, v])))
    tangent = jax.jvp(theirs, (x,), (v,))[1]
    loss = lambda jacobian: lambda x: jnp.sum(jacobian(x) ** 2)
    for library in (jax, admodes):
        close(library.jvp(ours, (x,), (v,))[1], tangent)
        close(library.grad(loss(ours))(x), jax.grad(loss(theirs))(x))


def test_columns_are_transposed_after_the_last_product():
    """XLA would compute products of transposed matrices instead, which are slow on CPUs."""
    rng = np.random.default_rng(0)
    inner, outer = rng.standard_normal((8, 40)), rng.standard_normal((40, 300))
    f = lambda x: jnp.tanh(x @ inner) @ outer
    x = rng.standard_normal(8)
    compiled = jax.jit(admodes.jacobian(f)).lower(x).compile()
    np.testing.assert_allclose(compiled(x), jax.jacfwd(f)(x), rtol=1e-10, atol=1e-13)
    turned = "lhs_contracting_dims={0}, rhs_contracting_dims={1}"
    assert turned in jax.jit(jax.jacfwd(f)).lower(x).compile().as_text()
    assert turned not in compiled.as_text()
    np.testing.assert_allclose(
        jax.jvp(admodes.jacobian(f), (x,), (x,))[1], jax.jvp(jax.jacfwd(f), (x,), (x,))[1], rtol=1e-9, atol=1e-12
    )
