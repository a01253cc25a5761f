"""Small products of matrices as sums: the same numbers, without calls of matrix kernels."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import admodes
from admodes.planner.sweeps.small_products import SMALL, small_products_added_up
from admodes.program.evaluate import evaluate
from admodes.program.trace import trace

DIMENSION_NUMBERS = [  # (left shape, right shape, numbers)
    ((3, 4), (4, 5), (((1,), (0,)), ((), ()))),
    ((4, 3), (5, 4), (((0,), (1,)), ((), ()))),
    ((3,), (4,), (((), ()), ((), ()))),
    ((2, 3, 4), (4, 2, 5), (((2,), (0,)), ((0,), (1,)))),
    ((3, 2, 4, 2), (2, 5, 4, 2), (((2, 1), (2, 3)), ((3,), (0,)))),
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex128])
@pytest.mark.parametrize(("left", "right", "numbers"), DIMENSION_NUMBERS)
def test_sums_equal_products(left, right, numbers, dtype):
    rng = np.random.default_rng(0)
    a, b = (jnp.asarray(rng.standard_normal(shape) + 1j * rng.standard_normal(shape) if dtype is np.complex128
                        else rng.standard_normal(shape), dtype) for shape in (left, right))  # fmt: skip
    f = lambda a, b: lax.dot_general(a, b, numbers)
    program = trace(f, a, b)
    summed = small_products_added_up(program, (True, False), 1)
    assert "dot_general" not in [e.primitive.name for e in summed.equations]
    assert summed.out_avals == program.out_avals
    tolerance = 1e-5 if dtype is np.float32 else 1e-13
    np.testing.assert_allclose(evaluate(summed, a, b)[0], f(a, b), rtol=tolerance, atol=tolerance)


def test_what_stays_a_product():
    n = 8
    x, bits = jnp.ones((n, n)), jnp.ones((n, n), jnp.bfloat16)
    square = trace(lambda x: x @ x, x)
    assert small_products_added_up(square, (True,), SMALL // n**3 + 1) is square  # in so many copies it is large
    assert small_products_added_up(square, (False,), SMALL // n**3 + 1) is not square
    rounded = trace(lambda x: x @ x, bits)  # its sums are formed in another precision than its results
    assert small_products_added_up(rounded, (True,), 1) is rounded
    vector = trace(lambda x: x @ x[0], x)  # compilers inline it
    assert small_products_added_up(vector, (True,), 1) is vector
    empty = trace(lambda x: x[:0] @ x, x)
    assert small_products_added_up(empty, (True,), 1) is empty


@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_loops_over_a_few_unknowns_call_no_matrix_kernels(mode):
    n, steps = {"forward": 5, "reverse": 16}[mode], 20
    matrix = np.random.default_rng(0).standard_normal((n, n)) / 3

    def f(x):
        step = lambda x, _: (x + 0.1 * jnp.tanh(matrix @ x), x)
        last, path = lax.scan(step, jnp.sin(x), None, length=steps)
        return path if mode == "forward" else last[:2]

    x = np.linspace(0.5, 1.0, n)
    found, expected = admodes.jacobian(f), jax.jacobian(f)
    np.testing.assert_allclose(found(x), expected(x), rtol=1e-10, atol=1e-13)
    assert admodes.plan(f, x).best.name == mode
    kernels = lambda jacobian: jax.jit(jacobian).lower(x).compile().as_text().count(" dot(")
    assert kernels(found) < kernels(expected)
    tangent = jax.jvp(expected, (x,), (x,))[1]
    np.testing.assert_allclose(admodes.jvp(found, (x,), (x,))[1], tangent, rtol=1e-9, atol=1e-12)
    batch = jnp.stack([x, -x])
    np.testing.assert_allclose(jax.vmap(found)(batch), jax.vmap(expected)(batch), rtol=1e-10, atol=1e-13)
