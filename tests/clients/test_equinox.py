"""equinox: its loops and scans of every kind, its modules, and its own filtered transformations of ours."""

import equinox.internal as eqxi
import jax
import jax.numpy as jnp

from tests.clients.derivatives import EVERY, FORWARD, REVERSE, Case, client, every_derivative

eqx = client("equinox")

X = {"y": jnp.array([0.5, -0.3]), "w": jnp.array([[0.9, 0.2], [-0.1, 0.8]])}


def step(w, y):
    return jnp.tanh(w @ y) + 0.1 * y


def looped(kind, steps=5, **options):
    def fun(x):
        def body(carry):
            i, y = carry
            return i + 1, step(x["w"], y)

        return eqxi.while_loop(lambda c: c[0] < steps, body, (0, x["y"]), kind=kind, **options)[1]

    return fun


def scanned(kind, **options):
    def fun(x):
        def body(y, u):
            y = step(x["w"], y) * u
            return y, jnp.sum(y)

        return eqxi.scan(body, x["y"], jnp.linspace(0.5, 1.5, 5), kind=kind, **options)

    return fun


def until(x):
    """A loop whose length depends on what is differentiated."""
    return eqxi.while_loop(
        lambda y: jnp.sum(y**2) < 9.0, lambda y: 1.5 * y + x["w"] @ y, x["y"], kind="checkpointed", max_steps=16
    )


MLP = eqx.nn.MLP(2, 2, 4, 2, activation=jax.nn.gelu, key=jax.random.key(1))
PARAMETERS, STATIC = eqx.partition(jax.tree.map(lambda a: a.astype(float) if eqx.is_array(a) else a, MLP), eqx.is_array)
NORM = eqx.nn.LayerNorm(2, dtype=float)
GRU = eqx.nn.GRUCell(2, 2, dtype=float, key=jax.random.key(2))
GRU_PARAMETERS, GRU_STATIC = eqx.partition(GRU, eqx.is_array)


def module(parameters):
    model = eqx.combine(parameters, STATIC)
    return NORM(model(X["y"]))


def checkpointed_module(parameters):
    return eqx.filter_checkpoint(eqx.combine(parameters, STATIC))(X["y"])


def recurrent(parameters):
    cell = eqx.filter_jit(eqx.combine(parameters, GRU_STATIC))
    return jax.lax.scan(lambda h, u: (cell(u, h), h), jnp.zeros(2), jnp.linspace(0.0, 1.0, 6).reshape(3, 2))


@eqx.filter_custom_vjp
def custom_vjp(y, scale):
    return jnp.sin(y) * scale


@custom_vjp.def_fwd
def _(perturbed, y, scale):
    return jnp.sin(y) * scale, None


@custom_vjp.def_bwd
def _(residuals, g, perturbed, y, scale):
    return 2.0 * g * jnp.cos(y) * scale


@eqx.filter_custom_jvp
def custom_jvp(y, *, scale):
    return jnp.sin(y) * scale


@custom_jvp.def_jvp
def _(primals, tangents, *, scale):
    (y,), (dy,) = primals, tangents
    return jnp.sin(y) * scale, 3.0 * jnp.cos(y) * scale * dy


CASES = [
    Case("while-lax", looped("lax"), X, FORWARD),
    Case("while-bounded", looped("bounded", max_steps=8), X),
    Case("while-checkpointed", looped("checkpointed", max_steps=8), X, REVERSE),
    Case("while-checkpointed-unbounded", looped("checkpointed", checkpoints=3), X, REVERSE),
    Case("while-until", until, X, REVERSE),
    Case("scan-lax", scanned("lax"), X, EVERY),
    Case("scan-checkpointed", scanned("checkpointed", checkpoints=2), X, REVERSE),
    Case("module", module, PARAMETERS, EVERY),
    Case("checkpointed-module", checkpointed_module, PARAMETERS),
    Case("recurrent-module", recurrent, GRU_PARAMETERS),
    Case("custom-vjp", lambda x: custom_vjp(x["y"], 2.0) @ x["w"], X, REVERSE),
    Case("custom-jvp", lambda x: custom_jvp(x["y"], scale=2.0) @ x["w"], X),
    Case("nontraceable-and-nondifferentiable", lambda x: eqxi.unvmap_max(2) * x["y"] * eqxi.nondifferentiable(3.0), X),
    Case("error-if", lambda x: eqx.error_if(x["y"], jnp.any(x["y"] > 100), "large") ** 2 @ x["w"], X),
]


@every_derivative(CASES)
def test_derivatives(case, way):
    way(case)
