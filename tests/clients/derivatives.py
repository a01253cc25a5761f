"""One check for all clients: every derivative of a case is JAX's, eagerly, under jit, under vmap, at second order."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import admodes

FORWARD, REVERSE, SECOND = ("jvp",), ("value_and_grad", "jacobian"), ("hvp",)
FIRST = (*FORWARD, *REVERSE)
EVERY = (*FIRST, "linearize", "jacfwd", "vjp", "grad", "jacrev", *SECOND, "hessian")  # takes long to compile


@dataclass(frozen=True, eq=False)
class Case:
    """A function of a pytree of floats, through a client, and where to differentiate it.

    ``modes`` are derivatives that JAX has for it (a custom_vjp has no forward mode, a while loop no reverse mode): one
    of a kind, but all of them for a case or two of each client. ``rtol`` is how far two ways to compute the same may be
    apart: iterations end within their tolerance.
    """

    name: str
    fun: Callable
    x: Any
    modes: tuple[str, ...] = (*FIRST, *SECOND)
    rtol: float = 1e-8

    def loss(self, x):
        flat, _ = ravel_pytree(self.fun(x))
        return jnp.sum(jnp.sin(flat) * (1 + jnp.arange(flat.size)))

    def direction(self):
        """A tangent of x."""
        flat, unravel = ravel_pytree(self.x)
        return unravel(jnp.cos(jnp.arange(flat.size, dtype=flat.dtype)))

    def derivative(self, library, mode: str, x):
        v = self.direction()
        if mode == "jvp":
            return library.jvp(self.fun, (x,), (v,))
        if mode == "linearize":
            y, push = library.linearize(self.fun, x)
            return y, push(v)
        if mode == "vjp":
            y, pull = library.vjp(self.fun, x)
            return y, pull(jax.tree.map(jnp.cos, y))
        if mode in ("grad", "value_and_grad", "hessian"):
            return getattr(library, mode)(self.loss)(x)
        if mode == "hvp":
            if library is jax:
                return jax.jvp(jax.grad(self.loss), (x,), (v,))[1]
            return library.hvp(self.loss, x, v)
        return getattr(library, mode)(self.fun)(x)

    def derivatives(self, library, modes, x):
        return {mode: self.derivative(library, mode, x) for mode in modes}

    @functools.cached_property
    def first(self):
        return [mode for mode in self.modes if mode not in ("hvp", "hessian")]

    @functools.cached_property
    def second(self):
        return [mode for mode in self.modes if mode in ("hvp", "hessian")]

    @functools.cached_property
    def expected(self):
        """JAX's values of first order."""
        return jax.jit(functools.partial(self.derivatives, jax, self.first))(self.x)

    def same(self, actual, expected):
        for mode, values in expected.items():
            theirs, structure = jax.tree.flatten(values)
            ours, ours_structure = jax.tree.flatten(actual[mode])
            assert ours_structure == structure, mode
            for a, e in zip(ours, theirs, strict=True):
                assert (a.shape, a.dtype) == (e.shape, e.dtype), mode
                scale = float(np.max(np.abs(e), initial=0.0))
                np.testing.assert_allclose(a, e, rtol=self.rtol, atol=self.rtol * scale, err_msg=mode)


def eagerly(case: Case):
    """Without the Jacobians, which are traced (vmap) whoever calls them: compiling each operation takes long."""
    modes = [mode for mode in ("jvp", "linearize", "vjp", "value_and_grad") if mode in case.first]
    case.same(case.derivatives(admodes, modes, case.x), {mode: case.expected[mode] for mode in modes})


def under_jit(case: Case):
    case.same(jax.jit(functools.partial(case.derivatives, admodes, case.first))(case.x), case.expected)


def under_vmap(case: Case):
    modes = [mode for mode in ("jvp", "value_and_grad") if mode in case.modes]
    xs = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf * 1.05]), case.x)
    ours, theirs = (jax.jit(jax.vmap(functools.partial(case.derivatives, d, modes)))(xs) for d in (admodes, jax))
    case.same(ours, theirs)


def second_order(case: Case):
    ours, theirs = (jax.jit(functools.partial(case.derivatives, d, case.second))(case.x) for d in (admodes, jax))
    case.same(ours, theirs)


def every_derivative(cases: Iterable[Case]):
    """The parameters of a test ``def test_derivatives(case, way)``: each case in each way in which JAX has it."""
    ways = (eagerly, under_jit, under_vmap, second_order)
    return pytest.mark.parametrize(
        ("case", "way"),
        [
            pytest.param(case, way, id=f"{case.name}-{way.__name__}")
            for case in cases
            for way in ways
            if way is not second_order or case.second
        ],
    )


def client(name: str):
    """The library ``name``, or the file that asks for it is skipped, with a word why."""
    with warnings.catch_warnings():  # what a library says about itself, or about its own imports, is not ours
        warnings.simplefilter("ignore")
        return pytest.importorskip(
            name, reason=f"{name} does not import here: pip install '.[test-clients]'", exc_type=ImportError
        )
