"""Primitives for which a library registered rules of its own with JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

import admodes
from admodes.errors import UnsupportedPrimitiveError
from admodes.program import jax_compat as jc
from admodes.rules import table
from admodes.rules.table import lookup

X = np.array([0.5, -1.0, 2.0])


def defined(name, fun, abstract=lambda *xs, **_: xs[0], several=False):
    """A primitive by a function, without derivatives."""
    p = Primitive(name)
    p.multiple_results = several
    p.def_impl(fun)
    p.def_abstract_eval(abstract)
    mlir.register_lowering(p, mlir.lower_fun(fun, multiple_results=several))

    def batch(args, dims, **params):
        size = next(x.shape[d] for x, d in zip(args, dims, strict=True) if d is not None)
        args = [batching.bdim_at_front(x, d, size) for x, d in zip(args, dims, strict=True)]
        out = p.bind(*args, **params)
        return out, (0,) * len(out) if several else 0

    batching.primitive_batchers[p] = batch
    return p


cube_p = defined("cube", lambda x: x * x * x)
ad.defjvp(cube_p, lambda t, x: 3 * x * x * t)

expression_p = defined("expression", lambda x, y: jnp.sin(x) * y)
ad.defjvp(expression_p, lambda t, x, y: t * jnp.cos(x) * y, None)  # y has none

power_p = defined("power", lambda x, *, n: x**n)
ad.defjvp2(power_p, lambda t, out, x, *, n: n * power_p.bind(x, n=n - 1) * t)

scaled_p = defined("scaled", lambda x, *, by: by * x)
ad.deflinear(scaled_p, lambda ct, *, by: [scaled_p.bind(ct, by=by)])

times_p = defined("times", lambda x, y: x * y)
ad.defbilinear(times_p, lambda ct, x, y: times_p.bind(ct, y), lambda ct, x, y: times_p.bind(x, ct))

parts_p = defined("parts", lambda x, y: [jnp.sin(x) * y, 2 * y, x > 0], lambda x, y: [x, y, x.update(dtype=bool)], True)


def zero_of(x):
    return ad.Zero(jax.typeof(x).to_tangent_aval())


def _parts_jvp(primals, tangents):
    (x, y), (dx, dy) = primals, tangents
    outs = parts_p.bind(x, y)
    first = zero_of(outs[0])
    if type(dx) is not ad.Zero:
        first = dx * jnp.cos(x) * y
    if type(dy) is not ad.Zero:
        first = ad.add_tangents(first, dy * jnp.sin(x))
    second = zero_of(outs[1]) if type(dy) is ad.Zero else 2 * dy
    return outs, [first, second, zero_of(outs[2])]


ad.primitive_jvps[parts_p] = _parts_jvp


def parts(x, y):
    first, second, positive = parts_p.bind(x, y)
    return first * second + jnp.where(positive, 1.0, 2.0)


CASES = {
    "defjvp": (cube_p.bind, lambda x: x**3),
    "twice": (lambda x: cube_p.bind(cube_p.bind(x) * x), lambda x: (x**4) ** 3),
    "an operand without a rule": (
        lambda x: expression_p.bind(x, x),
        lambda x: jnp.sin(x) * lax.stop_gradient(x),
    ),
    "defjvp2 that applies the primitive": (lambda x: power_p.bind(x, n=3), lambda x: x**3),
    "deflinear": (lambda x: scaled_p.bind(jnp.sin(x), by=3.0), lambda x: 3 * jnp.sin(x)),
    "defbilinear": (lambda x: times_p.bind(x, x), lambda x: x * x),
    "defbilinear, one operand": (lambda x: times_p.bind(X, jnp.sin(x)), lambda x: X * jnp.sin(x)),
    "several results": (lambda x: parts(x, x * x), lambda x: jnp.sin(x) * 2 * x**4 + jnp.where(x > 0, 1.0, 2.0)),
    "several results, zeros": (lambda x: parts(x, X), lambda x: jnp.sin(x) * 2 * X**2 + jnp.where(x > 0, 1.0, 2.0)),
}
PLACES = {
    "as it is": lambda f: f,
    "jit": jax.jit,
    "cond": lambda f: lambda x: lax.cond(x[0] > 0, f, jnp.cos, x),
    "scan": lambda f: lambda x: lax.scan(lambda c, _: (f(c) * 0.5, f(c)), x, None, length=2)[1][1],
    "checkpoint": jax.checkpoint,
    "vmap": lambda f: lambda x: jax.vmap(f, 1)(jnp.stack([x, 2 * x, x * x], 1))[1],
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", CASES)
@pytest.mark.every(2)
def test_both_modes(name, place):
    f, plain = (PLACES[place](g) for g in CASES[name])
    expected = jax.jacfwd(plain)(X)
    for derive in ("jacfwd", "jacrev", "jacobian"):
        np.testing.assert_allclose(getattr(admodes, derive)(f)(X), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_second_order(name):
    f = lambda x: jnp.sum(CASES[name][0](x) ** 2)
    expected = jax.hessian(f)(X)
    for outer, inner in (("jacfwd", "grad"), ("jacrev", "grad"), ("jacrev", "jacfwd"), ("jacfwd", "jacfwd")):
        found = getattr(admodes, outer)(getattr(admodes, inner)(f))(X)
        np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(admodes.hessian(f)(X), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_the_pattern_is_dense(name):
    f, plain = CASES[name]
    found = admodes.sparsity(f, X).to_dense()
    assert found[admodes.sparsity(plain, X).to_dense() > 0].all()
    matrix = admodes.jacobian(f, format="bcoo")(X)
    np.testing.assert_allclose(matrix.todense(), jax.jacfwd(plain)(X), rtol=1e-10, atol=1e-12)


def test_linearize_transposes_what_was_registered_as_linear():
    _, push = admodes.linearize(CASES["deflinear"][0], X)
    np.testing.assert_allclose(push(X), 3 * np.cos(X) * X)
    _, pull = jax.jit(lambda x: admodes.vjp(CASES["deflinear"][0], x))(X)
    np.testing.assert_allclose(pull(X)[0], 3 * np.cos(X) * X)


def test_a_rule_registered_later_is_seen():
    late_p = defined("late", lambda x: 2 * x)
    with pytest.raises(UnsupportedPrimitiveError, match="'late' has no rule"):
        admodes.grad(late_p.bind)(1.0)
    ad.defjvp(late_p, lambda t, x: 2 * t)
    assert admodes.grad(late_p.bind)(1.0) == 2.0
    ad.defjvp(late_p, lambda t, x: 5 * t)
    assert admodes.grad(late_p.bind)(1.0) == 5.0


def test_a_linear_primitive_without_a_transpose():
    """Its rule applies it to the tangent: forward mode works, and reverse mode says what is missing."""
    oneway_p = defined("oneway", lambda x: 2 * x)
    ad.primitive_jvps[oneway_p] = lambda primals, tangents: (oneway_p.bind(*primals), oneway_p.bind(*tangents))
    assert admodes.jvp(oneway_p.bind, (1.0,), (1.0,))[1] == 2.0
    with pytest.raises(UnsupportedPrimitiveError, match=r"'oneway' has no registered transpose.*test_lent\.py"):
        admodes.grad(oneway_p.bind)(1.0)


def test_rules_of_the_table_come_first():
    own_p = defined("own", lambda x: 2 * x)
    ad.defjvp(own_p, lambda t, x: 100 * t)
    table.elementwise(own_p, lambda out, x: jnp.full_like(x, 2.0))
    try:
        assert admodes.grad(own_p.bind)(1.0) == 2.0
    finally:
        table.unregister(own_p)


def test_primitives_of_jax_are_never_served(monkeypatch):
    """Also if they have no rule here, or somebody registered one with JAX."""
    theirs = {value for module in (lax, lax.linalg) for value in vars(module).values() if isinstance(value, Primitive)}
    assert len(theirs) > 100
    assert not any(map(jc.has_registered_rule, theirs))
    monkeypatch.delitem(table._RULES, lax.sin_p)
    monkeypatch.setitem(ad.primitive_jvps, lax.sin_p, lambda primals, tangents, **_: (primals[0], tangents[0]))
    assert lookup(lax.sin_p) is None
    with pytest.raises(UnsupportedPrimitiveError, match="'sin'"):
        admodes.grad(lambda x: lax.sin(x))(1.0)
