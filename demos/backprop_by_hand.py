"""Backprop by hand: the tape does what one would write by hand, operation for operation, and keeps as much.

The alphas and betas of the lecture's chain and graph; a deep net with its backward pass written out, layer by layer,
beside the same net on the tape: numbers, operations, and the memory each keeps between the two passes.
"""

from collections import Counter

import story
import data
import jax
import jax.numpy as jnp
import nets
import numpy as np
import optax

import admodes
from admodes import problems

# -- the lecture's examples, by hand ---------------------------------------------------------------


def chain_by_hand(x):
    """f(x) = 10 log(1 + exp(−2 x)): values α of the steps and adjoints β = ∂f/∂α, in the order of evaluation."""
    a1 = -2 * x
    a2 = np.exp(a1)
    a3 = 1 + a2
    a4 = np.log(a3)
    a5 = 10 * a4
    b5 = 1.0
    b4 = 10 * b5  # ∂a5/∂a4 = 10
    b3 = b4 / a3  # log' = 1 / a3
    b2 = b3  # ∂a3/∂a2 = 1
    b1 = b2 * a2  # exp' = exp = a2
    return [("x", x, -2 * b1), ("−2 x", a1, b1), ("exp", a2, b2), ("1 + ·", a3, b3), ("log", a4, b4), ("10 ·", a5, b5)]


def graph_by_hand(x1, x2):
    """f = sin x₁ + x₁ x₂: x₁ is used twice, so its adjoint is a sum over two paths."""
    a1, a2 = np.sin(x1), x1 * x2
    b1 = b2 = 1.0  # both are summands of the result
    into_x1 = b1 * np.cos(x1) + b2 * x2
    into_x2 = b2 * x1
    return [("x₁", x1, into_x1), ("x₂", x2, into_x2), ("sin x₁", a1, b1), ("x₁ x₂", a2, b2), ("+", a1 + a2, 1.0)]


def by_tape(name):
    """The same values and adjoints from admodes.explain."""
    problem = problems.get(name)
    f, args = problem.make("float64")
    rows = admodes.explain(f, *args).to_dict()
    return rows


# -- a deep net, by hand ---------------------------------------------------------------------------


def loss(params, x, y):
    """Cross entropy of a net of tanh layers, a_{l+1} = tanh(a_l W_l + b_l)."""
    *hidden, last = params
    for p in hidden:
        x = jnp.tanh(nets.affine(p, x))
    return nets.cross_entropy(nets.affine(last, x), y)


def forward_by_hand(params, x, y):
    """The loss, and what the backward pass needs: every activation, and the probabilities."""
    *hidden, last = params
    activations = [x]
    for p in hidden:
        activations.append(jnp.tanh(nets.affine(p, activations[-1])))
    logits = nets.affine(last, activations[-1])
    log_probabilities = jax.nn.log_softmax(logits)
    value = -jnp.mean(jnp.take_along_axis(log_probabilities, y[:, None], axis=1))
    return value, (activations, jnp.exp(log_probabilities))


def backward_by_hand(params, kept, y):
    r"""The gradient: with δ_L = (softmax − one-hot) / n,  W̄_l = a_lᵀ δ_l, b̄_l = Σ δ_l, δ_{l−1} = (δ_l W_lᵀ)(1 − a_l²)."""
    activations, probabilities = kept
    delta = (probabilities - jax.nn.one_hot(y, probabilities.shape[1])) / len(y)
    gradient = []
    for p, a in zip(reversed(params), reversed(activations)):
        gradient.append({"w": a.T @ delta, "b": jnp.sum(delta, axis=0)})
        if a is not activations[0]:
            delta = (delta @ p["w"].T) * (1 - a * a)
    return gradient[::-1]


def by_hand(loss):
    """``value_and_grad`` of the net above, in the place of admodes' and JAX's."""

    def both(params, x, y):
        value, kept = forward_by_hand(params, x, y)
        return value, backward_by_hand(params, kept, y)

    return both


# -- what they cost --------------------------------------------------------------------------------


def operations(f, *args):
    """How often each primitive occurs in f, those inside jit and custom rules included."""
    found = Counter()

    def visit(jaxpr):
        for equation in jaxpr.eqns:
            inner = list(jax.extend.core.jaxpr_as_fun.__self__) if False else jax.core.jaxprs_in_params(equation.params)
            found.update([] if inner else [equation.primitive.name])
            for sub in inner:
                visit(sub)

    visit(jax.make_jaxpr(f)(*args).jaxpr)
    return found
