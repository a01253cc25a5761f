"""Cures: the usual one for each way in which a value or a derivative is not finite.

The words are said of each primitive, as its trait ``advice`` (``rules/advice.py``).
"""

from __future__ import annotations

import numpy as np

from admodes.diagnosis.births import Birth
from admodes.diagnosis.ties import Loss
from admodes.program.traits import Advice, traits

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
    advice = traits(birth.step.primitive).advice
    if birth.sweep != "value":
        return advice.slope
    if np.isnan(birth.result):
        return advice.domain
    return advice.pole if advice.pole and _at_pole(birth, advice) else advice.overflow


def _at_pole(birth: Birth, advice: Advice) -> bool:
    """True if an operand is exactly at the place where the primitive is infinite, rather than merely large."""
    return bool(np.any(np.abs(np.asarray(birth.step.operands[advice.pole_of])) == abs(advice.pole_at)))


def cure_of_loss(loss: Loss) -> str:
    """The advice for lost digits."""
    return loss.cure or "rearrange the formula so that no two nearly equal numbers are subtracted"
