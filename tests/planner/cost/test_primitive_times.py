"""How long functions take, beside the class of cost that their entries say: compiled runs over 20,000 entries."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from admodes.planner.cost.machine import best_seconds
from admodes.planner.cost.work import work

N = 20_000
UNARY = [
    *(lax.acos, lax.asin, lax.asinh, lax.atan, lax.atanh, lax.bessel_i0e, lax.bessel_i1e, lax.cbrt, lax.cos, lax.cosh),
    *(lax.digamma, lax.erf, lax.erf_inv, lax.erfc, lax.exp, lax.exp2, lax.expm1, lax.lgamma, lax.log, lax.log1p),
    *(lax.logistic, lax.rsqrt, lax.sin, lax.sinh, lax.sqrt, lax.tan, lax.tanh),
]
OTHERS = {
    "acosh": lambda a, x: lax.acosh(x + 1),
    "atan2": lax.atan2,
    "pow": lax.pow,
    "rem": lax.rem,
    "zeta": lambda a, x: lax.zeta(a + 1, x),
    "polygamma": lambda a, x: lax.polygamma(lax.full_like(x, 1), a),
    "betainc": lambda a, x: lax.betainc(a, a, x),
    "igamma": lax.igamma,
    "igammac": lax.igammac,
    "igamma_grad_a": lax.igamma_grad_a,
    "gamma sample": lambda a, x: jax.random.gamma(jax.random.key(0), a),
}


def functions():
    return {f.__name__: lambda a, x, f=f: f(x) for f in UNARY} | OTHERS


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_functions_take_about_what_their_class_says(dtype):
    a, x = jnp.linspace(0.5, 5.0, N, dtype=dtype), jnp.linspace(0.3, 0.9, N, dtype=dtype)
    four = lambda x: lax.sin(x) + lax.exp(x) + lax.tanh(x) + lax.log(x)  # as in `admodes calibrate`
    unit = best_seconds(four, (x,)) / 4
    wrong = {}
    for name, fun in functions().items():
        said = work(jax.make_jaxpr(fun)(a, x), (False, False), 1).transcendentals / N
        ratio = best_seconds(fun, (a, x), budget=0.1) / unit / said
        if not 1 / 20 < ratio < 20:
            wrong[name] = ratio
    assert not wrong
