"""Equations that are objects: JAX's own in plain programs, and those that users define with jax.experimental.hijax."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import hijax
from sweeps import FIRST, SECOND

import admodes
from admodes.errors import UnsupportedPrimitiveError
from admodes.program import jax_compat as jc
from admodes.sparse import sparsity

HiPrim = getattr(hijax, "HiPrim", None) or hijax.VJPHiPrimitive  # its name before jax 0.11
POINT = jnp.float64(1.37)
TABLE = jnp.linspace(0.0, 3.0, 8)


def newton(f, x):
    return lax.fori_loop(0, 40, lambda i, x: x - f(x) / (3 * x**2 + 1), x)


def root(a):
    """x³ + a x = 2; the iteration does not know a, so that its own derivative is another one."""
    solve = lambda f, x: lax.stop_gradient(newton(f, x))
    return lax.custom_root(lambda x: x**3 + a * x - 2.0, 1.0, solve, lambda g, y: y / g(1.0))


def roots(a):
    """A root of three equations, with auxiliary data, solved by the matrix of the linearised ones."""
    f = lambda x: x**3 + a * x - 2.0 * a * jnp.roll(x, 1)
    solve = lambda f, x: (newton(f, x), jnp.sum(x))
    by_matrix = lambda g, y: jnp.linalg.solve(jax.jacobian(g)(y), y)
    x, aux = lax.custom_root(f, jnp.arange(1.0, 4.0), solve, by_matrix, has_aux=True)
    return jnp.sum(x * jnp.arange(3.0)) + 0.0 * aux


PLAIN = {
    "custom_root": root,
    "custom_root of arrays": roots,
    "interp": lambda x: jnp.interp(x, TABLE, TABLE**2),
    "interp of the values": lambda x: jnp.interp(1.3, TABLE, TABLE * jnp.sin(x)),
    "searchsorted": lambda x: x**2 * jnp.searchsorted(TABLE, x),
    "digitize": lambda x: x**2 * jnp.digitize(x, TABLE),
    "nonzero": lambda x: jnp.sum(TABLE[jnp.nonzero(TABLE * x > 1.0, size=3)[0]] * x**2),
    "ldexp": lambda x: jnp.ldexp(x * x, 3) * x,
    "frexp": lambda x: jnp.frexp(x * x)[0] * jnp.frexp(x)[1] * x,
}


@pytest.mark.parametrize("mode", FIRST)
@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.every(3)
def test_first_derivatives_of_plain_programs(name, mode):
    f = PLAIN[name]
    np.testing.assert_allclose(FIRST[mode](f, POINT), jax.grad(f)(POINT), rtol=1e-8)


@pytest.mark.parametrize("mode", SECOND)
@pytest.mark.parametrize("name", PLAIN)
def test_second_derivatives_of_plain_programs(name, mode):
    f = PLAIN[name]
    np.testing.assert_allclose(SECOND[mode](f, POINT), jax.grad(jax.grad(f))(POINT), rtol=1e-8)


@pytest.mark.parametrize("name", [n for n in PLAIN if n != "custom_root of arrays"])
def test_plain_programs_against_differences(name):
    f, h = PLAIN[name], 1e-6
    difference = (f(POINT + h) - f(POINT - h)) / (2 * h)
    np.testing.assert_allclose(admodes.grad(f)(POINT), difference, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("name", [n for n in PLAIN if n != "custom_root of arrays"])  # whose pivots are not known
def test_patterns_explanations_and_diagnoses_of_plain_programs(name):
    f = PLAIN[name]
    assert sparsity(jax.vmap(f), jnp.stack([POINT, POINT])).to_dense().tolist() == [[True, False], [False, True]]
    assert "x" in str(admodes.explain(f, POINT))
    assert str(admodes.doctor(f, POINT))


@pytest.mark.skipif(jc.hi_primitive("Ldexp") is None, reason="this jax's ldexp is a product, which overflows")
def test_powers_of_two_are_exact_slopes():
    for e in (-1000, -3, 0, 7, 1000):
        assert admodes.grad(lambda x, e=e: jnp.ldexp(x, e))(1.5) == 2.0**e
    for x in (0.0, 1.0, -5.0, 1e300, 1e-300):
        assert admodes.grad(lambda x: jnp.frexp(x)[0])(x) == 2.0 ** -float(np.frexp(x)[1])


# -- objects of users -----------------------------------------------------------------------------------------


def instantiated(t):
    return jnp.zeros(t.aval.shape, t.aval.dtype) if isinstance(t, hijax.Zero) else t


class Object(HiPrim):
    """A function of arrays of one shape, batched along the leading axis."""

    def __init__(self, *avals):
        self.in_avals, self.out_aval, self.params = avals, avals[0], {}
        super().__init__()

    def batch(self, axis_data, args, dims):
        if all(d is None for d in dims):
            return self(*args), None
        front = [
            jnp.broadcast_to(x, (axis_data.size, *x.shape)) if d is None else jnp.moveaxis(x, d, 0)
            for x, d in zip(args, dims, strict=True)
        ]
        return type(self)(*map(jax.typeof, front))(*front), 0


class Product(Object):
    """x y, for which the author says that the slopes are 2 y and 3 x: what tells his rule from what is inside."""

    def expand(self, x, y):
        return x * y


class ByPullback(Product):
    def vjp_fwd(self, nonzeros, x, y):
        return self(x, y), (x, y)

    def vjp_bwd_retval(self, residuals, g):
        x, y = residuals
        return 2 * y * g, 3 * x * g


class ByAccumulators(Product):
    def vjp_fwd(self, nonzeros, x, y):
        return self(x, y), (x, y)

    def vjp_bwd(self, residuals, g, x_accum, y_accum):
        x, y = residuals
        x_accum.accum(2 * y * g)
        y_accum.accum(3 * x * g)


class ByPush(Product):
    def jvp(self, primals, tangents):
        (x, y), (dx, dy) = primals, map(instantiated, tangents)
        return self(x, y), 2 * y * dx + 3 * x * dy


class ByLinearization(Product):
    def lin(self, nonzeros, x, y):
        return self(x, y), (x, y)

    def linearized(self, residuals, dx, dy):
        x, y = residuals
        return 2 * y * instantiated(dx) + 3 * x * instantiated(dy)


class Derived(ByPush):
    if hasattr(hijax, "linearize_from_jvp"):
        lin, linearized = hijax.linearize_from_jvp
        vjp_fwd, vjp_bwd_retval = hijax.vjp_from_jvp


class Tripled(Object):
    """3 x, applied to tangents by its own rule, and linear: its author says what the transpose is."""

    def expand(self, x):
        return jnp.round(3 * x, 12)  # has no derivative

    def jvp(self, primals, tangents):
        return self(*primals), self(instantiated(tangents[0]))

    def transpose(self, ct, accum):
        accum.accum(self(ct))


class WithoutTranspose(Object):
    def expand(self, x):
        return 3 * x

    def jvp(self, primals, tangents):
        return self(*primals), self(instantiated(tangents[0]))


class WithoutRule(Object):
    def expand(self, x):
        return 3 * x


def call(kind, *args):
    return kind(*map(jax.typeof, args))(*args)


def by_rule(x):
    """d/dx of the product of x and sin x, by the author's slopes."""
    return 2 * np.sin(x) + 3 * x * np.cos(x)


PRODUCTS = [ByPullback, ByAccumulators, ByPush, ByLinearization, Derived]


@pytest.mark.parametrize("argnum", [0, 1])
def test_an_operand_without_derivative_has_an_accumulator_that_takes_nothing(argnum):
    found = []

    class Observed(ByAccumulators):
        def vjp_bwd(self, residuals, g, *accums):
            found[:] = [type(a).__name__ for a in accums]
            super().vjp_bwd(residuals, g, *accums)

    slope = admodes.grad(lambda x, y: call(Observed, x, y), argnum)(1.5, 0.5)
    assert slope == (2 * 0.5, 3 * 1.5)[argnum]
    assert found == ["ValAccum" if i == argnum else "NullAccum" for i in range(2)]


@pytest.mark.parametrize("mode", FIRST)
@pytest.mark.parametrize("kind", PRODUCTS)
def test_the_authors_methods_are_called(kind, mode):
    found = FIRST[mode](lambda x: call(kind, x, jnp.sin(x)), POINT)
    np.testing.assert_allclose(found, by_rule(POINT), rtol=1e-12)


@pytest.mark.parametrize("mode", SECOND)
@pytest.mark.parametrize("kind", PRODUCTS)
def test_second_derivatives_of_the_authors_rule(kind, mode):
    found = SECOND[mode](lambda x: call(kind, x, jnp.sin(x)), POINT)
    x = float(POINT)
    np.testing.assert_allclose(found, 5 * np.cos(x) - 3 * x * np.sin(x), rtol=1e-12)


@pytest.mark.parametrize("mode", FIRST)
def test_a_linear_object_is_transposed_by_its_author(mode):
    np.testing.assert_allclose(FIRST[mode](lambda x: call(Tripled, x * x) * x, POINT), 9 * POINT**2, rtol=1e-10)


@pytest.mark.parametrize("mode", SECOND)
def test_second_derivatives_of_a_linear_object(mode):
    np.testing.assert_allclose(SECOND[mode](lambda x: call(Tripled, x * x) * x, POINT), 18 * POINT, rtol=1e-10)


def test_the_pattern_of_an_object_that_is_its_own_transpose_is_full():
    pattern = sparsity(lambda x: call(Tripled, x), jnp.ones(3))
    assert pattern.to_dense().all()


def test_an_object_that_is_linear_but_cannot_be_transposed():
    f = lambda x: call(WithoutTranspose, x)
    assert admodes.jvp(f, (POINT,), (1.0,))[1] == 3.0
    with pytest.raises(UnsupportedPrimitiveError, match=r"WithoutTranspose.*transpose"):
        admodes.grad(f)(POINT)


@pytest.mark.parametrize("mode", ["grad", "jvp", "grad under jit", "jacobian", "subgradient"])
def test_an_object_without_rules_is_refused_by_name(mode):
    with pytest.raises(UnsupportedPrimitiveError, match=r"WithoutRule.*has no derivative"):
        FIRST[mode](lambda x: call(WithoutRule, x), POINT)


def test_an_object_without_rules_may_compute_what_is_constant():
    assert admodes.grad(lambda x: x * call(WithoutRule, jnp.float64(2.0)))(POINT) == 6.0


class Tree(HiPrim):
    """sin(a) z and an integer, of a dictionary and an array."""

    def __init__(self, d, z):
        self.in_avals, self.out_aval, self.params = (d, z), {"s": d["a"], "i": d["i"]}, {}
        super().__init__()

    def expand(self, d, z):
        return {"s": jnp.sin(d["a"]) * z, "i": d["i"] + 1}

    def vjp_fwd(self, nonzeros, d, z):
        assert not nonzeros[0]["i"]
        return self(d, z), (d["a"], z)

    def vjp_bwd_retval(self, residuals, g):
        a, z = residuals
        return {"a": 5 * jnp.cos(a) * z * g["s"], "i": None}, jnp.sin(a) * g["s"]


@pytest.mark.parametrize("mode", ["grad", "jvp", "grad under jit", "grad of jit", "checkpoint"])
def test_trees_of_operands_and_results(mode):
    def f(x):
        d = {"a": x, "i": jnp.sign(x).astype(int)}
        out = Tree(jax.tree.map(jax.typeof, d), jax.typeof(x))(d, 2 * x)
        return out["s"] * out["i"]

    expected = 2 * (10 * POINT * np.cos(POINT) + 2 * np.sin(POINT))
    np.testing.assert_allclose(FIRST[mode](f, POINT), expected, rtol=1e-12)


def test_the_hessian_of_a_root_that_is_solved_by_the_matrix_of_its_equation():
    """Its equation holds calls and the transpose of the linearised one, which detection has to follow."""

    def newton(f, y):
        return lax.fori_loop(0, 8, lambda i, y: y - jnp.linalg.solve(jax.jacfwd(f)(y), f(y)), y)

    def tangent_solve(g, y):
        return jnp.linalg.solve(jax.jacobian(g)(y), y)

    def loss(b):
        a = 4 * jnp.eye(3) + 0.1
        root = lax.custom_root(lambda y: a @ y + y**3 - b, jnp.zeros(3), newton, tangent_solve)
        return jnp.sum(jnp.sin(root))

    b = jnp.arange(3.0)
    for run in (lambda f: f, jax.jit):
        np.testing.assert_allclose(run(admodes.hessian(loss))(b), jax.hessian(loss)(b), rtol=1e-9, atol=1e-12)
