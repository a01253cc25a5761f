"""flax: modules of nnx and linen, their lifted loops, and optax losses on top."""

import jax
import jax.numpy as jnp
import numpy as np

from tests.clients.derivatives import EVERY, Case, client, every_derivative

nnx, linen, optax = client("flax.nnx"), client("flax.linen"), client("optax")

RNG = np.random.default_rng(0)
U = jnp.asarray(RNG.normal(size=(3, 2)))
IMAGES = jnp.asarray(RNG.normal(size=(2, 4, 4, 1)))
LABELS = jnp.array([0, 1, 1])
F = {"param_dtype": jnp.float64}


class Net(nnx.Module):
    def __init__(self, rngs):
        self.first = nnx.Linear(2, 3, rngs=rngs, **F)
        self.norm = nnx.LayerNorm(3, rngs=rngs, **F)
        self.last = nnx.Linear(3, 2, rngs=rngs, **F)

    def __call__(self, x):
        return self.last(nnx.silu(self.norm(self.first(x))))


GRAPH, STATE = nnx.split(Net(nnx.Rngs(0)))


def nnx_module(state):
    return nnx.merge(GRAPH, state)(U)


def nnx_remat(state):
    return nnx.remat(lambda m, x: m(x))(nnx.merge(GRAPH, state), U)


def nnx_scan(state):
    model = nnx.merge(GRAPH, state)
    return nnx.scan(lambda h, m: (m(h) + h, jnp.sum(h)), in_axes=(nnx.Carry, None), length=3)(U, model)


class Convolutional(linen.Module):
    @linen.compact
    def __call__(self, x):
        x = linen.relu(linen.Conv(2, (2, 2), **F)(x))
        x = linen.avg_pool(linen.GroupNorm(1, **F)(x), (2, 2), (2, 2))
        return linen.Dense(2, **F)(x.reshape(x.shape[0], -1))


class Recurrent(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.RNN(linen.LSTMCell(2, **F))(x)


class Deep(linen.Module):
    @linen.compact
    def __call__(self, x):
        class Layer(linen.Module):
            @linen.compact
            def __call__(self, x, _):
                return linen.tanh(linen.Dense(2, **F)(x)), None

        layer = linen.scan(linen.remat(Layer), variable_axes={"params": 0}, split_rngs={"params": True}, length=3)
        return layer()(x, None)[0]


def of_linen(name, module, inputs):
    variables = module.init(jax.random.key(0), inputs)
    return Case(name, lambda p: module.apply(p, inputs), variables)


def losses(state):
    logits = nnx_module(state)
    return {
        "cross": optax.softmax_cross_entropy_with_integer_labels(logits, LABELS),
        "huber": optax.huber_loss(logits, jnp.ones((3, 2))),
        "sigmoid": optax.sigmoid_binary_cross_entropy(logits, jnp.ones((3, 2))),
        "cosine": optax.cosine_distance(logits, jnp.ones((3, 2))),
    }


def unrolled(rate):
    """The parameters after three steps of Adam, as a function of its learning rate and of where it starts."""
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate["rate"]))
    parameters, state = rate["start"], optimiser.init(rate["start"])
    for _ in range(3):
        updates, state = optimiser.update(jax.tree.map(lambda p: 2 * p - 1, parameters), state, parameters)
        parameters = optax.apply_updates(parameters, updates)
    return parameters


CASES = [
    Case("nnx-module", nnx_module, STATE, EVERY),
    Case("nnx-remat", nnx_remat, STATE),
    Case("nnx-scan", nnx_scan, STATE),
    of_linen("linen-convolution", Convolutional(), IMAGES),
    of_linen("linen-lstm", Recurrent(), U[None]),
    of_linen("linen-scan-of-remat", Deep(), U),
    Case("optax-losses", losses, STATE),
    Case("optax-unrolled", unrolled, {"rate": jnp.array(0.1), "start": jnp.array([0.2, 0.9])}),
]


@every_derivative(CASES)
def test_derivatives(case, way):
    way(case)
