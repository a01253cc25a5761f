"""Entries that backward rules log (``defvjp_with_logs``), against JAX's and where they cannot be handed out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import admodes
from tests.oracle import JAX_VERSION

pytestmark = pytest.mark.skipif(JAX_VERSION < (0, 11), reason="custom_vjp.defvjp_with_logs is there since jax 0.11")

XS = jnp.array([0.5, -1.0, 2.0])


def scaled(key):
    """y ↦ 3 y, whose backward pass logs its cotangent under a key."""
    fun = jax.custom_vjp(lambda x: 3 * x)
    fun.defvjp_with_logs(lambda x: (3 * x, x), lambda x, g: ((3 * g,), {key: {"g": g, "x": x}}))
    return fun


def looped(x):
    return lax.scan(lambda c, u: (c + scaled("step")(jnp.sin(u)), None), 0.0, x)[0]


def several(x):
    return jax.jit(scaled("jit"))(x).sum() + jax.checkpoint(lambda x: jnp.cos(scaled("remat")(x)))(x).sum()


FUNCTIONS = [lambda x: scaled("f")(x).sum(), looped, several, jax.jit(looped), lambda x: jax.vmap(scaled("v"))(x)]


@pytest.mark.parametrize("f", FUNCTIONS)
@pytest.mark.parametrize("transform", [lambda f: f, jax.jit])
def test_logs_are_jaxs(f, transform):
    g = jnp.ones_like(f(XS))
    ours, theirs = (transform(lambda x, lib=lib: lib.vjp(f, x)[1].with_logs(g))(XS) for lib in (admodes, jax))
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    assert ours[1]
    jax.tree.map(np.testing.assert_allclose, ours, theirs)


def test_logs_are_not_kept_where_nobody_asks():
    _, pullback = admodes.vjp(jax.jit(looped), XS)
    plain = pullback(1.0)
    np.testing.assert_allclose(plain[0], pullback.with_logs(1.0)[0][0])
    np.testing.assert_allclose(plain[0], pullback(1.0)[0])  # programs are kept by whether they log


def test_a_key_is_unique():
    with pytest.raises(ValueError, match="'twice' twice"):
        admodes.vjp(lambda x: scaled("twice")(scaled("twice")(x)), 1.0)[1].with_logs(1.0)


def test_logs_of_inner_gradients_are_their_own():
    def f(x):
        return scaled("outer")(admodes.grad(scaled("inner"))(x) * x)

    assert list(admodes.vjp(f, 2.0)[1].with_logs(1.0)[1]) == ["outer"]


@pytest.mark.parametrize(
    "f",
    [
        lambda x: lax.cond(x > 0, scaled("branch"), jnp.sin, x),
        admodes.checkpoint(lambda x: lax.fori_loop(0, 5, lambda _, x: scaled("bounded")(x), x), slots=2),
    ],
)
def test_where_entries_cannot_be_handed_out_they_raise(f):
    _, pullback = admodes.vjp(f, 1.5)
    np.testing.assert_allclose(pullback(1.0), jax.vjp(f, 1.5)[1](1.0))
    with pytest.raises(NotImplementedError, match="is logged inside"):
        pullback.with_logs(1.0)
