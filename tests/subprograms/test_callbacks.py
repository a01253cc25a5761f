"""Callbacks, and calls that carry their own transpose or batching."""

from functools import partial

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from jax.custom_derivatives import linear_call
from jax.experimental import compute_on, scheduling_groups, xla_metadata
from jax.extend.core import Primitive
from jax.interpreters import ad
from oracle import check, sample

import admodes
from admodes.program import jax_compat as jc

on_device = getattr(compute_on, "compute_on2", compute_on.compute_on)  # one name since jax 0.12


def _pure(x):
    return jax.pure_callback(np.sin, jax.ShapeDtypeStruct((), x.dtype), x)


def _io(x):
    return jax.experimental.io_callback(np.sin, jax.ShapeDtypeStruct((), x.dtype), x)


@jax.jit
def _foreign(x):
    return jax.ffi.ffi_call("some_target", jax.ShapeDtypeStruct((), x.dtype))(x)


_composite = jax.lax.composite(lambda x: x * x, name="admodes.square")


@pytest.mark.parametrize("fun", [_pure, _io, _foreign, _composite])
def test_refused_as_in_jax(fun):
    for library in (jax, admodes):
        with pytest.raises(ValueError, match=r"JVP|differentiated"):
            library.grad(fun)(1.0)
        with pytest.raises(ValueError, match=r"JVP|differentiated"):
            library.jvp(fun, (1.0,), (1.0,))


def test_callbacks_on_constants_are_fine():
    check(lambda x: x * _pure(jax.lax.stop_gradient(x)), (np.float64(2.0),), fd=False, transforms=False)


def test_debug_callbacks_of_a_loop_with_values_that_do_not_change():
    """What a step prints depends on the carry, a residual on constants alone."""
    seen = []

    def f(w, x):
        def step(c, _):
            jax.debug.callback(lambda c: seen.append(float(c)), c)
            return c * jnp.exp(jnp.sin(w)), None

        return jax.lax.scan(step, x, None, length=3)[0]

    np.testing.assert_allclose(admodes.grad(f)(0.5, 2.0), jax.grad(f)(0.5, 2.0), rtol=1e-12)
    jax.effects_barrier()
    assert len(seen) == 6


@pytest.mark.parametrize(
    "call",
    [
        scheduling_groups.xla_metadata_call(inlineable="false"),
        scheduling_groups.scheduling_group("group"),
        partial(on_device, compute_type="device", out_memory_spaces=jax.memory.Space.Device),
    ],
    ids=["metadata", "group", "compute_on"],
)
def test_calls_with_hints_for_the_compiler(call):
    check(lambda x: jnp.sum(call(lambda y: y * jnp.sin(y))(x)), (sample((3,), np.float64),), fd=False)


def test_debug_callbacks_see_values_once():
    seen: list = []

    def loss(x):
        jax.debug.callback(lambda v: seen.append(float(v)), x)
        jax.debug.print("x = {}", x)
        return x * x

    assert admodes.grad(loss)(3.0) == 6.0
    assert jax.jit(admodes.grad(loss))(3.0) == 6.0
    admodes.jvp(loss, (3.0,), (1.0,))
    jax.effects_barrier()
    assert seen == [3.0, 3.0, 3.0]


def _scaled(r, x):
    """x / r, with a transpose that is wrong on purpose."""
    return linear_call(lambda r, x: x / r, lambda r, t: t * r, r, x)


def test_linear_call():
    x, r = sample((3,), np.float64), sample((3,), np.float64, 1, 2, seed=1)
    check(lambda x: jnp.sin(_scaled(r, x * x)), (x,), fd=False, adjoint=False, transforms=False)
    pull = admodes.vjp(lambda x: _scaled(r, x), x)[1]
    np.testing.assert_allclose(pull(x)[0], x * r)
    np.testing.assert_allclose(admodes.vjp(lambda g: pull(g)[0], x)[1](x)[0], x / r)
    with pytest.raises(NotImplementedError, match="residual"):
        admodes.grad(lambda r: _scaled(r, x).sum())(r)


def test_custom_vmap_with_batched_tangents_only():
    """As in JAX, the values are known not to be batched: jacfwd may return them."""
    told = []

    @jax.custom_batching.custom_vmap
    def f(x, y):
        return jnp.sin(x) * y, x

    @f.def_vmap
    def rule(axis_size, in_batched, x, y):
        told.append(tuple(in_batched))
        return (jnp.sin(x) * y, x), (any(in_batched), in_batched[0])

    x, y = sample((3,), np.float64), sample((3,), np.float64, seed=1)
    for k in (0, 1):
        expected = jax.jacfwd(f, k)(x, y)
        told.clear()
        for derive in ("jacfwd", "jacrev", "jacobian"):
            for found, e in zip(getattr(admodes, derive)(f, k)(x, y), expected, strict=True):
                np.testing.assert_allclose(found, e, rtol=1e-12, atol=1e-14)
        assert told[0] == (False, False)
    batch = jnp.stack([x, 2 * x])
    found = jax.vmap(admodes.jacfwd(lambda x, y: f(x, y)[0]), (0, None))(batch, y)
    np.testing.assert_allclose(found, [np.diag(np.cos(b) * y) for b in batch], rtol=1e-12)
    found = jax.hessian(lambda x: jnp.sum(jnp.sin(x) * y))(x)
    np.testing.assert_allclose(admodes.jacfwd(admodes.jacfwd(lambda x: jnp.sum(f(x, y)[0])))(x), found, atol=1e-14)


def test_custom_vmap():
    """The rule that batches a function batches its dual number too; here the rule is another function on purpose."""

    @jax.custom_batching.custom_vmap
    def f(x, y):
        return jnp.sin(x) * y

    @f.def_vmap
    def _(axis_size, in_batched, x, y):
        x, y = (v if b else jnp.broadcast_to(v, (axis_size,)) for v, b in zip((x, y), in_batched, strict=True))
        return jnp.cos(x) * y, True

    x, y, t = sample((3,), np.float64), sample((3,), np.float64, seed=1), sample((3,), np.float64, seed=2)
    check(f, (x[0], y[0]), modes=("jvp",), fd=True, transforms=False)
    out, tangent = jax.vmap(lambda x, t: admodes.jvp(lambda x: f(x, y[0]), (x,), (t,)))(x, t)
    np.testing.assert_allclose(out, np.cos(x) * y[0])
    np.testing.assert_allclose(tangent, -np.sin(x) * y[0] * t)
    np.testing.assert_allclose(admodes.grad(f)(x[0], y[0]), np.cos(x[0]) * y[0])


def test_fwd_of_custom_vjp_that_remat_may_drop():
    @jax.custom_vjp
    def f(x):
        return jnp.sin(x)

    f.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (g * jnp.cos(x),), optimize_remat=True)
    check(f, (np.float64(0.3),), modes=("vjp",))
    x, t = 0.3, 1.0
    expected = jax.jvp(jax.grad(f), (x,), (t,))
    np.testing.assert_allclose(admodes.jvp(admodes.grad(f), (x,), (t,)), expected)
    np.testing.assert_allclose(admodes.grad(admodes.grad(f))(x), -np.sin(x))


def test_a_token_is_an_operand_without_derivative():
    """An application that is ordered by a token (``lax.create_token``), by a rule that is registered with JAX."""
    ordered = Primitive("ordered")
    ordered.def_impl(lambda x, token: 2 * x)
    ordered.def_abstract_eval(lambda x, token: x)
    ad.defjvp(ordered, lambda g, x, token: 2 * g, None)
    token = jax.lax.create_token(0)
    y, dy = admodes.jvp(lambda x: ordered.bind(x, token), (1.5,), (1.0,))
    assert (y, dy) == (3.0, 2.0)
    assert admodes.grad(lambda x: ordered.bind(x, token))(1.5) == 2.0


@pytest.mark.skipif(jc.program_order_p is None, reason="this jax has no program_order")
@pytest.mark.parametrize("enforce", [False, True])
def test_program_order(enforce):
    from jax.experimental.overlap import program_order

    f = program_order(lambda x: jnp.sin(x) * jnp.exp(x), enforce=enforce)
    for run in (lambda g: g, jax.jit):
        np.testing.assert_allclose(run(admodes.grad(f))(0.3), jax.grad(f)(0.3), rtol=1e-12)
        np.testing.assert_allclose(run(lambda x: admodes.jvp(f, (x,), (1.0,))[1])(0.3), jax.grad(f)(0.3), rtol=1e-12)


@pytest.mark.skipif(jc.with_memory_space_constraint_p is None, reason="this jax has no constraint of memory spaces")
def test_memory_space_constraints():
    space = jax.typeof(jnp.ones(3)).memory_space
    f = lambda x: jnp.sum(jc.with_memory_space_constraint_p.bind(jnp.sin(x), memory_space=space) * x)
    x = jnp.arange(1.0, 4.0)
    np.testing.assert_allclose(admodes.grad(f)(x), np.sin(x) + x * np.cos(x), rtol=1e-12)
    np.testing.assert_allclose(admodes.jvp(f, (x,), (x,))[1], np.sum((np.sin(x) + x * np.cos(x)) * x), rtol=1e-12)


@pytest.mark.skipif(
    not hasattr(xla_metadata, "xla_metadata_call2"), reason="this jax has no metadata of derived computations"
)
@pytest.mark.parametrize("ad_metadata", ["same", "drop", {"group": "backward"}])
def test_metadata_of_derived_computations(ad_metadata):
    f = xla_metadata.xla_metadata_call2(lambda x: jnp.sin(x) * x, {"group": "forward"}, ad_metadata=ad_metadata)
    for run in (lambda g: g, jax.jit):
        np.testing.assert_allclose(run(admodes.grad(f))(0.3), jax.grad(f)(0.3), rtol=1e-12)
        np.testing.assert_allclose(run(lambda x: admodes.jvp(f, (x,), (1.0,))[1])(0.3), jax.grad(f)(0.3), rtol=1e-12)
