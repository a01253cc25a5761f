"""Contractions: dot_general, ragged_dot_general, convolution. Each is a product, linear in either factor."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from jax import lax

from admodes.linear.pattern import SparsityPattern
from admodes.program import jax_compat as jc
from admodes.program.folding import is_known
from admodes.rules.table import bilinear


def _others(ndim, *taken) -> list[int]:
    """The axes that are in none of ``taken``, in order."""
    used = {axis for axes in taken for axis in axes}
    return [axis for axis in range(ndim) if axis not in used]


def _ranges(*groups) -> list[list[int]]:
    """Consecutive axis numbers for groups of these lengths."""
    ends = np.cumsum([0, *map(len, groups)])
    return [list(range(a, b)) for a, b in itertools.pairwise(ends)]


def _ints(axes) -> tuple[int, ...]:
    return tuple(map(int, axes))


# -- dot_general -------------------------------------------------------------------------------------------


def _pull_dot(place):
    """The cotangent of one factor: contract g with the other factor over the other's kept axes.

    out[b, i, j] = Σₖ x[b, i, k] y[b, j, k], so x̄[b, i, k] = Σⱼ g[b, i, j] y[b, j, k], and likewise ȳ.
    """

    def pull(g, x, y, *, dimension_numbers, precision, preferred_element_type, out_sharding):
        contract, batch = dimension_numbers
        own, other = (x, y) if place == 0 else (y, x)
        (own_contract, other_contract), (own_batch, other_batch) = contract[:: 1 - 2 * place], batch[:: 1 - 2 * place]
        own_kept = _others(own.ndim, own_contract, own_batch)
        other_kept = _others(other.ndim, other_contract, other_batch)
        g_batch, *g_kept = _ranges(own_batch, *((own_kept, other_kept) if place == 0 else (other_kept, own_kept)))
        g_other = g_kept[1 - place]
        # the result has the axes (batch, own kept, contracted in the order of the other factor)
        axes = [*own_batch, *own_kept, *np.take(own_contract, np.argsort(other_contract)).astype(int)]
        ct = lax.dot_general_p.bind(
            g,
            other,
            dimension_numbers=((_ints(g_other), _ints(other_kept)), (_ints(g_batch), _ints(other_batch))),
            precision=precision,
            preferred_element_type=preferred_element_type,
            out_sharding=jc.sharding_of_axes(own, axes),
        )
        return lax.transpose(ct, _ints(np.argsort(axes)))

    return pull


def dot_numbers(linear):
    """The entries of the result laid out as [b, i, j], of the differentiated factor [b, i, k], of the other [b, j, k].

    Entry (b, i, j) of the result is the sum over k of the products of these.
    """
    (place,) = np.flatnonzero(linear.active)
    contract, batch = dict(linear.params)["dimension_numbers"]
    kept = [_others(a.ndim, c, b) for a, c, b in zip(linear.domain[:2], contract, batch, strict=True)]
    (out,) = linear.codomain

    def layout(at):
        x, groups = linear.domain[at], (batch[at], kept[at], contract[at])
        numbers = np.arange(x.size).reshape(x.shape).transpose([axis for axes in groups for axis in axes])
        return numbers.reshape([math.prod(x.shape[axis] for axis in axes) for axes in groups])

    own, other = layout(place), layout(1 - place)
    (n_batch, n_own, _), n_other = own.shape, other.shape[1]
    rows = np.arange(out.size).reshape((n_batch, n_own, n_other) if place == 0 else (n_batch, n_other, n_own))
    return rows if place == 0 else rows.transpose(0, 2, 1), own, other


def _dot_pattern(linear):
    """Entry (b, i, j) of the result meets the entries (b, i, k) of x where y[b, j, k] ≠ 0 (if that is known).

    Otherwise the rows (b, i, ·) are equal: they are stored once. Likewise for y.
    """
    (place,) = np.flatnonzero(linear.active)
    own, factor, (out,) = linear.domain[place], linear.operands[1 - place], linear.codomain
    rows, cols, others = dot_numbers(linear)
    if is_known(factor):
        there = np.asarray(factor).ravel()[others] != 0
        if not there.all():
            b, j, k = np.nonzero(there)
            return {(0, int(place)): _block(rows[b, :, j], cols[b, :, k], (out.size, own.size))}
    n_batch, n_own, _ = cols.shape
    groups = np.arange(n_batch * n_own).reshape(n_batch, n_own, 1)
    labels = np.empty(out.size, np.int64)
    labels[rows] = groups
    block = _block(groups, cols, (groups.size, own.size))
    return {(0, int(place)): SparsityPattern(block.table, labels)}


def _block(rows, cols, shape) -> SparsityPattern:
    rows, cols = np.broadcast_arrays(rows, cols)
    return SparsityPattern.build(rows.ravel(), cols.ravel(), shape)


bilinear(lax.dot_general_p, _pull_dot(0), _pull_dot(1), pattern=_dot_pattern, cost="contracting")


# -- ragged_dot_general ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Ragged:
    """The axes of a ragged contraction.

    The rows of x along its ragged axis come in groups, group number γ(i) for row i. If that axis is kept, y has one
    matrix for each group: out[b, i, j] = Σₖ x[b, i, k] y[γ(i), b, k, j]. If it is contracted, the result has one matrix
    for each group: out[γ, b, i, j] = Σ over k in γ of x[b, i, k] y[b, k, j]. Each is the transpose of the other.
    """

    contract: tuple
    batch: tuple
    kept: tuple
    ragged: int
    group: tuple

    @staticmethod
    def of(x, y, numbers) -> _Ragged:
        contract, batch = numbers.dot_dimension_numbers
        (ragged,), group = numbers.lhs_ragged_dimensions, tuple(numbers.rhs_group_dimensions)
        kept = (_others(x.ndim, contract[0], batch[0]), _others(y.ndim, contract[1], batch[1], group))
        return _Ragged(tuple(contract), tuple(batch), kept, ragged, group)

    def sorted_contract(self, place):
        """The contracted axes of one factor, in the order in which they come in the other one."""
        return [int(a) for a in np.take(self.contract[place], np.argsort(self.contract[1 - place]))]


def _ragged_dot(x, y, group_sizes, contract, batch, ragged, group, params):
    numbers = lax.RaggedDotDimensionNumbers(
        dot_dimension_numbers=(contract, batch), lhs_ragged_dimensions=[ragged], rhs_group_dimensions=list(group)
    )
    return lax.ragged_dot_general(
        x,
        y,
        group_sizes,
        numbers,
        precision=params["precision"],
        preferred_element_type=params["preferred_element_type"],
    )


def _pull_ragged_lhs(g, x, y, group_sizes, *, ragged_dot_dimension_numbers, **params):
    axes = _Ragged.of(x, y, ragged_dot_dimension_numbers)
    if axes.ragged in axes.batch[0]:
        raise NotImplementedError("the transpose of ragged_dot_general with a ragged batch axis is not implemented")
    if axes.ragged in axes.kept[0]:
        # x̄[b, i, k] = Σⱼ g[b, i, j] y[γ(i), b, k, j]
        g_batch, g_x, g_y = _ranges(axes.batch[0], *axes.kept)
        ragged = g_x[axes.kept[0].index(axes.ragged)]
        contract, batch = (g_y, axes.kept[1]), (g_batch, axes.batch[1])
        ct = _ragged_dot(g, y, group_sizes, contract, batch, ragged, axes.group, params)
        order = [*axes.batch[0], *axes.kept[0], *axes.sorted_contract(0)]
    else:
        # x̄[b, i, k] = Σⱼ y[b, k, j] g[γ(k), b, i, j], the rows of y being ragged
        g_group, g_batch, _, g_y = _ranges([0], axes.batch[0], *axes.kept)
        ragged = axes.contract[1][axes.contract[0].index(axes.ragged)]
        contract, batch = (axes.kept[1], g_y), (axes.batch[1], g_batch)
        ct = _ragged_dot(y, g, group_sizes, contract, batch, ragged, g_group, params)
        order = [*axes.batch[0], *axes.sorted_contract(0), *axes.kept[0]]
    return lax.transpose(ct, _ints(np.argsort(order)))


def _pull_ragged_rhs(g, x, y, group_sizes, *, ragged_dot_dimension_numbers, **params):
    axes = _Ragged.of(x, y, ragged_dot_dimension_numbers)
    if axes.ragged in axes.batch[0]:
        raise NotImplementedError("the transpose of ragged_dot_general with a ragged batch axis is not implemented")
    if axes.ragged in axes.kept[0]:
        # ȳ[γ, b, k, j] = Σ over i in γ of x[b, i, k] g[b, i, j]
        g_batch, g_x, _ = _ranges(axes.batch[0], *axes.kept)
        contract, batch = (axes.kept[0], g_x), (axes.batch[0], g_batch)
        ct = _ragged_dot(x, g, group_sizes, contract, batch, axes.ragged, (), params)
        order = [*axes.group, *axes.batch[1], *axes.sorted_contract(1), *axes.kept[1]]
    else:
        # ȳ[b, k, j] = Σᵢ x[b, i, k] g[γ(k), b, i, j]
        g_group, g_batch, g_x, _ = _ranges([0], axes.batch[0], *axes.kept)
        contract, batch = (axes.kept[0], g_x), (axes.batch[0], g_batch)
        ct = _ragged_dot(x, g, group_sizes, contract, batch, axes.ragged, g_group, params)
        order = [*axes.batch[1], *axes.sorted_contract(1), *axes.kept[1]]
    return lax.transpose(ct, _ints(np.argsort(order)))


bilinear(jc.ragged_dot_general_p, _pull_ragged_lhs, _pull_ragged_rhs, cost="contracting")
