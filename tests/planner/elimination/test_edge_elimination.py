"""Edge eliminations: counts that no order of vertices has, and the Jacobian they give."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from admodes.planner.elimination.edge_elimination import Split, search_edges
from admodes.planner.elimination.graph import ScalarGraph
from admodes.planner.elimination.orders import accumulate, multiplications
from admodes.planner.elimination.search import search
from admodes.planner.ways.accumulation import accumulation
from admodes.program.trace import trace

ENDS = (0, 2), (0, 6), (0, 7), (1, 2), (1, 4), (1, 5), (2, 3), (2, 5), (3, 4), (3, 5), (3, 6), (3, 7)
LION = ScalarGraph(8, (0, 1), (4, 5, 6, 7), tuple((u, w, None) for u, w in ENDS))


def lion(x):
    """A program with this graph: the outputs are weighted sums of their predecessors."""
    product = x[0] * x[1]
    value = {0: x[0], 1: x[1], 2: product, 3: jnp.sin(product)}
    sources = {w: jnp.stack([value[u] for u, v in ENDS if v == w]) for w in LION.outputs}
    return jnp.stack([jnp.dot(jnp.arange(w, w + s.size, dtype=float), s) for w, s in sources.items()])


def test_the_lion_takes_one_multiplication_less_than_in_any_order_of_vertices():
    fewest = min(multiplications(LION, order) for order in itertools.permutations(LION.intermediates))
    split, found = search_edges(LION, search(LION, seconds=0.2))
    assert (fewest, found.multiplications) == (12, 11)
    assert multiplications(split.graph, found.order) == 11


def test_a_program_with_split_vertices_has_the_right_jacobian():
    x = jnp.array([1.3, 0.7])
    found = accumulation(trace(lion, x), [True], order="scalar", rule="all")
    assert found.multiplications == 11
    _, values = found(trace(lion, x), found.tables, [x])
    dense = np.zeros((4, 2))
    dense[found.pattern.rows, found.pattern.cols] = values
    np.testing.assert_allclose(dense, jax.jacobian(lion)(x), rtol=1e-12)


@pytest.mark.parametrize("edge", [*Split.none(LION).single()], ids=str)
def test_every_split_leaves_the_jacobian_as_it_is(edge):
    partials = dict(zip(ENDS, np.random.default_rng(0).standard_normal(len(ENDS)), strict=True))
    split = Split.none(LION).off(*edge)
    values = [partials[split.origin[u], split.origin[w]] for u, w, _ in split.graph.edges]
    found = accumulate(split.graph, split.graph.intermediates, values)
    expected = accumulate(LION, LION.intermediates, list(partials.values()))
    assert found.keys() == expected.keys()
    np.testing.assert_allclose([found[k] for k in expected], list(expected.values()), rtol=1e-12)


def test_an_order_that_is_proven_optimal_is_left_alone():
    chain = ScalarGraph(5, (0, 1), (4,), ((0, 2, None), (1, 2, None), (2, 3, None), (3, 4, None)))
    vertices = search(chain, seconds=0.1)
    split, found = search_edges(chain, vertices)
    assert found is vertices
    assert split.graph is chain
