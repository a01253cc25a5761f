r"""Convolution: conv_general_dilated, linear in the image and in the kernel.

Along each spatial axis, with stride s, dilations d (kernel) and e (image), and p entries of padding before:

    out[n, o, u] = Σ over c, v of image[n, c, (u s + v d - p) / e] kernel[o, c, v],

where the sum runs over the v for which the index is whole and in range. Both transposes are convolutions too.
"""

from __future__ import annotations

import math

import numpy as np
from jax import lax

from admodes.linear.pattern import SparsityPattern
from admodes.program.folding import is_known
from admodes.rules.table import bilinear


def _dilated(sizes, dilation):
    return [0 if n == 0 else (n - 1) * d + 1 for n, d in zip(sizes, dilation, strict=True)]


def _spatial(aval, spec) -> list[int]:
    return [aval.shape[axis] for axis in spec[2:]]


def _extents(g, lhs, rhs, params):
    """Along each spatial axis: the sizes of the dilated image, kernel and (by the strides) result."""
    numbers = params["dimension_numbers"]
    return (
        _dilated(_spatial(lhs, numbers.lhs_spec), params["lhs_dilation"]),
        _dilated(_spatial(rhs, numbers.rhs_spec), params["rhs_dilation"]),
        _dilated(_spatial(g, numbers.out_spec), params["window_strides"]),
    )


def _swapped(spec):
    """The batch and the feature axis change places."""
    return (spec[1], spec[0], *spec[2:])


def _move_groups(x, source, target, groups):
    """Split ``groups`` off the front of axis ``source`` and join them to the front of axis ``target``."""
    shape = list(x.shape)
    shape[source : source + 1] = [groups, shape[source] // groups]
    order = [i for i in range(len(shape)) if i != source]
    at = order.index(target if target < source else target + 1)
    x = lax.transpose(lax.reshape(x, shape), [*order[:at], source, *order[at:]])
    final = list(x.shape)
    final[at : at + 2] = [final[at] * final[at + 1]]
    return lax.reshape(x, final)


def _convolve(lhs, rhs, dtype, specs, params, **changes):
    """A convolution of arrays that are brought to ``dtype``, with some parameters changed."""
    params = dict(params, dimension_numbers=lax.ConvDimensionNumbers(*specs), out_sharding=None) | changes
    lhs, rhs = (x if x.dtype == dtype else lax.convert_element_type(x, dtype) for x in (lhs, rhs))
    return lax.conv_general_dilated_p.bind(lhs, rhs, **params)


def _pull_image(g, lhs, rhs, **params):
    """Convolve the result's cotangent with the reversed kernel; stride and image dilation change places."""
    lhs_spec, rhs_spec, out_spec = params["dimension_numbers"]
    groups = max(params["feature_group_count"], params["batch_group_count"])
    if groups > 1:
        rhs = _move_groups(rhs, rhs_spec[0], rhs_spec[1], groups)
    padding = []
    for n, k, m, (before, _) in zip(*_extents(g, lhs, rhs, params), params["padding"], strict=True):
        lo = k - 1 - before
        padding.append((lo, n + k - 1 - m - lo))
    ct = _convolve(
        g,
        lax.rev(rhs, rhs_spec[2:]),
        g.dtype,
        (out_spec, _swapped(rhs_spec), lhs_spec),
        params,
        window_strides=params["lhs_dilation"],
        lhs_dilation=params["window_strides"],
        padding=tuple(padding),
        feature_group_count=groups,
        batch_group_count=1,
    )
    if params["batch_group_count"] > 1:
        ct = _move_groups(ct, lhs_spec[1], lhs_spec[0], groups)
    return ct


def _pull_kernel(g, lhs, rhs, **params):
    """Convolve the image with the result's cotangent; stride and kernel dilation, batch and features change places."""
    if 0 in g.shape:
        return None
    padding = []
    for n, k, m, (before, _) in zip(*_extents(g, lhs, rhs, params), params["padding"], strict=True):
        padding.append((before, m - n + k - before - 1))
    feature_groups, batch_groups = params["feature_group_count"], params["batch_group_count"]
    lhs_spec, rhs_spec, out_spec = params["dimension_numbers"]
    return _convolve(
        lhs,
        g,
        g.dtype,
        (_swapped(lhs_spec), _swapped(out_spec), _swapped(rhs_spec)),
        params,
        window_strides=params["rhs_dilation"],
        rhs_dilation=params["window_strides"],
        padding=tuple(padding),
        feature_group_count=batch_groups,
        batch_group_count=feature_groups,
    )


def convolution_products(linear) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All products, every (n, o, u) of the result with every (c, v) of the kernel: the entries of each."""
    params = dict(linear.params)
    (lhs, rhs), (out,) = linear.domain, linear.codomain
    lhs_spec, rhs_spec, out_spec = params["dimension_numbers"]
    rank = len(out_spec) - 2
    n, o = out.shape[out_spec[0]], out.shape[out_spec[1]]
    c = rhs.shape[rhs_spec[1]]
    window, space = _spatial(rhs, rhs_spec), _spatial(out, out_spec)
    batch, feature, channel, *rest = np.ix_(*map(np.arange, (n, o, c, *space, *window)))
    at, tap = rest[:rank], rest[rank:]

    # groups cut the result's features; with them go the image's channels, or its batch
    group = feature // max(o // max(params["feature_group_count"], params["batch_group_count"]), 1)
    in_feature_groups = params["feature_group_count"] > 1
    image = [batch if in_feature_groups else group * n + batch, group * c + channel if in_feature_groups else channel]
    valid = np.ones([1] * (3 + 2 * rank), bool)
    axes = (params["window_strides"], params["rhs_dilation"], params["lhs_dilation"], params["padding"])
    for u, v, size, s, d, e, (before, _) in zip(at, tap, _spatial(lhs, lhs_spec), *axes, strict=True):
        index, remainder = np.divmod(u * s + v * d - before, e)
        valid = valid & (remainder == 0) & (index >= 0) & (index < size)
        image.append(index)

    def numbers(aval, spec, indices):
        strides = [math.prod(aval.shape[axis + 1 :]) for axis in spec]
        return sum(i * stride for i, stride in zip(indices, strides, strict=True))

    rows = numbers(out, out_spec, (batch, feature, *at))
    places = numbers(lhs, lhs_spec, image), numbers(rhs, rhs_spec, (feature, channel, *tap))
    rows, first, second, valid = np.broadcast_arrays(rows, *places, valid)
    return rows[valid], first[valid], second[valid]


def _pattern(linear):
    (place,) = np.flatnonzero(linear.active)
    rows, *factors = convolution_products(linear)
    cols, other = factors[place], linear.operands[1 - place]
    if place == 0 and is_known(other):
        there = np.asarray(other).ravel()[factors[1]] != 0
        rows, cols = rows[there], cols[there]
    return {(0, int(place)): SparsityPattern.build(rows, cols, (linear.codomain[0].size, linear.domain[place].size))}


bilinear(lax.conv_general_dilated_p, _pull_image, _pull_kernel, pattern=_pattern, cost="contracting")
