"""Detected patterns: never less than the dense Jacobian at random points, and exact where they can be."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.tree_util import tree_leaves

import admodes
from admodes import problems
from admodes.errors import PlanningError, UnsupportedPrimitiveError
from admodes.linear.pattern import SparsityPattern
from admodes.rules import index_patterns
from admodes.sparse import control_flow, hessian_sparsity, sparsity
from admodes.sparse.validate import missed_entries

RNG = np.random.default_rng(0)
MATRIX = np.where(RNG.random((5, 6)) < 0.4, RNG.normal(size=(5, 6)), 0.0)
KERNEL = np.array([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]]).reshape(1, 1, 3, 3)
WEIGHT = RNG.normal(size=(3, 4))
MASK = np.array([True, False, True, True, False, False])


def square(x):
    return x.reshape(2, 3)


@jax.custom_jvp
def hidden(x):
    return jnp.round(x) + x[::-1]


@hidden.defjvp
def _(primals, tangents):
    return hidden(*primals), 2.0 * tangents[0]


@jax.custom_vjp
def given_pullback(x):
    return jnp.cumsum(x)


given_pullback.defvjp(lambda x: (jnp.cumsum(x), x), lambda x, g: (g[::-1] * x,))


def heat(x, steps=3):
    def step(u, _):
        return u.at[1:-1].add(u[2:] - 2 * u[1:-1] + u[:-2]), u.sum()

    return lax.scan(step, x, None, length=steps)[0]


def long_scan(x):
    return lax.scan(lambda c, u: (c, u * c[0]), x[:2], x[2:], length=4)[1]


def long_chain(x):
    """A carry that moves on by one entry at each of very many steps, each of many equations."""

    def step(c, _):
        for _ in range(3):
            c = c.at[1:].multiply(c[:-1])
        return c, None

    return lax.scan(step, x, None, length=2000)[0]


def grows_while(x):
    return lax.while_loop(lambda s: s[0] < 2, lambda s: (s[0] + 1, s[1].at[1:].add(s[1][:-1])), (0, x))[1]


def fori(x):
    return lax.fori_loop(0, 4, lambda i, s: s.at[i].set(s[i] * x[i + 1]), x)


# name: (function of six numbers, whether the pattern must be exact)
FUNCTIONS = {
    "elementwise": (lambda x: jnp.sin(x) * x, True),
    "neighbours": (lambda x: x[1:] * x[:-1], True),
    "roll": (lambda x: jnp.roll(x, 2) + x, True),
    "broadcast": (lambda x: x[:, None] * x[None, :2], True),
    "scalar": (lambda x: x * x[0], True),
    "sum": (lambda x: square(x).sum(0), True),
    "mean": (lambda x: x - x.mean(), True),
    "max": (lambda x: square(x).max(1), False),
    "softmax": (lambda x: jax.nn.softmax(square(x)), True),
    "cumsum": (jnp.cumsum, True),
    "cumsum reversed": (lambda x: lax.cumsum(x, reverse=True), True),
    "cumprod": (lambda x: jnp.cumprod(x), True),
    "product": (lambda x: jnp.prod(square(x), 1), True),
    "constant sparse matrix": (lambda x: MATRIX @ x, True),
    "transposed": (lambda x: x[:5] @ MATRIX, True),
    "batched product": (lambda x: jnp.einsum("bi,ij->bj", square(x), WEIGHT), True),
    "two factors": (lambda x: square(x) @ square(x).T, True),
    "constant zeros": (lambda x: x * MASK, True),
    "select": (lambda x: jnp.where(MASK, x, x[::-1]), True),
    "select by value": (lambda x: jnp.where(x > 0, x, x[::-1]), False),
    "convolution": (
        lambda x: lax.conv_general_dilated(jnp.tile(x, 4).reshape(1, 1, 4, 6), KERNEL, (1, 1), "SAME"),
        True,
    ),
    "gather": (lambda x: x[np.array([3, 1, 1, 5])], True),
    "gather rows": (lambda x: x.reshape(3, 2)[np.array([2, 0])], True),
    "gather out of bounds": (lambda x: x.at[np.array([7, 2, -1])].get(mode="fill", fill_value=0), True),
    "take along axis": (lambda x: jnp.take_along_axis(square(x), np.array([[1], [0]]), 1), True),
    "gather by value": (lambda x: x[jnp.argmax(x)], False),
    "rows by value": (lambda x: square(x)[jnp.argmax(x) % 2], False),
    "scatter set": (lambda x: x.at[np.array([0, 3])].set(x[4] * x[5]), True),
    "scatter add": (lambda x: x.at[np.array([0, 0, 3])].add(x[3:]), True),
    "scatter by value": (lambda x: x.at[jnp.argmin(x)].set(x[0]), False),
    "scatter max": (lambda x: x.at[np.array([0, 1])].max(x[4:]), False),
    "dynamic slice": (lambda x: lax.dynamic_slice(x, (2,), (3,)), True),
    "dynamic slice by value": (lambda x: lax.dynamic_slice(square(x), (0, jnp.argmax(x)), (2, 1)), False),
    "dynamic update": (lambda x: lax.dynamic_update_slice(x, x[:2] * x[5], (3,)), True),
    "dynamic update by value": (lambda x: lax.dynamic_update_slice(x, x[:2], (jnp.argmax(x),)), False),
    "sort": (lambda x: jnp.sort(square(x), 1), False),
    "top k": (lambda x: lax.top_k(square(x), 2)[0], False),
    "pad": (lambda x: lax.pad(x, x[0], [(1, -1, 1)]), True),
    "pooling": (lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (2,), (2,), "VALID"), False),
    "stop gradient": (lambda x: lax.stop_gradient(x) * x[::-1], True),
    "rounding": (lambda x: jnp.floor(x) + x, True),
    "integers on the way": (lambda x: (x * 3).astype(int).astype(float) + x, True),
    "cholesky in batches": (lambda x: jax.vmap(lambda v: jnp.linalg.cholesky(jnp.diag(v**2)))(square(x)), False),
    "solve": (lambda x: jnp.linalg.solve(jnp.eye(3) * 3 + square(x).T @ square(x), x[:3]), False),
    "triangular solve in batches": (
        lambda x: lax.linalg.triangular_solve(jnp.ones((2, 3, 3)) * x[0], square(x)[..., None], left_side=True),
        False,
    ),
    "fft of rows": (lambda x: jnp.fft.fft(square(x)).real, False),
    "custom jvp": (hidden, True),
    "relu": (jax.nn.relu, False),
    "custom vjp": (given_pullback, True),
    "jit": (jax.jit(lambda x: x[1:] * x[:-1]), True),
    "checkpoint": (jax.checkpoint(lambda x: x[1:] * x[:-1]), True),
    "cond": (lambda x: lax.cond(x[0] > 0, lambda y: y, lambda y: y[::-1], x), False),
    "cond that is known": (lambda x: lax.cond(np.bool_(True), lambda y: y, lambda y: y[::-1], x), True),
    "switch": (lambda x: lax.switch(jnp.argmax(x), [jnp.sin, lambda y: y * y[0], jnp.flip], x), False),
    "scan": (heat, True),
    "scan over inputs": (long_scan, True),
    "long scan": (long_chain, False),
    "map": (lambda x: lax.map(lambda u: jnp.sin(u) * u, square(x)), True),
    "reversed scan": (lambda x: lax.scan(lambda c, u: (c + u, c), 0.0, x, reverse=True)[1], True),
    "while": (grows_while, False),
    "fori": (fori, True),
    "vmap": (jax.vmap(lambda u: u * u), True),
    "no dependence": (lambda x: jnp.zeros(3), True),
    "linear combination of outputs": (lambda x: {"a": x[:2].sum(), "b": (x[2:] ** 2,)}, True),
}


def jacobian(fun):
    blocks = jax.jit(jax.jacrev(fun) if fun is given_pullback else jax.jacfwd(fun))
    return lambda x: np.concatenate([np.asarray(b).reshape(-1, x.size) for b in tree_leaves(blocks(x))])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_pattern_covers_the_jacobian(name):
    fun, exact = FUNCTIONS[name]
    pattern = sparsity(fun, jax.ShapeDtypeStruct((6,), np.float64))
    union = np.zeros(pattern.shape, bool)
    derivative = jacobian(fun)
    for seed in range(3):
        dense = derivative(jnp.asarray(np.random.default_rng(seed).normal(size=6)))
        assert dense.shape == pattern.shape
        assert not missed_entries(pattern, dense).size
        union |= dense != 0
    if exact:
        assert np.array_equal(union, pattern.to_dense())


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("max", 6),
        ("select by value", 12),
        ("gather by value", 6),
        ("rows by value", 6),
        ("scatter by value", 11),
        ("dynamic slice by value", 6),
        ("dynamic update by value", 6 + 10 - 2),
        ("sort", 18),
        ("top k", 12),
        ("relu", 6),
        ("cond", 12),
        ("while", 21),
        ("long scan", 21),
        ("cholesky in batches", 36),
        ("fft of rows", 18),
        ("pooling", 6),
    ],
)
def test_what_depends_on_values_costs_no_more_than_it_must(name, count):
    assert sparsity(FUNCTIONS[name][0], jnp.ones(6)).nnz == count


def counted(n):
    return lambda x: lax.fori_loop(0, n - 1, lambda i, s: s.at[i].set(s[i] * x[i + 1]), x)


def scanned(body, start):
    """A scan of ``body`` over x and, beside it, what is known: the number of each step, a mask and coefficients."""

    def fun(x):
        numbers = jnp.arange(x.size - 1)
        known = numbers, numbers % 4 == 3, (numbers % 4 != 0) * 1.0
        return lax.scan(lambda c, step: body(x, c, *step), start(x), known)[1]

    return fun


# name: function of a vector whose loops run over known values
KNOWN_LOOPS = {
    "places": scanned(lambda x, c, k, mask, coefficient: (c, x[k + 1] - x[k] ** 2), lambda x: 0.0),
    "places and a carry": scanned(lambda x, c, k, mask, coefficient: (x[k + 1], x[k + 1] - c), lambda x: x[0]),
    "mask": scanned(
        lambda x, c, k, mask, coefficient: (jnp.where(mask, 0.0, c + x[k]), c * x[k] + x[k]), lambda x: x[0]
    ),
    "coefficients": scanned(
        lambda x, c, k, mask, coefficient: (c * coefficient + x[k], c * coefficient + x[k] ** 2), lambda x: x[0]
    ),
    "map": lambda x: lax.map(lambda k: x[k + 1] - x[k] ** 2, jnp.arange(x.size - 1)),
    "map backwards": lambda x: lax.scan(lambda c, k: (c, x[k] * x[0]), None, jnp.arange(x.size), reverse=True)[1],
    "counter": counted(100),
}


@pytest.mark.parametrize("name", KNOWN_LOOPS)
def test_loops_over_known_values_know_them(name):
    fun = KNOWN_LOOPS[name]
    x = jnp.asarray(np.random.default_rng(0).normal(size=100 if name == "counter" else 12))
    assert np.array_equal(sparsity(fun, x).to_dense(), np.asarray(jax.jacfwd(fun)(x)) != 0)


SYSTEMS = 3 * jnp.eye(3) + 0.1 * jnp.asarray(RNG.normal(size=(5, 3, 3)))
SIDES = jnp.asarray(RNG.normal(size=(5, 3)))
BANDS = [jnp.asarray(RNG.normal(size=(2, 6))) + shift for shift in (0.0, 5.0, 0.0)]
tridiagonal = lambda *bands: lax.linalg.tridiagonal_solve(*bands[:3], bands[3][:, None])[:, 0]
triangular = lambda **how: lambda a, b: lax.linalg.triangular_solve(a, b, lower=True, **how)
upper_blocks = jnp.array([[2.0, 1.0, 0.5], [0.0, 3.0, 1.0], [0.0, 0.0, 1.5]])

# name: (function, argument, nonzeros)
SOLVES = {
    "right-hand sides": (lambda b: jax.vmap(jnp.linalg.solve)(SYSTEMS, b), SIDES, 5 * 3 * 3),
    "matrices": (lambda a: jax.vmap(jnp.linalg.solve)(a, SIDES), SYSTEMS, 5 * 3 * 9),
    "inverses": (jax.vmap(jnp.linalg.inv), SYSTEMS, 5 * 9 * 9),
    "determinants": (lambda a: jax.vmap(jnp.linalg.slogdet)(a)[1], SYSTEMS, 5 * 9),
    "exponentials": (jax.vmap(jax.scipy.linalg.expm), SYSTEMS, 5 * 9 * 9),
    "columns": (lambda b: jnp.linalg.solve(SYSTEMS[0], b), SIDES.T, 5 * 3 * 3),
    "known matrix": (lambda b: jnp.linalg.solve(jnp.diag(jnp.arange(1.0, 4.0)), b), SIDES[0], 3),
    "known triangle": (lambda b: jnp.linalg.solve(upper_blocks, b), SIDES[0], 6),
    "matrix on a diagonal": (lambda d: jnp.linalg.solve(jnp.diag(d), d**2), SIDES[0] + 4, None),
    "cg": (
        lambda b: jax.vmap(lambda r: jax.scipy.sparse.linalg.cg(lambda v: SYSTEMS[0] @ SYSTEMS[0].T @ v, r)[0])(b),
        SIDES,
        5 * 3 * 3,
    ),
    "bands": (lambda b: jax.vmap(tridiagonal)(*BANDS, b), jnp.ones((2, 6)), 2 * 6 * 6),
    "bands in common": (lambda b: jax.vmap(lambda r: tridiagonal(*(d[0] for d in BANDS), r))(b), BANDS[0], 72),
    "diagonals": (lambda d: jax.vmap(tridiagonal)(BANDS[0], d, *BANDS[2:], BANDS[0]), BANDS[1], 2 * 6 * 6),
    "triangle, columns": (lambda b: triangular(left_side=True)(SYSTEMS[0], b), SIDES.T, None),
    "triangle, rows": (lambda b: triangular(left_side=False)(SYSTEMS[0], b), SIDES, 5 * 3 * 3),
    "triangles": (lambda a: triangular(left_side=True)(a, a**2), SYSTEMS, None),
    "triangles of one": (lambda a: triangular(left_side=False, transpose_a=True)(a, SIDES), SYSTEMS[0], None),
}


@pytest.mark.parametrize("name", SOLVES)
def test_systems_of_a_batch_do_not_meet(name):
    fun, x, count = SOLVES[name]
    pattern = sparsity(fun, x)
    assert count in (None, pattern.nnz)
    for seed in range(3):
        moved = x + 0.05 * jnp.asarray(np.random.default_rng(seed).normal(size=x.shape))
        dense = np.asarray(jax.jacfwd(fun)(moved)).reshape(pattern.shape)
        assert not missed_entries(pattern, np.where(abs(dense) < 1e-13, 0.0, dense)).size


@pytest.mark.parametrize("squared", [0, 10**9])
def test_the_pattern_of_an_inverse(squared, monkeypatch):
    """Exactly by powers, or by connected parts where these would take long: never less than the inverse has."""
    monkeypatch.setattr(control_flow, "INVERTED", squared)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        n = int(rng.integers(1, 9))
        there = (rng.random((n, n)) < 0.2) | np.eye(n, dtype=bool)
        there = there[rng.permutation(n)]  # whose diagonal may be empty
        matrix = np.where(there, rng.normal(size=(n, n)), 0.0)
        found = sparsity(partial(jnp.linalg.solve, matrix), jnp.ones(n))
        inverse = np.linalg.inv(matrix)
        assert not missed_entries(found, np.where(abs(inverse) < 1e-10 * abs(inverse).max(), 0.0, inverse)).size


def sliced(x, first, second):
    return lax.dynamic_slice(square(x), (first, second), (1, 2))


def overwritten(x, first, second):
    return lax.dynamic_update_slice(square(x), x[:4].reshape(2, 2), (first, second))


@pytest.mark.parametrize("fun", [sliced, overwritten])
def test_a_slice_at_an_unknown_place_may_be_at_any_place(fun, monkeypatch):
    """The pattern is the union of those with known starts; where that has too many entries, axes are lumped."""
    by_value = lambda x: fun(x, jnp.argmax(x), jnp.argmin(x))
    union = sum(sparsity(lambda x, i=i, k=k: fun(x, i, k), jnp.ones(6)).to_dense() for i in (0, 1) for k in (0, 1)) > 0
    np.testing.assert_array_equal(sparsity(by_value, jnp.ones(6)).to_dense(), union)
    monkeypatch.setattr(index_patterns, "MOST_PAIRS", 1)
    lumped = sparsity(by_value, jnp.ones(6)).to_dense()
    assert (lumped >= union).all()
    assert lumped.sum() > union.sum()


def test_global_not_at_a_point():
    at_zero = sparsity(lambda x: x**2, jnp.zeros(3))
    assert at_zero.nnz == 3
    assert sparsity(jax.nn.relu, -jnp.ones(3)).nnz == 3


@pytest.mark.parametrize("name", problems.names())
def test_problems(name):
    problem = problems.get(name)
    fun, args = problem.make(np.float64)
    argnums = problem.argnums
    chosen = (argnums,) if isinstance(argnums, int) else argnums
    pattern = sparsity(fun, *args, argnums=argnums)
    blocks = tree_leaves(jax.jit(jax.jacfwd(fun, argnums=chosen))(*args))
    columns = [np.size(leaf) for leaf in tree_leaves(tuple(args[k] for k in chosen))]
    rows = [np.size(leaf) for leaf in tree_leaves(jax.eval_shape(fun, *args))]
    parts = [np.asarray(b).reshape(rows[k // len(columns)], columns[k % len(columns)]) for k, b in enumerate(blocks)]
    dense = np.block([parts[k : k + len(columns)] for k in range(0, len(parts), len(columns))])
    assert dense.shape == pattern.shape
    assert not missed_entries(pattern, dense).size


def rosenbrock(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


SCALARS = {
    "tridiagonal": (rosenbrock, 16),
    "separable": (lambda x: jnp.sum(jnp.sin(x)), 6),
    "quadratic form": (lambda x: x[0] * x[1] + x[2] * x[3] ** 2, 5),
    "linear": (lambda x: 3 * x.sum(), 0),
    "groups": (lambda x: jnp.sum(jnp.prod(square(x), 1) ** 2), 18),
    "gathered": (lambda x: jnp.sum(x[np.array([0, 1])] * x[np.array([4, 5])]), 4),
    "through a scan": (lambda x: lax.scan(lambda c, u: (c + u**3, None), 0.0, x)[0], 6),
}


@pytest.mark.parametrize("name", SCALARS)
def test_hessians(name):
    fun, count = SCALARS[name]
    pattern = hessian_sparsity(fun, jnp.ones(6))
    assert np.array_equal(pattern.to_dense(), pattern.to_dense().T)
    assert not missed_entries(pattern, jax.hessian(fun)(jnp.asarray(RNG.normal(size=6)))).size
    assert pattern.nnz == count


def test_several_arguments_and_fixed_ones():
    def fun(x, index, y):
        return x[index] * y["a"], y["b"]

    x, index, y = jnp.ones(5), np.array([4, 0]), {"a": jnp.ones(2), "b": jnp.ones(())}
    free = sparsity(fun, x, index, y, argnums=(0, 2))
    assert free.shape == (3, 8)
    assert free.nnz == 2 * 5 + 2 + 1
    fixed = sparsity(fun, x, index, y, argnums=(0, 2), fixed_argnums=1)
    assert np.array_equal(np.argwhere(fixed.to_dense()), [[0, 4], [0, 5], [1, 0], [1, 6], [2, 7]])
    assert sparsity(fun, x, index, y, argnums=-1).nnz == 3


def test_columns_come_in_the_order_in_which_arguments_are_named():
    def f(x, y):
        return x[:2] * y[0]

    x, y = jnp.ones(3), jnp.ones(2)
    pattern = sparsity(f, x, y, argnums=(1, 0))
    np.testing.assert_array_equal(pattern.to_dense(), [[1, 0, 1, 0, 0], [1, 0, 0, 1, 0]])
    assert admodes.plan(f, x, y, argnums=(1, 0), pattern=pattern).jacobian(x, y)[1].shape == (2, 3)
    whole = hessian_sparsity(lambda x, y: x[0] * y[0] + y[1] ** 3, x, y, argnums=(1, 0)).to_dense()
    np.testing.assert_array_equal(np.argwhere(whole), [[0, 2], [1, 1], [2, 0]])


@pytest.mark.parametrize("argnums", [2, -3, 1.5, (0, 0), ()])
def test_arguments_that_are_not_there_are_refused(argnums):
    with pytest.raises((TypeError, ValueError), match="argnums"):
        sparsity(lambda x, y: x * y, jnp.ones(3), jnp.ones(3), argnums=argnums)


def test_functions_that_use_values_are_refused():
    with pytest.raises(PlanningError, match="can be traced"):
        sparsity(lambda x: x if x.sum() > 0 else -x, jnp.ones(2))


def test_under_jit_unknown_values_stay_unknown():
    found = []

    @jax.jit
    def f(x, index):
        found.append(sparsity(lambda y: y[index], x))
        return x

    f(jnp.ones(4), 2)
    assert found[0].nnz == 4


def test_what_cannot_be_differentiated_is_refused_unless_it_is_constant():
    def fun(x):
        return jax.pure_callback(np.sin, jax.ShapeDtypeStruct((2,), np.float64), x)

    with pytest.raises(ValueError, match="callbacks"):
        sparsity(fun, jnp.ones(2))
    assert sparsity(lambda x: x + fun(np.ones(2)), jnp.ones(2)).nnz == 2


def test_a_primitive_without_a_rule_is_named():
    rules = admodes.rules.table
    rule = rules.lookup(lax.sin_p)
    rules.unregister(lax.sin_p)
    try:
        with pytest.raises(UnsupportedPrimitiveError, match="'sin'"):
            sparsity(lax.sin, jnp.ones(2))
    finally:
        rules.register(lax.sin_p, rule)


def test_large_dense_patterns_take_no_memory():
    pattern = sparsity(lambda x: jnp.tanh(x - x.mean()), jax.ShapeDtypeStruct((100_000,), np.float64))
    assert pattern.nnz == 100_000**2
    assert pattern.is_full
    assert pattern.table.nnz <= 10**6


# -- the pattern itself --------------------------------------------------------------------------------------


def random_pattern(rng, m, n):
    """A pattern with shared rows, and the same as a dense array."""
    table, labels = rng.random((3, n)) < 0.4, rng.integers(0, 3, m)
    if rng.random() < 0.3:
        dense = rng.random((m, n)) < 0.3
        return SparsityPattern.build(*np.nonzero(dense), (m, n)), dense
    return SparsityPattern.shared(labels, *np.nonzero(table), (3, n)), table[labels]


@pytest.mark.parametrize("seed", range(12))
def test_shared_rows_behave_like_the_matrix(seed):
    rng = np.random.default_rng(seed)
    (a, da), (b, db), (c, dc) = (random_pattern(rng, *s) for s in ((7, 5), (5, 6), (7, 5)))
    assert np.array_equal(a.compose(b).to_dense(), (da.astype(int) @ db) > 0)
    assert np.array_equal(a.union(c).to_dense(), da | dc)
    assert np.array_equal(a.transpose.to_dense(), da.T)
    assert np.array_equal(SparsityPattern.stack([a, c]).to_dense(), np.concatenate([da, dc]))
    assert a.nnz == da.sum() == len(a.rows) == len(a.cols)
    assert np.array_equal(np.stack([a.rows, a.cols]), np.nonzero(da))
    assert np.array_equal(a.take_rows([3, 0]).to_dense(), da[[3, 0]])


def test_spy():
    text = SparsityPattern.identity(200).spy(width=20).splitlines()
    assert text[0] == "200 x 200, 200 nonzeros"
    assert {len(line) for line in text[1:]} == {22}
    assert SparsityPattern.empty(0, 3).spy() == "0 x 3, 0 nonzeros"


def test_steps_that_find_what_the_step_before_found_are_not_made(monkeypatch):
    """The scans of a gradient read stacked values: all but a few of their slices depend on the same."""
    calls, compose = [], SparsityPattern.compose

    def counted(self, other):
        calls.append(self)
        return compose(self, other)

    monkeypatch.setattr(SparsityPattern, "compose", counted)

    def orbit(x, us):
        y, zs = lax.scan(lambda y, u: (y * jnp.roll(y, 1) + u, y[0] * u), x, us)
        return zs * jnp.sum(y) if us.size > 99 else zs

    x, us = jnp.ones(5), jnp.arange(400.0)
    assert sparsity(jax.grad(lambda x: jnp.sum(orbit(x, us))), x).is_full
    assert len(calls) < 200
    several = sparsity(lambda x: orbit(jnp.ones(5) * x[0], jnp.repeat(x, 3)), x)
    expected = np.arange(15)[:, None] // 3 >= np.arange(5)
    assert np.array_equal(several.matrix.toarray(), expected)


def test_arguments_as_those_of_jacobian():
    def f(x, n, scale, *, mask=None, axis="none"):
        out = x[n:] * x[:-n] * scale
        return (out if mask is None else out * mask), {"aux": axis}

    x, scale = np.ones(5), np.ones(4)
    expected = sparsity(lambda x: x[1:] * x[:-1], x)
    for given in (scale, jax.ShapeDtypeStruct((4,), np.float64)):
        found = sparsity(f, x, 1, given, mask=np.zeros(4), axis="text", has_aux=True)  # zeros that could be others
        assert (found.to_dense() == expected.to_dense()).all()
    assert sparsity(f, x, 1, scale, argnums=(2, 0), has_aux=True).shape == (4, 9)
    energy = lambda x, *, power: (jnp.sum(x[1:] * x[:-1]) ** power, "aux")
    assert hessian_sparsity(energy, x, power=1, has_aux=True).nnz == 8
    for wrong in (1, np.arange(3), True, jax.ShapeDtypeStruct((3,), np.int32)):
        with pytest.raises(TypeError, match="argument 0 has others: dtype"):
            sparsity(lambda x: x * 2.0, wrong)
    with pytest.raises(TypeError, match="argument 0 is 'text'"):
        sparsity(lambda x: 2.0, "text")
    with pytest.raises(TypeError, match="two-element tuple"):
        sparsity(lambda x: x, x, has_aux=True)


def test_known_values_that_jax_computes_are_sliced_and_stacked_by_loops():
    """Keys, and results of primitives that have no line of numpy: they must not become tracers."""

    def keys(x):
        def body(c, k):
            y = c[1] * jax.random.normal(k, (3,)) + x
            return (c[0] + 1, y), (k, jax.random.uniform(k, ()) * c[1][0])

        (_, y), (ks, z) = lax.scan(body, (0, x), jax.random.split(jax.random.key(0), 4))
        return y + jax.random.normal(ks[1], (3,)) + z.sum()

    def sorts(x):
        def body(c, _):
            i, w, y = c
            w = jax.checkpoint(lambda w: jnp.cumsum(jnp.sort(jnp.tanh(w))))(w)
            return (i + 1, w, y * w[i] + x), w

        (_, _, y), ws = lax.scan(body, (0, jnp.linspace(0.5, 1.0, 3), x), None, length=3)
        return y * ws[1]

    x = jnp.ones(3)
    for f, nonzeros in ((keys, 5), (sorts, 3)):
        found = sparsity(f, x)
        assert found.nnz == nonzeros
        assert not missed_entries(found, jax.jacfwd(f)(x)).size


def test_functions_of_the_users_are_not_called_before_the_program_runs():
    """One may raise an error, on a branch that is never taken; known operands are no reason to call it."""

    def refuse(x):
        raise RuntimeError("called ahead of time")

    def f(x):
        one = jnp.ones(())
        call = lambda y: jax.pure_callback(refuse, jax.ShapeDtypeStruct((), one.dtype), y)
        return lax.cond(x[0] > 100, lambda x, y: x * call(y), lambda x, y: x, x, one)

    x = jnp.arange(1.0, 4.0)
    assert admodes.sparsity(f, x).nnz == 3
    np.testing.assert_allclose(admodes.jacobian(f, format="bcoo")(x).todense(), np.eye(3))
