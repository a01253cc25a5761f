"""The rule table, one entry per primitive, by family; and the functions that enter a primitive.

================  ==================================================================================
``elementwise``   out[k] depends on operand[k] only: one partial derivative per operand
``linear``        linear in some operands jointly: the transpose (and how the pattern is found)
``bilinear``      linear in each of two operands separately: a transpose for each
``zero``          the derivative is zero wherever it exists
``function``      a function (residuals, tangents) -> tangents of the results, linear in the tangents
``program``       a function made of other primitives, differentiated in the place of this one
``higher_order``  primitives with sub-programs: a :class:`HigherOrderRule`
================  ==================================================================================

``register`` enters any rule, ``unregister`` takes one out, ``lookup`` finds it, ``supported`` lists all of them.

>>> import jax, jax.numpy as jnp
>>> from jax import lax
>>> from jax.extend.core import Primitive
>>> from jax.interpreters import mlir
>>> import admodes
>>> cube_p = Primitive("cube")
>>> _ = cube_p.def_impl(lambda x: x**3)
>>> _ = cube_p.def_abstract_eval(lambda x: x)
>>> mlir.register_lowering(cube_p, mlir.lower_fun(lambda x: x**3, multiple_results=False))
>>> admodes.rules.elementwise(cube_p, lambda out, x: 3 * x * x)
>>> float(admodes.grad(cube_p.bind)(jnp.array(2.0)))
12.0
>>> admodes.rules.unregister(cube_p)
"""

from admodes.rules import (  # noqa: F401
    advice,
    contractions,
    convolution,
    fft,
    indexing,
    kinks,
    linalg,
    ordering,
    parallel,
    reductions,
    references,
    solve,
    special,
    spectral,
    structural,
    tridiagonal,
    windows,
)
from admodes.rules import elementwise as _family_of_entries  # noqa: F401  (the name is that of the function below)
from admodes.rules.table import (
    HigherOrderRule,
    bilinear,
    elementwise,
    function,
    higher_order,
    linear,
    lookup,
    program,
    register,
    supported,
    unregister,
    zero,
)

__all__ = [
    "HigherOrderRule",
    "bilinear",
    "elementwise",
    "function",
    "higher_order",
    "linear",
    "lookup",
    "program",
    "register",
    "supported",
    "unregister",
    "zero",
]
