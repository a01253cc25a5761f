r"""Neural networks as plain pytrees: perceptrons, and deep nets of equal blocks under one ``lax.scan``.

A net is a frozen description; ``net.init(rng)`` gives its parameters, dictionaries and lists of arrays, and
``net(params, x)`` its logits. Weights are normal with variance gain² / (number of inputs), gain² = 2 for relu
(He et al. 2015) and 1 otherwise (Glorot and Bengio 2010); biases start at 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

import admodes

ACTIVATIONS: dict[str, tuple[Callable, float]] = {  # function, gain
    "relu": (jax.nn.relu, 2**0.5),
    "sigmoid": (jax.nn.sigmoid, 1.0),
    "tanh": (jnp.tanh, 1.0),
}


# -- layers --------------------------------------------------------------------------------------


def dense(rng: np.random.Generator, inputs: int, outputs: int, gain: float = 1.0, stack: tuple = ()) -> dict:
    """Weights and biases of x ↦ x W + b, in float32; ``stack`` are leading axes, one layer for each index."""
    w = gain * inputs**-0.5 * rng.standard_normal((*stack, inputs, outputs))
    return {"w": jnp.asarray(w, jnp.float32), "b": jnp.zeros((*stack, outputs), jnp.float32)}


def affine(p: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    """x W + b."""
    return x @ p["w"] + p["b"]


def batch_norm(p: dict[str, jax.Array], z: jax.Array, moments: tuple | None = None) -> tuple[jax.Array, tuple]:
    """scale (z − mean) / std + shift, with the mean and variance of the batch or the given ones; and these.

    Reference: Ioffe and Szegedy, *Batch normalization*, ICML 2015, algorithms 1 and 2.
    """
    mean, variance = (jnp.mean(z, axis=0), jnp.var(z, axis=0)) if moments is None else moments
    return p["scale"] * (z - mean) * lax.rsqrt(variance + 1e-5) + p["shift"], (mean, variance)


def dropout(key: jax.Array, a: jax.Array, rate: float | jax.Array) -> jax.Array:
    """Each entry is 0 with probability ``rate``, the others grow so that the mean stays (Srivastava et al. 2014)."""
    return jnp.where(jax.random.bernoulli(key, 1 - rate, a.shape), a / (1 - rate), 0)


# -- a perceptron --------------------------------------------------------------------------------


@dataclass(frozen=True)
class MLP:
    """a_{l+1} = h(a_l W_l + b_l) with layers of these sizes, h left out in the last."""

    sizes: tuple[int, ...]
    activation: str = "relu"

    def init(self, rng: np.random.Generator) -> list[dict[str, jax.Array]]:
        _, gain = ACTIVATIONS[self.activation]
        return [dense(rng, n, m, gain) for n, m in pairwise(self.sizes)]

    def __call__(
        self, params: Sequence[dict], x: jax.Array, key: jax.Array | None = None, rate: float | jax.Array = 0.5
    ) -> jax.Array:
        """The logits; with a key, after dropout of this rate behind each h."""
        h, _ = ACTIVATIONS[self.activation]
        *hidden, last = params
        for k, p in enumerate(hidden):
            x = h(affine(p, x))
            if key is not None:
                x = dropout(jax.random.fold_in(key, k), x, rate)
        return affine(last, x)


# -- deep nets -----------------------------------------------------------------------------------
# A block is a function of its affine maps f_1 ... f_k, its activations h_1 ... h_k, and its input a.


def plain_block(f, h, a):
    """h(f(a))"""
    return h[0](f[0](a))


def skip_block(f, h, a):
    """a + h(f(a))"""
    return a + h[0](f[0](a))


def resnet_block(f, h, a):
    """h(a + f₂(h(f₁(a)))), the block of He et al., *Deep residual learning*, CVPR 2016."""
    return h[1](a + f[1](h[0](f[0](a))))


def densenet_block(f, h, a):
    """Each layer reads everything before it in the block, the last one (the transition) brings the width back.

    Reference: Huang et al., *Densely connected convolutional networks*, CVPR 2017.
    """
    for f_k, h_k in zip(f[:-1], h[:-1]):
        a = jnp.concatenate([a, h_k(f_k(a))], axis=-1)
    return h[-1](f[-1](a))


BLOCKS: dict[str, Callable] = {
    "plain": plain_block,
    "skip": skip_block,
    "resnet": resnet_block,
    "densenet": densenet_block,
}
DENSE_LAYERS, GROWTH = 5, 4  # of a DenseNet block; its layers are a GROWTH-th of the width


@dataclass(frozen=True)
class Deep:
    """``depth`` layers of ``width`` units in equal blocks, between a linear map of the input and a linear classifier.

    The last layer of a residual branch (skip, resnet) starts smaller by √(number of blocks), so that the variance of
    the activations stays bounded at any depth (Zhang et al., *Fixup initialization*, ICLR 2019, has the argument).
    """

    depth: int
    kind: str = "plain"
    width: int = 32
    activation: str = "relu"
    batch_norm: bool = False
    inputs: int = 64
    classes: int = 10

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """(inputs, outputs) of each layer of a block."""
        n, grown = self.width, self.width // GROWTH
        if self.kind == "densenet":
            return [(n + k * grown, grown) for k in range(DENSE_LAYERS - 1)] + [(n + (DENSE_LAYERS - 1) * grown, n)]
        return [(n, n)] * (2 if self.kind == "resnet" else 1)

    @property
    def blocks(self) -> int:
        if self.depth % len(self.shapes):
            raise ValueError(
                f"a {self.kind} net has blocks of {len(self.shapes)} layers: {self.depth} is not a multiple"
            )
        return self.depth // len(self.shapes)

    def init(self, rng: np.random.Generator) -> dict[str, Any]:
        _, gain = ACTIVATIONS[self.activation]
        stack = (self.blocks,)
        layers = [dense(rng, n, m, gain, stack) for n, m in self.shapes]
        if self.kind in ("skip", "resnet"):
            layers[-1]["w"] *= self.blocks**-0.5
        if self.batch_norm:
            layers = [{**p, "scale": jnp.ones_like(p["b"]), "shift": jnp.zeros_like(p["b"])} for p in layers]
        first, last = dense(rng, self.inputs, self.width), dense(rng, self.width, self.classes)
        return {"first": first, "blocks": layers, "last": last}

    def probes(self, examples: int) -> list[jax.Array]:
        """Zeros of the shape of every activation: the gradient at what is added to a value is the gradient of it."""
        return [jnp.zeros((self.blocks, examples, m), jnp.float32) for _, m in self.shapes]

    def __call__(self, params: dict, x: jax.Array, moments: Any = None, probes: list | None = None) -> jax.Array:
        """The logits. ``moments`` are those of :meth:`moments`; without them batch norm uses the batch's own."""
        return self._run(params, x, moments, probes)[0]

    def moments(self, params: dict, x: jax.Array) -> Any:
        """Means and variances of the batch norms over all of x, for use at test time; None without batch norm."""
        return self._run(params, x, None, None)[1] if self.batch_norm else None

    def _run(self, params, x, moments, probes):
        h, _ = ACTIVATIONS[self.activation]
        apply = BLOCKS[self.kind]

        def block(a, given):
            layers, moments, probes = given
            used = [None] * len(layers)

            def pre(k):
                def f(a):
                    z = affine(layers[k], a)
                    if self.batch_norm:
                        z, used[k] = batch_norm(layers[k], z, moments and moments[k])
                    return z

                return f

            def post(k):
                return h if probes is None else lambda z: h(z) + probes[k]

            every = range(len(layers))
            return apply([pre(k) for k in every], [post(k) for k in every], a), used

        a, used = lax.scan(block, affine(params["first"], x), (params["blocks"], moments, probes))
        return affine(params["last"], a), used


def layer_gradients(net: Deep, params: dict, x: jax.Array, y: jax.Array) -> jax.Array:
    """Σ_i |∂ℓ/∂a_{l,i}| for every layer l = 1 ... depth: mean over examples, ℓ the loss of one example.

    Sums of squares would underflow at 1e-19, long before the gradients do: a zero here is a zero there.
    """

    def total(probes):
        return len(y) * cross_entropy(net(params, x, probes=probes), y)

    gradients = admodes.grad(total)(net.probes(len(y)))
    norms = [jnp.mean(jnp.sum(jnp.abs(g), axis=-1), axis=-1) for g in gradients]
    return jnp.stack(norms, axis=-1).reshape(-1)


# -- training ------------------------------------------------------------------------------------


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """−mean log softmax(logits)[label]."""
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))


def accuracy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The part of the examples whose largest logit is that of their class."""
    return jnp.mean(jnp.argmax(logits, axis=-1) == labels)


def descend(
    loss: Callable, optimiser: optax.GradientTransformation, value_and_grad: Callable = admodes.value_and_grad
) -> Callable:
    """``steps(params, state, batches, *shared) -> (params, state, losses)``: a step per leading index of ``batches``.

    ``loss(params, batch, *shared)`` is the loss of one batch. Start with ``state = optimiser.init(params)``; jit and
    vmap the result as you like. ``value_and_grad`` is admodes' own unless a demo compares it with JAX's.
    """
    both = value_and_grad(loss)

    def steps(params, state, batches, *shared):
        def step(carry, batch):
            params, state = carry
            value, gradient = both(params, batch, *shared)
            updates, state = optimiser.update(gradient, state, params)
            return (optax.apply_updates(params, updates), state), value

        (params, state), losses = lax.scan(step, (params, state), batches)
        return params, state, losses

    return steps
