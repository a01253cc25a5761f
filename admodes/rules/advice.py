"""Advice: what to do where a value or a derivative of a primitive is not finite, or digits are lost."""

from __future__ import annotations

from jax import lax

from admodes.program.traits import Advice, describe


def _advise(primitive, **advice) -> None:
    describe(primitive, advice=Advice(**advice))


_advise(
    lax.add_p,
    overflow="the sum overflows: scale it",
    domain="infinity minus infinity: use a large finite number as mask",
    loss="log1p(x) and expm1(x) keep the digits of 1 + x",
)
_advise(
    lax.sub_p,
    domain="infinity minus infinity: a mask that leaves nothing of a row needs a large finite number, not -inf",
)
_advise(
    lax.mul_p,
    overflow="the product overflows: scale the factors, or add logarithms",
    domain="0 times infinity: use where instead of multiplying by a mask",
)
_advise(
    lax.div_p,
    slope="the divisor is 0: add eps to it, or where(y == 0, 1.0, y)",
    overflow="the quotient overflows: the divisor is tiny, add eps to it",
    domain="0/0: where(y == 0, 1.0, y) for the divisor; or divide by y + eps",
    pole="a division by 0: add eps to the divisor, or where(y == 0, 1.0, y)",
    pole_of=1,
)
_advise(
    lax.rem_p,
    domain="the rest of a division by 0",
)
_advise(
    lax.pow_p,
    slope="at the base 0 the slope y x**(y - 1) is infinite for y < 1, and that of the exponent, log(x), always",
    overflow="the power overflows: scale first",
    domain="a negative base with an exponent that is not whole",
    pole="a negative power of 0",
)
_advise(
    lax.integer_pow_p,
    slope="a negative power of 0",
    overflow="the power overflows: scale first",
    pole="a negative power of 0",
    loss="subtract the mean first and then square; a**2 - b**2 = (a - b) (a + b)",
)
_advise(
    lax.square_p,
    overflow="the square overflows: scale first (jnp.hypot, jnp.linalg.norm of x / max)",
    loss="subtract the mean first and then square: var(x) = mean((x - mean(x))**2)",
)
_advise(
    lax.sqrt_p,
    slope="the slope 1/(2 sqrt(x)) is infinite at 0: for a norm use admodes.subgradient, or sqrt(x + eps)",
    domain="the square root of a negative number, often -0.0000001 left by cancellation: sqrt(maximum(x, 0))",
    loss="sqrt(a) - sqrt(b) = (a - b)/(sqrt(a) + sqrt(b))",
)
_advise(
    lax.rsqrt_p,
    slope="1/sqrt(x) has no finite value or slope at 0: rsqrt(x + eps)",
    domain="the square root of a negative number: maximum(x, eps)",
    pole="1/sqrt(0): rsqrt(x + eps)",
)
_advise(
    lax.cbrt_p,
    slope="the slope of the cube root is infinite at 0",
)
_advise(
    lax.exp_p,
    overflow="exp overflows: subtract the maximum first, or use logsumexp, softmax, softplus, log1p",
    loss="expm1(x) is exp(x) - 1 without the loss",
)
_advise(
    lax.exp2_p,
    overflow="exp2 overflows: subtract the maximum first",
)
_advise(
    lax.expm1_p,
    overflow="expm1 overflows: stay with logarithms",
)
_advise(
    lax.log_p,
    slope="the slope 1/x is infinite at 0: log(x + eps), jax.nn.log_softmax, jax.scipy.special.xlogy",
    domain="the logarithm of a negative number: log(maximum(x, eps))",
    pole="log(0): log(x + eps), jax.nn.log_softmax or xlogy; log1p(x) if the argument is 1 + x",
    loss="log(a) - log(b) = log1p((a - b)/b)",
)
_advise(
    lax.log1p_p,
    slope="the slope 1/(1 + x) is infinite at -1",
    domain="log1p of a number below -1",
    pole="log1p(-1): clip to above -1",
    pole_at=-1.0,
)
_advise(
    lax.cos_p,
    loss="2 sin(x/2)**2 is 1 - cos(x) without the loss",
)
_advise(
    lax.acos_p,
    slope="the slope of arccos is infinite at -1 and 1: clip to (-1 + eps, 1 - eps), or take the angle by arctan2",
    domain="arccos beyond [-1, 1], often 1.0000001 left by rounding: clip(x, -1, 1)",
)
_advise(
    lax.asin_p,
    slope="the slope of arcsin is infinite at -1 and 1: clip to (-1 + eps, 1 - eps), or take the angle by arctan2",
    domain="arcsin beyond [-1, 1], often 1.0000001 left by rounding: clip(x, -1, 1)",
)
_advise(
    lax.acosh_p,
    slope="the slope of arccosh is infinite at 1",
    domain="arccosh below 1: maximum(x, 1)",
)
_advise(
    lax.atanh_p,
    slope="the slope of arctanh is infinite at -1 and 1: clip to (-1 + eps, 1 - eps)",
    domain="arctanh beyond [-1, 1]: clip(x, -1 + eps, 1 - eps)",
    pole="arctanh of -1 or 1: clip to (-1 + eps, 1 - eps)",
    pole_at=1.0,
)
_advise(
    lax.atan2_p,
    slope="arctan2(0, 0) has no derivative: where(both == 0, 1.0, x) for one of its operands",
)
_advise(
    lax.sinh_p,
    overflow="sinh overflows: stay with logarithms",
)
_advise(
    lax.cosh_p,
    overflow="cosh overflows: logaddexp(x, -x) - log(2) is its logarithm",
)
_advise(
    lax.reduce_sum_p,
    overflow="the sum overflows: scale it, or use logsumexp",
    domain="infinity minus infinity in a sum",
)
_advise(
    lax.reduce_prod_p,
    overflow="the product overflows: sum the logarithms",
)
_advise(
    lax.dot_general_p,
    overflow="the product overflows: scale the operands, or use a wider dtype",
    domain="infinity minus infinity or 0 times infinity in a product",
)
_advise(
    lax.convert_element_type_p,
    overflow="the number is too large for the narrower dtype: scale it (loss scaling)",
)
