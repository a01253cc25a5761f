"""Loops whose results depend on an argument through comparisons only: a bisection, say.

Such a result may be a smooth function of the argument, but its derivative does not pass through the program: each
comparison is constant beside the point, so that what comes out is 0, or the derivative of the first guess.
"""

from __future__ import annotations

from collections.abc import Sequence

from admodes.program import jax_compat as jc


def only_compared(body, interpreter, active: Sequence[bool], n_consts: int, n_carry: int) -> list[int]:
    """The active operands of the body of a loop that stay the same in it and reach its results by comparisons only.

    An operand that decides in the condition of the loop alone, a tolerance, is none of these. Nor is any of a body that
    holds ``stop_gradient``: there the user says that no derivative is wanted.
    """
    inside = jc.inner(body)
    if any(e.primitive is jc.stop_gradient_p or jc.mentions(e.params, (jc.stop_gradient_p,)) for e in inside.eqns):
        return []
    found = []
    for i, on in enumerate(active):
        own = i - n_consts  # the result that the operand is, if it is carried
        is_carry = 0 <= own < n_carry
        if not on or (is_carry and inside.outvars[own] is not inside.invars[i]) or own >= n_carry:
            continue
        alone = tuple(k == i for k in range(len(active)))
        moves = [k != own and jc.is_differentiable(a) for k, a in enumerate(body.out_avals)]
        depends = any(d and m for d, m in zip(jc.depends_on(body, alone), moves, strict=True))
        if depends and not any(r and m for r, m in zip(interpreter.reached(body, alone), moves, strict=True)):
            found.append(i)
    return found
