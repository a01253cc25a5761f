"""Contractions and Fourier transforms against JAX: every layout, batch, group, dilation and mixture of dtypes."""

import jax
import numpy as np
import pytest
from jax import lax
from jax import numpy as jnp
from oracle import check, sample

import admodes

F32, F64, C128, BF16 = np.float32, np.float64, np.complex128, jnp.bfloat16


def _dense(f, *xs):
    """The Jacobian of each operand's block as a boolean matrix: which entries are nonzero at a random point."""
    blocks = jax.jacfwd(f, argnums=tuple(range(len(xs))))(*xs)
    size = np.size(f(*xs))
    return [np.asarray(b).reshape(size, -1) != 0 for b in blocks]


def _pattern(f, *xs):
    """The pattern that the tape of ``f`` (one equation) finds, per operand."""
    from admodes.modes.interpreter import INTERPRETER

    _, tape = INTERPRETER.record_function(lambda *a: [f(*a)], xs, [True] * len(xs))
    blocks = tape.pattern()
    return [blocks[0, i].to_dense() for i in range(len(xs))]


DOTS = {
    # (shape of x, shape of y, ((contracted of x, of y), (batch of x, of y)))
    "inner": ((3,), (3,), (((0,), (0,)), ((), ()))),
    "matrix-vector": ((2, 3), (3,), (((1,), (0,)), ((), ()))),
    "matrices": ((2, 3), (3, 4), (((1,), (0,)), ((), ()))),
    "transposed": ((3, 2), (4, 3), (((0,), (1,)), ((), ()))),
    "outer": ((2,), (3,), (((), ()), ((), ()))),
    "batch": ((5, 2, 3), (5, 3, 4), (((2,), (1,)), ((0,), (0,)))),
    "batch behind": ((2, 3, 5), (3, 5, 4), (((1,), (0,)), ((2,), (1,)))),
    "two contracted, crossed": ((2, 3, 4), (4, 5, 3), (((1, 2), (2, 0)), ((), ()))),
    "two batches, crossed": ((2, 3, 4, 5), (3, 2, 5, 4), (((2,), (3,)), ((0, 1), (1, 0)))),
    "scalars": ((), (), (((), ()), ((), ()))),
    "empty contraction": ((2, 0), (0, 3), (((1,), (0,)), ((), ()))),
    "empty result": ((0, 3), (3, 2), (((1,), (0,)), ((), ()))),
}


@pytest.mark.parametrize("name", DOTS)
def test_dot_general(name):
    x_shape, y_shape, numbers = DOTS[name]
    operands = (sample(x_shape, F64), sample(y_shape, F64, seed=1))
    check(lambda x, y: lax.dot_general(x, y, numbers), operands, transforms=name.startswith(("batch", "two")))


@pytest.mark.parametrize("name", [n for n in DOTS if "empty" not in n])
def test_dot_general_pattern(name):
    x_shape, y_shape, numbers = DOTS[name]
    x, y = sample(x_shape, F64, 1, 2), sample(y_shape, F64, 1, 2, seed=1)

    def dot(x, y):
        return lax.dot_general(x, y, numbers)

    for found, expected in zip(_pattern(dot, x, y), _dense(dot, x, y), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("x_dtype", "y_dtype", "preferred"),
    [
        (BF16, BF16, None),
        (BF16, BF16, F32),
        (F32, BF16, F32),
        (C128, C128, None),
        (F32, F32, F64),
        (np.int32, F32, F32),
    ],
)
def test_dot_general_dtypes(x_dtype, y_dtype, preferred):
    def dot(x, y):
        return lax.dot_general(x, y, (((1,), (0,)), ((), ())), preferred_element_type=preferred)

    check(dot, (sample((2, 3), x_dtype), sample((3, 4), y_dtype, seed=1)))


def test_dot_general_second_order():
    check(lambda x, y: jnp.einsum("bij,bkj->bik", x, y), (sample((2, 3, 4), F64), sample((2, 5, 4), F64)), order=2)
    check(lambda x: x @ x, (sample((3, 3), F64),), order=2)


def test_dot_general_transposes_cost_what_jax_transposes_cost():
    x, y = jnp.ones((5, 2, 3)), jnp.ones((3, 7))

    def equations(library):
        jaxpr = jax.make_jaxpr(lambda x, y, g: library.vjp(jnp.dot, x, y)[1](g))(x, y, jnp.ones((5, 2, 7)))
        return sorted(str(e.primitive) for e in jaxpr.eqns if e.primitive.name in ("dot_general", "transpose"))

    assert equations(admodes) == equations(jax)


RAGGED_BATCHED = lax.RaggedDotDimensionNumbers((((2,), (2,)), ((0,), (1,))), [1], [0])
RAGGED_CONTRACTED = lax.RaggedDotDimensionNumbers((((0,), (0,)), ((), ())), [0], [])


@pytest.mark.parametrize("dtype", [F32, F64])
def test_ragged_dot(dtype):
    x, y, sizes = sample((6, 3), dtype), sample((3, 3, 2), dtype, seed=1), np.array([2, 0, 3], np.int32)
    check(lambda x, y: lax.ragged_dot(x, y, sizes), (x, y), transforms=False, rtol=1e-5)


def test_ragged_dot_batched():
    x, y, sizes = sample((2, 5, 3), F64), sample((2, 2, 3, 4), F64, seed=1), np.array([[2, 3], [1, 4]], np.int32)
    check(lambda x, y: lax.ragged_dot_general(x, y, sizes, RAGGED_BATCHED), (x, y), transforms=False)


def test_ragged_dot_with_contracted_groups():
    """JAX has no transpose here; finite differences and the adjoint identity decide."""
    x, y, sizes = sample((5, 3), F64), sample((5, 4), F64, seed=1), np.array([2, 0, 3], np.int32)

    def ragged(x, y):
        return lax.ragged_dot_general(x, y, sizes, RAGGED_CONTRACTED)

    check(ragged, (x, y), modes=("jvp",), adjoint=True, transforms=False)


# -- convolution -------------------------------------------------------------------------------------------

NHWC = ("NHWC", "HWIO", "NHWC")
CONVOLUTIONS = {
    "same": ((1, 2, 5, 4), (3, 2, 3, 2), {"padding": "SAME"}),
    "strides": ((2, 2, 6, 5), (3, 2, 2, 3), {"window_strides": (2, 3), "padding": "VALID"}),
    "padding": ((1, 1, 4, 4), (2, 1, 2, 2), {"padding": ((2, 0), (-1, 3))}),
    "dilated kernel": ((1, 2, 7, 6), (2, 2, 2, 3), {"padding": "SAME", "rhs_dilation": (2, 1)}),
    "dilated image": ((1, 2, 3, 4), (2, 2, 3, 2), {"padding": ((1, 2), (0, 1)), "lhs_dilation": (2, 3)}),
    "everything": (
        (2, 6, 6, 4),
        (3, 3, 2, 2),
        {
            "window_strides": (2, 1),
            "padding": ((1, 2), (2, 0)),
            "lhs_dilation": (1, 2),
            "rhs_dilation": (2, 1),
            "feature_group_count": 3,
            "dimension_numbers": ("NHCW", "HOWI", "WNCH"),
        },
    ),
    "depthwise": ((2, 5, 4, 3), (2, 2, 1, 6), {"padding": "SAME", "feature_group_count": 3, "dimension_numbers": NHWC}),
    "batch groups": ((6, 2, 4, 3), (4, 2, 2, 2), {"padding": "VALID", "batch_group_count": 2}),
    "batch groups, other layout": (
        (5, 4, 3, 6),
        (2, 3, 3, 6),
        {"padding": "SAME", "batch_group_count": 3, "dimension_numbers": ("HWCN", "HWIO", "HWCN")},
    ),
    "no space": ((2, 3), (4, 3), {"padding": ()}),
    "one axis": ((2, 3, 8), (4, 3, 3), {"padding": "SAME", "window_strides": (2,)}),
    "empty result": ((1, 2, 2), (3, 2, 4), {"padding": "VALID"}),
}


def _convolution(name, dtype=F64):
    lhs, rhs, options = CONVOLUTIONS[name]
    options = {"window_strides": (1,) * (len(lhs) - 2), **options}
    return lambda x, k: lax.conv_general_dilated(x, k, **options), (sample(lhs, dtype), sample(rhs, dtype, seed=1))


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution(name):
    check(*_convolution(name), transforms=name in ("strides", "batch groups"))


@pytest.mark.parametrize("name", [n for n in CONVOLUTIONS if n != "empty result"])
def test_convolution_pattern(name):
    convolve, (x, k) = _convolution(name)
    x, k = abs(x) + 1, abs(k) + 1
    for found, expected in zip(_pattern(convolve, x, k), _dense(convolve, x, k), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("dtype", "preferred"), [(BF16, F32), (C128, None), (F32, F64)])
def test_convolution_dtypes(dtype, preferred):
    def convolve(x, k):
        return lax.conv(x, k, (1, 1), "SAME", preferred_element_type=preferred)

    check(convolve, (sample((1, 2, 4, 3), dtype), sample((2, 2, 2, 2), dtype, seed=1)), transforms=False)


def test_a_real_factor_beside_a_complex_one():
    """Its cotangent is the real part, without numpy's warning that another part is discarded (here an error)."""
    c, x = sample((3, 4), C128), sample((4,), F64)
    check(lambda x: jnp.abs(jnp.tanh(c @ x)) ** 2, (x,))


def test_convolution_second_order():
    check(*_convolution("strides"), order=2)


# -- Fourier transforms ------------------------------------------------------------------------------------


@pytest.mark.parametrize("axes", [(0,), (1,), (0, 1)])
@pytest.mark.parametrize("name", ["fftn", "ifftn", "rfftn", "irfftn"])
def test_fft(name, axes):
    x = sample((4, 5), F64 if name == "rfftn" else C128)
    check(lambda x: getattr(jnp.fft, name)(x, axes=axes), (x,), transforms=len(axes) == 2)


@pytest.mark.parametrize("n", [1, 2, 3, 6])
def test_real_fft_lengths(n):
    check(lambda x: jnp.fft.rfft(x), (sample((2, n), F64),), transforms=False)
    check(lambda x: jnp.fft.irfft(x, n=n), (sample((2, n // 2 + 1), C128),), transforms=False)


def test_fft_float32():
    check(jnp.fft.rfft, (sample((8,), F32),), transforms=False)
    check(jnp.fft.irfft, (sample((5,), np.complex64),), transforms=False)
