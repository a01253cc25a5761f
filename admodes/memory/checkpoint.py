"""Checkpoints: what reverse mode keeps of a function, said by the user, by a policy, or by a limit in bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import jax

from admodes.checkpointing.policies import DEFAULT_SLOTS, Checkpoints
from admodes.modes.flat import wraps
from admodes.program import jax_compat as jc

F = TypeVar("F", bound=Callable)


def checkpoint(fun: F, policy: str = "revolve", *, slots: int | None = None, tapes: int | None = None) -> F:
    r"""``fun``, of which reverse mode keeps less and computes the rest again.

    The policy is for the loops of ``fun`` (``lax.scan``, ``lax.fori_loop``, outermost ones); where it has none, the
    blocks of its program are the steps. For l steps of a state of b bytes with a tape of t bytes:

    ============  =================================  ====================================================
    policy        keeps                              runs beside the first sweep
    ============  =================================  ====================================================
    ``revolve``   s b + t for s = ``slots``          r l − C(s+r, s+1) steps, r least with C(s+r, s) ≥ l
    with tapes    s b + k t for k = ``tapes``        k times as many as for ⌈l/k⌉ steps
    ``sqrt``      √l (b + t)                         l steps
    ``every``     l b + t                            l steps
    ``none``      l t                                nothing
    ============  =================================  ====================================================

    Args:
      fun: a function of pytrees of arrays.
      policy: "revolve", "sqrt", "every" or "none". A function without loops is one step for "every": only its
        arguments are kept.
      slots: how many states "revolve" keeps; also for each ``lax.while_loop`` and ``lax.fori_loop`` with traced bounds,
        under any policy, and without :func:`checkpoint`. By default 100.
      tapes: how many steps in a row these walk back at once, keeping the tapes of all. By default 1 if ``slots`` is
        given, so that the schedule is the binomial one step by step, and otherwise as many as take a quarter of what
        the slots take: with 25, up to 128,775 steps are run at most twice more, with 1 up to 5,151.

    Returns:
      A function with the values and derivatives of ``fun``. ``jax.checkpoint`` carries the policy: in JAX's own
      reverse mode, all is computed again.

    Raises:
      ValueError: there is no such policy, or ``slots`` or ``tapes`` is less than 1.
      admodes.errors.SideEffectError: (when it is differentiated) steps to be run again have side effects.

    >>> import admodes, jax.numpy as jnp
    >>> from jax import lax
    >>> def orbit(x):
    ...     return lax.fori_loop(0, 1000, lambda i, y: y + 0.001 * jnp.sin(y), x)
    >>> bool(abs(admodes.grad(admodes.checkpoint(orbit, slots=5))(1.0) - admodes.grad(orbit)(1.0)) < 1e-5)
    True

    References: Griewank and Walther, "Algorithm 799: revolve", ACM TOMS 26 (2000); Wang, Moin and Iaccarino, SIAM J.
    Sci. Comput. 31 (2009); Chen, Xu, Zhang and Guestrin, "Training deep nets with sublinear memory cost" (2016).
    """
    jc.check_callable(fun)
    if slots is None:
        checkpoints = Checkpoints(policy, DEFAULT_SLOTS, tapes)
    else:
        checkpoints = Checkpoints(policy, slots, 1 if tapes is None else tapes)
    checkpointed = jax.checkpoint(fun, policy=checkpoints)
    return cast(F, wraps(fun, f"Checkpointed ({policy})")(lambda *args, **kwargs: checkpointed(*args, **kwargs)))
