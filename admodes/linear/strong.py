"""Strong zeros: a product with a factor that is exactly zero is zero, even if the other one is infinite or NaN.

In ``where(x > 0, sqrt(x), 0)`` the branch that is not taken gets the cotangent 0, which at x = 0 meets the partial
1/2√x = ∞. As numbers 0·∞ is NaN; as derivatives the branch has no influence, whatever its slope.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jax import lax

from admodes.linear.maps import Compose, Elementwise, LinearMap, Over, Sum, expand, linear_map


@linear_map
class StrongElementwise(Elementwise):
    """t ↦ Σᵢ dᵢ ⊙ tᵢ with strong zeros, in tangents and in partials alike, so that both modes agree."""

    @staticmethod
    def scale(d, kind, t, dtype):
        product = Elementwise.scale(d, kind, t, dtype)
        if d is None or d.dtype == bool:
            return product
        vanishes = expand(_is_zero(t), product.shape)
        if kind is not Over:
            vanishes = lax.bitwise_or(vanishes, expand(_is_zero(d), product.shape))
        return lax.select(vanishes, lax.full_like(product, 0), product)


def _is_zero(x):
    return lax.eq(x, np.array(0, x.dtype))


def strong(jacobian: LinearMap) -> LinearMap:
    """The same map with strong zeros in its elementwise parts."""
    if isinstance(jacobian, Compose):
        return Compose(strong(jacobian.outer), strong(jacobian.inner))
    if isinstance(jacobian, Sum):
        return replace(jacobian, terms=tuple(map(strong, jacobian.terms)))
    if isinstance(jacobian, Elementwise):
        return StrongElementwise(jacobian.partials, jacobian.kinds, jacobian.domain, jacobian.codomain)
    return jacobian
