"""Derivatives of arrays that are spread over processes, or copied to them, against those that JAX finds in one."""

import contextlib
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import start
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import admodes

X = np.linspace(0.2, 1.7, 32).reshape(4, 8)
A = np.cos(np.arange(64.0)).reshape(8, 8) / 3


def dense(x):
    return jnp.tanh(x @ A) * jnp.sum(x)


def sparse(x):
    return jnp.sin(x) * jnp.roll(x, 1, axis=1)


def scalar(x):
    return jnp.sum(jnp.sin(x) * jnp.roll(x, 1, axis=1) ** 2)


def loop(x):
    return jnp.sum(lax.scan(lambda y, _: (y + 0.01 * jnp.sin(y @ A), None), x, None, length=300)[0] ** 2)


def matrix(planned):
    """The matrix of a sparse format, as a dense one."""
    return lambda x: planned(x).todense()


def flat(expected):
    return lambda x: expected(x).reshape(-1, X.size)


OPTIONS = {"": lambda mesh: {}, "mesh=": lambda mesh: {"mesh": mesh}}
PLANNED = {  # with and without mesh=
    "jacobian, dense": (lambda o: admodes.jacobian(dense, **o), jax.jacfwd(dense)),
    "jacobian, sparse": (lambda o: matrix(admodes.jacobian(sparse, format="bcoo", **o)), flat(jax.jacfwd(sparse))),
    "value_and_jacobian": (
        lambda o: admodes.value_and_jacobian(sparse, **o),
        lambda x: (sparse(x), jax.jacfwd(sparse)(x)),
    ),
    "hessian": (lambda o: admodes.hessian(scalar, **o), jax.hessian(scalar)),
    "hessian, sparse": (lambda o: matrix(admodes.hessian(scalar, format="bcoo", **o)), flat(jax.hessian(scalar))),
}
OTHERS = {
    "grad": (admodes.grad(scalar), jax.grad(scalar)),
    "grad(memory_limit=)": (admodes.grad(loop, memory_limit="30 kB"), jax.grad(loop)),
    "jacfwd": (admodes.jacfwd(dense), jax.jacfwd(dense)),
    "jacrev": (admodes.jacrev(dense), jax.jacfwd(dense)),
    "hvp": (lambda x: admodes.hvp(scalar, x, x), lambda x: jax.jvp(jax.grad(scalar), (x,), (x,))[1]),
    "laplacian": (admodes.laplacian(scalar), lambda x: jnp.trace(flat(jax.hessian(scalar))(x))),
    "diagonal": (
        admodes.diagonal(sparse),
        lambda x: jnp.diag(jax.jacfwd(sparse)(x).reshape(X.size, X.size)).reshape(X.shape),
    ),
    "block_jacobian": (admodes.block_jacobian(sparse), lambda x: jax.vmap(jax.jacfwd(sparse_row))(x)),
}


def sparse_row(x):
    return jnp.sin(x) * jnp.roll(x, 1)


def check(found, expected, about: str) -> None:
    """Compare the parts of the result that are here."""
    for value, whole in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        for shard in value.addressable_shards:
            np.testing.assert_allclose(shard.data, whole[shard.index], rtol=1e-9, atol=1e-12, err_msg=about)


def main() -> None:
    start.take_part()
    expected = {
        name: jax.tree.map(np.asarray, theirs(jnp.asarray(X))) for name, (_, theirs) in (PLANNED | OTHERS).items()
    }
    for kind, spec in itertools.product((AxisType.Auto, AxisType.Explicit), (P(), P("i"))):
        mesh = jax.make_mesh((4,), ("i",), axis_types=(kind,))
        x = jax.make_array_from_callback(X.shape, NamedSharding(mesh, spec), lambda index: X[index])
        calls = [
            (name, f"{name} {option}", ours(of(mesh)))
            for name, (ours, _) in PLANNED.items()
            for option, of in OPTIONS.items()
        ]
        calls += [(name, name, ours) for name, (ours, _) in OTHERS.items()]
        ways = ("eager", "compiled") if spec == P("i") else ("eager",)
        for (name, about, ours), way in itertools.product(calls, ways):
            # (JAX asks for a mesh that is set where it makes arrays on explicit axes)
            is_set = kind == AxisType.Explicit and (way == "compiled" or name == "hvp")
            with jax.set_mesh(mesh) if is_set else contextlib.nullcontext():
                found = (jax.jit(ours) if way == "compiled" else ours)(x)
            check(found, expected[name], f"{about}, {kind}, {spec}, {way}")


if __name__ == "__main__":
    main()
