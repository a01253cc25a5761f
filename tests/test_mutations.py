"""A mutation run: the rule of each primitive is made wrong by a hundredth in turn, and a program has to notice.

``pytest -m slow tests/test_mutations.py``. The programs are the operations of the fuzz test, which JAX's derivatives
are compared with there, and those below for what these do not contain.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from admodes.modes.dual import Dual
from admodes.modes.interpreter import Interpreter
from admodes.rules import supported
from admodes.rules.table import entries
from admodes.transforms.forward import pushed
from tests.operations import OPERATIONS
from tests.programs import BINARY, REDUCTIONS, UNARY, VECTOR_TO_VECTOR


@dataclass(frozen=True)
class Mutant(Interpreter):
    """Forward mode with the tangents that one primitive makes wrong; SEEN are the primitives that made any."""

    mutated: str = ""

    def push_equation(self, primitive, duals, params):
        found = super().push_equation(primitive, duals, params)
        if all(d.tangent is None for d in found):
            return found
        SEEN.add(primitive.name)
        if primitive.name != self.mutated:
            return found
        return [Dual(d.primal, None if d.tangent is None else d.tangent * 1.01) for d in found]


@jax.custom_vjp
def double(x):
    return jnp.sin(x)


double.defvjp(lambda x: (double(x), x), lambda x, g: (g * jnp.cos(x),))

# what the operations of the fuzz test do not contain; their tangents agree with differences
OTHERS = {
    "complex parts": lambda v: jnp.abs(lax.complex(jnp.sin(v), jnp.cos(v)) + 2),
    "igammac": lambda v: lax.igammac(2.0 + jnp.sin(v), 1.5 + jnp.cos(v)),
    "zeta": lambda v: lax.zeta(jnp.full(3, 3.0), 1.5 + jnp.sin(v)),
    "subtracted entries": lambda v: lax.scatter_sub(v, jnp.array([[1], [0]]), jnp.sin(v[:2]), SCATTER),
    "general reduction": lambda v: lax.reduce(jnp.outer(v, jnp.cos(v)), 0.0, lambda a, b: a + b + a * b / 9, (0,)),
    "custom_vjp": double,
    "while": lambda v: lax.while_loop(lambda c: jnp.sum(c * c) < 20.0, lambda c: c * 1.5 + 0.1, v),
    "sum over an axis": jax.vmap(lambda x: jnp.sin(lax.psum(x, "i")) * x, axis_name="i"),
    "permuted": jax.vmap(lambda x: jnp.sin(lax.ppermute(x, "i", [(0, 1), (1, 2), (2, 0)])) * x, axis_name="i"),
    "gathered": jax.vmap(lambda x: jnp.sum(jnp.cos(lax.all_gather(x, "i"))) * x, axis_name="i"),
    "loaded": lambda v: jnp.ldexp(v, 2),
    "ragged product": lambda v: lax.ragged_dot(
        jnp.outer(v, jnp.cos(v)), jnp.stack([jnp.outer(v, v)] * 2), jnp.array([1, 2])
    )[:, 0],
    "eigenvalues": lambda v: (
        jnp.linalg.eigvals(jnp.diag(jnp.array([2.0, 4.0, 7.0])) + jnp.outer(jnp.sin(v), jnp.cos(v))).real
    ),
    "copied": lambda v: jnp.sin(jnp.copy(v)),
    "put": lambda v: jnp.sin(jax.device_put(v)),
    "neighbour": lambda v: lax.nextafter(jnp.sin(v), jnp.full(3, jnp.inf)),
    "general window": lambda v: lax.reduce_window(jnp.sin(v), 1.0, lax.mul, (2,), (1,), "SAME"),
    "gradient of a pool": lambda v: jax.vjp(
        lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (2,), (1,), "VALID"), jnp.array([1.0, 3.0, 2.0])
    )[1](jnp.sin(v[:2]))[0],
    "one minus square": lambda v: jax.jvp(jnp.tanh, (v,), (jnp.ones(3),))[1],
}
SCATTER = lax.ScatterDimensionNumbers((), (0,), (0,))
SEEN: set = set()
POINT, DIRECTION = jnp.array([0.3, -0.7, 1.2]), jnp.array([1.0, 0.5, -2.0])


def tangent(f, mutated=""):
    return np.asarray(pushed(Mutant(mutated=mutated), f, (POINT,), (DIRECTION,))[1], float)


def battery():
    """Functions of one vector, by name."""
    found = {**OPERATIONS, **OTHERS}
    found |= {f"vector: {name}": f for name, f in VECTOR_TO_VECTOR.items()}
    found |= {f"unary: {name}": f for name, f in UNARY.items()}
    found |= {f"binary: {name}": lambda v, f=f: f(v, jnp.cos(v)) for name, f in BINARY.items()}
    found |= {f"reduction: {name}": f for name, f in REDUCTIONS.items()}
    return found


def unnoticed() -> tuple[set, set, dict]:
    """The names of primitives that are met: those whose mutation no program notices; all; who noticed the others."""
    noticed: dict = {}
    met: set = set()
    for name, f in battery().items():
        SEEN.clear()
        right = tangent(f)
        here = set(SEEN)
        met |= here
        for primitive in sorted(here - noticed.keys()):
            wrong = tangent(f, primitive)
            if not np.allclose(wrong, right, rtol=1e-4, atol=1e-6):
                noticed[primitive] = name
    return met - noticed.keys(), met, noticed


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_other_operations(name):
    step = 1e-6 * DIRECTION
    difference = (OTHERS[name](POINT + step) - OTHERS[name](POINT - step)) / 2e-6
    np.testing.assert_allclose(tangent(OTHERS[name]), difference, rtol=1e-6, atol=1e-8)


@pytest.mark.slow
def test_every_mutation_is_noticed(capsys):
    missed, met, noticed = unnoticed()
    zero = {name for name, kind in supported().items() if kind == "zero"}
    never = {primitive.name for primitive in entries()} - met - zero
    with capsys.disabled():
        print(f"\n{len(noticed)} noticed, {len(missed)} not: {sorted(missed)}; never met: {sorted(never)}")
    assert not missed
