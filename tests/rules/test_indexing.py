"""Indexing, scatter and ordering against the oracle: modes, out of bounds, collisions, ties, batch dimensions."""

import jax
import jax.export
import numpy as np
import pytest
from jax import lax
from jax import numpy as jnp

import admodes
from tests.oracle import JAX_VERSION, check, sample
from tests.patterns import check_pattern

MODES = ("fill", "clip", "promise_in_bounds")
INSIDE = np.array([[2, 0], [1, 3]])
OUTSIDE = np.array([[2, -7], [9, 3]])


def x53(dtype="float64"):
    return jnp.asarray(sample((5, 3), dtype))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("where", [INSIDE, OUTSIDE], ids=["inside", "outside"])
def test_gather(mode, where):
    adjoint = where is INSIDE or mode != "promise_in_bounds"  # a broken promise: JAX's jvp clips, its vjp drops
    check(lambda x: x.at[where].get(mode=mode), (x53(),), transforms=where is INSIDE, adjoint=adjoint)
    check(lambda x: x.at[where].get(mode=mode, fill_value=7), (x53(),), transforms=False, adjoint=adjoint)


GATHERS = {
    "rows": lambda x: x[INSIDE],
    "entries": lambda x: x[np.array([4, 0, 4]), np.array([1, 2, 1])],
    "columns": lambda x: x[:, np.array([2, 0])],
    "mixed": lambda x: x[1:4, np.array([[2], [0]])],
    "along_axis": lambda x: jnp.take_along_axis(x, np.array([[0, 1, 2], [4, 4, 0]]), 0),
    "batching": lambda x: jax.vmap(lambda row, i: row[i])(x, np.array([2, 0, 1, 1, 0])),
    "slices": lambda x: jax.vmap(lambda i: lax.dynamic_slice(x, (i, 0), (2, 2)))(np.array([0, 3, 4])),
    "dynamic": lambda x: x[jnp.asarray(3)],
}


@pytest.mark.parametrize("name", GATHERS)
def test_gather_kinds(name):
    check(GATHERS[name], (x53(),))
    check(GATHERS[name], (x53("complex64"),), transforms=False)
    check_pattern(GATHERS[name], (x53(),))


@pytest.mark.parametrize("start", [(1, 0), (4, 2), (-2, 1)])
def test_dynamic_slices(start):
    x, update = x53(), sample((2, 2), "float64", seed=1)
    check(lambda x: lax.dynamic_slice(x, start, (2, 2)), (x,))
    check(lambda x, u: lax.dynamic_update_slice(x, u, start), (x, update))
    check_pattern(
        lambda x, u: (lax.dynamic_update_slice(x, u, start), lax.dynamic_slice(x, start, (2, 1))), (x, update)
    )


def at_place(i, x):
    return lax.dynamic_slice(x, (i,), (2,)) * x[i]


def test_traced_indices():
    x = jnp.asarray(sample((6,), "float64"))
    check(lambda x: jax.vmap(at_place, (0, None))(jnp.arange(4), x), (x,))
    check(lambda x: lax.fori_loop(0, 3, lambda i, x: x.at[i].set(jnp.sin(x[i + 1])), x), (x,))


SCATTERS = ("set", "add", "subtract", "max", "min", "multiply")


@pytest.mark.parametrize("kind", SCATTERS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("case", ["inside", "outside", "meeting"])
def test_scatter(kind, mode, case):
    rows = {"inside": [2, 0, 4], "outside": [2, -8, 7], "meeting": [2, 0, 2]}[case]
    x, update = x53(), sample((3, 3), "float64", seed=1)
    unique = kind == "multiply" and case != "meeting"

    def fun(x, u):
        return getattr(x.at[np.array(rows)], kind)(u, mode=mode, unique_indices=unique)

    if kind == "multiply" and case == "meeting":
        check(lambda x: fun(x, update), (x,), transforms=False)
        for derivative in (admodes.jvp, jax.jvp):
            with pytest.raises(NotImplementedError, match="unique_indices"):
                derivative(lambda u: fun(x, u), (update,), (update,))
        return
    smooth = case == "inside"
    if kind in ("max", "min") and mode == "clip" and case == "outside" and JAX_VERSION < (0, 12):
        check(fun, (x, update), modes=(), adjoint=True, transforms=False)  # JAX has NaN: differences decide
        return
    check(fun, (x, update), transforms=smooth and mode == "fill", fd=smooth, adjoint=smooth)
    for which in (0, 1):
        check(fun, (x, update), argnums=which, transforms=False, fd=False, adjoint=False)


@pytest.mark.parametrize("kind", SCATTERS)
def test_scatter_dtypes(kind):
    for dtype in ("float32", "bfloat16", "complex64"):
        if dtype == "complex64" and kind in ("max", "min"):
            continue
        x, update = x53(dtype), sample((2, 3), dtype, seed=1)
        check(lambda x, u: getattr(x.at[np.array([3, 0])], kind)(u, unique_indices=True), (x, update), transforms=False)


@pytest.mark.parametrize("kind", ["set", "add", "max"])
def test_scatter_windows(kind):
    x = jnp.asarray(sample((4, 5), "float64"))
    check(lambda x, u: getattr(x.at[:, np.array([1, 3, 1])], kind)(u), (x, sample((4, 3), "float64", seed=1)), fd=False)
    check(lambda x, u: getattr(x.at[1:3, 2], kind)(u), (x, sample((2,), "float64", seed=1)), transforms=False)
    check(
        lambda x, u: jax.vmap(lambda row, i, v: getattr(row.at[i], kind)(v))(
            x, np.array([[1, 2], [0, 0], [4, 3], [2, 2]]), u
        ),
        (x, sample((4, 2), "float64", seed=1)),
        transforms=False,
        fd=False,
    )


@pytest.mark.parametrize("kind", ["max", "min"])
def test_scatter_extreme_ties(kind):
    x = jnp.array([1.0, 2.0, 3.0, 2.0])
    update = np.array([2.0, 2.0, 2.0, 5.0, np.nan, -1.0])
    rows = np.array([1, 1, 3, 2, 0, 0])
    check(lambda x, u: getattr(x.at[rows], kind)(u), (x, update), fd=False, transforms=False, adjoint=False)


def test_scatter_second_order():
    x, update = x53(), sample((2, 3), "float64", seed=1)
    for kind in ("set", "multiply", "max"):
        check(
            lambda x, u, kind=kind: getattr(jnp.sin(x).at[np.array([3, 0])], kind)(u * u, unique_indices=True),
            (x, update),
            order=2,
            transforms=False,
        )


@pytest.mark.parametrize("kind", ["set", "add", "subtract"])
def test_scatter_pattern(kind):
    x, update = x53(), sample((2, 3), "float64", seed=1)
    check_pattern(lambda x, u: getattr(x.at[np.array([3, 0])], kind)(u, unique_indices=True), (x, update))


def test_scatter_pattern_covers():
    x, update = x53(), sample((2, 3), "float64", seed=1)
    for kind in ("set", "multiply", "max"):
        rows = np.array([3, 0 if kind == "multiply" else 3])
        check_pattern(
            lambda x, u, kind=kind, rows=rows: getattr(x.at[rows], kind)(u, unique_indices=bool(rows[1] == 0)),
            (x, update),
            exact=False,
        )


# -- ordering -----------------------------------------------------------------------------------------

ORDERINGS = {
    "sort": lambda x: lax.sort(x, dimension=0),
    "sort_last": lambda x: lax.sort(x, dimension=1, is_stable=False),
    "sort_with_values": lambda x: lax.sort((x[:, 0], x[:, 1], x[:, 2]), num_keys=1),
    "sort_two_keys": lambda x: lax.sort((jnp.round(x[:, 0]), x[:, 1], x[:, 2]), num_keys=2),
    "sort_integer_key": lambda x: lax.sort((np.array([3, 1, 2, 1, 0]), x[:, 1], x[:, 2]), num_keys=1),
    "sort_and_places": lambda x: lax.sort((x, lax.broadcasted_iota(np.int32, x.shape, 0)), dimension=0, num_keys=1),
    "top_k": lambda x: lax.top_k(x, 2),
    "top_k_axis": lambda x: lax.top_k(x, 3, axis=0),
    "approx_max_k": lambda x: lax.approx_max_k(x, 2, reduction_dimension=0),
    "approx_min_k": lambda x: lax.approx_min_k(x, 2),
    "median": lambda x: jnp.median(x, axis=0),
}


@pytest.mark.parametrize("name", ORDERINGS)
def test_ordering(name):
    x = np.random.default_rng(5).permutation(15).reshape(5, 3) / 4.3
    check(ORDERINGS[name], (x,))
    if not name.startswith("median"):
        check_pattern(ORDERINGS[name], (x,), exact=False)
        check(ORDERINGS[name], (x.astype(np.float32),), transforms=False)


@pytest.mark.parametrize("name", ["sort", "sort_two_keys", "top_k"])
def test_ordering_ties_and_nan(name):
    x = np.array([[1.0, 1.0, np.nan], [1.0, 0.0, -0.0], [2.0, np.inf, 1.0], [1.0, 1.0, 1.0], [np.nan, 0.0, 2.0]])
    check(ORDERINGS[name], (x,), fd=False, transforms=False)


def test_sorting_once():
    """The derivative of a sort sorts once, with the places as one more operand."""
    x = x53()
    jaxpr = str(jax.make_jaxpr(lambda x: admodes.vjp(lambda x: lax.sort(x, dimension=0), x)[1](x))(x))
    assert jaxpr.count(" sort[") == 1


def test_empty():
    x = np.zeros((0, 3))
    check(lambda x: lax.sort(x, dimension=1), (x,), transforms=False)
    check(lambda x: x[np.zeros((0,), int)], (x53(),), transforms=False)
    check(lambda x, u: x.at[np.zeros((0,), int)].set(u), (x53(), np.zeros((0, 3))), transforms=False)


@pytest.mark.parametrize(
    "fun",
    [
        lambda x: jnp.sum(jnp.sort(x) * x),
        lambda x: jnp.sum(jnp.zeros(3).at[jnp.zeros(x.shape[0], int)].set(x)),
    ],
    ids=["sort", "scatter"],
)
def test_symbolic_shapes(fun):
    """Numbering entries along an axis of unknown size."""
    (n,) = jax.export.symbolic_shape("n")
    shape = jax.ShapeDtypeStruct((n,), np.float64)
    exported = jax.export.export(jax.jit(admodes.grad(fun)))(shape)
    x = jnp.array([3.0, 1.0, 2.0])
    np.testing.assert_array_equal(exported.call(x), jax.grad(fun)(x))
