"""Sparsity patterns of indexing: slices at computed places, gather and scatter.

Where the indices are known, so are the entries. Where they are not, the axes that they point into are lumped
together: a result can come from any entry that agrees with it in the other axes, which are still exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jax import lax

from admodes.linear.maps import Linear
from admodes.linear.pattern import SparsityPattern
from admodes.program.folding import is_known

MOST_PAIRS = 10**6  # of entries of a slice and entries that they can come from


@dataclass(frozen=True)
class _Places:
    """The entry of an array to which each entry of a moved array (gathered from it, or scattered into it) belongs.

    ``numbers`` are flat places, -1 where there is none. With ``groups`` (a number for each entry of the array) they
    are numbers of groups of entries instead, any of which it may be; ``n_groups`` is how many there are.
    """

    numbers: np.ndarray
    groups: np.ndarray | None = None
    n_groups: int = 0


def _places(shape, coordinates, valid, exact) -> _Places:
    """``coordinates[d]`` broadcast to the moved array; where axis d is not ``exact`` any place is possible."""
    if all(exact):
        numbers = sum(c * math.prod(shape[d + 1 :]) for d, c in enumerate(coordinates))
        return _Places(np.where(valid, numbers, -1).ravel())
    kept = [n if ok else 1 for n, ok in zip(shape, exact, strict=True)]
    steps = [math.prod(kept[d + 1 :]) if ok else 0 for d, ok in enumerate(exact)]
    own = np.meshgrid(*map(np.arange, shape), indexing="ij", sparse=True)
    groups = np.broadcast_to(sum(c * k for c, k in zip(own, steps, strict=True)), shape).ravel()
    numbers = np.broadcast_to(sum(c * k for c, k in zip(coordinates, steps, strict=True)), np.shape(valid)).ravel()
    return _Places(numbers, groups, math.prod(kept))


def _read(places: _Places, size: int) -> SparsityPattern:
    """The pattern of the moved array as a function of the array."""
    if places.groups is None:
        return SparsityPattern.choice(places.numbers, (places.numbers.size, size))
    return SparsityPattern.shared(places.numbers, places.groups, np.arange(size), (places.n_groups, size))


def _written(places: _Places, size: int) -> SparsityPattern:
    """The pattern of the array as a function of the moved array that is added into it."""
    count = places.numbers.size
    if places.groups is None:
        there = np.flatnonzero(places.numbers >= 0)
        return SparsityPattern.build(places.numbers[there], there, (size, count))
    return SparsityPattern.shared(places.groups, places.numbers, np.arange(count), (places.n_groups, count))


def _survivors(places: _Places, size: int) -> SparsityPattern:
    """The pattern of the array as a function of what it was before it was overwritten."""
    rest = np.arange(size)
    if places.groups is None:
        rest[places.numbers[places.numbers >= 0]] = -1
    return SparsityPattern.choice(rest, (size, size))


# -- slices --------------------------------------------------------------------------------------------


def _slice_entries(shape, sizes, starts) -> SparsityPattern:
    """The entries of the array that each entry of a slice can come from.

    A start that is not known can be any that leaves the slice inside. Where that makes too many pairs, the axis counts
    as lumped together.
    """
    exact = [n == k or is_known(start) for n, k, start in zip(shape, sizes, starts, strict=True)]
    firsts = _first_starts(shape, sizes, starts)
    choices = [1 if ok else n - k + 1 for ok, n, k in zip(exact, shape, sizes, strict=True)]
    if math.prod(sizes) * math.prod(choices) > MOST_PAIRS and not all(exact):
        rank = len(shape)
        runs = [first + np.arange(k) for first, k in zip(firsts, sizes, strict=True)]
        runs = [np.expand_dims(run, tuple(e for e in range(rank) if e != d)) for d, run in enumerate(runs)]
        return _read(_places(shape, runs, np.ones(sizes, bool), exact), math.prod(shape))
    rows, cols = np.zeros((1, 1), np.int64), np.zeros((1, 1), np.int64)
    for n, k, first, count in zip(shape, sizes, firsts, choices, strict=True):
        inside = np.repeat(np.arange(k), count)
        places = inside + first + np.tile(np.arange(count), k)
        rows, cols = rows.reshape(-1, 1) * k + inside, cols.reshape(-1, 1) * n + places
    return SparsityPattern.build(rows.ravel(), cols.ravel(), (math.prod(sizes), math.prod(shape)))


def _first_starts(shape, sizes, starts) -> list[int]:
    """The starts, moved so that the slice is inside; the least possible ones where they are not known."""
    triples = zip(shape, sizes, starts, strict=True)
    return [min(max(int(start), 0), n - k) if n != k and is_known(start) else 0 for n, k, start in triples]


def _outside_slice(shape, sizes, starts) -> SparsityPattern:
    """The identity on the entries of the array that an update of the slice can leave as they are."""
    covered = []
    for n, k, start, first in zip(shape, sizes, starts, _first_starts(shape, sizes, starts), strict=True):
        covered.append(slice(first, first + k) if n == k or is_known(start) else slice(n - k, max(k, n - k)))
    rest = np.arange(math.prod(shape)).reshape(shape)
    rest[tuple(covered)] = -1
    return SparsityPattern.choice(rest.ravel(), (rest.size, rest.size))


def pattern_of_dynamic_slice(linear: Linear):
    (x, *_), (out,) = linear.domain, linear.codomain
    return {(0, 0): _slice_entries(x.shape, out.shape, linear.operands[1:])}


def pattern_of_dynamic_update_slice(linear: Linear):
    x, update, *_ = linear.domain
    blocks, starts = {}, linear.operands[2:]
    if linear.active[0]:
        blocks[0, 0] = _outside_slice(x.shape, update.shape, starts)
    if linear.active[1]:
        blocks[0, 1] = _slice_entries(x.shape, update.shape, starts).transpose
    return blocks


# -- gather and scatter --------------------------------------------------------------------------------


def _indexed_places(shape, indices, index_shape, moved_shape, windows, skipped, index_map, batching, fills) -> _Places:
    """Places in an array of ``shape`` of windows that start at ``indices``.

    The axes ``windows`` of the moved array run along the axes of the array that are not ``skipped`` (nor batched), its
    other axes along those of the indices; ``batching`` pairs axes of the array with axes of the indices.
    """
    rank, known = len(moved_shape), is_known(indices)
    outer = [d for d in range(rank) if d not in windows]
    batched = dict(zip(*batching, strict=True))
    along = iter(windows)
    extent = {d: next(along) for d in range(len(shape)) if d not in skipped and d not in batched}

    def run(axis):
        return np.expand_dims(np.arange(moved_shape[axis]), tuple(e for e in range(rank) if e != axis))

    coordinates, exact, valid = [], [], np.ones(moved_shape, bool)
    for d, n in enumerate(shape):
        place = run(extent[d]) if d in extent else np.zeros((1,) * rank, np.int64)
        width = moved_shape[extent[d]] if d in extent else 1
        exact.append(known or d not in index_map or width == n)
        if d in batched:
            place = place + run(outer[batched[d]])
        elif d in index_map and known:
            start = np.asarray(indices)[..., index_map.index(d)].astype(np.int64)
            start = np.expand_dims(start.reshape(index_shape[:-1]), tuple(windows))
            if fills:
                valid &= (start >= 0) & (start <= n - width)
            place = place + np.clip(start, 0, max(n - width, 0))
        coordinates.append(place)
    return _places(shape, coordinates, valid, exact)


def pattern_of_gather(linear: Linear):
    params, (x, indices), (out,) = dict(linear.params), linear.domain, linear.codomain
    numbers = params["dimension_numbers"]
    places = _indexed_places(
        x.shape,
        linear.operands[1],
        indices.shape,
        out.shape,
        numbers.offset_dims,
        numbers.collapsed_slice_dims,
        numbers.start_index_map,
        (numbers.operand_batching_dims, numbers.start_indices_batching_dims),
        params["mode"] == lax.GatherScatterMode.FILL_OR_DROP,
    )
    return {(0, 0): _read(places, math.prod(x.shape))}


def _scatter_places(linear: Linear) -> _Places:
    params, (x, indices, updates) = dict(linear.params), linear.domain
    numbers = params["dimension_numbers"]
    return _indexed_places(
        x.shape,
        linear.operands[1],
        indices.shape,
        updates.shape,
        numbers.update_window_dims,
        numbers.inserted_window_dims,
        numbers.scatter_dims_to_operand_dims,
        (numbers.operand_batching_dims, numbers.scatter_indices_batching_dims),
        params["mode"] != lax.GatherScatterMode.CLIP,
    )


def _of_scatter(linear: Linear, of_operand):
    places, size = _scatter_places(linear), math.prod(linear.domain[0].shape)
    return {(0, i): rule(places, size) for i, rule in ((0, of_operand), (2, _written)) if linear.active[i]}


def pattern_of_scatter(linear: Linear):
    """Overwriting: what was there before is gone."""
    return _of_scatter(linear, _survivors)


def pattern_of_scatter_add(linear: Linear):
    """Combining: what was there before is still in it."""
    return _of_scatter(linear, lambda places, size: SparsityPattern.identity(size))
