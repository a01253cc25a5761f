r"""Sparse arrays of ``jax.experimental.sparse``: BCOO, BCSR, COO, CSR. Loaded when that module is (see the table).

A sparse array is data :math:`d_k` at integer indices; derivatives are with respect to the data and to dense operands.
JAX defines each of these primitives by a function of gathers and scatters. Either that function is differentiated in
the place of the primitive, or, where the primitive is linear in its operands one by one, it is its own push, and the
function tells the transpose: indices that are out of bounds (padding) then receive no cotangent, and repeated ones
all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jax import lax
from jax import numpy as jnp
from jax.experimental.sparse import linalg

from admodes.linear.maps import Sum, add
from admodes.program import jax_compat as jc
from admodes.rules.table import FunctionRule, LinearRule, LocalRule, program, register

DEFINITIONS = {primitive.name: (primitive, run) for primitive, run in jc.sparse_definitions().items()}


@dataclass(frozen=True)
class _Transpose:
    """The transpose of ``run`` with respect to one operand, in which it is linear."""

    run: Callable
    place: int
    interpreter: Any

    def __call__(self, g, *operands, **params):
        cts = _flat(g)

        def run(t):
            outs = _flat(self.run(*operands[: self.place], t, *operands[self.place + 1 :], **params))
            return [out for out, ct in zip(outs, cts, strict=True) if ct is not None]

        return self.interpreter.transpose(run, [operands[self.place]], [ct for ct in cts if ct is not None])


def _flat(outs) -> tuple:
    return tuple(outs) if isinstance(outs, (tuple, list)) else (outs,)


@dataclass(frozen=True)
class MultilinearRule(LocalRule):
    """Linear in each of the operands at ``places`` separately: J = Σ Jᵢ."""

    run: Callable
    places: tuple
    kind = "multilinear"

    def definition(self, *operands, **params):
        return list(_flat(self.run(*operands, **params)))

    def jacobian(self, interpreter, primitive, outs, primals, active, params):
        domain, codomain = tuple(map(jc.typeof, primals)), tuple(map(jc.typeof, outs))
        terms = []
        for place in self.places:
            if active[place]:
                rule = LinearRule(_Transpose(self.run, place, interpreter), (place,))
                only = tuple(i == place for i in range(len(primals)))
                terms.append(rule.jacobian(interpreter, primitive, outs, primals, only, params))
        return terms[0] if len(terms) == 1 else Sum(tuple(terms), domain, codomain)


def multilinear(name: str, *places: int) -> None:
    """Register a primitive that is linear in each of the operands at ``places``."""
    primitive, run = DEFINITIONS[name]
    register(primitive, MultilinearRule(run, places), cost="scattering")


def defined(name: str) -> None:
    """Register a primitive whose definition is differentiated."""
    primitive, run = DEFINITIONS[name]
    program(primitive, lambda *operands, **params: list(_flat(run(*operands, **params))), cost="scattering")


# -- conversions: the data, or the dense array ---------------------------------------------------------------

multilinear("bcoo_todense", 0)
multilinear("bcsr_todense", 0)
multilinear("coo_todense", 0)
multilinear("csr_todense", 0)
multilinear("todense", 0)
multilinear("bcoo_extract", 1)
multilinear("bcsr_extract", 2)
multilinear("bcoo_transpose", 0)
defined("bcoo_fromdense")  # where the nonzeros are depends on the value, so that these are not linear
defined("bcsr_fromdense")
defined("coo_fromdense")
defined("csr_fromdense")
defined("bcoo_sort_indices")
defined("bcoo_sum_duplicates")

# -- products ------------------------------------------------------------------------------------------------

multilinear("bcoo_dot_general", 0, 2)
multilinear("bcoo_dot_general_sampled", 0, 1)
multilinear("bcoo_spdot_general", 0, 2)
multilinear("bcsr_dot_general", 0, 3)
multilinear("coo_matvec", 0, 3)
multilinear("coo_matmat", 0, 3)
multilinear("csr_matvec", 0, 3)
multilinear("csr_matmat", 0, 3)

# -- spsolve: A x = b gives ẋ = A⁻¹ (ḃ - Ȧ x) ----------------------------------------------------------------


def _transposed_csr(data, indices, indptr):
    """(data, indices, indptr) of Aᵀ for a square A; entries behind the last row (padding) stay behind it."""
    size = indptr.shape[0] - 1
    rows = jc.csr_rows(indices, indptr)
    columns = jnp.where(rows < size, indices, size)
    columns, rows, data = lax.sort((columns, rows, data), num_keys=2)
    return data, rows, jnp.searchsorted(columns, jnp.arange(size + 1)).astype(indptr.dtype)


def _pull_rhs(g, data, indices, indptr, b, **params):
    return linalg.spsolve_p.bind(*_transposed_csr(data, indices, indptr), g, **params)


def _push_solve(outs, primals, tangents, **params):
    (x,), (data, indices, indptr, _), (da, _, _, db) = outs, primals, tangents
    if da is not None:
        shape = (x.shape[0], x.shape[0])
        da = lax.neg(DEFINITIONS["csr_matvec"][0].bind(da, indices, indptr, x, shape=shape, transpose=False))
    return (linalg.spsolve_p.bind(data, indices, indptr, add(da, db), **params),)


class SparseSolveRule(LocalRule):
    """Linear in the right-hand side, which is what the derivative with respect to the matrix is made of."""

    kind = "solve"

    def jacobian(self, interpreter, primitive, outs, primals, active, params):
        rule = FunctionRule(_push_solve) if active[0] else LinearRule(_pull_rhs, (3,))
        return rule.jacobian(interpreter, primitive, outs, primals, active, params)


register(linalg.spsolve_p, SparseSolveRule(), cost="solving")
