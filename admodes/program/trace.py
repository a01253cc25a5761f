"""Traces: a user's function as a program, and what stands in the way of that.

All that looks at a function as a whole (plans, patterns, pictures) starts here.
"""

from __future__ import annotations

from collections.abc import Callable

import jax

from admodes.errors import PlanningError, UntraceableError
from admodes.program import jax_compat as jc
from admodes.program.ir import Program, from_jaxpr

UNTRACEABLE = (  # what make_jaxpr raises for functions that use values
    jax.errors.ConcretizationTypeError,
    jax.errors.NonConcreteBooleanIndexError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)


def trace(fun: Callable, *args, **kwargs) -> Program:
    """The program of ``fun`` at arguments of these shapes and dtypes; its inputs and outputs are the flat leaves.

    >>> import jax.numpy as jnp
    >>> from admodes.program.trace import trace
    >>> [e.primitive.name for e in trace(lambda x: jnp.sin(x) * x, 1.0).equations]
    ['sin', 'mul']
    """
    return from_jaxpr(closed_jaxpr(fun, *args, **kwargs))


def closed_jaxpr(fun: Callable, *args, **kwargs) -> jc.ClosedJaxpr:
    """The jaxpr of ``fun``, its mutable references replaced by values.

    Raises:
      UntraceableError: the function decides on the values of its arguments in Python, so that it is no one program.
      PlanningError: shapes in it depend on these values.
    """
    try:
        return jc.without_references(jax.make_jaxpr(fun)(*args, **kwargs))
    except UNTRACEABLE as error:
        reason = str(error).splitlines()[0].rstrip(".")
        shapes = isinstance(error, jax.errors.NonConcreteBooleanIndexError)
        raise (PlanningError if shapes else UntraceableError)(
            "this needs a function that can be traced, as jax.jit does, but it uses the values of its arguments in "
            f"Python, at {jc.place_of(error)}: {reason}. Use jax.lax.cond or jnp.where there, or a "
            "derivative that runs the function on the values: admodes.jacfwd, jacrev, or grad without memory_limit."
        ) from error
