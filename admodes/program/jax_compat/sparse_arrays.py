"""Sparse arrays: what their rules need of ``jax.experimental.sparse``, which is imported on first use."""

from __future__ import annotations

from collections.abc import Callable

from admodes.program.jax_compat.jaxprs import Primitive


def sparse_definitions() -> dict[Primitive, Callable]:
    """The primitives of ``jax.experimental.sparse``, each with the function by which JAX defines its value."""
    from jax.experimental.sparse import api, bcoo, bcsr, coo, csr

    return {
        primitive: getattr(module, f"_{primitive.name}_impl")
        for module in (api, bcoo, bcsr, coo, csr)
        for primitive in vars(module).values()
        if isinstance(primitive, Primitive) and hasattr(module, f"_{primitive.name}_impl")
    }


def csr_rows(indices, indptr):
    """The row of each entry of a CSR matrix."""
    from jax.experimental.sparse.util import _csr_to_coo

    return _csr_to_coo(indices, indptr)[0]
