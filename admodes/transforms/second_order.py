"""Second order: forward over reverse. Whole Hessians are planned (:func:`admodes.hessian`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from admodes.program import jax_compat as jc
from admodes.transforms.forward import jvp
from admodes.transforms.reverse import grad


@jc.api_boundary
def hvp(fun: Callable[..., Any], primals: Any, tangents: Any, *, has_aux: bool = False) -> Any:
    r"""Hessian-vector product ∇²f(x) v of a scalar function, forward over reverse: the Hessian is never formed.

    Args:
      fun: a scalar function of one pytree x, or of several arguments if ``primals`` is a tuple.
      primals: x, or a tuple with all arguments.
      tangents: v, of the structure of ``primals``.
      has_aux: whether ``fun`` returns a pair (output, auxiliary data).

    Returns:
      ∇²f(x) v with the structure of ``primals``; with ``has_aux`` a pair of that and the auxiliary data.

    >>> import admodes, jax.numpy as jnp
    >>> admodes.hvp(lambda x: jnp.sum(x**3), jnp.array([1.0, 2.0]), jnp.array([1.0, 1.0])).tolist()
    [6.0, 12.0]

    Reference: Pearlmutter, "Fast exact multiplication by the Hessian", Neural Computation 6 (1994).
    """
    several = isinstance(primals, tuple)
    args, vectors = (primals, tangents) if several else ((primals,), (tangents,))
    gradient = grad(fun, argnums=tuple(range(len(args))), has_aux=has_aux)
    _, products, *aux = jvp(gradient, args, vectors, has_aux=has_aux)
    products = products if several else products[0]
    return (products, *aux) if has_aux else products
