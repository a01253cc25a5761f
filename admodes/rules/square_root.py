"""The square root R of a matrix, of which JAX has no derivative: its Schur decomposition has none.

The equation R² = A says what the derivatives are, whether eigenvalues are equal or not. From a root R₀ that is taken
for a constant, R ← R + L⁻¹(A - R²) with L(Y) = R₀ Y + Y R₀ leaves the value as it is, and gives one more derivative
right at each step.

Reference: Björck and Hammarling, *A Schur method for the square root of a matrix* (1983).
"""

from __future__ import annotations

import numpy as np
from jax import lax

from admodes.program import jax_compat as jc
from admodes.rules.linalg import H, dot, eye, solve_triangular

ORDERS = 4  # derivatives that are right; the next would be those of a polynomial


def square_root(a) -> list:
    """As ``jax.scipy.linalg.sqrtm``, complex."""
    a = lax.convert_element_type(a, np.result_type(a.dtype, np.complex64))
    triangle, z = lax.linalg.schur(lax.stop_gradient(a))
    root_of_triangle = lax.stop_gradient(jc.sqrtm_of_triangle(triangle))
    root = dot(z, root_of_triangle, H(z))
    for _ in range(ORDERS):
        rest = lax.sub(a, dot(root, root))
        root = lax.add(root, dot(z, _sylvester(root_of_triangle, dot(H(z), rest, z)), H(z)))
    return [root]


def _sylvester(s, c):
    """Y with S Y + Y S = C for an upper triangle S, column by column: (S + sⱼⱼ) yⱼ = cⱼ - Σ yₖ sₖⱼ over k < j."""
    one = eye(s)

    def column(y, operands):
        of_c, of_s, of_one = (lax.expand_dims(x, (1,)) for x in operands)
        diagonal = lax.reduce_sum(lax.mul(of_s, of_one), (0, 1))
        shifted = lax.add(s, lax.mul(one, lax.full_like(one, 1) * diagonal))
        found = solve_triangular(shifted, lax.sub(of_c, dot(y, of_s)), left=True, lower=False)
        return lax.add(y, dot(found, lax.transpose(of_one, (1, 0)))), None

    columns = tuple(lax.transpose(x, (1, 0)) for x in (c, s, one))
    return lax.scan(column, lax.full_like(c, 0), columns)[0]
