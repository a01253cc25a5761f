"""shard_map over four devices: derivatives of per-device programs, with and without replication tracking."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import PartitionSpec as P

import admodes
from admodes.program import jax_compat as jc

X, W = jnp.arange(8.0) / 4 + 0.5, jnp.float64(1.3)


@pytest.fixture(scope="module")
def mesh():
    return jax.make_mesh((4,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))


def elementwise(x, w):
    return jnp.sin(x) * w


def normalised(x, w):
    return x * w / lax.psum(jnp.sum(jnp.sin(x)), "i")


def neighbours(x, w):
    shifted = lax.ppermute(x, "i", [(k, (k + 1) % 4) for k in range(4)])
    return shifted * x * w


def scanned(x, w):
    return lax.scan(lambda c, _: (jnp.sin(c) * w, None), x, None, length=3)[0]


def gathered(x, w):
    return x * jnp.sum(jnp.cos(lax.all_gather(x, "i", tiled=True))) * w


PROGRAMS = [elementwise, normalised, neighbours, scanned, gathered]


@pytest.mark.parametrize("check_vma", [True, False])
@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("local", PROGRAMS, ids=lambda f: f.__name__)
@pytest.mark.every(2)
def test_both_modes(mesh, local, jit, check_vma):
    sharded = jax.shard_map(local, mesh=mesh, in_specs=(P("i"), P()), out_specs=P("i"), check_vma=check_vma)
    loss = lambda x, w: jnp.sum(sharded(x, w) * jnp.arange(8.0))
    wrap = jax.jit if jit else lambda f: f
    push = lambda lib: wrap(lambda x, w: lib.jvp(loss, (x, w), (jnp.cos(x), w)))(X, W)
    gradient = lambda lib: wrap(lib.grad(loss, (0, 1)))(X, W)
    for ours, theirs in ((push(admodes), push(jax)), (gradient(admodes), gradient(jax))):
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-11)


def test_replicated_output_and_second_order(mesh):
    total = lambda x: lax.psum(jnp.sum(jnp.sin(x) ** 2), "i")
    sharded = jax.shard_map(total, mesh=mesh, in_specs=P("i"), out_specs=P())
    np.testing.assert_allclose(admodes.grad(sharded)(X), jax.grad(sharded)(X), rtol=1e-11)
    v = jnp.ones(8)
    ours = jax.jit(lambda x: admodes.jvp(admodes.grad(sharded), (x,), (v,))[1])(X)
    np.testing.assert_allclose(ours, 2 * jnp.cos(2 * X), rtol=1e-10)
    _, push = admodes.linearize(sharded, X)
    np.testing.assert_allclose(push(v), jnp.sum(jnp.sin(2 * X)), rtol=1e-11)


@pytest.fixture(scope="module")
def plane():
    return jax.make_mesh((2, 2), ("i", "j"), axis_types=(jax.sharding.AxisType.Auto,) * 2)


@pytest.mark.parametrize("check_vma", [True, False])
@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.every(4)
def test_body_that_closes_over_what_is_differentiated(plane, jit, check_vma):
    def loss(w):
        local = lambda x: jnp.sin(x * w["a"]) + jnp.sum(w["b"]) * lax.psum(x, "i")
        shard = jax.shard_map(local, mesh=plane, in_specs=P("i"), out_specs=P("i"), check_vma=check_vma)
        return jnp.sum(shard(X * w["a"]) * jnp.arange(8.0))

    at, direction = {"a": 1.3, "b": jnp.arange(2.0)}, {"a": 0.5, "b": jnp.ones(2)}
    wrap = jax.jit if jit else lambda f: f
    gradient = lambda lib: wrap(lib.grad(loss))(at)
    push = lambda lib: wrap(lambda w: lib.jvp(loss, (w,), (direction,)))(at)
    twice = lambda lib: wrap(lambda w: lib.jvp(lib.grad(loss), (w,), (direction,))[1])(at)
    for derivative in (gradient, push, twice):
        for a, b in zip(*map(jax.tree.leaves, (derivative(admodes), derivative(jax))), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-11)


@pytest.mark.parametrize("check_vma", [True, False])
def test_body_that_returns_what_it_closes_over(plane, check_vma):
    def loss(w):
        shard = jax.shard_map(lambda x: w * 1.0, mesh=plane, in_specs=P("i"), out_specs=P(), check_vma=check_vma)
        return shard(X)

    assert admodes.grad(loss)(2.0) == 1.0


def test_body_that_branches_on_a_value_that_is_the_same_on_all_devices(mesh):
    def local(x):
        return -(x**2) if lax.psum(jnp.sum(x), "i") < 100 else x

    loss = lambda x: jnp.sum(jax.shard_map(local, mesh=mesh, in_specs=P("i"), out_specs=P("i"))(x))
    np.testing.assert_array_equal(admodes.grad(loss)(X), -2 * X)
    np.testing.assert_array_equal(admodes.jvp(loss, (X,), (X,))[1], -2 * jnp.sum(X**2))


def test_residuals_without_replication_tracking_differ_by_device(plane):
    # residuals that are declared equal on all devices are wrong as soon as they are differentiated, or looked at
    shard = jax.shard_map(
        lambda x, w: (x * w) ** 2, mesh=plane, in_specs=(P("i"), P()), out_specs=P("i"), check_vma=False
    )
    loss = lambda w: jnp.sum(shard(X, w))
    np.testing.assert_allclose(admodes.grad(admodes.grad(loss))(2.0), 2 * jnp.sum(X**2), rtol=1e-12)
    residuals = jax.tree.leaves(admodes.vjp(loss, 2.0)[1])
    assert max(r.size for r in residuals) >= 2 * X.size


def test_output_that_is_too_small_for_its_spec(mesh):
    shard = jax.shard_map(jnp.sum, mesh=mesh, in_specs=P("i"), out_specs=P("i"))
    with pytest.raises(ValueError, match="has rank 0"):
        admodes.grad(lambda x: jnp.sum(shard(x)))(X)


def gathered_as_copies(x):
    return jax.shard_map(lambda x: lax.all_gather(x, "i", tiled=True, to="reduced"), out_specs=P(reduced={"i"}))(x)


AFTERWARDS = {
    "sum": jnp.sum,
    "nothing_else": lambda y: jax.shard_map(jnp.sum, out_specs=P(reduced={"i"}))(y),
    "reshape": lambda y: jnp.sum(jnp.sin(jnp.reshape(y, (2, 4)))),
    "scan": lambda y: jnp.sum(lax.scan(lambda c, _: (c * y, None), y, length=2)[0]),
    "cond": lambda y: jnp.sum(lax.cond(True, lambda y: y * y, lambda y: 2 * y, y)),
}


@pytest.mark.parametrize("loss", AFTERWARDS.values(), ids=AFTERWARDS)
def test_the_cotangent_of_copies_is_a_sum_over_devices(loss):
    """An array that is known to be the same on all devices ("reduced") has a cotangent of summands ("unreduced")."""
    with jax.set_mesh(jax.make_mesh((4,), ("i",), axis_types=(jax.sharding.AxisType.Explicit,))):
        x = jax.device_put(X, P("i"))
        copies = jax.device_put(X, P(reduced={"i"}))
        for fun, at in ((lambda x: loss(gathered_as_copies(x)), x), (loss, copies)):
            ours, theirs = (jax.jit(lib.grad(fun))(at) for lib in (admodes, jax))
            assert ours.sharding == theirs.sharding
            summed = [jax.reshard(g, P()) for g in (ours, theirs)]
            np.testing.assert_allclose(*summed, rtol=1e-12)


@pytest.mark.parametrize("check_vma", [True, False])
def test_arguments_from_outside_that_are_not_used(mesh, check_vma):
    """Their zero cotangents are made where the mesh axis is manual."""

    @jax.jit
    def update(params, batch):
        derive = lambda lib: lib.value_and_grad(lambda params, batch: lax.psum(jnp.sum(batch), "i"))(params, batch[0])
        local = lambda batch: derive(admodes)
        return jax.shard_map(local, mesh=mesh, in_specs=P("i"), out_specs=P(), check_vma=check_vma)(batch)

    on_mesh = jax.device_put(jnp.ones((4, 8)), jax.sharding.NamedSharding(mesh, P()))
    value, gradient = update(on_mesh, on_mesh)
    assert value == 32
    np.testing.assert_array_equal(gradient, np.zeros((4, 8)))


@pytest.mark.parametrize("check_vma", [True, False])
@pytest.mark.parametrize(
    ("local", "out_spec", "n_residuals"),
    [
        (jnp.exp, P("i"), 0),  # keeps its result
        (lambda x: x * x * x, P("i"), 1),  # its operand, and its square
        (jnp.sin, P("i"), 1),
        (lambda x: jnp.exp(lax.psum(jnp.sum(x), "i")), P(), None),  # a result with copies
    ],
    ids=["result", "operand", "other", "copies"],
)
def test_operands_and_results_are_not_kept_twice(mesh, local, out_spec, n_residuals, check_vma):
    sharded = jax.shard_map(local, mesh=mesh, in_specs=P("i"), out_specs=out_spec, check_vma=check_vma)
    forward, *_ = (
        e for e in jax.make_jaxpr(lambda x: admodes.vjp(sharded, x))(X).eqns if e.primitive is jc.shard_map_p
    )
    if n_residuals is None:  # only where it is known that the copies are the same
        n_residuals = 0 if check_vma else 1
    assert len(forward.outvars) == 1 + n_residuals
    gradient = lambda lib: lib.grad(lambda x: jnp.sum(sharded(x) ** 2))(X)
    np.testing.assert_allclose(gradient(admodes), gradient(jax), rtol=1e-12)
