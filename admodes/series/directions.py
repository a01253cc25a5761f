r"""Mixed partial derivatives as sums of k-th derivatives along lines: Σ_d w_d (v_d·∂)ᵏ f.

Since (v·∂)ᵏ = Σ_{|β|=k} k!/β! v^β ∂^β, the sum is Σ_α c_α ∂^α if Σ_d w_d k!/β! v_d^β = c_β for all β with |β| = k:
a linear system for the weights. Lines along the multi-indices themselves always solve it; with both signs of their
entries there are often solutions of fewer lines (8 rather than 10 for ∂⁴/∂x²∂y² in pairs, say). Of all solutions the
one with the least Σ |w_d| |v_d|ᵏ is taken, a basic solution of that linear program, so that little cancels.

Reference: Griewank, Utke and Walther, "Evaluating higher derivative tensors by forward propagation of univariate Taylor
series", Mathematics of Computation 69 (2000).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

import numpy as np

# Of two solutions alike in all else the one along the axes: 1% is above all rounding, and below any real difference.
BESIDE_AXES = 0.01


def compositions(total: int, parts: int) -> Iterator[tuple[int, ...]]:
    """All tuples of ``parts`` whole numbers, none negative, with this sum."""
    if parts == 1:
        yield (total,)
        return
    for first in range(total, -1, -1):
        for rest in compositions(total - first, parts - 1):
            yield (first, *rest)


def _placed(small: Sequence[int], places: Sequence[int], n: int) -> tuple[int, ...]:
    full = [0] * n
    for k, place in zip(small, places, strict=True):
        full[place] = k
    return tuple(full)


def _lines(order: int, m: int) -> Iterator[tuple[int, ...]]:
    """Primitive directions in m variables, all of them taking part, up to a sign of the whole."""
    found: set[tuple[int, ...]] = set()
    for j in compositions(order, m):
        if 0 in j:
            continue
        reduced = tuple(k // math.gcd(*j) for k in j)
        for signs in itertools.product((1, -1), repeat=m - 1):
            found.add((reduced[0], *(s * k for s, k in zip(signs, reduced[1:], strict=True))))
    yield from sorted(found, reverse=True)


def _supports(indices) -> list[tuple[int, ...]]:
    """The sets of variables of the multi-indices, and all their subsets."""
    found: set[tuple[int, ...]] = set()
    for index in indices:
        support = tuple(i for i, k in enumerate(index) if k)
        for size in range(1, len(support) + 1):
            found.update(itertools.combinations(support, size))
    return sorted(found)


def _moments(lines: np.ndarray, power: tuple[int, ...]) -> np.ndarray:
    """k!/β! v^β for each line v."""
    multinomial = math.factorial(sum(power)) / math.prod(map(math.factorial, power))
    return multinomial * np.prod(lines ** np.array(power), axis=1)


def lines_for(terms: Mapping[tuple[int, ...], float]) -> tuple[np.ndarray, np.ndarray]:
    """(directions, weights) for Σ_α c_α ∂^α, all of one order k: Σ_α c_α ∂^α = Σ_d w_d (v_d·∂)ᵏ."""
    directions, weights = _solved(tuple(sorted(terms)), tuple(float(terms[a]) for a in sorted(terms)))
    return directions.copy(), weights.copy()


@lru_cache(256)
def _solved(indices: tuple, values: tuple) -> tuple[np.ndarray, np.ndarray]:
    from scipy.optimize import linprog

    n, order = len(indices[0]), sum(indices[0])
    supports = _supports(indices)
    lines = np.array([_placed(v, s, n) for s in supports for v in _lines(order, len(s))], float).reshape(-1, n)
    powers = [_placed(j, s, n) for s in supports for j in compositions(order, len(s)) if 0 not in j]
    matrix = np.array([_moments(lines, b) for b in powers])
    wanted = np.array([dict(zip(indices, values, strict=True)).get(b, 0.0) for b in powers])
    price = np.linalg.norm(lines, axis=1) ** order * (1 + BESIDE_AXES * ((lines != 0).sum(1) - 1))
    both = np.concatenate([matrix, -matrix], 1)
    solution = linprog(np.concatenate([price, price]), A_eq=both, b_eq=wanted, method="highs-ds")
    assert solution.success, solution.message
    weights = solution.x[: len(lines)] - solution.x[len(lines) :]
    kept = np.abs(weights) > 1e-12 * np.abs(weights).max(initial=1e-300)
    exact, *_ = np.linalg.lstsq(matrix[:, kept], wanted, rcond=None)  # to the last digits
    return lines[kept], exact


def tensor_lines(n: int, order: int) -> tuple[list, np.ndarray, np.ndarray]:
    """(multi-indices, directions, matrix): all derivatives of an order are the matrix times those along the lines."""
    indices = list(compositions(order, n))
    rows: list[dict] = []
    place: dict[tuple[int, ...], int] = {}
    for index in indices:
        support = tuple(i for i, k in enumerate(index) if k)
        small, inverse = _inverse(order, len(support))
        row = inverse[small.index(tuple(index[i] for i in support))]
        full = [_placed(j, support, n) for j in small]
        rows.append({place.setdefault(v, len(place)): w for v, w in zip(full, row, strict=True) if w})
    matrix = np.zeros((len(indices), len(place)))
    for i, row in enumerate(rows):
        matrix[i, list(row)] = list(row.values())
    return indices, np.array(list(place), float), matrix


@lru_cache(32)
def _inverse(order: int, m: int) -> tuple[list, np.ndarray]:
    """The derivatives of an order in m variables from those along the multi-indices."""
    j = list(compositions(order, m))
    v = np.array(j, float)
    matrix = [
        [math.factorial(order) / math.prod(map(math.factorial, b)) * np.prod(u ** np.array(b)) for b in j] for u in v
    ]
    inverse = np.linalg.inv(np.array(matrix))
    return j, np.where(np.abs(inverse) < 1e-12 * np.abs(inverse).max(), 0, inverse)
