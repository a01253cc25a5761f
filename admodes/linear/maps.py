"""Kinds of linear maps: elementwise, linear primitives, and maps given by code. Their contract is in ``algebra``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax import lax

from admodes.linear.algebra import Arrays, Compose, LinearMap, Sum, add, linear_map, size, static
from admodes.linear.logs import page
from admodes.linear.pattern import SparsityPattern
from admodes.program import jax_compat as jc

__all__ = [
    "MINUS_ONE",
    "ONE",
    "Arrays",
    "Compose",
    "Elementwise",
    "Function",
    "Linear",
    "LinearMap",
    "Over",
    "Sum",
    "add",
    "collapse",
    "expand",
    "linear_map",
    "static",
]


def expand(t, shape):
    """Broadcast ``t`` as the elementwise primitives of lax do: scalars and axes of size 1."""
    if np.shape(t) == shape:
        return t
    dims = range(len(shape)) if np.ndim(t) else ()
    return lax.broadcast_in_dim(t, shape, dims)


def collapse(g, shape):
    """The transpose of :func:`expand`: sum over the axes that were broadcast."""
    if np.shape(g) == shape:
        return g
    if not shape:
        return lax.reduce_sum(g, tuple(range(g.ndim)))
    axes = tuple(i for i, (n, m) in enumerate(zip(g.shape, shape, strict=True)) if n != m)
    return lax.reshape(lax.reduce_sum(g, axes), shape)


ONE, MINUS_ONE = 1, -1  # the partials of add, sub, neg ...: no product is computed


@dataclass(frozen=True)
class Over:
    """The partial 1/d: tangents are divided by d, which is right even where 1/d overflows (``log`` near 0, say)."""

    d: Any


@linear_map
class Elementwise(LinearMap):
    r"""t ↦ Σᵢ dᵢ ⊙ tᵢ, the Jacobian of an elementwise primitive: one diagonal per active operand.

    ``partials[i]`` is an array (a mask, if boolean: what it does not select is zero even if t is not finite);
    what else a partial can be is static, in ``kinds[i]``: ``ONE`` or ``MINUS_ONE``, :class:`Over` for the inverse of
    the array, or ``None`` (with no array: inactive, or derivative zero).
    """

    partials: tuple
    kinds: tuple = static()
    domain: tuple = static()
    codomain: tuple = static()

    @staticmethod
    def build(partials: Sequence[Any], domain: tuple[Any, ...], codomain: tuple[Any, ...]) -> Elementwise:
        """Partials as rules give them: an array, ``Over(array)``, ``ONE``, ``MINUS_ONE`` or ``None``."""
        kinds = tuple(d if isinstance(d, int) else Over if isinstance(d, Over) else None for d in partials)
        arrays = tuple(None if isinstance(d, int) else d.d if isinstance(d, Over) else d for d in partials)
        return Elementwise(arrays, kinds, domain, codomain)

    def push(self, tangents):
        (out,) = self.codomain
        total = None
        for d, kind, t in zip(self.partials, self.kinds, tangents, strict=True):
            if t is not None and (d is not None or kind is not None):
                total = add(total, expand(self.scale(d, kind, t, out.dtype), out.shape))
        return (total,)

    def pull(self, cotangents):
        (g,) = cotangents
        if g is None:
            return (None,) * len(self.domain)
        return tuple(
            None if d is None and kind is None else collapse(self.scale(d, kind, g, aval.dtype), aval.shape)
            for d, kind, aval in zip(self.partials, self.kinds, self.domain, strict=True)
        )

    @staticmethod
    def scale(d, kind, t, dtype):
        """d ⊙ t in ``dtype``."""
        return _scale(d, kind, t, dtype)

    def pattern(self):
        (out,) = self.codomain
        blocks = {}
        for i, (d, kind, aval) in enumerate(zip(self.partials, self.kinds, self.domain, strict=True)):
            if d is not None or kind is not None:
                sources = np.broadcast_to(np.arange(size(aval)).reshape(aval.shape), out.shape)
                if kind is None and not isinstance(d, jc.Tracer):
                    sources = np.where(np.asarray(d) != 0, sources, -1)
                blocks[0, i] = SparsityPattern.choice(sources, (size(out), size(aval)))
        return blocks


def _scale(d, kind, t, dtype):
    """d ⊙ t in ``dtype``, with the fewest operations that the kind of the partial allows."""
    if t.dtype != dtype:
        t = lax.convert_element_type(t, dtype)
    if d is None:
        return t if kind == ONE else lax.neg(t)
    if d.dtype == bool:
        t = expand(t, d.shape)
        return lax.select(d, t, lax.full_like(t, 0))
    if d.dtype != dtype:
        d = lax.convert_element_type(d, dtype)
    return lax.div(t, d) if kind is Over else lax.mul(t, d)


@linear_map
class Linear(LinearMap):
    r"""A primitive that is linear in some of its operands, by itself its Jacobian with respect to them.

    ``operands`` holds the values at the other places (indices, the other factor ...), ``None`` where it is linear;
    ``rule`` knows the transpose and the pattern (:class:`admodes.rules.table.LinearRule`). The transpose is given the
    types of the cotangents at these places.
    """

    operands: tuple
    active: tuple = static()
    primitive: Any = static()
    params: tuple = static()
    rule: Any = static()
    domain: tuple = static()
    codomain: tuple = static()

    def push(self, tangents):
        tangents = tuple(t if on else None for t, on in zip(tangents, self.active, strict=True))
        if all(t is None for t in tangents):
            return (None,) * len(self.codomain)
        operands = [
            x if x is not None else jc.zeros(aval) if t is None else t
            for x, t, aval in zip(self.operands, tangents, self.domain, strict=True)
        ]
        out = self.primitive.bind(*operands, **dict(self.params))
        outs = out if self.primitive.multiple_results else (out,)
        return tuple(o if jc.is_differentiable(a) else None for o, a in zip(outs, self.codomain, strict=True))

    def pull(self, cotangents):
        if all(g is None for g in cotangents):
            return (None,) * len(self.domain)
        operands = tuple(
            x if x is not None else jc.cotangent_aval(aval) if jc.is_differentiable(aval) else aval
            for x, aval in zip(self.operands, self.domain, strict=True)
        )
        if self.primitive.multiple_results:
            g = tuple(cotangents)
        else:
            (g,) = cotangents
        result = self.rule.transpose(g, self.active, *operands, **dict(self.params))
        return tuple(
            _as_tangent(ct, aval) if on and ct is not None else None
            for ct, on, aval in zip(result, self.active, self.domain, strict=True)
        )

    def pattern(self):
        known = self.rule.pattern(self)
        return super().pattern() if known is None else known


def _as_tangent(ct, aval):
    if [np.issubdtype(x.dtype, np.complexfloating) for x in (ct, aval)] == [True, False]:
        ct = lax.real(ct)  # of a real factor beside a complex one
    return ct if ct.dtype == aval.dtype else lax.convert_element_type(ct, aval.dtype)


@linear_map
class Function(LinearMap):
    r"""A map given by code for one direction; the other direction is that code's transpose.

    ``apply(residuals, tangents)`` must be linear in the tangents. ``transpose`` is how the reverse interpreter
    transposes a linear function; it is handed in, because this layer lies below the modes.
    With ``given="pull"`` the code computes cotangents instead (``custom_vjp`` rules), and ``push`` is the transpose.
    """

    residuals: Any
    active: tuple = static()
    apply: Callable = static()
    transpose: Callable = static()
    given: str = static()
    domain: tuple = static()
    codomain: tuple = static()

    def push(self, tangents):
        if all(t is None for t in tangents):
            return (None,) * len(self.codomain)
        if self.given == "push":
            return tuple(self.apply(self.residuals, tuple(tangents)))
        outputs = tuple(jc.is_differentiable(a) for a in self.codomain)
        return self._transposed(self.codomain, outputs, tangents, self.domain)

    def pull(self, cotangents):
        if all(g is None for g in cotangents):
            return (None,) * len(self.domain)
        if self.given == "pull":
            cts = tuple(self.apply(self.residuals, tuple(cotangents)))
        else:
            cts = self._transposed(self.domain, self.active, cotangents, self.codomain)
        return tuple(ct if on else None for ct, on in zip(cts, self.active, strict=True))

    def _transposed(self, avals, active, values, out_avals):
        """Transpose ``apply``, a function of arrays of types ``avals`` (those that are active), at ``values``."""
        wanted = tuple(v is not None for v in values)

        def forward(*inputs):
            it = iter(inputs)
            full = tuple(next(it) if on else None for on in active)
            with page(None):  # the transpose is what is wanted: values of this run are nobody's
                outs = self.apply(self.residuals, full)
            return [o for o, w in zip(outs, wanted, strict=True) if w]

        given = [v for v in values if v is not None]
        results = iter(self.transpose(forward, [a for a, on in zip(avals, active, strict=True) if on], given))
        return tuple(next(results) if on else None for on in active)
