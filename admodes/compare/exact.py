"""Elementwise functions with their first and second derivatives in mpmath: the truth of ``admodes bench accuracy``.

Each is written so that many digits suffice: by closed forms, never by differences.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy import special


@dataclass(frozen=True)
class Function:
    """A function of JAX on an interval, its value and derivatives in mpmath, and points to look around.

    ``span`` bounds |x|; ``digits`` are those to compute with.
    """

    function: Callable
    exact: Callable
    low: float = -inf
    high: float = inf
    around: tuple[float, ...] = (0.0,)
    span: tuple[float, float] = (0.0, inf)
    digits: int = 60


def functions(mp: Any) -> dict[str, Function]:
    """The table, by name; ``mp`` is the module ``mpmath``."""
    pi, e, one = mp.pi, mp.exp, mp.mpf(1)
    sign = lambda x: one if x >= 0 else -one
    phi = lambda x: e(-x * x / 2) / mp.sqrt(2 * pi)
    below = lambda x: mp.erfc(-x / mp.sqrt(2)) / 2

    def sigma(x):
        small = e(-abs(x))
        value = 1 / (1 + small) if x >= 0 else small / (1 + small)
        slope = small / (1 + small) ** 2
        return value, slope, -slope * mp.tanh(x / 2)

    def softplus(x):
        return max(x, mp.mpf(0)) + mp.log1p(e(-abs(x))), sigma(x)[0], sigma(x)[1]

    def silu(x):
        s, ds, dds = sigma(x)
        return x * s, s + x * ds, 2 * ds + x * dds

    def exponential_below(scale, alpha):
        def exact(x):
            if x > 0:
                return scale * x, mp.mpf(scale), mp.mpf(0)
            return scale * alpha * mp.expm1(x), scale * alpha * e(x), scale * alpha * e(x)

        return exact

    def power(p):
        p = mp.mpf(p)
        return lambda x: (x**p, p * x ** (p - 1), p * (p - 1) * x ** (p - 2))

    def logarithm(base):
        return lambda x: (mp.log(x) / base, 1 / (x * base), -1 / (x * x * base))

    def tan(x):
        t = mp.tan(x)
        return t, 1 + t * t, 2 * t * (1 + t * t)

    def arcus(value, s):
        return lambda x: (value(x), s / mp.sqrt((1 - x) * (1 + x)), s * x * ((1 - x) * (1 + x)) ** -1.5)

    def tanh(x):
        slope = mp.sech(x) ** 2
        return mp.tanh(x), slope, -2 * mp.tanh(x) * slope

    def gauss(value, s):
        def exact(x):
            slope = s * 2 / mp.sqrt(pi) * e(-x * x)
            return value(x), slope, -2 * x * slope

        return exact

    def erfinv(x):
        y = mp.erfinv(x)
        slope = mp.sqrt(pi) / 2 * e(y * y)
        return y, slope, 2 * y * slope**2

    def gelu(x):
        return x * below(x), below(x) + x * phi(x), phi(x) * (2 - x * x)

    def log_ndtr(x):
        ratio = phi(x) / below(x)
        return mp.log(below(x)), ratio, -ratio * (x + ratio)

    def lgamma(x):
        value = mp.loggamma(x) if x > 0 else mp.log(abs(pi / mp.sinpi(x))) - mp.loggamma(1 - x)
        return mp.re(value), mp.psi(0, x), mp.psi(1, x)

    def sinc(x):
        y = pi * x
        if abs(y) < 1:
            terms = [((-1) ** k / mp.factorial(2 * k + 1), 2 * k) for k in range(30)]
            f = mp.fsum(a * y**n for a, n in terms)
            slope = mp.fsum(a * n * y ** (n - 1) for a, n in terms[1:])
            return f, pi * slope, pi**2 * mp.fsum(a * n * (n - 1) * y ** (n - 2) for a, n in terms[1:])
        f = mp.sin(y) / y
        slope = (mp.cos(y) - f) / y
        return f, pi * slope, pi**2 * (-f - 2 * slope / y)

    def bessel(order, scaled):
        def exact(x):
            i0, i1, i2, i3 = (mp.besseli(k, x) for k in range(4))
            f, df, ddf = (i0, i1, (i0 + i2) / 2) if order == 0 else (i1, (i0 + i2) / 2, (3 * i1 + i3) / 4)
            if not scaled:
                return f, df, ddf
            s, factor = sign(x), e(-abs(x))
            return factor * f, factor * (df - s * f), factor * (ddf - 2 * s * df + f)

        return exact

    def logit(x):
        return mp.log(x / (1 - x)), 1 / (x * (1 - x)), (2 * x - 1) / (x * (1 - x)) ** 2

    def hypot(x):
        r = mp.sqrt(x * x + 1)
        return r, x / r, r**-3

    def softsign(x):
        size = 1 + abs(x)
        return x / size, size**-2, -2 * sign(x) * size**-3

    near: Any = {"span": (0.0, 1e6)}
    return {
        "exp": Function(lax.exp, lambda x: (e(x),) * 3),
        "exp2": Function(lax.exp2, lambda x: (2**x, 2**x * mp.ln(2), 2**x * mp.ln(2) ** 2)),
        "expm1": Function(lax.expm1, lambda x: (mp.expm1(x), e(x), e(x))),
        "log": Function(lax.log, logarithm(one), low=0, around=(0.0, 1.0)),
        "log2": Function(jnp.log2, logarithm(mp.ln(2)), low=0, around=(0.0, 1.0)),
        "log1p": Function(lax.log1p, lambda x: (mp.log1p(x), 1 / (1 + x), -((1 + x) ** -2)), -1, around=(-1.0, 0.0)),
        "sqrt": Function(lax.sqrt, power(0.5), low=0),
        "rsqrt": Function(lax.rsqrt, power(-0.5), low=0),
        "cbrt": Function(lax.cbrt, power(one / 3), low=0),
        "reciprocal": Function(lambda x: 1 / x, power(-1)),
        "power 2.5": Function(lambda x: x**2.5, power(2.5), low=0),
        "power -1.5": Function(lambda x: x**-1.5, power(-1.5), low=0),
        "sin": Function(lax.sin, lambda x: (mp.sin(x), mp.cos(x), -mp.sin(x)), **near),
        "cos": Function(lax.cos, lambda x: (mp.cos(x), -mp.sin(x), -mp.cos(x)), **near),
        "tan": Function(lax.tan, tan, around=(0.0, 1.5707963267948966), **near),
        "asin": Function(lax.asin, arcus(mp.asin, 1), -1, 1, (-1.0, 0.0, 1.0)),
        "acos": Function(lax.acos, arcus(mp.acos, -1), -1, 1, (-1.0, 0.0, 1.0)),
        "atan": Function(lax.atan, lambda x: (mp.atan(x), 1 / (1 + x * x), -2 * x / (1 + x * x) ** 2)),
        "sinh": Function(lax.sinh, lambda x: (mp.sinh(x), mp.cosh(x), mp.sinh(x))),
        "cosh": Function(lax.cosh, lambda x: (mp.cosh(x), mp.sinh(x), mp.cosh(x))),
        "tanh": Function(lax.tanh, tanh),
        "asinh": Function(lax.asinh, lambda x: (mp.asinh(x), (x * x + 1) ** -0.5, -x * (x * x + 1) ** -1.5)),
        "acosh": Function(
            lax.acosh, lambda x: (mp.acosh(x), (x * x - 1) ** -0.5, -x * (x * x - 1) ** -1.5), 1, inf, (1.0,)
        ),
        "atanh": Function(
            lax.atanh,
            lambda x: (mp.atanh(x), 1 / ((1 - x) * (1 + x)), 2 * x / ((1 - x) * (1 + x)) ** 2),
            *(-1, 1, (-1.0, 0.0, 1.0)),
        ),
        "hypot(x, 1)": Function(lambda x: jnp.hypot(x, jnp.ones_like(x)), hypot),
        "atan2(x, 1)": Function(
            lambda x: lax.atan2(x, jnp.ones_like(x)),
            lambda x: (mp.atan(x), 1 / (1 + x * x), -2 * x / (1 + x * x) ** 2),
        ),
        "logistic": Function(lax.logistic, sigma),
        "softplus": Function(jax.nn.softplus, softplus),
        "logaddexp(x, 1)": Function(
            lambda x: jnp.logaddexp(x, jnp.ones_like(x)), lambda x: (1 + softplus(x - 1)[0], *softplus(x - 1)[1:])
        ),
        "silu": Function(jax.nn.silu, silu),
        "elu": Function(jax.nn.elu, exponential_below(1, 1)),
        "selu": Function(
            jax.nn.selu,
            exponential_below(mp.mpf("1.0507009873554804934193349852946"), mp.mpf("1.6732632423543772848170429916717")),
        ),
        "gelu": Function(lambda x: jax.nn.gelu(x, approximate=False), gelu),
        "softsign": Function(jax.nn.soft_sign, softsign),
        "erf": Function(lax.erf, gauss(mp.erf, 1)),
        "erfc": Function(lax.erfc, gauss(mp.erfc, -1)),
        "erf_inv": Function(lax.erf_inv, erfinv, -1, 1, (-1.0, 0.0, 1.0)),
        "ndtr": Function(special.ndtr, lambda x: (below(x), phi(x), -x * phi(x))),
        "log_ndtr": Function(special.log_ndtr, log_ndtr, **near),
        "logit": Function(special.logit, logit, 0, 1, (0.0, 0.5, 1.0)),
        "entr": Function(special.entr, lambda x: (-x * mp.log(x), -mp.log(x) - 1, -1 / x), low=0, around=(0.0, 1.0)),
        "lgamma": Function(lax.lgamma, lgamma, around=(-3.0, -2.0, -1.0, 0.0, 1.0, 2.0)),
        "digamma": Function(
            lax.digamma,
            lambda x: tuple(mp.psi(k, x) for k in range(3)),
            around=(-3.0, -2.0, -1.0, 0.0),
            span=(0.0, 1e3),
        ),
        "sinc": Function(jnp.sinc, sinc, **near),
        "i0": Function(special.i0, bessel(0, False), **near),
        "i0e": Function(special.i0e, bessel(0, True), **near),
        "i1": Function(special.i1, bessel(1, False), **near),
        "i1e": Function(special.i1e, bessel(1, True), **near),
    }
