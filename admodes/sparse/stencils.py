r"""Colorings of stencils by arithmetic: the column at place x on a grid gets the color s(a · x).

With s(t) = t mod k this is right if a · δ ≢ 0 (mod k) for every difference δ of two columns that share a row. It
attains the lower bound for the usual stencils: (i + 2 j) mod 5 for the 5-point stencil, also around a torus whose
sides are divisible by 5. Around other tori s is a cyclic sequence of runs 0, 1, ..., k-1 and some 0, 1, ..., k: one
color more, and right if 1 ≤ |a · δ| < k around the cycle. Both are found from the differences alone, whatever the
size of the grid.

Reference: Goldfarb and Toint, "Optimal estimation of Jacobian and Hessian matrices that arise in finite difference
calculations", Math. Comp. 43 (1984).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np

# Colors above the lower bound that are tried. Chosen. More take longer where there is no such coloring.
SLACK = 2
# Distances between columns of one row, of which a stencil has few. Chosen: a box of 7 x 7 points has 13² = 169.
# Beyond, a matrix is colored as any other; larger boxes may then get more colors than they need.
MOST_DIFFERENCES = 400
# Arithmetic colorings that are tried for a number of colors. Chosen. Four times fewer may miss one; more take as much
# longer.
MOST_WEIGHTS = 4096
# Rows that are looked at: at either end and in between. Chosen. A difference that they do not show makes a coloring
# fail its check, and be dropped.
SAMPLE = 3000


def lattice_colors(matrix, shapes, lower: int) -> Iterator[np.ndarray]:
    """Candidate colorings of the columns with few colors, the fewest first. They must be checked: rows are sampled.

    ``shapes`` are grids that the columns may be numbered on, row by row, each with as many points as there are columns.
    """
    grids = _grids(matrix, shapes)
    for k in range(lower, lower + SLACK + 1):
        for sides, moves in grids:
            weights = _weights([range(k)] * len(sides), lambda steps, k=k: steps % k != 0, moves)
            if weights is not None:
                yield _distances(sides, weights) % k
        for sides, moves in grids:
            for period in sorted(set(sides), reverse=True):
                sequence = _sequence(period, k - 1)
                if sequence is None:
                    continue
                near = lambda steps, p=period, k=k: (steps % p != 0) & (np.minimum(steps % p, -steps % p) < k - 1)
                choices = [_around(side, period, k) for side in sides]
                weights = _weights(choices, near, moves)
                if weights is not None:
                    yield sequence[_distances(sides, weights) % period]


def seamed_colors(matrix, shapes) -> np.ndarray | None:
    """The coloring of the stencil on an endless grid, laid around a torus that it does not fit: wrong along seams only.

    A local search that starts here has to mend the seams. None if the rows are not those of a stencil.
    """
    longest, grids = int(np.diff(matrix.indptr).max(initial=0)), _grids(matrix, shapes)
    for k in range(longest, longest + SLACK + 1):
        for sides, moves in grids:
            around = np.array(sides)
            short = moves - around * np.rint(moves / around).astype(np.int64)
            weights = _weights([range(k)] * len(sides), lambda steps, k=k: steps % k != 0, short)
            if weights is not None:
                return _distances(sides, weights) % k
    return None


def _grids(matrix, shapes) -> list[tuple]:
    """The grids that the columns may be numbered on, as sides and as differences of columns that share a row."""
    n = matrix.shape[1]
    left, right = _pairs(matrix)
    differences = np.unique(right - left)
    if not 0 < differences.size <= MOST_DIFFERENCES:
        return []
    grids = []
    for grid in dict.fromkeys([*(tuple(s) for s in shapes if math.prod(s) == n), *_guess(differences, n)]):
        sides = [s for s in grid if s > 1] or [1]
        moves = _moves(left, right, sides)
        if len(moves) <= MOST_DIFFERENCES:
            grids.append((sides, moves))
    return grids


def _pairs(matrix) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of columns that share a row, for a sample of the rows."""
    m, part = matrix.shape[0], SAMPLE // 3
    middle = np.random.default_rng(0).integers(0, max(m, 1), part) if m > SAMPLE else np.arange(0)
    rows = np.unique(np.concatenate([np.arange(min(m, part)), middle, np.arange(max(m - part, 0), m)]))
    sample = matrix[rows if m > SAMPLE else np.arange(m)]
    widths = np.diff(sample.indptr)
    row = np.repeat(np.arange(sample.shape[0]), widths)
    col = sample.indices.astype(np.int64)
    left, right = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for step in range(1, min(int(widths.max(initial=0)), 64)):
        same = row[step:] == row[:-step]
        left.append(col[:-step][same])
        right.append(col[step:][same])
    return np.concatenate(left), np.concatenate(right)


def _moves(left, right, sides) -> np.ndarray:
    """The differences as vectors on the grid."""
    apart = np.stack(np.unravel_index(right, sides)) - np.stack(np.unravel_index(left, sides))
    spread = [2 * s for s in sides]
    codes = np.unique(np.ravel_multi_index(tuple(apart + np.array(sides)[:, None]), spread))
    return np.stack(np.unravel_index(codes, spread), axis=1) - np.array(sides)


def _guess(differences, n: int) -> list:
    """The line, and grids whose rows are as long as a difference (or next to one)."""
    large = differences[differences > 1]
    lengths = sorted({int(d) + e for d in large[: 2 * SLACK * 8] for e in (-1, 0, 1)})
    lengths = [w for w in lengths if 1 < w < n and n % w == 0]
    grids = [(n,), *((n // w, w) for w in lengths)]
    grids += [(n // w, w // v, v) for w in lengths for v in lengths if v < w and w % v == 0]
    return grids[:24]


def _around(side: int, period: int, k: int) -> list[int]:
    """Small weights with which a walk around this side is a walk of whole periods; any, where that cannot be."""
    step = period // math.gcd(period, side)
    exact = [w for c in range(-k, k + 1) for w in [c * step % period] if c]
    return list(dict.fromkeys([*exact, *(w % period for w in range(1, k + 1))]))


def _weights(choices, apart, moves):
    """The first weights a, one from each list of choices, with ``apart(a · δ)`` for all moves δ, or None."""
    trials = np.array(list(itertools.islice(itertools.product(*choices[::-1]), MOST_WEIGHTS)), np.int64)[:, ::-1]
    good = np.flatnonzero(apart(trials @ moves.T).all(axis=1))
    return trials[good[0]] if good.size else None


def _distances(sides, weights) -> np.ndarray:
    """a · x for all places x, in the order of the columns."""
    axes = np.meshgrid(*map(np.arange, sides), indexing="ij", sparse=True)
    return np.asarray(sum(int(w) * x for w, x in zip(weights, axes, strict=True))).ravel()


def _sequence(length: int, k: int):
    """Runs 0 ... k-1 and at least one 0 ... k that add up to ``length``, or None."""
    longer = length % k if k else 0
    if not longer or k < 1 or longer * (k + 1) > length:
        return None
    short = (length - longer * (k + 1)) // k
    return np.concatenate([np.tile(np.arange(k), short), np.tile(np.arange(k + 1), longer)])
