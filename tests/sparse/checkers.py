"""Slow checkers, written from the definitions and sharing no code with what they check."""

from __future__ import annotations

from itertools import combinations

import numpy as np


def same_color_pairs(dense, colors):
    """Two columns of one color with a nonzero in the same row, or None. (Neutral columns, color -1, do not count.)"""
    for row in np.asarray(dense):
        for a, b in combinations(np.flatnonzero(row), 2):
            if colors[a] == colors[b] and colors[a] >= 0:
                return int(a), int(b)
    return None


def _neighbours(dense):
    return [[int(w) for w in np.flatnonzero(row) if w != v] for v, row in enumerate(np.asarray(dense))]


def two_colored_path(dense, colors):
    """A path of four vertices with two colors (or an edge with one), or None: what star colorings must not have."""
    near = _neighbours(dense)
    for v in range(len(near)):
        for w in near[v]:
            if colors[v] == colors[w]:
                return v, w
            for x in near[w]:
                if x != v and colors[x] == colors[v]:
                    for y in near[x]:
                        if y not in (v, w) and colors[y] == colors[w]:
                            return v, w, x, y
    return None


def two_colored_cycle(dense, colors):
    """Two colors between which there is a cycle (or one color with an edge), or None: acyclic colorings have none."""
    near = _neighbours(dense)
    for a in range(max(colors) + 1):
        if any(colors[v] == a == colors[w] for v in range(len(near)) for w in near[v]):
            return (a,)
        for b in range(a):
            vertices = [v for v in range(len(near)) if colors[v] in (a, b)]
            edges = sum(colors[w] in (a, b) for v in vertices for w in near[v]) // 2
            if edges != len(vertices) - _components(vertices, near):
                return b, a
    return None


def _components(vertices, near) -> int:
    left, count = set(vertices), 0
    while left:
        count += 1
        stack = [left.pop()]
        while stack:
            for w in near[stack.pop()]:
                if w in left:
                    left.remove(w)
                    stack.append(w)
    return count


def unreadable_entry(dense, columns, rows):
    """An entry that is not alone with its column color in its row, nor with its row color in its column, or None."""
    dense = np.asarray(dense) != 0
    for i, j in zip(*np.nonzero(dense), strict=True):
        if not (_alone(columns, j, np.flatnonzero(dense[i])) or _alone(rows, i, np.flatnonzero(dense[:, j]))):
            return int(i), int(j)
    return None


def _alone(colors, at, among) -> bool:
    return colors is not None and colors[at] >= 0 and sum(colors[b] == colors[at] for b in among) == 1


def unreadable_symmetric_entry(dense, colors):
    """An entry (u, v) of a symmetric matrix that is alone with its color neither in row u nor in row v, or None."""
    dense = np.asarray(dense) != 0
    for u, v in zip(*np.nonzero(dense), strict=True):
        if not (_alone(colors, v, np.flatnonzero(dense[u])) or _alone(colors, u, np.flatnonzero(dense[v]))):
            return int(u), int(v)
    return None
