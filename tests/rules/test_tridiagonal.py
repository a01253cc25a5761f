"""Eigenvalues of tridiagonal matrices, which JAX finds by bisection, have the derivatives of the dense ones."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from jax.scipy.linalg import eigh_tridiagonal

import admodes

D, E = jnp.array([1.0, 2.5, 3.0, 0.5]), jnp.array([0.7, -0.3, 0.9])


def found(d, e):
    return eigh_tridiagonal(d, e, eigvals_only=True)


def dense(d, e):
    return jnp.linalg.eigvalsh(jnp.diag(d) + jnp.diag(e, 1) + jnp.diag(e, -1))


@pytest.mark.parametrize("transform", ["jacfwd", "jacrev", "jacobian"])
def test_jacobians(transform):
    ours = getattr(admodes, transform)(found, (0, 1))(D, E)
    for a, b in zip(ours, jax.jacobian(dense, (0, 1))(D, E), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9)


def test_some_of_them_and_second_derivatives():
    some = lambda d: eigh_tridiagonal(d, E, eigvals_only=True, select="i", select_range=(1, 2))
    np.testing.assert_allclose(
        admodes.jacrev(some)(D), jax.jacobian(lambda d: dense(d, E)[1:3])(D), rtol=1e-7, atol=1e-9
    )
    total = lambda eigenvalues: lambda d: jnp.sum(jnp.sin(eigenvalues(d, E)))
    expected = jax.jacfwd(jax.grad(total(dense)))(D)
    np.testing.assert_allclose(admodes.jacfwd(admodes.grad(total(found)))(D), expected, rtol=1e-6, atol=1e-8)


def test_batches_and_jit():
    ds = jnp.stack([D, D[::-1] + 0.1])
    loss = lambda eigenvalues: lambda ds: jnp.sum(jax.vmap(lambda d: eigenvalues(d, E))(ds) ** 3)
    expected = jax.grad(loss(dense))(ds)
    np.testing.assert_allclose(admodes.grad(loss(found))(ds), expected, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(jax.jit(admodes.grad(loss(found)))(ds), expected, rtol=1e-7, atol=1e-9)
