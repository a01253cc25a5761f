"""Values that are not arrays: types that users define with jax.experimental.hijax, and their tangents."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import hijax

import admodes

HiPrim = getattr(hijax, "HiPrim", None) or hijax.VJPHiPrimitive  # its name before jax 0.11
SCALAR = jax.typeof(jnp.float64(1.0))
POINT = jnp.float64(0.7)


@dataclass(frozen=True)
class Pair:
    """Two numbers that are one value for JAX."""

    a: Any
    b: Any


@dataclass(frozen=True)
class PairType(hijax.HiType):
    """The type of pairs, which is that of their tangents too."""

    name: str = "Pair"

    def str_short(self, *args, **kwargs):
        return self.name

    def lo_ty(self):
        return [SCALAR, SCALAR]

    def lower_val(self, pair):
        return [pair.a, pair.b]

    def raise_val(self, a, b):
        return Pair(a, b)

    def to_tangent_aval(self):
        return PairType()

    def vspace_zero(self):
        return pair(jnp.float64(0.0), jnp.float64(0.0))

    def vspace_add(self, x, y):
        return plus(x, y)


hijax.register_hitype(Pair, lambda _: PairType())


class Make(HiPrim):
    def __init__(self):
        self.in_avals, self.out_aval, self.params = (SCALAR, SCALAR), PairType(), {}
        super().__init__()

    def expand(self, a, b):
        return Pair(a, b)

    def vjp_fwd(self, nonzeros, a, b):
        return self(a, b), None

    def vjp_bwd_retval(self, residuals, g):
        return get(g, 0), get(g, 1)

    def jvp(self, primals, tangents):
        return self(*primals), self(*(jnp.zeros(()) if isinstance(t, hijax.Zero) else t for t in tangents))


class Get(HiPrim):
    def __init__(self, i):
        self.in_avals, self.out_aval, self.params = (PairType(),), SCALAR, {"i": i}
        super().__init__()

    def expand(self, x):
        return (x.a, x.b)[self.i]

    def vjp_fwd(self, nonzeros, x):
        return self(x), None

    def vjp_bwd_retval(self, residuals, g):
        zero = jnp.zeros(())
        return (pair(*((g, zero) if self.i == 0 else (zero, g))),)

    def jvp(self, primals, tangents):
        return self(*primals), self(*tangents)


class Plus(HiPrim):
    """Its forward mode is the transpose of its pullback."""

    def __init__(self):
        self.in_avals, self.out_aval, self.params = (PairType(), PairType()), PairType(), {}
        super().__init__()

    def expand(self, x, y):
        return Pair(x.a + y.a, x.b + y.b)

    def vjp_fwd(self, nonzeros, x, y):
        return self(x, y), None

    def vjp_bwd_retval(self, residuals, g):
        return g, g


def pair(a, b):
    return Make()(a, b)


def get(x, i):
    return Get(i)(x)


def plus(x, y):
    return Plus()(x, y)


def inside(x):
    """4 x² sin² x, by way of pairs."""
    p = pair(jnp.sin(x), x * x)
    q = plus(p, p)
    return get(q, 0) * get(q, 1) * get(p, 0)


def plain(x):
    return 4 * jnp.sin(x) ** 2 * x * x


FIRST = {
    "grad": lambda f, x: admodes.grad(f)(x),
    "jvp": lambda f, x: admodes.jvp(f, (x,), (1.0,))[1],
    "grad under jit": lambda f, x: jax.jit(admodes.grad(f))(x),
    "grad of jit": lambda f, x: admodes.grad(jax.jit(f))(x),
    "jvp of jit": lambda f, x: admodes.jvp(jax.jit(f), (x,), (1.0,))[1],
    "checkpoint": lambda f, x: admodes.grad(jax.checkpoint(f))(x),
    "memory_limit": lambda f, x: admodes.grad(f, memory_limit=10**6)(x),
    "subgradient": lambda f, x: admodes.subgradient(f)(x),
    "cond": lambda f, x: admodes.grad(lambda x: lax.cond(x > 0, f, jnp.sin, x))(x),
}


@pytest.mark.parametrize("mode", FIRST)
def test_first_derivatives(mode):
    np.testing.assert_allclose(FIRST[mode](inside, POINT), jax.grad(plain)(POINT), rtol=1e-12)


@pytest.mark.parametrize(
    "derivative",
    [
        lambda f, x: admodes.grad(admodes.grad(f))(x),
        lambda f, x: admodes.jvp(admodes.grad(f), (x,), (1.0,))[1],
        lambda f, x: admodes.grad(lambda x: admodes.jvp(f, (x,), (1.0,))[1])(x),
    ],
)
def test_second_derivatives(derivative):
    np.testing.assert_allclose(derivative(inside, POINT), jax.grad(jax.grad(plain))(POINT), rtol=1e-12)


def test_a_loop_that_carries_a_pair():
    def f(x):
        return get(lax.scan(lambda c, _: (plus(c, c), None), pair(x, x), None, length=3)[0], 0)

    assert admodes.grad(f)(POINT) == 8.0
    assert admodes.jvp(f, (POINT,), (1.0,))[1] == 8.0


def test_arguments_and_results_that_are_pairs():
    f = lambda p: get(p, 0) ** 2 * get(p, 1)
    p = Pair(jnp.float64(3.0), jnp.float64(5.0))
    gradient = admodes.grad(f)(p)
    assert isinstance(gradient, Pair)
    assert (gradient.a, gradient.b) == (30.0, 9.0)
    assert admodes.jvp(f, (p,), (Pair(jnp.float64(1.0), jnp.float64(2.0)),))[1] == 48.0
    _, pullback = admodes.vjp(lambda x: pair(x, x * x), POINT)
    np.testing.assert_allclose(pullback(Pair(POINT, POINT))[0], POINT + 2 * POINT**2)
    assert isinstance(admodes.jvp(lambda x: pair(x, x * x), (POINT,), (1.0,))[1], Pair)


def test_what_is_about_entries_of_arrays_says_so():
    p = Pair(POINT, POINT)
    with pytest.raises(TypeError, match="Pair"):
        admodes.jacrev(lambda p: get(p, 0))(p)
    with pytest.raises(TypeError, match="Pair"):
        admodes.jvp(lambda p: get(p, 0), (p,), (1.0,))
    with pytest.raises(TypeError, match="Pair"):
        admodes.explain(inside, POINT)


@dataclass(frozen=True)
class Held:
    """An array as a value of a type of the user's."""

    value: Any


@dataclass(frozen=True)
class HeldType(hijax.HiType):
    inner: Any

    def lo_ty(self):
        return [self.inner]

    def lower_val(self, held):
        return [held.value]

    def raise_val(self, value):
        return Held(value)

    def to_tangent_aval(self):
        return HeldType(self.inner.to_tangent_aval())

    def to_ct_aval(self):
        return HeldType(self.inner.to_ct_aval())

    def shard(self, mesh, manual_axes, check_vma, spec):
        return HeldType(self.inner.shard(mesh, manual_axes, check_vma, spec.inner))

    def unshard(self, mesh, check_vma, spec):
        return HeldType(self.inner.unshard(mesh, check_vma, spec.inner))


hijax.register_hitype(Held, lambda held: HeldType(jax.typeof(held.value)))


@dataclass(frozen=True)
class HeldSpec(hijax.HiPspec):
    inner: Any

    def to_lo(self):
        return [self.inner]

    def to_tangent_spec(self):
        return self

    def to_ct_spec(self):
        return self


class Times(HiPrim):
    def __init__(self, aval):
        self.in_avals, self.out_aval, self.params = (aval, aval), aval, {}
        super().__init__()

    def expand(self, x, y):
        return Held(x.value * y.value)

    def vjp_fwd(self, nonzeros, x, y):
        return self(x, y), (x, y)

    def vjp_bwd_retval(self, residuals, g):
        x, y = residuals
        return self(g, y), self(g, x)


def test_shard_map_of_a_users_type():
    """What the backward pass keeps are operands, which need no layout of their own."""
    mesh = jax.make_mesh((4,), ("i",), axis_types=(jax.sharding.AxisType.Explicit,))
    spec = HeldSpec(jax.P("i"))
    with jax.set_mesh(mesh):
        x, y, g = (jax.device_put(jnp.arange(8.0) + k, jax.P("i")) for k in range(3))
        times = jax.shard_map(lambda a, b: Times(jax.typeof(a))(a, b), in_specs=(spec, spec), out_specs=spec)
        _, pullback = admodes.vjp(jax.jit(times), Held(x), Held(y))
        found = pullback(Held(g))
    np.testing.assert_allclose([ct.value for ct in found], [g * y, g * x])
