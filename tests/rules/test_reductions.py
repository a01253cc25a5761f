"""Reductions, cumulative reductions and windows against the oracle: random points, ties, zeros, NaN, empty axes."""

import jax
import numpy as np
import pytest
from jax import lax
from jax import numpy as jnp

import admodes
from tests.oracle import check, sample
from tests.patterns import check_pattern

REAL = ("float64", "float32", "bfloat16")
ANY = (*REAL, "complex128")

# name: (function, shape, dtypes)
SPECS = {
    "reduce_sum": (lambda x: lax.reduce_sum(x, (0, 2)), (2, 3, 2), ANY),
    "reduce_sum_all": (lambda x: lax.reduce_sum(x, (0, 1)), (2, 3), ANY),
    "reduce_prod": (lambda x: lax.reduce_prod(x, (0, 2)), (2, 3, 3), ANY),
    "reduce_max": (lambda x: lax.reduce_max(x, (1,)), (3, 4), REAL),
    "reduce_min": (lambda x: lax.reduce_min(x, (2, 0)), (2, 3, 2), REAL),
    "cumsum": (lambda x: lax.cumsum(x, 1), (2, 5), ANY),
    "cumsum_reverse": (lambda x: lax.cumsum(x, 0, reverse=True), (4, 2), ANY),
    "cumprod": (lambda x: lax.cumprod(x, 1), (2, 5), ANY),
    "cummax": (lambda x: lax.cummax(x, 0), (4, 2), REAL[:2]),
    "cummin_reverse": (lambda x: lax.cummin(x, 1, reverse=True), (2, 3), REAL[:1]),
    "cumlogsumexp": (lambda x: lax.cumlogsumexp(x, 0), (5, 2), ("float64", "float32")),
    "cumlogsumexp_reverse": (lambda x: lax.cumlogsumexp(x, 0, reverse=True), (4,), ("float64",)),
    "reduce": (lambda x: lax.reduce(x, np.zeros((), x.dtype), lambda a, b: a + b + a * b, (0, 2)), (3, 2, 2), ANY),
    "reduce_pair": (
        lambda x: lax.reduce((x, x * x), (np.zeros((), x.dtype), np.ones((), x.dtype)), _pair, (1,)),
        (2, 5),
        REAL,
    ),
}


def _pair(left, right):
    return left[0] + right[0], left[1] * right[1]


def pool(operation, initial, window, strides, padding, base=None, dilation=None):
    return lambda x: lax.reduce_window(
        x, np.array(initial, x.dtype), operation, window, strides, padding, base_dilation=base, window_dilation=dilation
    )


inf = np.inf
# name: (function, shape, dtypes, whether JAX has a reverse mode)
WINDOWS = {
    "sum": (pool(lax.add, 0, (2, 3), (1, 2), "SAME"), (4, 6), ANY, True),
    "sum_dilated": (pool(lax.add, 0, (2, 2), (2, 1), ((1, 0), (0, 2)), (1, 2), (2, 3)), (5, 4), ANY, True),
    "sum_cropped": (pool(lax.add, 0, (2,), (3,), ((-1, -2),), (2,)), (8,), REAL, True),
    "max": (pool(lax.max, -inf, (2, 2), (2, 1), "VALID"), (4, 4), ("float64", "float32"), True),
    "max_same": (pool(lax.max, -inf, (3,), (2,), "SAME"), (6,), ("float64", "float32"), True),
    "min_base": (pool(lax.min, inf, (3,), (1,), ((1, 1),), (2,)), (5,), ("float64",), True),
    "max_window": (pool(lax.max, -inf, (2,), (1,), "VALID", None, (2,)), (6,), ("float64",), False),
    "prod": (pool(lax.mul, 1, (2, 2), (1, 2), "VALID"), (3, 4), ANY, False),
    "prod_same": (pool(lax.mul, 1, (3,), (1,), "SAME", (2,), (2,)), (5,), REAL, False),
    "prod_not_neutral": (pool(lax.mul, 2, (3,), (1,), "VALID"), (4,), ("float64",), False),
    "logsumexp": (pool(jnp.logaddexp, -inf, (2,), (1,), "VALID"), (4,), ("float64",), False),
}


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.every(2)
def test_reduction(name):
    fun, shape, dtypes = SPECS[name]
    check(fun, (sample(shape, dtypes[0]),), order=2 if "prod" in name or "exp" in name else 1)
    for dtype in dtypes[1:]:
        check(fun, (sample(shape, dtype),), transforms=False)


@pytest.mark.parametrize("name", WINDOWS)
@pytest.mark.every(2)
def test_window(name):
    fun, shape, dtypes, reverse = WINDOWS[name]
    modes = ("jvp", "vjp") if reverse else ("jvp",)
    for dtype in dtypes:
        check(fun, (sample(shape, dtype),), modes=modes, adjoint=True, transforms=dtype == dtypes[0])


TIES = np.array([[1.0, 3.0, 3.0, 2.0, 3.0], [2.0, 2.0, 2.0, 2.0, 2.0], [0.0, -0.0, 0.0, -1.0, -1.0]])
SPECIAL = np.array([[1.0, np.nan, 3.0, 2.0, 3.0], [np.inf, 2.0, np.inf, 2.0, -np.inf], [0.0, 1.0, 0.0, -inf, -inf]])


def test_an_infinite_entry_has_all_of_the_sum_of_exponentials():
    x, t = jnp.array([1.0, np.inf, 0.0]), jnp.array([2.0, 3.0, 5.0])
    np.testing.assert_array_equal(admodes.jvp(lax.cumlogsumexp, (x,), (t,))[1], [2.0, 3.0, 3.0])


@pytest.mark.parametrize("x", [TIES, SPECIAL], ids=["ties", "special"])
@pytest.mark.parametrize("axis", [0, 1])
def test_special_points(x, axis):
    for fun in (lax.reduce_max, lax.reduce_min, lax.reduce_prod):
        check(lambda x, fun=fun: fun(x, (axis,)), (x,), fd=False, transforms=False)
    for fun in (lax.cummax, lax.cummin, lax.cumprod):
        check(lambda x, fun=fun: fun(x, axis), (x,), fd=False, transforms=False)
    below = np.where(np.isposinf(x), 5.0, x)  # beside an infinite entry JAX counts the finite ones as it
    check(lambda x: lax.cumlogsumexp(x, axis), (below,), fd=False, transforms=False)
    for operation, initial in ((lax.max, -inf), (lax.min, inf)):
        check(pool(operation, initial, (2, 2), (1, 1), "SAME"), (x,), fd=False, transforms=False, adjoint=False)


@pytest.mark.parametrize("zeros", [1, 2])
def test_product_with_zeros(zeros):
    x = sample((5,), "float64")
    x[:zeros] = 0
    check(lambda x: lax.reduce_prod(x, (0,)), (x,), order=2, transforms=False)
    check(lambda x: lax.cumprod(x), (x,), transforms=False)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (1,), (2, 1)])
def test_small_shapes(shape):
    x, axis = sample(shape, "float32"), len(shape) - 1
    for fun in (lax.reduce_sum, lax.reduce_max, lax.reduce_prod):
        check(lambda x, fun=fun: fun(x, (axis,)), (x,), transforms=False)
    for fun in (lax.cumsum, lax.cummax, lax.cumprod):
        check(lambda x, fun=fun: fun(x, axis), (x,), transforms=False)


def test_integers():
    x = sample((2, 4), "float64")
    check(lambda x: (lax.argmax(x, 1, np.int32), lax.argmin(x, 0, np.int32), x), (x,), fd=False)
    check(lambda x: lax.reduce_or(x > 0, (0,)) * lax.reduce_sum(x, (0,)), (x,), fd=False)


def test_value_and_place():
    """A reduction of values and integers at once: only the values have derivatives."""
    x = sample((3, 4), "float64")
    places = lax.broadcasted_iota(np.int32, x.shape, 1)

    def best(left, right):
        return jax.tree.map(lambda a, b: jnp.where(left[0] >= right[0], a, b), left, right)

    def fun(x):
        return lax.reduce((x, places), (-inf, np.int32(-1)), best, (1,))

    check(fun, (x,), modes=(), adjoint=True)  # JAX has no derivative here: finite differences decide


def test_initial_values_are_constants():
    def fun(x, initial):
        return lax.reduce(x, initial, lambda a, b: a + b, (0,))

    for derivative in (
        lambda: admodes.jvp(fun, (np.ones(3), 0.0), (np.ones(3), 1.0)),
        lambda: admodes.vjp(fun, np.ones(3), 0.0),
    ):
        with pytest.raises(NotImplementedError, match="initial values"):
            derivative()


def test_selections():
    x, t = sample((4, 4), "float64"), sample((4, 4), "float64", seed=1)
    windows = {"window_dimensions": (2, 2), "window_strides": (2, 1), "padding": ((0, 0), (1, 0))}
    ones = {"base_dilation": (1, 1), "window_dilation": (1, 1)}
    for select in (lax.ge_p, lax.le_p):
        check(lambda t, s=select: lax.select_and_gather_add_p.bind(t, x, select_prim=s, **windows, **ones), (t,))
        source = sample((2, 4), "float64")
        check(lambda t, s=select: lax.select_and_scatter_add_p.bind(t, x, select_prim=s, **windows), (source,))
    check(lambda x: jnp.sin(pool(lax.max, -inf, (2, 2), (2, 2), "VALID")(x)), (x,), order=2, transforms=False)


PATTERNS = ["reduce_sum", "cumsum", "cumsum_reverse", "sum", "sum_dilated", "sum_cropped"]


@pytest.mark.parametrize("name", PATTERNS)
def test_pattern(name):
    fun, shape, *_ = SPECS.get(name) or WINDOWS[name]
    check_pattern(fun, (sample(shape, "float64"),))


@pytest.mark.parametrize("name", ["reduce_max", "reduce_prod", "cumprod", "max", "max_same", "cummax"])
def test_pattern_covers(name):
    fun, shape, *_ = SPECS.get(name) or WINDOWS[name]
    check_pattern(fun, (sample(shape, "float64"),), exact=False)
