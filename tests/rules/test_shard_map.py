"""shard_map over four devices: derivatives of per-device programs, with and without replication tracking."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import PartitionSpec as P

import admodes

X, W = jnp.arange(8.0) / 4 + 0.5, jnp.float64(1.3)


@pytest.fixture(scope="module")
def mesh():
    return jax.make_mesh((4,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))


def elementwise(x, w):
    return jnp.sin(x) * w


def normalised(x, w):
    return x * w / lax.psum(jnp.sum(jnp.sin(x)), "i")


def neighbours(x, w):
    shifted = lax.ppermute(x, "i", [(k, (k + 1) % 4) for k in range(4)])
    return shifted * x * w


def scanned(x, w):
    return lax.scan(lambda c, _: (jnp.sin(c) * w, None), x, None, length=3)[0]


def gathered(x, w):
    return x * jnp.sum(jnp.cos(lax.all_gather(x, "i", tiled=True))) * w


PROGRAMS = [elementwise, normalised, neighbours, scanned, gathered]


@pytest.mark.parametrize("check_vma", [True, False])
@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("local", PROGRAMS, ids=lambda f: f.__name__)
def test_both_modes(mesh, local, jit, check_vma):
    sharded = jax.shard_map(local, mesh=mesh, in_specs=(P("i"), P()), out_specs=P("i"), check_vma=check_vma)
    loss = lambda x, w: jnp.sum(sharded(x, w) * jnp.arange(8.0))
    wrap = jax.jit if jit else lambda f: f
    push = lambda lib: wrap(lambda x, w: lib.jvp(loss, (x, w), (jnp.cos(x), w)))(X, W)
    gradient = lambda lib: wrap(lib.grad(loss, (0, 1)))(X, W)
    for ours, theirs in ((push(admodes), push(jax)), (gradient(admodes), gradient(jax))):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-11)


def test_replicated_output_and_second_order(mesh):
    total = lambda x: lax.psum(jnp.sum(jnp.sin(x) ** 2), "i")
    sharded = jax.shard_map(total, mesh=mesh, in_specs=P("i"), out_specs=P())
    np.testing.assert_allclose(admodes.grad(sharded)(X), jax.grad(sharded)(X), rtol=1e-11)
    v = jnp.ones(8)
    ours = jax.jit(lambda x: admodes.jvp(admodes.grad(sharded), (x,), (v,))[1])(X)
    np.testing.assert_allclose(ours, 2 * jnp.cos(2 * X), rtol=1e-10)
    _, push = admodes.linearize(sharded, X)
    np.testing.assert_allclose(push(v), jnp.sum(jnp.sin(2 * X)), rtol=1e-11)
