"""Elementwise rules against the oracle: at random points, at special points (0, inf, NaN ...), broadcast, at ties."""

import jax
import numpy as np
import pytest
from jax import lax
from jax import numpy as jnp

import admodes
from tests.oracle import JAX_VERSION, check, sample

REAL = ("float64", "float32", "float16", "bfloat16")
COMPLEX = ("complex128", "complex64")
ANY = REAL + COMPLEX
ORDERED = ANY if JAX_VERSION < (0, 11) else REAL  # JAX's derivative of the max of complex numbers raises since 0.11

# name: (function, interval to sample from, dtypes)
UNARY = {
    "neg": (lax.neg, (-2, 2), ANY),
    "exp": (lax.exp, (-2, 2), ANY),
    "exp2": (lax.exp2, (-2, 2), ANY),
    "expm1": (lax.expm1, (-2, 2), ANY),
    "log": (lax.log, (0.3, 2), ANY),
    "log1p": (lax.log1p, (-0.6, 2), ANY),
    "logistic": (lax.logistic, (-2, 2), ANY),
    "sqrt": (lax.sqrt, (0.3, 2), ANY),
    "rsqrt": (lax.rsqrt, (0.3, 2), ANY),
    "cbrt": (lax.cbrt, (0.3, 2), REAL),
    "square": (lax.square, (-2, 2), ANY),
    "sin": (lax.sin, (-2, 2), ANY),
    "cos": (lax.cos, (-2, 2), ANY),
    "tan": (lax.tan, (-1, 1), ANY),
    "asin": (lax.asin, (-0.8, 0.8), ANY),
    "acos": (lax.acos, (-0.8, 0.8), ANY),
    "atan": (lax.atan, (-0.8, 0.8), ANY),
    "sinh": (lax.sinh, (-2, 2), ANY),
    "cosh": (lax.cosh, (-2, 2), ANY),
    "tanh": (lax.tanh, (-2, 2), ANY),
    "asinh": (lax.asinh, (-0.8, 0.8), ANY),
    "acosh": (lax.acosh, (1.3, 3), ANY),
    "atanh": (lax.atanh, (-0.8, 0.8), ANY),
    "abs": (lax.abs, (0.2, 2), ANY),
    "real": (lax.real, (-2, 2), COMPLEX),
    "imag": (lax.imag, (-2, 2), COMPLEX),
    "conj": (lax.conj, (-2, 2), ("float64", "float32", *COMPLEX)),
    "erf": (lax.erf, (-2, 2), REAL),
    "erfc": (lax.erfc, (-2, 2), REAL),
    "erf_inv": (lax.erf_inv, (-0.8, 0.8), REAL),
    "lgamma": (lax.lgamma, (0.3, 4), REAL),
    "digamma": (lax.digamma, (0.3, 4), REAL),
    "bessel_i0e": (lax.bessel_i0e, (0.1, 4), REAL),
    "bessel_i1e": (lax.bessel_i1e, (0.1, 4), REAL),
    "pow0": (lambda x: lax.integer_pow(x, 0), (-2, 2), ANY),
    "pow1": (lambda x: lax.integer_pow(x, 1), (-2, 2), ANY),
    "pow2": (lambda x: lax.integer_pow(x, 2), (-2, 2), ANY),
    "pow5": (lambda x: lax.integer_pow(x, 5), (-2, 2), ANY),
    "pow-3": (lambda x: lax.integer_pow(x, -3), (0.5, 2), ANY),
}

# name: (function, interval, dtypes); both operands are sampled from the interval
BINARY = {
    "add": (lax.add, (-2, 2), ANY),
    "sub": (lax.sub, (-2, 2), ANY),
    "mul": (lax.mul, (-2, 2), ANY),
    "div": (lax.div, (0.5, 2), ANY),
    "rem": (lax.rem, (0.5, 2), REAL),
    "pow": (lax.pow, (0.5, 2), ANY),
    "atan2": (lax.atan2, (0.3, 2), REAL),
    "max": (lax.max, (-2, 2), ORDERED),
    "min": (lax.min, (-2, 2), ORDERED),
    "complex": (lax.complex, (-2, 2), ("float64", "float32")),
    "igamma": (lax.igamma, (0.3, 3), ("float64", "bfloat16")),
    "igammac": (lax.igammac, (0.3, 3), ("float64", "float32")),
}

PIECEWISE = {
    "sign": (lax.sign, REAL),
    "floor": (lax.floor, REAL),
    "ceil": (lax.ceil, REAL),
    "round": (lax.round, REAL),
    "is_finite": (lax.is_finite, REAL),
    "eq": (lambda x: lax.eq(x, x), ANY),
    "lt": (lambda x: lax.lt(x, lax.full_like(x, 1)), REAL),
    "argmax": (lambda x: lax.argmax(x, 0, np.int32), REAL),
    "argmin": (lambda x: lax.argmin(x, 0, np.int32), REAL),
    "stop_gradient": (lax.stop_gradient, ANY),
    "bitcast": (lambda x: lax.bitcast_convert_type(x, np.int32), ("float32",)),
}


def cases(table, dtypes=None):
    return [
        (name, dtype) for name, (*_, known) in table.items() for dtype in known if dtypes is None or dtype in dtypes
    ]


def special_points(dtype):
    """Zeros, units, infinities, NaN, the largest and smallest numbers; for complex dtypes all pairs of some."""
    real = np.dtype(dtype.replace("complex128", "float64").replace("complex64", "float32"))
    info = jnp.finfo(real)
    points = np.array([0.0, -0.0, 1, -1, np.inf, -np.inf, np.nan, 2, -0.5], real)
    if dtype in COMPLEX:
        z = np.empty((len(points), len(points)), dtype)
        z.real, z.imag = points[:, None], points
        return jnp.asarray(z)
    with np.errstate(over="ignore"):
        extremes = np.array([info.max, info.min, info.tiny, -info.tiny, info.eps], real)
    return jnp.asarray(np.concatenate([points, extremes, np.array([30, -30, 200.0, -3.0], real)]))


@pytest.mark.parametrize("name", UNARY)
def test_unary(name):
    fun, (lo, hi), dtypes = UNARY[name]
    for dtype in dtypes:
        if dtype in ("float64", "complex128"):
            check(fun, (sample((3,), dtype, lo, hi),), order=2, transforms=dtype == "float64")
        else:
            check(fun, (sample((2,), dtype, lo, hi),), transforms=False)


def _one_plus_iz(z):
    """1 + iz by its parts: a sum with a real number would lose the sign of an imaginary zero."""
    out = np.empty_like(z)
    out.real, out.imag = 1 - z.imag, z.real
    return out


# where versions of JAX disagree at special points, mathematics decides; each factor keeps the signs of zeros
SLOPES = {
    "asinh": lambda z: (
        1 / np.hypot(1, z) if z.dtype.kind == "f" else 1 / np.sqrt(_one_plus_iz(z)) / np.sqrt(_one_plus_iz(-z))
    ),
    "acosh": lambda z: 1 / np.sqrt(z - 1) / np.sqrt(z + 1),
    "atanh": lambda z: 1 / (1 - z) / (1 + z),
    "logistic": lambda z: 1 / np.cosh(z / 2) ** 2 / 4,
}
DISPUTED = [("asinh", ANY), ("acosh", ANY), ("atanh", COMPLEX), ("logistic", COMPLEX)]


# at one point the slope is not JAX's: there is none towards -∞, between poles; that of e^-|x| I₀(x) is |x|'; NaN is NaN
NOT_AS_JAX = {"digamma": (-np.inf, np.nan), "bessel_i0e": (0.0, -1.0), "bessel_i1e": (np.nan, np.nan)}


@pytest.mark.parametrize(
    ("name", "dtype"), [case for case in cases(UNARY) if case not in [(n, d) for n, dtypes in DISPUTED for d in dtypes]]
)
def test_unary_at_special_points(name, dtype):
    points = special_points(dtype)
    if name in NOT_AS_JAX:
        point, slope = NOT_AS_JAX[name]
        point = jnp.array([point], dtype)
        points = points[~((points == point) | (jnp.isnan(points) & jnp.isnan(point)))]
        found = admodes.jvp(UNARY[name][0], (point,), (jnp.ones_like(point),))[1]
        np.testing.assert_allclose(np.asarray(found, float), [slope], rtol=4 * float(jnp.finfo(dtype).eps))
    if name == "digamma":  # trigamma tends to 0; JAX has NaN
        far = jnp.array([np.inf], dtype)
        assert admodes.jvp(lax.digamma, (far,), (jnp.ones_like(far),))[1] == 0
        points = points[points != np.inf]
    rtol = 1e-4 if (name, dtype) == ("bessel_i0e", "float32") else None  # JAX subtracts nearly equal numbers at 200
    check(UNARY[name][0], (points,), fd=False, transforms=False, rtol=rtol)


@pytest.mark.parametrize(("name", "dtype"), [(n, d) for n, dtypes in DISPUTED for d in dtypes])
def test_disputed_slopes_at_special_points(name, dtype):
    points = special_points(dtype).ravel()
    with np.errstate(all="ignore"):
        expected = SLOPES[name](np.asarray(points).astype(np.clongdouble if dtype in COMPLEX else np.longdouble))
    if dtype in COMPLEX:  # at poles, and at infinities of whatever direction, a complex slope is no number
        clear = np.isfinite(expected) & np.isfinite(np.asarray(points))
        points, expected = points[clear], expected[clear]
    tiny = float(jnp.finfo(dtype).tiny)  # smaller numbers are flushed to zero
    for found in (
        admodes.jvp(UNARY[name][0], (points,), (jnp.ones_like(points),))[1],
        admodes.vjp(UNARY[name][0], points)[1](jnp.ones_like(points))[0],
    ):
        assert found.dtype == points.dtype
        wide = np.asarray(found).astype(expected.dtype)
        np.testing.assert_allclose(wide, expected, rtol=4 * float(jnp.finfo(dtype).eps), atol=tiny, equal_nan=True)


@pytest.mark.parametrize("name", [name for name, (*_, dtypes) in UNARY.items() if "float64" in dtypes])
def test_weak_types_and_scalars(name):
    """A Python number in, as in ``grad(f)(0.5)``; and an empty array."""
    fun, (lo, hi), _ = UNARY[name]
    weak_types = not (name in ("erf", "erfc") and JAX_VERSION >= (0, 11))  # JAX's tangent is strongly typed there
    modes = () if name == "asinh" and JAX_VERSION >= (0, 12) else ("jvp", "vjp")  # JAX raises AttributeError
    check(fun, ((lo + 2 * hi) / 3,), modes=modes, adjoint=True, weak_types=weak_types, transforms=False)
    check(fun, (np.zeros((0, 2)),), transforms=False)


@pytest.mark.parametrize("name", BINARY)
def test_binary(name):
    fun, (lo, hi), dtypes = BINARY[name]
    for dtype in dtypes:
        x, y = sample((3,), dtype, lo, hi, 1), sample((3,), dtype, lo, hi, 2)
        if dtype in ("float64", "complex128"):
            slow = name.startswith("igamma")
            check(fun, (x, y), order=1 if slow else 2, transforms=dtype == "float64" and not slow)
        else:
            check(fun, (x, y), transforms=False)


@pytest.mark.parametrize("name", [name for name in BINARY if name not in ("igamma", "igammac")])
@pytest.mark.parametrize(
    "shapes", [((), (3,)), ((2, 3), ()), ((2, 1), (2, 3)), ((2, 3), (1, 3)), ((0, 2), (1, 2))], ids=str
)
def test_binary_broadcasts(name, shapes):
    fun, (lo, hi), dtypes = BINARY[name]
    args = [sample(shape, dtypes[0], lo, hi, i + 1) for i, shape in enumerate(shapes)]
    check(fun, args, transforms=False)


@pytest.mark.parametrize(("name", "dtype"), [case for case in cases(BINARY) if case[0] != "atan2"])
def test_binary_at_special_points(name, dtype):
    points = special_points(dtype).ravel()
    if name == "div" and dtype in REAL:
        points = points[:9]  # for the largest and smallest numbers JAX's -t x y⁻² over- and underflows from the left
    if dtype in COMPLEX:
        points = points[np.array([0, 3, 4, 10, 13, 22, 40, 44, 60, 70, 77, 80])]
    if name.startswith("igamma"):
        points = points[jnp.abs(points) <= 30]  # JAX's series does not end for the largest parameters
    x, y = jnp.repeat(points, len(points)), jnp.tile(points, len(points))
    if name == "pow":  # d 0⁰/dx is 0, JAX says NaN
        x, y = x[(x != 0) | (y != 0)], y[(x != 0) | (y != 0)]
        assert admodes.jvp(lambda x: lax.pow(x, 0 * x), (jnp.zeros(1, dtype),), (jnp.ones(1, dtype),))[1] == 0
    # for complex x/y the vjp of JAX multiplies by y⁻² first, its jvp last: at infinities they disagree
    modes = ("jvp",) if name == "div" and dtype in COMPLEX else ("jvp", "vjp")
    for argnums in (0, 1):
        check(BINARY[name][0], (x, y), modes=modes, fd=False, adjoint=False, transforms=False, argnums=argnums)


@pytest.mark.parametrize("dtype", REAL)
def test_slopes_of_atan2_at_special_points(dtype):
    """JAX squares the coordinates, which overflows; in numbers of a wider range it does not."""
    points = special_points(dtype)
    x, y = jnp.repeat(points, len(points)), jnp.tile(points, len(points))
    wide = np.asarray(x).astype(np.longdouble), np.asarray(y).astype(np.longdouble)
    with np.errstate(all="ignore"):
        radius = np.square(wide[0]) + np.square(wide[1])
        expected = wide[1] / radius, -wide[0] / radius
    slopes = [
        admodes.jvp(lambda x: lax.atan2(x, y), (x,), (jnp.ones_like(x),))[1],
        admodes.jvp(lambda y: lax.atan2(x, y), (y,), (jnp.ones_like(x),))[1],
    ]
    for found, exact in zip(map(np.asarray, slopes), expected, strict=True):
        info = jnp.finfo(dtype)
        assert found.dtype == x.dtype
        with np.errstate(over="ignore"):
            rounded = exact.astype(dtype).astype(np.longdouble)
        np.testing.assert_allclose(
            found.astype(np.longdouble), rounded, rtol=4 * float(info.eps), atol=float(info.tiny)
        )


@pytest.mark.parametrize(("name", "dtype"), cases(PIECEWISE))
def test_piecewise_constant(name, dtype):
    check(PIECEWISE[name][0], (sample((4,), dtype),), fd=False, transforms=False)


@pytest.mark.parametrize("dtype", COMPLEX)
def test_complex_sign_turns(dtype):
    """z/|z| is not constant; before 0.12 JAX said so. At 0 the slope is taken to be 0."""
    z = sample((4,), dtype, 0.5, 2)
    modes = ("jvp", "vjp") if JAX_VERSION >= (0, 12) else ()
    check(
        lax.sign, (z,), modes=modes, adjoint=True, order=2 if modes and dtype == "complex128" else 1, transforms=False
    )
    assert admodes.jvp(lax.sign, (z * 0,), (z,))[1].tolist() == [0.0] * 4


def test_integer_operands():
    i, j = sample((3,), "int32", 1, 9, 1), sample((3,), "int32", 1, 9, 2)
    x = sample((3,), "float64", 0.5, 2)
    for fun in (lax.add, lax.rem, lax.max, lax.mulhi, lax.bitwise_and, lax.shift_left):
        check(fun, (i, j))
    for fun in (lax.clz, lax.population_count, lax.bitwise_not, lax.abs, lax.sign):
        check(fun, (i,), transforms=False)
    check(lambda x, i: (x * x, i + 1), (x, i))


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "complex64"])
def test_pow_with_whole_exponents(dtype):
    x = np.array([0.0, 0.0, 0.0, 2.0, 2.0, -2.0, -2.0], dtype)
    y = np.array([0, 1, 2, 0, -1, 3, 2], np.int32)
    check(lax.pow, (x, y), argnums=0, fd=False, transforms=dtype == "float64")
    check(lax.pow, (x[:, None], y[None, :3]), argnums=0, fd=False, transforms=False)
    check(lax.pow, (x, y[1]), argnums=0, fd=False, transforms=False)
    check(lax.pow, (x[0], y), argnums=0, fd=False, transforms=False)


def test_the_log_in_a_power_is_for_active_exponents_only():
    program = str(jax.make_jaxpr(lambda x: admodes.grad(lambda x: x**2.5)(x))(1.0))
    assert "log" not in program


def test_mul_with_out_dtype():
    x, y = sample((3,), "bfloat16"), sample((3,), "bfloat16", seed=1)
    check(lambda x, y: lax.mul_p.bind(x, y, out_dtype=np.dtype("float32")), (x, y), transforms=False)


@pytest.mark.parametrize(
    "fun", [lax.exp, lax.expm1, lax.tanh, lax.logistic, lax.sin, lax.cos, lax.log], ids=lambda f: f.__name__
)
def test_accuracy(fun):
    """The formulas for ``accuracy=HIGHEST`` are traced only: the CPU backend has no such mode."""
    x = jax.ShapeDtypeStruct((2,), np.float64)

    def differentiate(library):
        exact = lambda x: fun(x, accuracy=lax.AccuracyMode.HIGHEST)
        return jax.eval_shape(lambda x: library.jvp(exact, (x,), (x,)), x)

    assert differentiate(admodes) == differentiate(jax)


@pytest.mark.parametrize("dtype", [d for d in ("float64", "float32", "bfloat16", "complex64") if d in ORDERED])
def test_ties_of_max_and_min(dtype):
    x = np.array([1, 2, 3, np.nan, 1, np.inf, np.inf, -0.0], dtype)
    y = np.array([1, 3, 2, 1, np.nan, np.inf, -np.inf, 0.0], dtype)
    for fun in (lax.max, lax.min):
        check(fun, (x, y), fd=False)
    check(lambda x: lax.max(x, x), (x,), fd=False, transforms=False)


@pytest.mark.parametrize("dtype", COMPLEX)
def test_max_and_min_of_complex_numbers(dtype):
    """The tangent of the operand that is attained; of both, half, at a tie."""
    x, y, s, t = (sample((6,), dtype, seed=i) for i in range(4))
    y[:2] = x[:2]
    for fun in (lax.max, lax.min):
        out, tangent = admodes.jvp(fun, (x, y), (s, t))
        attained = np.asarray(out) == np.stack([x, y])
        expected = (attained * np.stack([s, t])).sum(0) / attained.sum(0)
        np.testing.assert_allclose(tangent, expected, rtol=4 * float(jnp.finfo(dtype).eps))
        check(fun, (x, y), modes=(), adjoint=True, fd=False, transforms=False)


@pytest.mark.parametrize("dtype", REAL)
def test_clamp(dtype):
    x = np.array([-1, 0, 0.5, 1, 2, np.nan, np.inf, -np.inf], dtype)
    low, high = np.zeros_like(x), np.ones_like(x)
    check(lax.clamp, (low, x, high), fd=False)
    check(lax.clamp, (high, x, low), fd=False, transforms=False)  # crossed bounds
    check(lax.clamp, (np.ones_like(x), x, x), fd=False, transforms=False)
    check(lax.clamp, (low[0], x, high[0]), fd=False, argnums=1)


def test_clamp_at_scalar_bounds():
    """JAX cannot do this; the operands outside the bounds move with them."""
    x = jnp.array([-1.0, 0.5, 2.0, 3.0])
    low, high = admodes.grad(lambda low, high: jnp.sum(lax.clamp(low, x, high)), (0, 1))(0.0, 1.0)
    assert (low, high) == (1.0, 2.0)
    check(lambda low, high: lax.clamp(low, x, high), (0.0, 1.0), modes=(), adjoint=True)


def test_zero_times_infinity_does_not_leak_from_clamp():
    x = jnp.array([2.0, 0.5])
    (ct,) = admodes.vjp(lambda x: lax.clamp(0.0, x, 1.0), x)[1](jnp.array([jnp.inf, 1.0]))
    np.testing.assert_array_equal(ct, [0.0, 1.0])


@pytest.mark.parametrize("fun", [lax.igamma, lax.igammac], ids=["igamma", "igammac"])
def test_incomplete_gamma_to_second_order(fun):
    """JAX stops at the first derivative in a; finite differences go on."""
    a, x = np.array([0.3, 1.5, 3.0, 30.0]), np.array([0.8, 1.0, 7.0, 28.0])
    check(lambda x: fun(a, x), (x,), order=2, transforms=False)
    slope = lambda a, x: admodes.jvp(lambda a: fun(a, x), (a,), (jnp.ones_like(a),))[1]
    check(slope, (a, x), modes=(), adjoint=True, transforms=False, step=1e-4)
    curvature = lambda a: admodes.jvp(lambda a: slope(a, x), (a,), (jnp.ones_like(a),))[1]
    check(curvature, (a,), modes=(), adjoint=True, transforms=False)
    _, at_zero = admodes.jvp(lambda a: slope(a, np.zeros(4)), (a,), (jnp.ones_like(a),))
    np.testing.assert_array_equal(at_zero, 0.0)


def test_three_operands():
    a, b, x = (sample((3,), "float64", 0.2, 0.8, i) for i in range(3))
    for dtype in REAL:
        args = [v.astype(dtype) for v in (a, b, x)]
        check(lax.betainc, args, argnums=2, order=2 if dtype == "float64" else 1, transforms=False)


@pytest.mark.parametrize("library", [jax, admodes])
def test_what_has_no_derivative_is_refused(library):
    one = np.array([1.0])
    with pytest.raises(ValueError, match=r"supported|derivative"):
        library.jvp(lambda m: lax.polygamma(m, one), (one,), (one,))


def test_polygamma_and_zeta():
    x = sample((3,), "float64", 0.5, 3)
    for m in (0.0, 1.0, 3.0):
        check(lambda x, m=m: lax.polygamma(np.full(3, m), x), (x,), order=2, transforms=False)
    check(lambda q: lax.zeta(np.full(3, 2.5), q), (x,), modes=(), adjoint=True)


def test_nextafter():
    x, y = sample((3,), "float64"), sample((3,), "float64", seed=1)
    check(lax.nextafter, (x, y), modes=(), adjoint=True)


@pytest.mark.parametrize(("log_space", "dtype"), [(False, "float32"), (True, "float64")])
def test_random_gamma(log_space, dtype):
    draw = jax.random.loggamma if log_space else jax.random.gamma
    a = np.array([0.01, 0.7, 3.0, 40.0], dtype)
    check(lambda a: draw(jax.random.key(3), a), (a,), fd=False, transforms=False, rtol=1e-4)


def test_random_bits_do_not_stop_a_derivative():
    x = sample((3,), "float64")
    check(lambda x: x * jax.random.normal(jax.random.fold_in(jax.random.key(0), 1), (3,)), (x,))
