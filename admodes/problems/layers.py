"""Neural networks as functions of what goes in: Jacobians that are narrow inside, block diagonal or diagonal."""

from __future__ import annotations

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np

from admodes.problems.registry import problem


def _dense_layers(dtype, rng, widths):
    """x ↦ z_L with z₀ = x, z_{l+1} = tanh(z_l W_l + b_l), without tanh in the last layer; and its weights."""

    def f(x, layers):
        *hidden, (last, bias) = layers
        for w, b in hidden:
            x = jnp.tanh(x @ w + b)
        return x @ last + bias

    def layer(m, n):
        return (rng.normal(size=(m, n)) / np.sqrt(m)).astype(dtype), (0.1 * rng.normal(size=n)).astype(dtype)

    return f, [layer(m, n) for m, n in pairwise(widths)]


@problem(summary="a dense network from its input", field="machine learning", inputs=12, outputs=12)
def dense_net(dtype, rng, widths=(12, 16, 12)):
    r"""z_{l+1} = tanh(z_l W_l + b_l), without tanh in the last layer: J is a product of W_l and diagonals.

    A tall Jacobian (widths that grow) is cheap by forward mode, a wide one by reverse mode, a square one by neither.

    Reference: Rumelhart, Hinton and Williams, *Learning representations by back-propagating errors*, Nature 323
    (1986) 533-536.
    """
    f, layers = _dense_layers(dtype, rng, widths)
    return f, (rng.normal(size=widths[0]).astype(dtype), layers)


@problem(
    summary="an autoencoder: a network with a narrow waist, from its input",
    field="machine learning",
    inputs=24,
    outputs=24,
)
def hourglass(dtype, rng, widths=(24, 12, 2, 12, 24)):
    r"""A dense network with J = J₂ J₁ of the rank of its waist: both factors are cheap, J from either end is not.

    Reference: Kramer, *Nonlinear principal component analysis using autoassociative neural networks*, AIChE J. 37
    (1991) 233-243.
    """
    return dense_net(dtype, rng, widths)


@problem(
    summary="two narrow waists with a wide layer between, from the input",
    field="machine learning",
    inputs=24,
    outputs=24,
)
def double_waist(dtype, rng, widths=(24, 3, 18, 2, 24)):
    r"""A dense network that is cut twice: J = J₃ J₂ J₁, and in which order the three are multiplied matters.

    Reference: Griewank and Naumann, *Accumulating Jacobians as chained sparse matrix products*, Math. Program. 95
    (2003) 555-571.
    """
    return dense_net(dtype, rng, widths)


# the network R2 of ADMission: the sizes of its arrays, and which of them follow from which
R2_SIZES = (76, 34, 76, 50, 8, 86, 57, 57)
R2_EDGES = ((0, 1), (0, 2), (0, 5), (1, 4), (2, 3), (3, 4), (4, 5), (5, 6), (6, 7))


@problem(
    summary="a network of arrays with paths beside its waist, from its input",
    field="machine learning",
    inputs=R2_SIZES[0],
    outputs=R2_SIZES[-1],
)
def array_network(dtype, rng, sizes=R2_SIZES, edges=R2_EDGES):
    r"""x_w = tanh(Σ_u W_wu x_u) over the edges (u, w): in which order J is multiplied decides what it costs.

    With the products of the default network, R2, forward mode takes 2,143,732 multiply-adds, reverse mode 1,607,799,
    the best order 769,044.

    Reference: Griewank and Naumann, *Accumulating Jacobians as chained sparse matrix products*, Math. Program. 95
    (2003) 555-571; the network is from the examples of the software ADMission (U. Naumann).
    """
    weights = {(u, w): (rng.normal(size=(sizes[w], sizes[u])) / np.sqrt(sizes[u])).astype(dtype) for u, w in edges}

    def f(x, weights):
        arrays = [x]
        for k in range(1, len(sizes)):
            arrays.append(jnp.tanh(sum(weights[u, w] @ arrays[u] for u, w in edges if w == k)))
        return arrays[-1]

    return f, (rng.normal(size=sizes[0]).astype(dtype), weights)


@problem(
    summary="one network on each example of a batch, from all inputs",
    field="machine learning",
    inputs=24,
    outputs=12,
)
def per_example_net(dtype, rng, examples=6, widths=(4, 8, 2)):
    r"""The outputs of a dense network on all examples, by ``vmap``: Jᵢⱼ = 0 for different examples, a block for each.

    Reference: the batched Jacobians of Dangel, Kunstner and Hennig, *BackPACK: Packing more into backprop*, ICLR 2020.
    """
    f, layers = _dense_layers(dtype, rng, widths)
    return jax.vmap(f, (0, None)), (rng.normal(size=(examples, widths[0])).astype(dtype), layers)


@problem(summary="softmax of each row of a matrix", field="machine learning", inputs=24, outputs=24)
def softmax_rows(dtype, rng, rows=6, columns=4):
    r"""pᵢⱼ = exp(xᵢⱼ) / Σₖ exp(xᵢₖ): for each row a block diag(pᵢ) − pᵢ pᵢᵀ, as in attention.

    Reference: Bridle, *Probabilistic interpretation of feedforward classification network outputs*, in:
    Neurocomputing, Springer 1990, 227-236.
    """
    return jax.nn.softmax, (rng.normal(size=(rows, columns)).astype(dtype),)


@problem(summary="an activation function, entry by entry", field="machine learning", inputs=32, outputs=32)
def elementwise(dtype, rng, n=32):
    r"""x tanh(log(1 + eˣ)) (mish): a diagonal Jacobian, one pass in any mode if the pattern is known, else n.

    Reference: Misra, *Mish: a self regularized non-monotonic activation function*, BMVC 2020.
    """

    def f(x):
        return x * jnp.tanh(jax.nn.softplus(x))

    return f, (rng.normal(size=n).astype(dtype),)
