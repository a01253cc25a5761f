"""Borrowing JAX's own derivative rule for a primitive that has none here: explicit, for one primitive, for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import jax

from admodes.compare import jax_ad
from admodes.program import jax_compat as jc
from admodes.rules.table import lookup, register, unregister
from admodes.subprograms.lent import LentRule


@contextmanager
def use_jax_rule(primitive: Any, used: Callable[[str], None] = lambda name: None) -> Iterator[None]:
    """While the context is open, ``primitive`` is differentiated by ``jax.jvp`` of its application.

    Reverse mode transposes that, with admodes' rules for the linear primitives it consists of. A rule that the table
    has for the primitive is put aside and comes back at the end.

    Args:
      primitive: a JAX primitive, such as ``lax.tanh_p``.
      used: called with the primitive's name whenever the borrowed rule is asked.

    >>> from jax import lax
    >>> import admodes
    >>> from admodes.compare.fallback import use_jax_rule
    >>> with use_jax_rule(lax.tanh_p):
    ...     float(admodes.grad(lax.tanh)(0.0))
    1.0
    """
    before = lookup(primitive)
    register(primitive, LentRule(partial(_push_by_jax, used), _pull_by_jax))
    try:
        yield
    finally:
        if before is None:
            unregister(primitive)
        else:
            register(primitive, before)


@contextmanager
def borrowing(fun: Callable, args: Sequence) -> Iterator[list[str]]:
    """JAX's rules for all primitives of ``fun`` that have none here; gives the sorted names of those asked."""
    borrowed: list[str] = []

    def used(name: str) -> None:
        borrowed[:] = sorted({*borrowed, name})

    with ExitStack() as stack:
        for primitive in set(_primitives(jc.inner(jax.make_jaxpr(fun)(*args)))):
            if lookup(primitive) is None:
                stack.enter_context(use_jax_rule(primitive, used))
        yield borrowed


def _primitives(jaxpr: jc.Jaxpr) -> Iterator[Any]:
    for equation in jaxpr.eqns:
        yield equation.primitive
        for leaf in jax.tree_util.tree_leaves(list(equation.params.values())):
            if isinstance(leaf, (jc.ClosedJaxpr, jc.Jaxpr)):
                yield from _primitives(jc.inner(leaf))


def _push_by_jax(used, primitive, primals, tangents, params) -> tuple[list, list]:
    used(primitive.name)
    active = [t is not None for t in tangents]
    given = tuple(p for p, on in zip(primals, active, strict=True) if on)
    outs, ts = jax_ad.jvp(
        _of_active(primitive, primals, active, params), given, tuple(t for t in tangents if t is not None)
    )
    return outs, [t if jc.is_differentiable(jc.typeof(o)) else None for o, t in zip(outs, ts, strict=True)]


def _pull_by_jax(primitive, operands, active, cotangents, codomain, params) -> list:
    """The transpose of an application that is linear in the active operands (of which the types are given)."""
    types = [x for x, on in zip(operands, active, strict=True) if on]
    gs = [jc.zeros(a) if g is None else g for g, a in zip(cotangents, codomain, strict=True)]
    cts = iter(jax.linear_transpose(_of_active(primitive, operands, active, params), *types)(gs))
    return [next(cts) if on else None for on in active]


def _of_active(primitive, operands, active, params) -> Callable:
    """The application as a function of its active operands that returns a list."""

    def apply(*values):
        given = iter(values)
        results = primitive.bind(*(next(given) if on else x for x, on in zip(operands, active, strict=True)), **params)
        return list(results) if primitive.multiple_results else [results]

    return apply
