"""Reverse mode in bounded memory: the derivatives are those of JAX, and the memory of the compiled program is less."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import admodes
from admodes.checkpointing.binomial import fewest_steps
from admodes.errors import SideEffectError
from tests.oracle import JAX_VERSION, check, sample

W = sample((3, 3), np.float64, -0.6, 0.6, seed=6)
X = sample((3,), np.float64, 0.3, 1.2, seed=5)
POLICIES = {
    "revolve, 1 slot": ("revolve", 1, 1),
    "revolve, 3 slots": ("revolve", 3, 1),
    "revolve, more slots": ("revolve", 99, 1),
    "revolve, 2 tapes": ("revolve", 2, 2),
    "revolve, more tapes": ("revolve", 1, 99),
    "revolve": ("revolve", None, None),
}
POLICIES |= {policy: (policy, 10, None) for policy in ("sqrt", "every", "none")}


def temporaries(derivative, *args):
    """Bytes that the compiled program needs beside its arguments and results, with XLA's default scheduler."""
    options = {"xla_cpu_enable_concurrency_optimized_scheduler": True}
    return jax.jit(derivative).lower(*args).compile(options).memory_analysis().temp_size_in_bytes


def recurrent(x, w, us, reverse):
    """An integer carry, one that does not change with x, scanned inputs and results, and a constant."""

    def body(carry, u):
        i, h, decay = carry
        h = jnp.tanh(w @ h + u) * decay
        return (i + 1, h, decay * 0.99), (jnp.sin(h) * i, i)

    (_, h, _), (ys, _) = lax.scan(body, (0, x, 1.0), us, reverse=reverse)
    return jnp.sum(h**2) + jnp.sum(ys * jnp.cos(ys))


@pytest.mark.parametrize(("policy", "slots", "tapes"), POLICIES.values(), ids=POLICIES)
def test_scan(policy, slots, tapes):
    for length, reverse in ((1, False), (11, slots != 3)):
        f = admodes.checkpoint(lambda x, w, us, r=reverse: recurrent(x, w, us, r), policy, slots=slots, tapes=tapes)
        args = X, W, sample((length, 3), np.float64, seed=length)
        expected = jax.grad(lambda *a, r=reverse: recurrent(*a, r), argnums=(0, 1, 2))(*args)
        ours = jax.jit(admodes.grad(f, argnums=(0, 1, 2)))(*args)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14), ours, expected)


def test_scan_in_every_way():
    """Eagerly, under jit and vmap, and in both modes."""
    us = sample((4, 3), np.float64, seed=2)
    f = admodes.checkpoint(lambda x: lax.scan(lambda c, u: (jnp.sin(c * u), c * c), x, us), slots=2)
    check(lambda x: jnp.sum(f(x)[1][2] * f(x)[0]), [X], fd=False)


@pytest.mark.parametrize(("policy", "tapes"), [("revolve", 1), ("revolve", 2), ("sqrt", 1)])
def test_second_order(policy, tapes):
    loop = lambda x: jnp.sum(lax.scan(lambda c, _: (jnp.sin(c * x), c * c), x, None, length=5)[1])
    f = admodes.checkpoint(loop, policy, slots=2, tapes=tapes)
    ours = jax.jit(lambda x, v: admodes.jvp(admodes.grad(f), (x,), (v,))[1])(X, X)
    np.testing.assert_allclose(ours, jax.hessian(loop)(X) @ X, rtol=1e-11)


def test_no_steps():
    f = lambda x: lax.scan(lambda c, u: (jnp.sin(c), c), x, None, length=0)[0].sum()
    np.testing.assert_array_equal(admodes.grad(admodes.checkpoint(f))(X), np.ones(3))


def test_a_loop_within_a_loop():
    def f(x):
        inner = lambda c: lax.fori_loop(0, 5, lambda i, c: jnp.sin(c) + 0.1 * i, c)
        outer = lambda c, _: (inner(c) * x, lax.while_loop(lambda y: y[0] < 3.0, lambda y: 2.0 * y, c))
        return sum(map(jnp.sum, lax.scan(outer, x, None, length=7)))

    unrolled = lambda x: sum(map(jnp.sum, lax.scan(lambda c, _: (step(c) * x, doubled(c)), x, None, length=7)))
    step = lambda c: lax.fori_loop(0, 5, lambda i, c: jnp.sin(c) + 0.1 * i, c)
    doubled = lambda c: lax.scan(lambda y, _: (jnp.where(y[0] < 3.0, 2.0 * y, y), None), c, None, length=9)[0]
    ours = jax.jit(admodes.grad(admodes.checkpoint(f, slots=3)))(X)
    np.testing.assert_allclose(ours, jax.grad(unrolled)(X), rtol=1e-12)


def long_orbit(x, steps=100_000):
    return jnp.sum(lax.scan(lambda c, _: (jnp.sin(c) * 1.01 + 0.01 * jnp.roll(c, 1), None), x, None, length=steps)[0])


def test_what_a_step_computes_from_what_is_kept_is_not_kept():
    """One array of each step is stacked, tanh(z), where JAX before 0.11 stacks 1 − tanh²(z) as well."""
    steps, x = 1000, jax.ShapeDtypeStruct((100,), jnp.float64)
    loop = lambda x: jnp.sum(lax.scan(lambda c, _: (jnp.tanh(jnp.roll(c, 1)), None), x, None, length=steps)[0])
    ours, jax_s = temporaries(admodes.grad(loop), x), temporaries(jax.grad(loop), x)
    assert ours < 1.1 * steps * x.size * x.dtype.itemsize
    assert ours < (0.6 if JAX_VERSION < (0, 11) else 1.1) * jax_s


def test_a_hundred_thousand_steps_fit_in_little_memory():
    """The state is a thousand doubles: the tape of all steps would be more than 760 MiB."""
    x = jax.ShapeDtypeStruct((1000,), jnp.float64)
    assert temporaries(admodes.grad(admodes.checkpoint(long_orbit)), x) < 2 * 2**20
    assert temporaries(admodes.grad(admodes.checkpoint(long_orbit, slots=10)), x) < 2**18
    assert temporaries(admodes.grad(admodes.checkpoint(long_orbit, "sqrt")), x) < 8 * 2**20


MIX = sample((16, 16), np.float32, -0.4, 0.4)


def layers(x, n):
    for _ in range(n):
        x = jnp.tanh(x @ MIX)
    return x


def deep(x):
    return jnp.sum(layers(x, 36) ** 2)


STATE = jax.ShapeDtypeStruct((4096, 16), jnp.float32)


@pytest.fixture(scope="module")
def plain():
    return temporaries(admodes.grad(deep), STATE)


@pytest.mark.parametrize(
    ("policy", "slots", "part"),
    [("sqrt", 1, 0.5), pytest.param("revolve", 3, 0.4, marks=pytest.mark.slow)],
    ids=["sqrt", "revolve"],
)
def test_blocks_of_a_function_without_loops(plain, policy, slots, part):
    """The compiler neither merges nor hoists what is to be computed again."""
    f = admodes.checkpoint(deep, policy, slots=slots)
    assert temporaries(admodes.grad(f), STATE) < part * plain
    x = sample((2, 16), np.float32)
    np.testing.assert_allclose(jax.jit(admodes.grad(f))(x), jax.jit(jax.grad(deep))(x), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("batched", [False, True], ids=["alone", "batched"])
def test_jax_checkpoint_saves_memory(plain, batched):
    def f(x):
        for _ in range(6):
            x = jax.checkpoint(lambda x: layers(x, 6))(x)
        return jnp.sum(x * x)

    derivative, state = admodes.grad(f), STATE
    if batched:
        derivative, state = jax.vmap(derivative), jax.ShapeDtypeStruct((4, 1024, 16), jnp.float32)
    assert temporaries(derivative, state) < 0.5 * plain


def test_jax_differentiates_a_checkpointed_function():
    f = admodes.checkpoint(lambda x: jnp.sum(lax.scan(lambda c, _: (jnp.sin(c), c), x, None, length=5)[1]))
    np.testing.assert_allclose(jax.grad(f)(X), admodes.grad(f)(X), rtol=1e-13)
    np.testing.assert_allclose(jax.jvp(f, (X,), (X,))[1], admodes.jvp(f, (X,), (X,))[1], rtol=1e-13)


@pytest.mark.parametrize(
    "options",
    [
        {"policy": "revolver"},
        *({"slots": k} for k in (0, -1, 2.5, True, "a")),
        *({"tapes": k} for k in (0, 2.5, "a")),
    ],
    ids=str,
)
def test_bad_options(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        admodes.checkpoint(jnp.sin, **options)


def test_side_effects_are_refused():
    def body(c, _):
        jax.experimental.io_callback(lambda: None, None, ordered=True)
        return jnp.sin(c), None

    f = lambda x: lax.scan(body, x, None, length=3)[0].sum()
    with pytest.raises(SideEffectError, match=r"test_checkpoint\.py"):
        admodes.grad(admodes.checkpoint(f))(X)
    assert admodes.grad(admodes.checkpoint(f, "none"))(X).shape == (3,)


@pytest.mark.parametrize(("length", "slots"), [(1, 1), (10, np.int64(3)), (100, 5), (100, 200)])
def test_a_scan_runs_the_fewest_steps(length, slots):
    """t(l, s), the last one of the first sweep, and each once more where it is differentiated."""
    seen = []

    def step(c, _):
        jax.debug.callback(lambda: seen.append(1))
        return jnp.sin(c), None

    loop = lambda x: lax.scan(step, x, None, length=length)[0]
    jax.block_until_ready(admodes.grad(admodes.checkpoint(loop, slots=slots))(1.0))
    jax.effects_barrier()
    assert len(seen) == fewest_steps(length, slots) + 1 + length


def test_a_scan_in_stretches():
    """The schedule is that of the stretches; their tapes take the room of a state each, here."""
    seen = []

    def step(c, _):
        jax.debug.callback(lambda: seen.append(1))
        return jnp.sin(c), None

    loop = lambda x: lax.scan(step, x, None, length=98)[0]
    jax.block_until_ready(admodes.grad(admodes.checkpoint(loop, slots=3, tapes=10))(1.0))
    jax.effects_barrier()
    assert len(seen) == 10 * fewest_steps(10, 3) + 8 + 98
    x = jax.ShapeDtypeStruct((1000,), jnp.float64)
    several = temporaries(admodes.grad(admodes.checkpoint(long_orbit, slots=10, tapes=10)), x)
    assert several < temporaries(admodes.grad(admodes.checkpoint(long_orbit, slots=25)), x)
