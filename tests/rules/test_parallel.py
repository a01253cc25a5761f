"""Collectives inside vmap(axis_name=...): derivatives taken inside and outside of the map, against JAX."""

import jax
import numpy as np
import pytest
from jax import lax
from jax import numpy as jnp
from oracle import check, sample

import admodes
from admodes.program import jax_compat as jc

N = 4
COLLECTIVES = {
    "psum": lambda x: lax.psum(x, "i"),
    "pmean": lambda x: lax.pmean(x, "i"),
    "psum of a tree": lambda x: lax.psum({"a": x, "b": x[0]}, "i")["a"],
    "all_gather": lambda x: lax.all_gather(x, "i"),
    "all_gather tiled": lambda x: lax.all_gather(x, "i", axis=0, tiled=True),
    "all_gather axis": lambda x: lax.all_gather(x, "i", axis=1),
    "psum_scatter": lambda x: lax.psum_scatter(x, "i"),
    "psum_scatter tiled": lambda x: lax.psum_scatter(x, "i", tiled=True),
    "all_to_all": lambda x: lax.all_to_all(x, "i", 0, 0),
    "all_to_all tiled": lambda x: lax.all_to_all(x, "i", 0, 0, tiled=True),
    "ppermute": lambda x: lax.ppermute(x, "i", [(k, (k + 1) % N) for k in range(N)]),
    "ppermute back and forth": lambda x: lax.ppermute(x, "i", [(0, 2), (1, 1), (2, 3), (3, 0)]),
    "axis_index": lambda x: x * lax.axis_index("i"),
}


def _loss(collective):
    """Not linear, and different on each device."""
    return lambda x: jnp.sum(jnp.sin(collective(jnp.square(x)) * (1 + lax.axis_index("i"))))


@pytest.mark.parametrize("name", COLLECTIVES)
def test_derivatives_inside_the_map(name):
    x = sample((N, N, 3), np.float64)

    def inside(library):
        return jax.jit(jax.vmap(library.value_and_grad(_loss(COLLECTIVES[name])), axis_name="i"))(x)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), inside(admodes), inside(jax))


@pytest.mark.parametrize("name", COLLECTIVES)
def test_forward_inside_the_map(name):
    x, t = sample((N, N, 3), np.float64), sample((N, N, 3), np.float64, seed=1)

    def inside(library):
        def push(x, t):
            return library.jvp(_loss(COLLECTIVES[name]), (x,), (t,))

        return jax.jit(jax.vmap(push, axis_name="i"))(x, t)

    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), inside(admodes), inside(jax))


@pytest.mark.parametrize("name", ["psum", "all_gather", "ppermute", "psum_scatter"])
def test_derivatives_of_the_map(name):
    check(jax.vmap(_loss(COLLECTIVES[name]), axis_name="i"), (sample((N, N, 3), np.float64),))


def test_second_order_inside_the_map():
    x = sample((N, N), np.float64)

    def inside(library):
        loss = _loss(COLLECTIVES["psum"])
        return jax.vmap(library.grad(lambda x: jnp.sum(library.grad(loss)(x) ** 2)), axis_name="i")(x)

    np.testing.assert_allclose(inside(admodes), inside(jax), rtol=1e-12)


def test_two_mapped_axes():
    x = sample((2, 3, 4), np.float64)

    def inside(library):
        grad = library.grad(lambda x: jnp.sum(jnp.sin(lax.psum(x, ("i", "j")) * lax.psum(x, "j"))))
        return jax.vmap(jax.vmap(grad, axis_name="j"), axis_name="i")(x)

    np.testing.assert_allclose(inside(admodes), inside(jax), rtol=1e-12)


def test_pmax_has_no_derivative_as_in_jax():
    for library in (admodes, jax):
        with pytest.raises(NotImplementedError):
            jax.vmap(library.grad(lambda x: lax.pmax(x, "i")), axis_name="i")(jnp.ones(N))


@pytest.mark.skipif(
    not hasattr(jc.collectives, "pbroadcast_dynamic_p"), reason="no broadcasts from a device that is a value"
)
def test_broadcast_from_a_device_that_is_a_value():
    """JAX's own transpose fails inside of the map (for arrays): the derivative of all of it is the oracle."""
    x, source = sample((N, 3), np.float64), jnp.int32(2)

    def loss(x):
        return jnp.sum(jnp.sin(lax.pbroadcast(jnp.square(x), "i", source) * (1 + lax.axis_index("i"))))

    inside = jax.jit(jax.vmap(admodes.grad(loss), axis_name="i"))(x)
    whole = jax.grad(lambda x: jnp.sum(jax.vmap(loss, axis_name="i")(x)))(x)
    np.testing.assert_allclose(inside, whole, rtol=1e-12, atol=1e-14)
    pushed = jax.vmap(lambda x, t: admodes.jvp(loss, (x,), (t,))[1], axis_name="i")(x, x)
    np.testing.assert_allclose(jnp.sum(pushed), jnp.sum(whole * x), rtol=1e-12)
