"""The programs of ``admodes bench modes``: small versions of what people differentiate, each costly in its own way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


@dataclass(frozen=True)
class Workload:
    """``output(params, data)`` is an array to push and pull through; ``loss(params, data)`` a scalar to take ∇ of."""

    name: str
    output: Callable
    loss: Callable
    params: Any
    data: Any


def _normal(rng, *shape):
    """Weights of the usual scale 1/√fan_in."""
    return (rng.standard_normal(shape) / np.sqrt(shape[0] if len(shape) > 1 else 1.0)).astype(np.float32)


def _cross_entropy(logits, labels):
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1))


def mlp() -> Workload:
    """Dense layers with relu: products of matrices."""
    rng = np.random.default_rng(0)
    sizes = (128, 256, 256, 10)
    params = [(_normal(rng, m, n), np.zeros(n, np.float32)) for m, n in pairwise(sizes)]
    x, labels = _normal(rng, 64, 128), rng.integers(0, 10, 64)

    def output(params, data):
        y = data[0]
        for w, b in params[:-1]:
            y = jax.nn.relu(y @ w + b)
        w, b = params[-1]
        return y @ w + b

    return Workload(
        "mlp", output, lambda params, data: _cross_entropy(output(params, data), data[1]), params, (x, labels)
    )


def cnn() -> Workload:
    """Convolutions, max pooling, a dense layer."""
    rng = np.random.default_rng(1)
    params = {"a": _normal(rng, 3, 3, 3, 8), "b": _normal(rng, 3, 3, 8, 16), "w": _normal(rng, 4 * 4 * 16, 10)}
    images, labels = rng.standard_normal((8, 16, 16, 3)).astype(np.float32), rng.integers(0, 10, 8)

    def layer(y, kernel):
        y = lax.conv_general_dilated(y, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return lax.reduce_window(jax.nn.relu(y), -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")

    def output(params, data):
        y = layer(layer(data[0], params["a"]), params["b"])
        return y.reshape(y.shape[0], -1) @ params["w"]

    return Workload(
        "cnn", output, lambda params, data: _cross_entropy(output(params, data), data[1]), params, (images, labels)
    )


def transformer() -> Workload:
    """Two blocks of attention and gelu with layer norm; embeddings are gathered."""
    rng = np.random.default_rng(2)
    vocabulary, d, heads, length, batch = 64, 64, 4, 32, 4
    blocks = [
        {
            "qkv": _normal(rng, d, 3, heads, d // heads),
            "out": _normal(rng, d, d),
            "up": _normal(rng, d, 4 * d),
            "down": _normal(rng, 4 * d, d),
            "scale": np.ones((2, d), np.float32),
        }
        for _ in range(2)
    ]
    params = {"embedding": _normal(rng, vocabulary, d), "blocks": blocks}
    tokens = rng.integers(0, vocabulary, (batch, length))
    causal = np.tril(np.ones((length, length), bool))

    def norm(y, scale):
        centred = y - jnp.mean(y, -1, keepdims=True)
        return scale * centred * lax.rsqrt(jnp.mean(centred**2, -1, keepdims=True) + 1e-5)

    def attend(y, p):
        q, k, v = jnp.moveaxis(jnp.einsum("bld,dchn->bclhn", y, p["qkv"]), 1, 0)
        scores = jnp.einsum("blhn,bmhn->bhlm", q, k) / np.float32(np.sqrt(d // heads))
        weights = jax.nn.softmax(jnp.where(causal, scores, np.float32(-1e9)))
        return jnp.einsum("bhlm,bmhn->blhn", weights, v).reshape(y.shape) @ p["out"]

    def output(params, data):
        y = params["embedding"][data]
        for p in params["blocks"]:
            y = y + attend(norm(y, p["scale"][0]), p)
            y = y + jax.nn.gelu(norm(y, p["scale"][1]) @ p["up"]) @ p["down"]
        return y @ params["embedding"].T

    def loss(params, data):
        logits = output(params, data)[:, :-1].reshape(-1, vocabulary)
        return _cross_entropy(logits, data[:, 1:].reshape(-1))

    return Workload("transformer", output, loss, params, tokens)


def rnn() -> Workload:
    """A gated recurrent cell in a ``scan`` of 40 steps; the weights are constant over the loop."""
    rng = np.random.default_rng(3)
    n, batch, steps = 64, 16, 40
    params = {"x": _normal(rng, n, 3 * n), "h": _normal(rng, n, 3 * n), "b": np.zeros(3 * n, np.float32)}
    inputs = rng.standard_normal((steps, batch, n)).astype(np.float32)

    def output(params, data):
        def cell(h, x):
            from_x = jnp.split(x @ params["x"] + params["b"], 3, axis=-1)
            from_h = jnp.split(h @ params["h"], 3, axis=-1)
            reset = jax.nn.sigmoid(from_x[0] + from_h[0])
            update = jax.nn.sigmoid(from_x[1] + from_h[1])
            h = update * h + (1 - update) * jnp.tanh(from_x[2] + reset * from_h[2])
            return h, h

        return lax.scan(cell, jnp.zeros((batch, n), jnp.float32), data)[1]

    return Workload("rnn_scan", output, lambda params, data: jnp.mean(output(params, data)[-1] ** 2), params, inputs)


def linalg() -> Workload:
    """The log marginal likelihood of a Gaussian process: Cholesky, triangular solves, and an LU solve."""
    rng = np.random.default_rng(4)
    points, values = rng.uniform(size=(96, 3)).astype(np.float32), rng.standard_normal(96).astype(np.float32)
    params = {"scales": np.ones(3, np.float32), "noise": np.float32(0.1)}

    def kernel(params, data):
        z = data[0] * params["scales"]
        squares = jnp.sum((z[:, None] - z[None]) ** 2, -1)
        return jnp.exp(-squares) + params["noise"] * jnp.eye(len(z), dtype=z.dtype)

    def output(params, data):
        return jnp.linalg.solve(kernel(params, data), data[1])

    def loss(params, data):
        factor = jnp.linalg.cholesky(kernel(params, data))
        alpha = jax.scipy.linalg.cho_solve((factor, True), data[1])
        return data[1] @ alpha / 2 + jnp.sum(jnp.log(jnp.diagonal(factor)))

    return Workload("linalg", output, loss, params, (points, values))


def gnn() -> Workload:
    """Message passing on a random graph: gather the senders, add up (then take the maximum) at the receivers."""
    rng = np.random.default_rng(5)
    nodes, edges, d = 256, 2048, 32
    params = [(_normal(rng, d, d), _normal(rng, d, d)) for _ in range(2)]
    data = (
        rng.standard_normal((nodes, d)).astype(np.float32),
        rng.integers(0, nodes, edges),
        rng.integers(0, nodes, edges),
    )

    def output(params, data):
        y, senders, receivers = data
        for k, (own, message) in enumerate(params):
            pool = partial(jax.ops.segment_sum if k == 0 else jax.ops.segment_max, num_segments=nodes)
            received = pool(jnp.tanh(y @ message)[senders], receivers)
            y = jnp.tanh(y @ own + jnp.where(jnp.isfinite(received), received, np.float32(0)))
        return y

    return Workload("gnn", output, lambda params, data: jnp.mean(output(params, data) ** 2), params, data)


def chain() -> Workload:
    """A long chain of elementwise functions: as many equations as there are operations, one fused loop at best."""
    rng = np.random.default_rng(6)
    x = rng.uniform(0.5, 1.5, 4000).astype(np.float32)

    def output(params, data):
        y = params
        for k in range(10):
            y = jnp.sin(y) * jnp.exp(-y) + jnp.tanh(y * np.float32(1 + k)) / (1 + y * y) + jnp.sqrt(jnp.abs(y)) + data
        return y

    return Workload("chain", output, lambda params, data: jnp.sum(output(params, data)), x, np.float32(0.1))


WORKLOADS: dict[str, Callable[[], Workload]] = {
    "mlp": mlp,
    "cnn": cnn,
    "transformer": transformer,
    "rnn_scan": rnn,
    "linalg": linalg,
    "gnn": gnn,
    "chain": chain,
}
