"""Each primitive of the specs of the table has a right Taylor rule: against nested ``jax.jvp`` in float64."""

import jax
import numpy as np
import pytest
from jax import lax

import admodes
from tests.oracle import sample
from tests.programs import BINARY as OPERATIONS
from tests.programs import FORWARD_ONLY, REDUCTIONS, VECTOR_TO_VECTOR
from tests.programs import UNARY as CALLS
from tests.rules.test_contractions import CONVOLUTIONS, DOTS
from tests.rules.test_elementwise import BINARY, PIECEWISE, UNARY
from tests.rules.test_indexing import GATHERS, ORDERINGS
from tests.rules.test_linalg import FACTORISATIONS
from tests.rules.test_reductions import SPECS as REDUCING
from tests.rules.test_reductions import WINDOWS
from tests.rules.test_structural import SPECS as STRUCTURAL
from tests.series.nested import check

SERIES = ("bessel_i0e", "bessel_i1e")  # by nesting their own slope, whose programs grow


@pytest.mark.parametrize("name", [n for n in UNARY if "float64" in UNARY[n][2]])
def test_elementwise(name):
    fun, (lo, hi), _ = UNARY[name]
    check(fun, [sample((3,), "float64", lo, hi)], order=3 if name in SERIES else 6)


@pytest.mark.parametrize("name", ["exp", "log", "tanh", "logistic", "sqrt", "sin", "abs", "real", "conj", "pow-3"])
def test_complex(name):
    fun, (lo, hi), _ = UNARY[name]
    check(fun, [sample((3,), "complex128", lo, hi)], order=4)


@pytest.mark.parametrize("name", BINARY)
def test_binary(name):
    fun, (lo, hi), _ = BINARY[name]
    if name.startswith("igamma"):  # JAX has no second derivative in the shape
        check(lambda x: fun(np.float64(1.3), x), [sample((3,), "float64", lo, hi)], order=4)
    else:
        check(fun, [sample((3,), "float64", lo, hi), sample((3,), "float64", lo, hi, seed=1)], order=6)


@pytest.mark.parametrize("exponent", [0.5, 2.0, 2.5, -1.5, 3, -2, 7])
def test_powers_of_numbers(exponent):
    check(lambda x: x**exponent, [sample((3,), "float64", 0.3, 2)], order=6)


@pytest.mark.parametrize("name", PIECEWISE)
def test_piecewise_constant(name):
    fun, dtypes = PIECEWISE[name]
    if "float64" in dtypes:
        check(fun, [sample((3,), "float64")])


def test_special_functions():
    beta = jax.scipy.special.betainc
    check(lambda x: beta(1.3, 0.7, x), [sample((3,), "float64", 0.2, 0.8)])
    check(lambda x: jax.scipy.special.polygamma(1, x), [sample((3,), "float64", 0.5, 2)])
    check(lambda x: jax.scipy.special.zeta(2.5, x), [sample((3,), "float64", 0.5, 2)])


@pytest.mark.parametrize("name", DOTS)
def test_contraction(name):
    left, right, dimensions = DOTS[name]
    check(lambda x, y: lax.dot_general(x, y, dimensions), [sample(left, "float64"), sample(right, "float64", seed=1)])


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution(name):
    left, right, options = CONVOLUTIONS[name]
    options = {"window_strides": (1,) * (len(left) - 2), **options}
    operands = [sample(left, "float64"), sample(right, "float64", seed=1)]
    check(lambda x, y: lax.conv_general_dilated(x, y, **options), operands)


@pytest.mark.parametrize("name", STRUCTURAL)
def test_structural(name):
    fun, shapes = STRUCTURAL[name]
    check(fun, [sample(s, "float64", seed=i) for i, s in enumerate(shapes)])


@pytest.mark.parametrize("name", GATHERS)
def test_gather(name):
    check(lambda x: GATHERS[name](x) ** 2, [sample((5, 3), "float64")])


@pytest.mark.parametrize("method", ["set", "add", "multiply", "max", "min"])
def test_scatter(method):
    def scatter(x, u):
        return getattr(x.at[np.array([3, 0])], method)(u, unique_indices=True) ** 2

    check(scatter, [sample((5, 3), "float64"), sample((2, 3), "float64", seed=1)])


@pytest.mark.parametrize("name", ORDERINGS)
def test_ordering(name):
    x = np.random.default_rng(5).permutation(15).reshape(5, 3) / 4.3
    check(lambda x: ORDERINGS[name](x + x**2 / 8), [x])


@pytest.mark.parametrize("name", REDUCING)
def test_reduction(name):
    fun, shape, _ = REDUCING[name]
    check(lambda x: fun(x + x**2 / 8), [sample(shape, "float64")])


@pytest.mark.parametrize("name", WINDOWS)
def test_window(name):
    fun, shape, _, _ = WINDOWS[name]
    jvp = admodes.jvp if name.startswith(("prod", "logsumexp")) else jax.jvp  # JAX's cannot be nested there
    check(lambda x: fun(x + x**2 / 8), [sample(shape, "float64")], jvp=jvp)


@pytest.mark.parametrize("name", FACTORISATIONS)
def test_factorisation(name):
    fun, operand = FACTORISATIONS[name]
    jvp = admodes.jvp if name.startswith("eigen") else jax.jvp  # JAX's is not valid without a promise
    check(fun, [operand("float64")], rtol=1e-8, jvp=jvp)


@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize("lower", [True, False])
def test_triangular_solve(left, lower):
    def solve(a, b):
        return lax.linalg.triangular_solve(a, b, left_side=left, lower=lower, transpose_a=lower)

    check(solve, [sample((3, 3), "float64") + 4 * np.eye(3), sample((3, 3), "float64", seed=1)], order=4)


@pytest.mark.parametrize("name", [*CALLS, *FORWARD_ONLY])
def test_calls_and_branches(name):
    check({**CALLS, **FORWARD_ONLY}[name], [sample((3,), "float64")], rtol=1e-5 if name == "float32" else 1e-10)


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations(name):
    check(OPERATIONS[name], [sample((3,), "float64", seed=i) for i in range(2)])


@pytest.mark.parametrize("name", [*VECTOR_TO_VECTOR, *REDUCTIONS])
def test_vectors(name):
    check({**VECTOR_TO_VECTOR, **REDUCTIONS}[name], [sample((3,), "float64")])
