"""Colorings for a diagonal of large stencils."""

from __future__ import annotations

import numpy as np
import pytest

from admodes.linear.pattern import SparsityPattern
from admodes.sparse import partial
from admodes.sparse.columns import LARGE


def stencil(n, steps):
    i = np.arange(n)
    rows, cols = np.tile(i, len(steps)), np.concatenate([(i + d) % n for d in steps])
    return SparsityPattern.build(rows, cols, (n, n))


@pytest.mark.parametrize("steps", [(0, 1, -2), (0, 1, -1, 300, -300), (0, 1, 2, 3, -1)])
def test_stencils_are_colored_by_arithmetic(steps, monkeypatch):
    n = 60_000
    assert n >= LARGE
    found = partial.color_for(stencil(n, steps), SparsityPattern.identity(n))
    assert found.order == "arithmetic"
    for step in steps:  # row i is read off the color of column i, which no other nonzero of the row has
        if step:
            assert (found.columns != np.roll(found.columns, -step)).all()
    monkeypatch.setattr(partial, "_arithmetic", lambda graph: None)
    assert found.number <= partial.color_for(stencil(n, steps), SparsityPattern.identity(n)).number


def test_other_graphs_are_colored_greedily():
    n = LARGE
    rng = np.random.default_rng(0)
    rows, cols = (
        np.concatenate([np.arange(n), rng.integers(0, n, n)]),
        np.concatenate([np.arange(n), rng.permutation(n)]),
    )
    pattern = SparsityPattern.build(rows, cols, (n, n))
    found = partial.color_for(pattern, SparsityPattern.identity(n))
    assert found.order != "arithmetic"
    off = pattern.rows != pattern.cols
    assert (found.columns[pattern.rows[off]] != found.columns[pattern.cols[off]]).all()
