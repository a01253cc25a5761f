"""Tracing a user's function into a program."""

from __future__ import annotations

from collections.abc import Callable

import jax

from admodes.program import jax_compat as jc
from admodes.program.ir import Program, from_jaxpr


def trace(fun: Callable, *args, **kwargs) -> Program:
    """The program of ``fun`` at arguments of these shapes and dtypes; its inputs and outputs are the flat leaves.

    >>> import jax.numpy as jnp
    >>> from admodes.program.trace import trace
    >>> [e.primitive.name for e in trace(lambda x: jnp.sin(x) * x, 1.0).equations]
    ['sin', 'mul']
    """
    return from_jaxpr(jc.without_references(jax.make_jaxpr(fun)(*args, **kwargs)))
