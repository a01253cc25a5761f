"""Training loops of other people's libraries: with admodes.grad the losses are those of jax.grad."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import admodes

equinox = pytest.importorskip("equinox")
linen = pytest.importorskip("flax.linen")

X = jnp.asarray(np.random.default_rng(0).normal(size=(8, 6)))
Y = jnp.sum(jnp.sin(X), axis=1, keepdims=True)


def train(value_and_grad, loss, params, steps=5):
    """A jitted training loop with Adam; returns the losses."""
    optimiser = optax.adam(1e-2)

    @jax.jit
    def step(params, state):
        value, gradient = value_and_grad(loss)(params)
        updates, state = optimiser.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, value

    state, losses = optimiser.init(params), []
    for _ in range(steps):
        params, state, value = step(params, state)
        losses.append(float(value))
    assert losses[-1] < losses[0]
    return losses


def same_losses(loss, params):
    ours = train(admodes.value_and_grad, loss, params)
    np.testing.assert_allclose(ours, train(jax.value_and_grad, loss, params), rtol=1e-9)


def test_equinox_model():
    """An attention block with layer norm, dropout and an MLP, as an equinox module."""
    keys = jax.random.split(jax.random.key(0), 3)

    class Block(equinox.Module):
        attention: equinox.nn.MultiheadAttention
        norm: equinox.nn.LayerNorm
        dropout: equinox.nn.Dropout
        mlp: equinox.nn.MLP

        def __call__(self, x, key):
            x = x + self.attention(x, x, x)
            x = self.dropout(jax.vmap(self.norm)(x), key=key)
            return jax.vmap(self.mlp)(x)

    model = Block(
        equinox.nn.MultiheadAttention(2, 6, key=keys[0]),
        equinox.nn.LayerNorm(6),
        equinox.nn.Dropout(0.2),
        equinox.nn.MLP(6, 1, 16, 2, activation=jax.nn.gelu, key=keys[1]),
    )
    arrays, static = equinox.partition(model, equinox.is_inexact_array)
    same_losses(lambda p: jnp.mean((equinox.combine(p, static)(X, keys[2]) - Y) ** 2), arrays)


def test_flax_model():
    """A convolutional network with batch norm and pooling in flax."""

    class Net(linen.Module):
        @linen.compact
        def __call__(self, x):
            x = linen.Conv(4, (3, 3))(x)
            x = linen.relu(linen.BatchNorm(use_running_average=False)(x))
            x = linen.max_pool(x, (2, 2), (2, 2))
            return linen.Dense(1)(x.reshape(x.shape[0], -1))

    images = jnp.asarray(np.random.default_rng(1).normal(size=(8, 6, 6, 1)))
    variables = Net().init(jax.random.key(0), images)

    def loss(params):
        out, _ = Net().apply({**variables, "params": params}, images, mutable=["batch_stats"])
        return jnp.mean((out - Y) ** 2)

    same_losses(loss, variables["params"])


def test_recurrent_model_by_hand_with_optax():
    """A GRU-like cell in a scan, gradient clipping, and a learning-rate schedule through optax."""
    w = {"h": jnp.eye(6) * 0.5, "x": jnp.ones((6, 6)) * 0.1, "out": jnp.ones((6, 1)) * 0.1}

    def loss(w):
        def cell(h, x):
            z = jax.nn.sigmoid(h @ w["h"])
            return z * h + (1 - z) * jnp.tanh(x @ w["x"]), None

        h, _ = jax.lax.scan(cell, jnp.zeros((8, 6)), jnp.stack([X, X * 0.5, X * 0.1]))
        return optax.huber_loss(h @ w["out"], Y).mean()

    same_losses(loss, w)
