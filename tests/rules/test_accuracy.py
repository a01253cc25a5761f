"""Slopes where the result is saturated, or a difference would cancel: mathematics in a wider format is the oracle."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax import lax
from jax import numpy as jnp

import admodes
from tests.oracle import JAX_VERSION

WIDE = np.longdouble
TAILS = {"float64": 600.0, "float32": 80.0, "bfloat16": 80.0, "float16": 8.0}


def derivatives(fun, x, order=1):
    """The derivative of this order, entry by entry, by forward and by reverse mode."""
    ones = jnp.ones_like(x)

    def forward(fun):
        return lambda x: admodes.jvp(fun, (x,), (ones,))[1]

    def backward(fun):
        return lambda x: admodes.vjp(fun, x)[1](ones)[0]

    inner = [fun]
    for _ in range(order - 1):
        inner = [forward(f) for f in inner]
    return [np.asarray(jax.jit(outer(inner[0]))(x)).astype(WIDE) for outer in (forward, backward)]


def near(found, expected, dtype, units=64):
    info = jnp.finfo(dtype)
    ordinary = np.abs(expected) >= 2 * float(info.tiny)
    for each in found:
        np.testing.assert_allclose(each[ordinary], expected[ordinary], rtol=units * float(info.eps))
        assert (np.abs(each[~ordinary]) <= 3 * float(info.tiny)).all()


def slope_of_logistic(x):
    e = np.exp(-np.abs(x))
    return e / (1 + e) ** 2


# name: (function, first derivative, second derivative), in numbers of a wider format
SATURATED = {
    "logistic": (lax.logistic, slope_of_logistic, lambda x: -slope_of_logistic(x) * np.tanh(x / 2)),
    "tanh": (
        lax.tanh,
        lambda x: 4 * slope_of_logistic(2 * x),
        lambda x: -8 * np.tanh(x) * slope_of_logistic(2 * x),
    ),
    "softplus": (jax.nn.softplus, lambda x: np.exp(np.minimum(x, 0)) / (1 + np.exp(-np.abs(x))), slope_of_logistic),
    "expm1": (lax.expm1, np.exp, np.exp),
    "elu": (jax.nn.elu, lambda x: np.exp(np.minimum(x, 0)), lambda x: np.where(x > 0, 0, np.exp(np.minimum(x, 0)))),
    "asinh": (lax.asinh, lambda x: 1 / np.hypot(1, x), lambda x: -x / np.hypot(1, x) ** 3),
    "atan": (lax.atan, lambda x: 1 / (1 + x * x), lambda x: -2 * x / (1 + x * x) ** 2),
    "soft_sign": (jax.nn.soft_sign, lambda x: (1 + np.abs(x)) ** -2, lambda x: -2 * np.sign(x) * (1 + np.abs(x)) ** -3),
    "erf": (
        lax.erf,
        lambda x: 2 / np.sqrt(WIDE(np.pi)) * np.exp(-x * x),
        lambda x: -4 * x / np.sqrt(WIDE(np.pi)) * np.exp(-x * x),
    ),
    "reciprocal": (lambda x: 1 / x, lambda x: -1 / x / x, lambda x: 2 / x / x / x),
}


@pytest.mark.parametrize("name", SATURATED)
@pytest.mark.parametrize("dtype", TAILS)
def test_tails(name, dtype):
    fun, first, second = SATURATED[name]
    end = min(TAILS[dtype], 80.0) if name == "expm1" else TAILS[dtype]
    sizes = np.geomspace(float(jnp.finfo(dtype).eps) ** 2 + 4 * float(jnp.finfo(dtype).tiny), end, 40)
    x = jnp.asarray(np.concatenate([-sizes, sizes]), dtype)
    wide = np.asarray(x).astype(WIDE)
    limit = float(jnp.finfo(dtype).max)
    for order, formula in ((1, first), (2, second)):
        expected = formula(wide)
        kept = np.abs(expected) < limit / 2
        units = 64 if dtype in ("float64", "float32") else 16
        near([each[kept] for each in derivatives(fun, x, order)], expected[kept], dtype, units)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("fun", [lax.asin, lax.acos], ids=["asin", "acos"])
def test_near_one(fun, dtype):
    x = jnp.asarray(1 - 2.0 ** -np.arange(1, jnp.finfo(dtype).nmant + 1), dtype)
    x = jnp.concatenate([x, -x, x * 1e-9])
    wide, sign = np.asarray(x).astype(WIDE), 1 if fun is lax.asin else -1
    square = (1 - wide) * (1 + wide)
    near(derivatives(fun, x), sign / np.sqrt(square), dtype, 8)
    near(derivatives(fun, x, 2), sign * wide * square**-1.5, dtype, 16)


@pytest.mark.parametrize("x", [-16.5, -0.3, -3.75, 0.2, 5.0, -1e-3])
def test_digamma_at_negative_arguments(x):
    mpmath = pytest.importorskip("mpmath")
    for order in (1, 2, 3):
        for found in derivatives(lax.digamma, jnp.array([x]), order):
            np.testing.assert_allclose(float(found[0]), float(mpmath.psi(order, x)), rtol=1e-11)
    for found in derivatives(lax.lgamma, jnp.array([x]), 2):
        np.testing.assert_allclose(float(found[0]), float(mpmath.psi(1, x)), rtol=1e-12)


@pytest.mark.parametrize("fun", [jnp.sinc, jnp.i0], ids=["sinc", "i0"])
def test_near_zero(fun):
    """From their series: sinc = 1 - (πx)²/6 + (πx)⁴/120, I₀ = 1 + x²/4 + x⁴/64, both even."""
    square, fourth = (-(np.pi**2) / 6, np.pi**4 / 120) if fun is jnp.sinc else (1 / 4, 1 / 64)
    x = jnp.array([0.0, 1e-300, -1e-12, 1e-9, -1e-5])
    expected = {1: 2 * square * x + 4 * fourth * x**3, 2: 2 * square + 12 * fourth * x**2, 3: 24 * fourth * x}
    if fun is jnp.i0 and JAX_VERSION >= (0, 12):
        del expected[3]  # JAX's own polynomial has five digits there
    for order, value in expected.items():
        for found in derivatives(fun, x, order):
            np.testing.assert_allclose(found.astype(float), value, rtol=1e-8 if order > 1 else 1e-14, atol=0)


def test_bessel_functions_far_out():
    mpmath = pytest.importorskip("mpmath")
    points = [1e-9, 0.5, 0.999, 1.5, 29.9, 30.1, 1e5, -2.0, -40.0]
    with mpmath.workdps(60):
        scaled = lambda k: lambda x: mpmath.exp(-abs(x)) * mpmath.besseli(k, x)
        for k, fun in enumerate((lax.bessel_i0e, lax.bessel_i1e)):
            expected = [float(mpmath.diff(scaled(k), mpmath.mpf(x), relative=True)) for x in points]
            for found in derivatives(fun, jnp.array(points)):
                np.testing.assert_allclose(found.astype(float), expected, rtol=1e-13)


def test_scaled_and_unscaled_agree_at_zero():
    """exp(|x|) i0e(x) is smooth: the slopes of the two kinks cancel, with every policy."""
    fun = lambda x: jnp.exp(jnp.abs(x)) * lax.bessel_i0e(x)
    for ties in ("jax", "first", "average"):
        assert admodes.grad(fun, ties=ties)(0.0) == 0
    assert admodes.grad(admodes.grad(fun))(0.0) == 0.5


def test_powers_at_zero():
    whole = lambda x: jnp.sum(x ** jnp.arange(4))
    assert [admodes.grad(lambda x: jnp.sum(x ** jnp.arange(3.0)))(0.0), admodes.grad(whole)(0.0)] == [1.0, 1.0]
    assert admodes.grad(admodes.grad(whole))(0.0) == 2.0
    assert admodes.grad(admodes.grad(admodes.grad(whole)))(0.0) == 6.0
    mixed = admodes.grad(admodes.grad(lambda x, y: x**y, 0), 1)(2.0, 0.0)  # ∂²(xʸ)/∂x∂y = 1/x at y = 0
    np.testing.assert_allclose(mixed, 0.5)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_polynomials_with_coefficients_for_many_points(degree):
    """Σ k (k - 1) xᵏ⁻², compiled too: the second derivative may have one coefficient, without the shape of x."""
    x, coefficients = jnp.array([0.5, -1.0, 2.0]), jnp.arange(1.0, degree + 2.0)
    expected = np.polyval(np.polyder(np.arange(1.0, degree + 2.0), 2), np.asarray(x)) + np.zeros(3)
    for found in derivatives(lambda x: jnp.polyval(coefficients, x), x, 2):
        np.testing.assert_allclose(found.astype(float), expected, rtol=1e-14)


@pytest.mark.parametrize("base", ["logaddexp", "logaddexp2"])
def test_logaddexp(base):
    fun, scale = getattr(jnp, base), np.log(2.0) if base == "logaddexp2" else 1.0
    x, y = np.array([40.0, -40.0, 3.0, 1000.0]), np.array([0.0, 0.0, 3.0, 5.0])
    share = np.exp(np.minimum((x - y) * scale, 0)) / (1 + np.exp(-np.abs(x - y) * scale))
    np.testing.assert_allclose(admodes.vjp(lambda x: fun(x, y), x)[1](np.ones(4))[0], share, rtol=1e-14)
    curvature = scale * slope_of_logistic((x - y) * scale)
    found = derivatives(lambda x: fun(x, y), jnp.asarray(x), 2)
    np.testing.assert_allclose(found[0].astype(float)[:3], curvature[:3], rtol=1e-13)
    nothing = -jnp.inf
    assert admodes.grad(fun, (0, 1))(nothing, nothing) == (0.0, 0.0)
    assert admodes.grad(fun, (0, 1))(nothing, 1.0) == (0.0, 1.0)
    assert admodes.grad(fun, (0, 1))(jnp.inf, jnp.inf) == (0.5, 0.5)


def test_replaced_rules_can_be_switched_off():
    program = "import jax.nn, admodes; print(float(admodes.grad(admodes.grad(jax.nn.softplus))(30.0)))"
    for value, expected in (("1", np.exp(-30.0)), ("0", 0.0)):
        run = [sys.executable, "-c", program]
        environment = {**os.environ, "ADMODES_REPLACE": value, "JAX_ENABLE_X64": "0"}
        out = subprocess.run(run, env=environment, capture_output=True, text=True, check=True).stdout
        np.testing.assert_allclose(float(out), expected, rtol=1e-5)


def test_replaced_rules_inside_of_transforms():
    x = jnp.array([-50.0, 0.0, 50.0])
    expected = slope_of_logistic(np.asarray(x))
    curvature = admodes.grad(admodes.grad(jax.nn.softplus))
    np.testing.assert_allclose(jax.vmap(curvature)(x), expected, rtol=1e-13)
    np.testing.assert_allclose(jax.jit(jax.vmap(curvature))(x), expected, rtol=1e-13)
    scanned = lambda x: lax.scan(lambda c, y: (c + jax.nn.softplus(y), None), 0.0, x)[0]
    np.testing.assert_allclose(np.diag(admodes.hessian(scanned)(x)), expected, rtol=1e-13)
    np.testing.assert_allclose(np.diag(jax.hessian(lambda x: jnp.sum(jax.nn.softplus(x)))(x))[1], 0.25)
