"""What to do about it: the usual cure for each way in which a value or a derivative is not finite."""

from __future__ import annotations

import numpy as np

from admodes.diagnosis.births import Birth
from admodes.diagnosis.ties import Loss

MASKED = (
    "this entry has no influence on the result (its derivative is 0, and 0 times infinity is NaN): make the operand "
    "safe before this line, not only the result behind it, x = where(ok, x, 1.0) and then where(ok, f(x), 0.0) (a "
    "double where); or differentiate with admodes.grad(f, nan_safe=True)"
)
REMOVABLE = (
    "0 times infinity here, but the derivative has a limit that is not 0: admodes.grad(f, nan_safe=True) finds it, or "
    "write the function without the singular detour"
)
UNKNOWN = "0 times infinity here, and no limit was found beside the point: nan_safe=True would keep the NaN"
GIVEN = "it was given: look at where it comes from (data, an earlier step, a constant such as jnp.inf)"
SLOPES = {
    "sqrt": "the slope 1/(2 sqrt(x)) is infinite at 0: for a norm use admodes.subgradient, or sqrt(x + eps)",
    "rsqrt": "1/sqrt(x) has no finite value or slope at 0: rsqrt(x + eps)",
    "cbrt": "the slope of the cube root is infinite at 0",
    "log": "the slope 1/x is infinite at 0: log(x + eps), jax.nn.log_softmax, jax.scipy.special.xlogy",
    "log1p": "the slope 1/(1 + x) is infinite at -1",
    "div": "the divisor is 0: add eps to it, or where(y == 0, 1.0, y)",
    "pow": "at the base 0 the slope y x**(y - 1) is infinite for y < 1, and that of the exponent, log(x), always",
    "integer_pow": "a negative power of 0",
    "acos": "the slope of arccos is infinite at -1 and 1: clip to (-1 + eps, 1 - eps), or take the angle by arctan2",
    "asin": "the slope of arcsin is infinite at -1 and 1: clip to (-1 + eps, 1 - eps), or take the angle by arctan2",
    "acosh": "the slope of arccosh is infinite at 1",
    "atanh": "the slope of arctanh is infinite at -1 and 1: clip to (-1 + eps, 1 - eps)",
    "atan2": "arctan2(0, 0) has no derivative: where(both == 0, 1.0, x) for one of its operands",
}
OVERFLOW = {
    "exp": "exp overflows: subtract the maximum first, or use logsumexp, softmax, softplus, log1p",
    "exp2": "exp2 overflows: subtract the maximum first",
    "expm1": "expm1 overflows: stay with logarithms",
    "sinh": "sinh overflows: stay with logarithms",
    "cosh": "cosh overflows: logaddexp(x, -x) - log(2) is its logarithm",
    "mul": "the product overflows: scale the factors, or add logarithms",
    "add": "the sum overflows: scale it",
    "reduce_sum": "the sum overflows: scale it, or use logsumexp",
    "dot_general": "the product overflows: scale the operands, or use a wider dtype",
    "reduce_prod": "the product overflows: sum the logarithms",
    "square": "the square overflows: scale first (jnp.hypot, jnp.linalg.norm of x / max)",
    "integer_pow": "the power overflows: scale first",
    "pow": "the power overflows: scale first",
    "convert_element_type": "the number is too large for the narrower dtype: scale it (loss scaling)",
    "div": "the quotient overflows: the divisor is tiny, add eps to it",
}
DOMAIN = {
    "log": "the logarithm of a negative number: log(maximum(x, eps))",
    "log1p": "log1p of a number below -1",
    "sqrt": "the square root of a negative number, often -0.0000001 left by cancellation: sqrt(maximum(x, 0))",
    "rsqrt": "the square root of a negative number: maximum(x, eps)",
    "pow": "a negative base with an exponent that is not whole",
    "acos": "arccos beyond [-1, 1], often 1.0000001 left by rounding: clip(x, -1, 1)",
    "asin": "arcsin beyond [-1, 1], often 1.0000001 left by rounding: clip(x, -1, 1)",
    "acosh": "arccosh below 1: maximum(x, 1)",
    "atanh": "arctanh beyond [-1, 1]: clip(x, -1 + eps, 1 - eps)",
    "div": "0/0: where(y == 0, 1.0, y) for the divisor; or divide by y + eps",
    "sub": "infinity minus infinity: a mask that leaves nothing of a row needs a large finite number, not -inf",
    "add": "infinity minus infinity: use a large finite number as mask",
    "mul": "0 times infinity: use where instead of multiplying by a mask",
    "dot_general": "infinity minus infinity or 0 times infinity in a product",
    "reduce_sum": "infinity minus infinity in a sum",
    "rem": "the rest of a division by 0",
}
POLES = {
    "log": "log(0): log(x + eps), jax.nn.log_softmax or xlogy; log1p(x) if the argument is 1 + x",
    "log1p": "log1p(-1): clip to above -1",
    "div": "a division by 0: add eps to the divisor, or where(y == 0, 1.0, y)",
    "rsqrt": "1/sqrt(0): rsqrt(x + eps)",
    "pow": "a negative power of 0",
    "integer_pow": "a negative power of 0",
    "atanh": "arctanh of -1 or 1: clip to (-1 + eps, 1 - eps)",
}
LOSSES = {
    "exp": "expm1(x) is exp(x) - 1 without the loss",
    "cos": "2 sin(x/2)**2 is 1 - cos(x) without the loss",
    "square": "subtract the mean first and then square: var(x) = mean((x - mean(x))**2)",
    "integer_pow": "subtract the mean first and then square; a**2 - b**2 = (a - b) (a + b)",
    "sqrt": "sqrt(a) - sqrt(b) = (a - b)/(sqrt(a) + sqrt(b))",
    "log": "log(a) - log(b) = log1p((a - b)/b)",
    "add": "log1p(x) and expm1(x) keep the digits of 1 + x",
}


def cure(birth: Birth) -> str:
    """The advice for a birth; empty if there is none."""
    if birth.step.name in ("argument", "constant"):
        return GIVEN
    advice = _advice(birth) if birth.cause is None else cure(birth.cause)
    if birth.incoming == 0 and birth.limit is not None:
        return REMOVABLE if birth.limit else f"{UNKNOWN}. Here {advice}" if advice else UNKNOWN
    if birth.sweep == "reverse" and birth.incoming == 0:
        return f"{MASKED}. Here {advice}" if advice else MASKED
    return advice


def _advice(birth: Birth) -> str:
    name = birth.step.name
    if birth.sweep != "value":
        return SLOPES.get(name, "")
    if np.isnan(birth.result):
        return DOMAIN.get(name, "")
    return POLES[name] if name in POLES and _at_pole(birth) else OVERFLOW.get(name, "")


def _at_pole(birth: Birth) -> bool:
    """True if an operand is exactly at the place where the primitive is infinite, rather than merely large."""
    pole = {"div": 0.0, "log1p": -1.0, "atanh": 1.0}.get(birth.step.name, 0.0)
    operand = birth.step.operands[1 if birth.step.name == "div" else 0]
    return bool(np.any(np.abs(np.asarray(operand)) == abs(pole)))


def cure_of_loss(loss: Loss) -> str:
    """The advice for lost digits."""
    return LOSSES.get(loss.cause, "rearrange the formula so that no two nearly equal numbers are subtracted")
