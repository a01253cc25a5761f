"""Small functions by which differentiation is taught."""

from __future__ import annotations

import functools
import operator

import jax.numpy as jnp

from admodes.problems.registry import problem


@problem(summary="f(x) = 10 log(1 + exp(-2x)), the textbook chain", field="teaching", inputs=1, outputs=1)
def lecture_softplus(dtype, rng):
    r"""A chain of five elementary functions, f(x) = 10 log(1 + exp(−2x)), at x = 1/2.

    f'(x) = −20 / (1 + exp(2x)), so f'(1/2) = −5.37883. In float32 the formula overflows at x = −50, where f'(x) = −20.

    Reference: Griewank and Walther, *Evaluating Derivatives*, 2nd ed., SIAM 2008, chapters 2 and 3 (evaluation traces).
    """

    def f(x):
        return 10.0 * jnp.log(1.0 + jnp.exp(-2.0 * x))

    return f, (dtype.type(0.5),)


@problem(
    summary="f(x1, x2) = sin(x1) + x1 x2, the graph with one shared input",
    field="teaching",
    inputs=2,
    outputs=1,
    argnums=(0, 1),
)
def lecture_graph(dtype, rng):
    r"""f(x₁, x₂) = sin x₁ + x₁ x₂: two paths lead from x₁ to the result. ∇f = (cos x₁ + x₂, x₁).

    Reference: Baydin, Pearlmutter, Radul and Siskind, *Automatic differentiation in machine learning: a survey*,
    JMLR 18 (2018), section 3.
    """

    def f(x1, x2):
        return jnp.sin(x1) + x1 * x2

    return f, (dtype.type(0.5), dtype.type(2.0))


@problem(
    summary="product of all inputs: gradient at the cost of three products each", field="teaching", inputs=8, outputs=1
)
def speelpenning(dtype, rng, n=8):
    r"""f(x) = x₁ x₂ ⋯ xₙ. Reverse mode finds all n partial derivatives ∂f/∂xᵢ = ∏_{j≠i} xⱼ in O(n) products.

    Reference: Speelpenning, *Compiling fast partial derivatives of functions given by algorithms*, PhD thesis,
    University of Illinois 1980.
    """

    def f(x):
        return functools.reduce(operator.mul, x)

    return f, (rng.uniform(0.5, 1.5, n).astype(dtype),)


@problem(summary="one dense row, one dense column, a diagonal", field="sparsity", inputs=32, outputs=32)
def arrowhead(dtype, rng, n=32):
    r"""f₀ = Σ xᵢ², fᵢ = x₀ xᵢ + sin xᵢ: the Jacobian is an arrow.

    Its dense row defeats column compression and its dense column defeats row compression; together they need
    three passes whatever n is.

    Reference: Coleman and Verma, *The efficient computation of sparse Jacobian matrices using automatic
    differentiation*, SIAM J. Sci. Comput. 19 (1998) 1210-1233.
    """

    def f(x):
        return jnp.concatenate([jnp.sum(x * x, keepdims=True), x[0] * x[1:] + jnp.sin(x[1:])])

    return f, (rng.uniform(-1.0, 1.0, n).astype(dtype),)
