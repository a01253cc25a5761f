"""Structural rules against the oracle, and their patterns against dense Jacobians."""

from functools import partial

import jax
import numpy as np
import pytest
from jax import lax
from jax import numpy as jnp
from jax.ad_checkpoint import checkpoint_name

import admodes
from tests.oracle import check, sample
from tests.patterns import check_pattern


def index(n, *shape):
    return np.random.default_rng(3).integers(0, n, shape).astype(np.int32)


PAD = {
    "plain": [(1, 2, 0), (0, 1, 0)],
    "interior": [(1, 0, 2), (0, 0, 1)],
    "negative": [(-1, 2, 0), (1, -2, 0)],
    "negative_interior": [(-1, -1, 1), (-2, 1, 2)],
}

# name: (function, shapes of its operands)
SPECS = {
    "transpose": (lambda x: lax.transpose(x, (2, 0, 1)), [(2, 3, 4)]),
    "reshape": (lambda x: lax.reshape(x, (4, 3)), [(2, 6)]),
    "reshape_dimensions": (lambda x: lax.reshape(x, (4, 6), (2, 0, 1)), [(2, 3, 4)]),
    "reshape_scalar": (lambda x: lax.reshape(x, (1, 1)), [()]),
    "squeeze": (lambda x: lax.squeeze(x, (0, 2)), [(1, 3, 1)]),
    "expand_dims": (lambda x: lax.expand_dims(x, (0, 2)), [(3, 2)]),
    "rev": (lambda x: lax.rev(x, (0, 2)), [(2, 3, 2)]),
    "broadcast": (lambda x: lax.broadcast(x, (2, 3)), [(2,)]),
    "broadcast_in_dim": (lambda x: lax.broadcast_in_dim(x, (2, 3, 4), (0, 2)), [(2, 1)]),
    "broadcast_in_dim_ones": (lambda x: lax.broadcast_in_dim(x, (1, 3, 4), (0, 1)), [(1, 3)]),
    "broadcast_scalar": (lambda x: lax.broadcast_in_dim(x, (2, 3), ()), [()]),
    "broadcast_empty": (lambda x: lax.broadcast_in_dim(x, (0, 3), (1,)), [(3,)]),
    "tile": (lambda x: lax.tile(x, (2, 1, 3)), [(2, 3, 1)]),
    "slice": (lambda x: lax.slice(x, (1, 0), (4, 2)), [(5, 3)]),
    "slice_strides": (lambda x: lax.slice(x, (1, 0, 0), (6, 7, 2), (2, 3, 1)), [(7, 7, 2)]),
    "slice_empty": (lambda x: lax.slice(x, (2, 0), (2, 3), (2, 2)), [(4, 3)]),
    "concatenate": (lambda *xs: lax.concatenate(xs, 1), [(2, 1), (2, 3), (2, 2)]),
    "stack": (lambda *xs: jnp.stack(xs, 1), [(2, 3), (2, 3)]),
    "split": (lambda x: lax.split(x, (1, 3, 2), 1), [(2, 6)]),
    "split_unused": (lambda x: lax.split(x, (1, 3, 2), 1)[1], [(2, 6)]),
    "unstack": (lambda x: jnp.unstack(x, axis=1), [(2, 3)]),
    "unstack_unused": (lambda x: jnp.unstack(x)[2], [(4, 3)]),
    "select": (lambda x, y: lax.select(np.array([[True, False], [False, True]]), x, y), [(2, 2), (2, 2)]),
    "select_scalar": (lambda x, y: lax.select(True, x, y), [(2, 2), (2, 2)]),
    "select_n": (lambda *xs: lax.select_n(index(3, 2, 3), *xs), [(2, 3)] * 3),
    "copy": (lax.copy_p.bind if hasattr(lax, "copy_p") else jnp.copy, [(3,)]),
    "array_copy": (lambda x: jnp.array(x, copy=True), [(3,)]),
    "reduce_precision": (lambda x: lax.reduce_precision(x, 8, 20), [(3,)]),
    "optimization_barrier": (lambda x, y: lax.optimization_barrier((x, np.arange(2), y)), [(3,), (2, 1)]),
    "optimization_barrier_unused": (lambda x, y: lax.optimization_barrier((x, y))[1], [(3,), (2, 1)]),
    "device_put": (lambda x, y: jax.device_put((x, y), jax.devices()[0]), [(3,), ()]),
    "checkpoint_name": (lambda x: checkpoint_name(x, "here"), [(2,)]),
    "stop_gradient": (lambda x: x * lax.stop_gradient(x), [(3,)]),
    **{
        f"pad_{name}": (lambda x, v, config=config: lax.pad(x, v, config), [(4, 3), ()])
        for name, config in PAD.items()
        if name != "plain"
    },
}
LINEAR = [name for name in SPECS if name not in ("stop_gradient", "reduce_precision")]


@pytest.mark.parametrize("name", SPECS)
def test_rule(name):
    fun, shapes = SPECS[name]
    args = [sample(s, "float64", seed=i) for i, s in enumerate(shapes)]
    modes = ("jvp",) if name.startswith("pad_") else ("jvp", "vjp")  # JAX has no vjp in the padding value
    exact = name not in ("reduce_precision", "stop_gradient")
    check(fun, args, modes=modes, adjoint=name != "reduce_precision", fd=exact)


@pytest.mark.parametrize("name", LINEAR)
def test_dtypes(name):
    fun, shapes = SPECS[name]
    for dtype in ("complex64", "bfloat16"):
        args = [sample(s, dtype, seed=i) for i, s in enumerate(shapes)]
        modes = ("jvp",) if name.startswith("pad_") else ("jvp", "vjp")
        check(fun, args, modes=modes, adjoint=True, transforms=False)


@pytest.mark.parametrize("name", [n for n in LINEAR if not n.startswith("device_put")])
def test_pattern(name):
    fun, shapes = SPECS[name]
    exact = not name.startswith("select")
    check_pattern(fun, [sample(s, "float64", 0.5, 2, seed=i) for i, s in enumerate(shapes)], exact)


@pytest.mark.parametrize("name", PAD)
def test_pad(name):
    x, value = sample((4, 3), "float64"), sample((), "float64")
    check(lambda x: lax.pad(x, value, PAD[name]), (x,))
    check(lambda v: lax.pad(x, v, PAD[name]), (value,), modes=("jvp",), adjoint=True)


def test_pad_value_does_not_cancel():
    _, pullback = admodes.vjp(lambda v: lax.pad(jnp.ones(2), v, [(1, 1, 0)]), 1.0)
    assert pullback(jnp.array([1.0, jnp.inf, 1e300, 2.0])) == (3.0,)


@pytest.mark.parametrize("which", [0, 1])
def test_one_of_several_operands(which):
    """A constant operand has tangent zero: it must not enter the tangent of the result."""
    x, y = sample((2, 3), "float64"), sample((2, 3), "float64", seed=1)
    mask = x > 0
    for fun in (
        lambda *xs: lax.concatenate(xs, 0),
        lambda *xs: jnp.stack(xs),
        lambda *xs: lax.select(mask, *xs),
        lambda *xs: lax.optimization_barrier(xs),
        lambda *xs: lax.dynamic_update_slice(*xs, (0, 0)),
    ):
        check(fun, (x, y), argnums=which, transforms=False)


CONVERSIONS = [
    ("float32", "float64"),
    ("float64", "bfloat16"),
    ("float64", "complex128"),
    ("complex128", "complex64"),
    ("complex64", "float32"),
    ("float32", "int32"),
    ("int32", "float32"),
    ("float16", "bool"),
]


@pytest.mark.filterwarnings("ignore:.*imag.*")
@pytest.mark.parametrize(("old", "new"), CONVERSIONS)
def test_convert_element_type(old, new):
    check(lambda x: lax.convert_element_type_p.bind(x, new_dtype=np.dtype(new), weak_type=False, sharding=None), [
        sample((2, 3), old)
    ], fd=False)  # fmt: skip


def test_convert_weak_type():
    check(lambda x: lax.convert_element_type(x, jnp.float32) * 2, (1.5,), fd=False)
    check(lambda x: lax.convert_element_type(x, float), (np.float32(1.5),), fd=False)


def test_zero_derivative():
    x = sample((3,), "float32")
    check(lambda x: (lax.bitcast_convert_type(x, jnp.int32), x), (x,))
    check(lambda x: lax.bitcast_convert_type(lax.bitcast_convert_type(x, jnp.int32), jnp.float32), (x,))


def test_sharding_and_layout():
    mesh = jax.make_mesh((1,), ("a",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("a"))
    x = sample((4,), "float64")
    check(lambda x: lax.with_sharding_constraint(x * x, sharding), (x,), transforms=False)
    check(jax.jit(lambda x: lax.with_sharding_constraint(x * x, sharding)), (x,))


def test_explicit_sharding():
    mesh = jax.make_mesh((1,), ("a",), axis_types=(jax.sharding.AxisType.Explicit,))
    with jax.set_mesh(mesh):
        x = jax.device_put(sample((4, 3), "float64"), jax.sharding.PartitionSpec("a"))

        def fun(x):
            y = jax.sharding.reshard(x * x, jax.sharding.PartitionSpec(None))
            return jnp.sum(y.reshape(12)) + jnp.broadcast_to(x[:, :1], x.shape)

        (expected,), (found,) = (library.vjp(fun, x)[1](fun(x)) for library in (jax, admodes))
        assert jax.typeof(expected) == jax.typeof(found)
        np.testing.assert_allclose(expected, found)


EXPLICIT = {
    "where": lambda x: jnp.sum(jnp.where(x > 3, x, 0.0)),
    "relu": lambda x: jnp.sum(jax.nn.relu(x)),
    "split": lambda x: jnp.sum(jnp.split(x, 2, axis=1)[0] ** 2),
    "unstack": lambda x: jnp.sum(jnp.unstack(x, axis=1)[1] ** 2),
    "tile": lambda x: jnp.sum(jnp.tile(x, (1, 2)) ** 2),
    "loop": lambda x: jnp.sum(lax.fori_loop(0, 5, lambda i, y: jnp.sin(y) + 0.1 * x, x)),
}


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("fun", EXPLICIT.values(), ids=EXPLICIT)
def test_transposes_of_what_is_spread_over_devices(fun, jit):
    mesh = jax.make_mesh((4,), ("a",), axis_types=(jax.sharding.AxisType.Explicit,))
    with jax.set_mesh(mesh):
        x = jax.device_put(jnp.arange(32.0).reshape(8, 4), jax.sharding.PartitionSpec("a", None))
        wrap = jax.jit if jit else lambda f: f
        found, expected = (wrap(library.grad(fun))(x) for library in (admodes, jax))
        assert jax.typeof(expected) == jax.typeof(found)
        np.testing.assert_allclose(expected, found)


@pytest.mark.parametrize("length", [5, np.int32(5)], ids=["scan", "while"])
def test_loops_in_bounded_memory_over_what_is_spread(length):
    loop = lambda x, n: jnp.sum(lax.fori_loop(0, n, lambda i, y: jnp.sin(y) + 0.1 * x, x))
    n = length if isinstance(length, int) else jnp.asarray(length)
    mesh = jax.make_mesh((4,), ("a",), axis_types=(jax.sharding.AxisType.Explicit,))
    with jax.set_mesh(mesh):
        x = jax.device_put(jnp.arange(8.0), jax.sharding.PartitionSpec("a"))
        found = jax.jit(admodes.grad(admodes.checkpoint(partial(loop, n=n), slots=2, tapes=2)))(x)
        assert jax.typeof(found) == jax.typeof(x)
        np.testing.assert_allclose(found, jax.jit(jax.grad(partial(loop, n=5)))(x))


@pytest.mark.parametrize("shape", [(), (0,), (0, 3)])
def test_small_shapes(shape):
    x = sample(shape, "float64")
    check(lambda x: lax.reshape(x, (x.size,)), (x,), transforms=False)
    check(lambda x: lax.select(x > 0, x, -x), (x,), transforms=False)
    if shape:
        check(lambda x: lax.concatenate([x, x], 0), (x,), transforms=False)
        check(lambda x: lax.pad(x, 1.0, [(1, 1, 0)] * x.ndim), (x,), transforms=False)
