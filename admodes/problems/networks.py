"""Losses of small neural networks: one output, many inputs."""

from __future__ import annotations

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from admodes.problems.registry import problem


def _weights(rng, dtype, *shape):
    """Normal with variance 1 / (number of inputs of a unit)."""
    fan_in = int(np.prod(shape[:-1]))
    return (rng.normal(size=shape) / np.sqrt(fan_in)).astype(dtype)


def _cross_entropy(logits, labels):
    """−mean log softmax(logits)[labels]."""
    log_probabilities = jax.nn.log_softmax(logits)
    return -jnp.mean(jnp.take_along_axis(log_probabilities, labels[..., None], axis=-1))


@problem(
    summary="squared error of a multilayer perceptron in its weights", field="machine learning", inputs=433, outputs=1
)
def mlp(dtype, rng, widths=(8, 16, 16, 1), batch=16):
    r"""½ mean |z_L − y|², z_{l+1} = tanh(z_l W_l + b_l), without tanh in the last layer.

    Reference: Rumelhart, Hinton and Williams, *Learning representations by back-propagating errors*, Nature 323
    (1986) 533-536.
    """

    def f(layers, x, y):
        *hidden, (last, bias) = layers
        for w, b in hidden:
            x = jnp.tanh(x @ w + b)
        return 0.5 * jnp.mean((x @ last + bias - y) ** 2)

    layers = [(_weights(rng, dtype, m, n), 0.1 * rng.normal(size=n).astype(dtype)) for m, n in pairwise(widths)]
    x = rng.normal(size=(batch, widths[0])).astype(dtype)
    return f, (layers, x, np.sin(x.sum(1, keepdims=True)))


@problem(
    summary="cross entropy of a small convolutional network in its weights",
    field="machine learning",
    inputs=260,
    outputs=1,
)
def cnn(dtype, rng, side=8, channels=(1, 4, 4), classes=5, batch=2):
    r"""Two 3 × 3 convolutions with relu and 2 × 2 average pooling, then a linear classifier.

    Reference: LeCun, Bottou, Bengio and Haffner, *Gradient-based learning applied to document recognition*, Proc. IEEE
    86 (1998) 2278-2324.
    """

    def pool(x):
        return 0.25 * lax.reduce_window(x, np.zeros((), x.dtype), lax.add, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")

    def f(weights, images, labels):
        *kernels, head = weights
        x = images
        for kernel in kernels:
            x = lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
            x = pool(jax.nn.relu(x))
        return _cross_entropy(x.reshape(x.shape[0], -1) @ head, labels)

    kernels = [_weights(rng, dtype, 3, 3, m, n) for m, n in pairwise(channels)]
    head = _weights(rng, dtype, (side // 2 ** len(kernels)) ** 2 * channels[-1], classes)
    images = rng.normal(size=(batch, side, side, channels[0])).astype(dtype)
    return f, ([*kernels, head], images, rng.integers(0, classes, batch))


def _layer_norm(x, scale):
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    return scale * centred * lax.rsqrt(jnp.mean(centred**2, axis=-1, keepdims=True) + 1e-5)


@problem(
    summary="next-token loss of one transformer block in its weights", field="machine learning", inputs=648, outputs=1
)
def transformer(dtype, rng, length=6, width=8, heads=2, vocabulary=8):
    r"""Embedding, causal self-attention softmax(QKᵀ/√d)V, a gelu layer, layer norms before both, cross entropy.

    Reference: Vaswani et al., *Attention is all you need*, NeurIPS 2017; layer norms placed as in Xiong et al., *On
    layer normalization in the transformer architecture*, ICML 2020.
    """
    size = width // heads
    causal = np.tril(np.ones((length, length), bool))

    def attention(x, w):
        q, k, v = (jnp.reshape(x @ w[name], (length, heads, size)) for name in ("query", "key", "value"))
        scores = jnp.einsum("ihd,jhd->hij", q, k) / float(np.sqrt(size))
        probabilities = jax.nn.softmax(jnp.where(causal, scores, -jnp.inf))
        return jnp.einsum("hij,jhd->ihd", probabilities, v).reshape(length, width) @ w["mix"]

    def f(w, tokens):
        x = w["embedding"][tokens[:-1]] + w["position"]
        x = x + attention(_layer_norm(x, w["norm1"]), w)
        x = x + jax.nn.gelu(_layer_norm(x, w["norm2"]) @ w["up"]) @ w["down"]
        return _cross_entropy(_layer_norm(x, w["norm3"]) @ w["embedding"].T, tokens[1:])

    square = {name: _weights(rng, dtype, width, width) for name in ("query", "key", "value", "mix")}
    norms = {f"norm{i}": rng.uniform(0.8, 1.2, width).astype(dtype) for i in (1, 2, 3)}
    w = {
        **square,
        **norms,
        "embedding": _weights(rng, dtype, width, vocabulary).T,
        "position": 0.3 * _weights(rng, dtype, width, length).T,
        "up": _weights(rng, dtype, width, 2 * width),
        "down": _weights(rng, dtype, 2 * width, width),
    }
    return f, (w, rng.integers(0, vocabulary, length + 1))


@problem(
    summary="squared error of a gated recurrent unit over a sequence (scan)",
    field="machine learning",
    inputs=297,
    outputs=1,
)
def rnn(dtype, rng, length=8, inputs=3, width=8):
    r"""h ← (1 − z) h + z tanh(x W + (r h) U + b) with gates z, r = σ(x W' + h U' + b'), by ``lax.scan``, and a linear
    readout.

    Reference: Cho et al., *Learning phrase representations using RNN encoder-decoder for statistical machine
    translation*, EMNLP 2014.
    """

    def f(w, xs, target):
        def step(h, x):
            update, reset = jnp.split(jax.nn.sigmoid(x @ w["gates_x"] + h @ w["gates_h"] + w["gates_b"]), 2)
            candidate = jnp.tanh(x @ w["x"] + (reset * h) @ w["h"] + w["b"])
            h = (1.0 - update) * h + update * candidate
            return h, h @ w["out"]

        _, ys = lax.scan(step, jnp.zeros(width, xs.dtype), xs)
        return jnp.mean((ys + w["shift"] - target) ** 2)

    w = {
        "gates_x": _weights(rng, dtype, inputs, 2 * width),
        "gates_h": _weights(rng, dtype, width, 2 * width),
        "gates_b": np.zeros(2 * width, dtype),
        "x": _weights(rng, dtype, inputs, width),
        "h": _weights(rng, dtype, width, width),
        "b": np.zeros(width, dtype),
        "out": _weights(rng, dtype, width),
        "shift": np.zeros((), dtype),
    }
    xs = rng.normal(size=(length, inputs)).astype(dtype)
    return f, (w, xs, np.tanh(np.cumsum(xs[:, 0])))


@problem(
    summary="loss of a graph network: gathers along edges, scatter to nodes",
    field="machine learning",
    inputs=56,
    outputs=1,
)
def gnn(dtype, rng, nodes=12, edges=30, widths=(4, 8, 3)):
    r"""Two graph convolutions H ← relu(D^{−1/2} A D^{−1/2} H W) by gathers and scatters, then cross entropy.

    Reference: Kipf and Welling, *Semi-supervised classification with graph convolutional networks*, ICLR 2017.
    """
    senders, receivers = np.concatenate([rng.integers(0, nodes, (2, edges)), np.tile(np.arange(nodes), (2, 1))], axis=1)
    degree = np.bincount(np.concatenate([senders, receivers]), minlength=nodes)
    share = (1.0 / np.sqrt(degree[senders] * degree[receivers])).astype(dtype)

    def convolve(h, w, share):
        messages = share[:, None] * (h @ w)[senders]
        return jnp.zeros((nodes, w.shape[1]), h.dtype).at[receivers].add(messages)

    def f(weights, features, share, labels):
        first, *rest = weights
        h = convolve(features, first, share)
        for w in rest:
            h = convolve(jax.nn.relu(h), w, share)
        return _cross_entropy(h, labels)

    weights = [_weights(rng, dtype, m, n) for m, n in pairwise(widths)]
    features = rng.normal(size=(nodes, widths[0])).astype(dtype)
    return f, (weights, features, share, rng.integers(0, widths[-1], nodes))
