"""Reductions and cumulative reductions along axes; windows are in ``windows.py``.

Sums are linear. A maximum has the derivative of the entry that attains it, the mean over all of them at
ties. Products, and the reductions whose binary operation the user gives, are differentiated as the tree of
binary operations that computes them: no division, so zeros are no special case.
"""

from __future__ import annotations

import math
from functools import partial

import jax
from jax import lax

from admodes.linear.maps import Compose, Elementwise, Linear
from admodes.program import jax_compat as jc
from admodes.rules import host
from admodes.rules.kinks import first_along
from admodes.rules.patterns import pattern_of_prefixes, pattern_of_sums
from admodes.rules.table import LinearRule, LocalRule, ProgramRule, higher_order, program, register, structural, zero


def _pull_reduce_sum(g, x, *, axes, out_sharding=None):
    kept = [i for i in range(len(x.shape)) if i not in axes]
    return lax.broadcast_in_dim(g, x.shape, kept, out_sharding=x.sharding)


structural(lax.reduce_sum_p, _pull_reduce_sum, pattern=pattern_of_sums, host=host.reduce_sum, cost="reducing")
_SUM = LinearRule(_pull_reduce_sum, (0,), pattern_of_sums)


class ExtremeRule(LocalRule):
    """max and min: J = diag(1/c) Σ diag(m), where m marks the entries equal to the result and c counts them.

    With the policy "first" only the first of them is marked (see kinks.py).
    The quotient comes last, so that NaN results (no entry equals them: m = 0, c = 0) have NaN derivatives.
    """

    kind = "extreme"

    def jacobian(self, interpreter, primitive, outs, primals, active, params):
        (out,), (x,) = outs, primals
        axes = params["axes"]
        attained = lax.eq(x, lax.expand_dims(out, sorted(axes)))
        if interpreter.ties == "first":
            attained = first_along(attained, axes)
        hits = lax.convert_element_type(attained, x.dtype)
        total = {"axes": axes, "out_sharding": None}
        counts = lax.reduce_sum_p.bind(hits, **total)
        domain, codomain = (jc.typeof(x),), (jc.typeof(out),)
        mark = Elementwise.build((hits,), domain, domain)
        add_up = Linear((None,), (True,), lax.reduce_sum_p, tuple(total.items()), _SUM, domain, codomain)
        share = Elementwise.build((lax.div(counts.dtype.type(1), counts),), codomain, codomain)
        return Compose(share, Compose(add_up, mark))


register(lax.reduce_max_p, ExtremeRule(), cost="reducing")
register(lax.reduce_min_p, ExtremeRule(), cost="reducing")
zero(lax.argmax_p, lax.argmin_p, cost="reducing")

# -- by trees of binary operations ----------------------------------------------------------------------


def reduce_by_tree(combine, operands, initial, axes):
    """Reduce ``operands`` along ``axes`` by halving; ``combine(left, right)`` acts on lists of arrays, by entry.

    ``initial`` values are neutral elements that fill up a half without a partner; None passes it on as it is.
    """
    shape = operands[0].shape
    kept = [i for i in range(len(shape)) if i not in axes]
    n = math.prod(shape[i] for i in axes)
    front = [lax.reshape(x, (n, *(shape[i] for i in kept)), (*axes, *kept)) for x in operands]
    if n == 0:
        return [lax.full([shape[i] for i in kept], value) for value in initial]
    while n > 1:
        half = (n + 1) // 2
        left = [lax.slice_in_dim(x, 0, half) for x in front]
        right = [lax.slice_in_dim(x, half, n) for x in front]
        if n % 2 and initial is None:
            last = [lax.slice_in_dim(x, half - 1, half) for x in left]
            pairs = combine([lax.slice_in_dim(x, 0, half - 1) for x in left], right)
            front = [lax.concatenate(both, 0) for both in zip(pairs, last, strict=True)]
        else:
            if n % 2:
                fill = [(0, 1, 0)] + [(0, 0, 0)] * len(kept)
                right = [lax.pad(x, value, fill) for x, value in zip(right, initial, strict=True)]
            front = combine(left, right)
        n = half
    return [lax.squeeze(x, (0,)) for x in front]


def _reduce_prod(x, *, axes):
    return reduce_by_tree(lambda left, right: [lax.mul(left[0], right[0])], [x], [x.dtype.type(1)], axes)


def batched(closed, rank):
    """A function of scalars, given as a jaxpr, acting entry by entry on arrays of this rank."""
    scalar = jc.jaxpr_as_fun(closed)
    for _ in range(rank):
        scalar = jax.vmap(scalar)
    return scalar


def _reduce(*args, computation, jaxpr, dimensions):
    operands, initial = args[: len(args) // 2], args[len(args) // 2 :]
    scalar = batched(jaxpr, operands[0].ndim - len(dimensions) + 1)
    return reduce_by_tree(lambda left, right: scalar(*left, *right), operands, initial, dimensions)


class ReduceRule(ProgramRule):
    """The initial values must be neutral elements, as XLA asks of them, so they are constants."""

    def push(self, interpreter, primitive, primals, tangents, params):
        self._check(tangents)
        return super().push(interpreter, primitive, primals, tangents, params)

    def record(self, interpreter, recorder, primitive, primals, slots, params):
        self._check(slots)
        return super().record(interpreter, recorder, primitive, primals, slots, params)

    def _check(self, derivatives):
        if any(d is not None for d in derivatives[len(derivatives) // 2 :]):
            raise NotImplementedError("the derivative of lax.reduce with respect to its initial values")


program(lax.reduce_prod_p, _reduce_prod, cost="reducing")
higher_order(lax.reduce_p, ReduceRule(_reduce), cost="reducing")

# -- cumulative -------------------------------------------------------------------------------------------

# the transpose of a sum over the entries before is the sum over the entries after
structural(
    lax.cumsum_p,
    lambda g, x, *, axis, reverse: lax.cumsum(g, axis, not reverse),
    pattern=pattern_of_prefixes,
    cost="reducing",
)


def _cumulative(combine, x, *, axis, reverse):
    return [lax.associative_scan(combine, x, reverse, axis)]


program(lax.cumprod_p, partial(_cumulative, lax.mul), cost="reducing")
program(lax.cummax_p, partial(_cumulative, lax.max), cost="reducing")
program(lax.cummin_p, partial(_cumulative, lax.min), cost="reducing")
program(lax.cumlogsumexp_p, partial(_cumulative, jc.logaddexp), cost="reducing")
