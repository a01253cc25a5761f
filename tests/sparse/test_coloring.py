"""Colorings: checked from the definitions, against exact counts of small matrices and against counts of theory."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse as sp

from admodes.errors import ColoringError
from admodes.linear.pattern import SparsityPattern
from admodes.sparse import coloring
from admodes.sparse.columns import columns_are_apart
from admodes.sparse.compress import decompression, seeds
from admodes.sparse.orders import ORDERS, conflict_graph, find_order
from admodes.sparse.result import Coloring
from admodes.sparse.validate import missed_entries
from tests.sparse import checkers


def pattern_of(dense) -> SparsityPattern:
    return SparsityPattern.build(*np.nonzero(dense), np.shape(dense))


def banded(n, width):
    return np.abs(np.subtract.outer(np.arange(n), np.arange(n))) <= width


def arrowhead(n):
    dense = np.eye(n, dtype=bool)
    dense[0] = dense[:, 0] = True
    return dense


def cycle(n, diagonal=True):
    edges = np.roll(np.eye(n, dtype=bool), 1, axis=1)
    return edges | edges.T | (diagonal & np.eye(n, dtype=bool))


def torus(rows, cols, fields=1, reach=1):
    """The 5-point stencil around a torus; two fields are coupled at each point."""
    x = np.arange(rows * cols).reshape(rows, cols)
    dense = np.zeros((x.size, x.size), bool)
    for step in range(-reach, reach + 1):
        dense[x.ravel(), np.roll(x, step, 0).ravel()] = dense[x.ravel(), np.roll(x, step, 1).ravel()] = True
    if fields == 1:
        return dense
    return np.block([[dense, np.eye(x.size, dtype=bool)], [np.eye(x.size, dtype=bool), dense]])


def random_matrices():
    rng = np.random.default_rng(0)
    shapes = [(1, 1), (7, 5), (12, 12), (9, 20), (20, 9), (30, 30), (15, 15)]
    for (m, n), density in zip(shapes, [1, 0.3, 0.2, 0.15, 0.4, 0.05, 0.9], strict=True):
        yield rng.random((m, n)) < density
    dense = rng.random((25, 25)) < 0.05
    dense[[3, 7]] = True
    dense[:, [0, 11]] = True
    yield dense
    yield np.zeros((3, 4), bool)
    yield np.zeros((0, 3), bool)


MATRICES = {
    "banded": banded(12, 2),
    "arrowhead": arrowhead(11),
    "cycle": cycle(9),
    "cycle without diagonal": cycle(8, False),
    "torus": torus(5, 5),
    "two fields": torus(6, 4, 2),
    **{f"random {k}": dense for k, dense in enumerate(random_matrices())},
}


def values_on(dense, seed=0):
    return np.where(dense, np.random.default_rng(seed).normal(size=np.shape(dense)), 0.0)


@pytest.mark.parametrize("kind", ["column", "row", "bidirectional"])
@pytest.mark.parametrize("name", MATRICES)
def test_every_entry_is_read_off(name, kind):
    dense = MATRICES[name]
    result = coloring(pattern_of(dense), kind, budget=0.02)
    assert checkers.unreadable_entry(dense, result.columns, result.rows) is None
    if kind == "column":
        assert checkers.same_color_pairs(dense, result.columns) is None
    if kind == "row":
        assert checkers.same_color_pairs(dense.T, result.rows) is None
    assert result.lower_bound <= result.number
    matrix, back = values_on(dense), decompression(result)
    columns = None if result.columns is None else seeds(result.columns) @ matrix.T
    rows = None if result.rows is None else seeds(result.rows) @ matrix
    np.testing.assert_array_equal(back(columns, rows), matrix[result.pattern.rows, result.pattern.cols])


@pytest.mark.parametrize("structure", ["star", "acyclic"])
@pytest.mark.parametrize("name", [k for k, dense in MATRICES.items() if dense.shape[0] == dense.shape[1]])
def test_symmetric_entries_are_found(name, structure):
    dense = MATRICES[name] | MATRICES[name].T
    result = coloring(pattern_of(dense), "symmetric", structure=structure, budget=0.02)
    if structure == "star":
        assert checkers.unreadable_symmetric_entry(dense, result.columns) is None
        assert not result.substitution
    else:
        assert checkers.two_colored_cycle(dense, result.columns) is None
    assert result.lower_bound <= result.number
    matrix = values_on(dense)
    matrix = matrix + matrix.T
    back = decompression(result)
    assert (back.direct is None) <= result.substitution
    found = back(seeds(result.columns) @ matrix)
    np.testing.assert_allclose(found, matrix[result.pattern.rows, result.pattern.cols], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", ["banded", "torus", "random 2", "random 5"])
def test_greedy_in_every_order(name, order):
    dense = MATRICES[name]
    matrix = sp.csr_matrix(dense)
    visit = find_order(order, conflict_graph(matrix))
    assert sorted(visit) == list(range(dense.shape[1]))
    result = coloring(pattern_of(dense), order=order, budget=0)
    assert result.order == order
    assert checkers.same_color_pairs(dense, result.columns) is None
    greedy = [-1] * dense.shape[1]
    conflicts = (dense.T.astype(int) @ dense) > 0
    for v in visit:
        taken = {greedy[w] for w in np.flatnonzero(conflicts[v]) if w != v}
        greedy[v] = next(c for c in range(len(taken) + 1) if c not in taken)
    assert result.number == max(greedy) + 1


def test_orders_mean_what_they_say():
    graph = conflict_graph(sp.csr_matrix(MATRICES["random 5"]))
    near = graph.toarray()
    by_degree = near.sum(0)[find_order("largest_first", graph)]
    assert (np.diff(by_degree) <= 0).all()
    last = find_order("smallest_last", graph)
    for k in range(len(last), 0, -1):
        left = last[:k]
        degrees = near[np.ix_(left, left)].sum(0)
        assert degrees[-1] == degrees.min()
    incidence = find_order("incidence", graph)
    for k in range(1, len(incidence)):
        come = near[np.ix_(incidence[:k], incidence[k:])].sum(0)
        assert come[0] == come.max()


def exact_number(dense, readable, colors_of) -> int:
    """The least number of colors of any assignment that is ``readable``, neutral ones included; by trying all."""
    for k in range(dense.shape[1] + 1):
        if any(readable(np.array(c)) for c in product(range(-1, k), repeat=colors_of)):
            return k
    raise AssertionError


@pytest.mark.parametrize("seed", range(25))
def test_lower_bounds_are_proven_against_all_colorings(seed):
    rng = np.random.default_rng(seed)
    dense = rng.random((4, 5)) < rng.choice([0.2, 0.5, 0.8])
    exact = exact_number(dense, lambda c: checkers.unreadable_entry(dense, c, None) is None, 5)
    found = coloring(pattern_of(dense))
    assert found.lower_bound <= exact <= found.number <= exact + 1
    both = coloring(pattern_of(dense), "bidirectional")
    assert both.lower_bound <= both.number <= min(found.number, coloring(pattern_of(dense), "row").number)

    square = rng.random((5, 5)) < rng.choice([0.2, 0.5, 0.8])
    square = square | square.T
    exact = exact_number(square, lambda c: checkers.unreadable_symmetric_entry(square, c) is None, 5)
    found = coloring(pattern_of(square), "symmetric")
    assert found.lower_bound <= exact <= found.number <= exact + 1


# -- counts known from theory ------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [0, 1, 2, 5])
def test_banded_matrices(width):
    result = coloring(pattern_of(banded(40, width)))
    assert result.number == 2 * width + 1
    assert result.optimal
    assert coloring(pattern_of(banded(40, width)), "symmetric").number <= 2 * width + 1


@pytest.mark.parametrize(
    ("dense", "star", "acyclic"),
    [
        (banded(10, 1), 3, 2),  # a path
        (cycle(5), 4, 3),  # the only cycle that needs four
        (cycle(9), 3, 3),
        (arrowhead(12), 2, 2),  # a star is a star
        (np.ones((6, 6), bool), 6, 6),
        (np.eye(5, dtype=bool), 1, 1),
        (np.kron([[0, 1], [1, 0]], np.ones((3, 3))).astype(bool) | np.eye(6, dtype=bool), 4, 4),  # K33
    ],
)
def test_star_and_acyclic_numbers(dense, star, acyclic):
    assert coloring(pattern_of(dense), "symmetric").number == star
    assert coloring(pattern_of(dense), "symmetric", structure="acyclic").number == acyclic


@pytest.mark.parametrize("n", [2, 3, 10, 3000, 20_000])
def test_arrowhead_needs_three_products_of_both_kinds(n):
    i = np.arange(n)
    rows, cols = np.concatenate([i, i, 0 * i]), np.concatenate([i, 0 * i, i])
    pattern = SparsityPattern.build(rows, cols, (n, n))
    result = coloring(pattern, "bidirectional")
    assert result.number <= min(n, 3)
    assert decompression(result).direct is not None
    assert coloring(pattern, "symmetric").number == 2


@pytest.mark.parametrize("sides", [(5, 5), (10, 10), (15, 25), (20, 20), (100, 100)])
def test_torus_with_sides_divisible_by_five_needs_five(sides):
    pattern = torus_pattern(sides)
    result = coloring(pattern, shapes=[sides])
    assert result.number == 5
    assert result.optimal
    assert coloring(pattern, "row").number == 5


@pytest.mark.parametrize("side", [11, 12, 13, 14, 16, 19, 21, 32, 33, 64])
def test_other_tori_need_one_more(side):
    """With five colors each would be a perfect code, of side²/5 places."""
    result = coloring(torus_pattern((side, side)), budget=5.0)
    assert result.number == result.lower_bound == 6
    assert columns_are_apart(result.pattern.matrix, result.columns)


@pytest.mark.parametrize(("sides", "number"), [((7, 7), 7), ((8, 8), 7), ((9, 9), 7), ((8, 19), 6), ((13, 64), 6)])
def test_tori_without_an_arithmetic_coloring(sides, number):
    """A search over all colorings shows that 7 x 7 and 8 x 8 have none with six."""
    result = coloring(torus_pattern(sides), shapes=[sides], budget=5.0 if number == 6 else 0.5)
    assert result.number <= number
    assert columns_are_apart(result.pattern.matrix, result.columns)


@pytest.mark.parametrize(("n", "number"), [(3, 3), (4, 4), (5, 5), (6, 3), (10, 4)])
def test_full_rows_make_colors_divide_the_columns(n, number):
    dense, found = cycle(n), coloring(pattern_of(cycle(n)))
    assert found.lower_bound <= found.number == number
    if n <= 5:
        assert number == exact_number(dense, lambda c: checkers.unreadable_entry(dense, c, None) is None, n)


@pytest.mark.parametrize("side", [6, 12, 20, 32])
def test_two_coupled_fields_on_a_torus(side):
    dense = SparsityPattern(sp.csr_matrix(torus(side, side, 2)))
    assert coloring(dense, shapes=[(2, side, side)]).number <= 7


@pytest.mark.parametrize("n", [9, 10, 11, 100])
def test_periodic_lines(n):
    assert coloring(pattern_of(cycle(n))).number == (3 if n % 3 == 0 else 4)


def torus_pattern(sides):
    x = np.arange(np.prod(sides)).reshape(sides)
    moved = [x, *(np.roll(x, s, axis) for s in (1, -1) for axis in (0, 1))]
    rows, cols = np.tile(x.ravel(), 5), np.concatenate([y.ravel() for y in moved])
    return SparsityPattern.build(rows, cols, (x.size, x.size))


@pytest.mark.parametrize("n", [5, 7, 10, 13, 50])
def test_cycles_have_star_colorings_with_three_colors(n):
    """But for the one of five vertices (Fertin, Raspaud and Reed, *Star coloring of graphs*, J. Graph Theory 2004)."""
    colors = coloring(pattern_of(cycle(n)), "symmetric")
    assert colors.number == 3 + (n == 5)
    assert checkers.unreadable_symmetric_entry(cycle(n), colors.columns) is None


@pytest.mark.parametrize("kind", ["column", "row", "bidirectional", "symmetric"])
def test_no_columns_need_no_colors(kind):
    assert coloring(SparsityPattern.build([], [], (0, 0)), kind).number == 0


@pytest.mark.parametrize("seed", range(3))
def test_both_sides_need_no_more_products_than_one(seed):
    found = sp.random(60, 80, 0.06, random_state=seed)
    pattern = SparsityPattern.build(*found.nonzero(), found.shape)
    sides = [coloring(pattern, kind).number for kind in ("column", "row")]
    assert coloring(pattern, "bidirectional").number <= min(sides)


def test_a_million_columns_are_no_trouble():
    n = 10**6
    i = np.arange(n)
    pattern = SparsityPattern.build(np.tile(i, 3), np.concatenate([i, (i + 1) % n, (i - 1) % n]), (n, n))
    result = coloring(pattern)
    assert result.number == 4
    assert columns_are_apart(pattern.matrix, result.columns)
    assert decompression(result).direct is not None


# -- results, seeds, errors ----------------------------------------------------------------------------------------


def test_substitution_in_rounds():
    dense = banded(30, 1)
    result = coloring(pattern_of(dense), "symmetric", structure="acyclic")
    back = decompression(result)
    assert result.number == 2
    assert len(back.rounds) > 1
    matrix = values_on(dense)
    matrix = matrix + matrix.T
    found = jax.jit(back)(jnp.asarray(seeds(result.columns) @ matrix))
    np.testing.assert_allclose(found, matrix[result.pattern.rows, result.pattern.cols], atol=1e-12)


def test_an_insufficient_coloring_is_refused():
    dense = np.ones((2, 2), bool)
    one = Coloring(pattern_of(dense), "column", np.zeros(2, np.int64), None, "by hand", 2)
    with pytest.raises(ColoringError, match=r"entry \(0, 0\)"):
        decompression(one)


def test_bad_arguments_are_named():
    pattern = pattern_of(np.triu(np.ones((3, 3))))
    with pytest.raises(ValueError, match="'columns'"):
        coloring(pattern, "columns")
    with pytest.raises(ValueError, match="best_first"):
        coloring(pattern, order="best_first")
    with pytest.raises(ValueError, match="symmetric pattern"):
        coloring(pattern, "symmetric")
    with pytest.raises(ValueError, match="'tree'"):
        coloring(pattern_of(np.eye(2)), "symmetric", structure="tree")


@pytest.mark.parametrize("kind", ["column", "bidirectional", "symmetric"])
def test_what_is_colored_is_a_pattern(kind):
    with pytest.raises(TypeError, match=r"pattern must be .* got ndarray: admodes\.sparsity"):
        coloring(np.eye(3), kind)


def test_the_result_says_what_it_is():
    assert repr(coloring(pattern_of(banded(6, 1)))) == "Coloring(column, 3 colors, optimal, natural)"
    result = coloring(pattern_of(cycle(5, True)), "symmetric")
    assert (result.number, result.column_number, result.row_number) == (4, 4, 0)
    assert seeds(None).shape == (0, 0)
    assert seeds(np.array([0, -1, 1])).tolist() == [[1, 0, 0], [0, 0, 1]]


def test_recoloring_never_makes_it_worse():
    rng = np.random.default_rng(3)
    dense = rng.random((60, 60)) < 0.08
    rough = coloring(pattern_of(dense), order="natural", budget=0)
    better = coloring(pattern_of(dense), order="natural", budget=1.0)
    assert better.number <= rough.number
    assert checkers.same_color_pairs(dense, better.columns) is None


def test_the_checkers_see_what_is_wrong():
    dense = np.ones((2, 2), bool)
    assert checkers.same_color_pairs(dense, [0, 0]) == (0, 1)
    assert checkers.two_colored_path(banded(4, 1), [0, 1, 0, 1]) == (0, 1, 2, 3)
    assert checkers.two_colored_path(banded(4, 1), [0, 1, 2, 0]) is None
    assert checkers.two_colored_cycle(cycle(4), [0, 1, 0, 1]) == (0, 1)
    assert checkers.two_colored_cycle(dense, [0, 0]) == (0,)
    assert checkers.unreadable_entry(dense, [0, 0], None) == (0, 0)
    assert checkers.unreadable_symmetric_entry(dense, [0, 0]) == (0, 0)
    assert missed_entries(pattern_of(np.eye(2)), dense).tolist() == [[0, 1], [1, 0]]
