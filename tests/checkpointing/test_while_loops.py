"""Reverse mode through loops whose length is known only at run time, against the unrolled loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import admodes
from admodes.checkpointing.policies import Checkpoints
from admodes.errors import SideEffectError
from admodes.modes.interpreter import Interpreter
from tests.oracle import sample

X = sample((3,), np.float64, 0.3, 1.2, seed=5)
W = sample((3, 3), np.float64, -0.6, 0.6, seed=6)


def close(ours, theirs, rtol=1e-12):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-14), ours, theirs)


def iterate(x, w, n):
    """A constant that is differentiated, an integer carry, one that is inactive, one that the others never reach."""

    def body(carry):
        i, y, still, idle = carry
        return i + 1, jnp.cos(w @ y) + 0.1 * y * still, still * 1.1, idle + 1.0

    return lax.while_loop(lambda c: c[0] < n, body, (0, x, 1.0, 0.0))[1]


def unrolled(x, w, n):
    still = 1.0
    for _ in range(n):
        x, still = jnp.cos(w @ x) + 0.1 * x * still, still * 1.1
    return x


def loss(f):
    return lambda x, w, n: jnp.sum(f(x, w, n) ** 2)


GRADIENT = jax.jit(admodes.grad(loss(iterate), argnums=(0, 1)))


@pytest.mark.parametrize("n", [0, 1, 2, 3, 17])
def test_gradient_is_that_of_the_unrolled_loop(n):
    close(GRADIENT(X, W, n), jax.grad(loss(unrolled), argnums=(0, 1))(X, W, n))


def test_gradient_of_many_steps_is_that_of_a_scan():
    """More steps than slots squared, so that states are given up and brought back at several levels."""
    n, f = 12_000, lambda x: jnp.sum(lax.fori_loop(0, jnp.asarray(n), lambda i, c: jnp.sin(c + i) + 0.3 * x, x))
    scanned = lambda x: jnp.sum(lax.fori_loop(0, n, lambda i, c: jnp.sin(c + i) + 0.3 * x, x))
    close(jax.jit(admodes.grad(f))(X), jax.jit(jax.grad(scanned))(X))


@pytest.mark.parametrize(("slots", "tapes"), [(1, 1), (2, 1), (5, 1), (1, 4), (2, 3)])
def test_any_number_of_slots_and_tapes_gives_the_same(slots, tapes):
    interpreter = Interpreter(checkpoints=Checkpoints(slots=slots, tapes=tapes))

    def gradient(x, n):
        _, tape = interpreter.record_function(lambda x: [loss(iterate)(x, W, n)], [x], [True])
        return tape.pull((jnp.ones(()),))[0]

    gradient = jax.jit(gradient)
    for n in (0, 1, 2, slots, slots + 1, 20, 21):
        close(gradient(X, n), jax.grad(loss(unrolled))(X, W, n))


def test_fori_loop_with_traced_bounds():
    def f(x, first, last):
        return jnp.sum(lax.fori_loop(first, last, lambda i, c: jnp.sin(c * x) + i, x))

    gradient = jax.jit(admodes.grad(f))
    for first, last in ((0, 0), (2, 5), (5, 2), (-3, 1)):
        close(gradient(X, first, last), jax.grad(f)(X, first, last))


def newton_sqrt(x):
    """The number of steps depends on x, but the derivative does not pass through the condition."""
    return lax.while_loop(lambda y: jnp.abs(y * y - x) > 1e-13 * x, lambda y: 0.5 * (y + x / y), x)


def test_condition_that_depends_on_the_input():
    gradient = jax.jit(admodes.grad(newton_sqrt))
    for x in (2.0, 3.0, 1e6):
        np.testing.assert_allclose(gradient(x), 0.5 / np.sqrt(x), rtol=1e-6)
    assert admodes.grad(newton_sqrt)(2.0) == gradient(2.0)


def doubling(x):
    """A trip count that differs from lane to lane."""
    return lax.while_loop(lambda c: jnp.sum(c) < 20.0, lambda c: c * jnp.exp(0.3 * jnp.sin(x)) + x, x)


LANES = jnp.array([[0.1, 0.2, 0.1], [3.0, 2.0, 1.0], [30.0, 0.0, 0.0]])


def doubling_unrolled(x):
    c = x
    while jnp.sum(c) < 20.0:
        c = c * jnp.exp(0.3 * jnp.sin(x)) + x
    return c


def test_vmap_over_lanes_with_trip_counts_of_their_own():
    expected = np.stack([jax.grad(lambda x: jnp.sum(doubling_unrolled(x) ** 2))(x) for x in LANES])
    close(jax.vmap(admodes.grad(lambda x: jnp.sum(doubling(x) ** 2)))(LANES), expected)
    close(admodes.grad(lambda xs: jnp.sum(jax.vmap(doubling)(xs) ** 2))(LANES), expected)


@pytest.mark.parametrize("context", ["scan", "cond", "while", "remat", "jacrev"])
def test_nested(context):
    def f(loop):
        def scanned(x):
            return jnp.sum(lax.scan(lambda c, u: (jnp.sin(loop(c)) + u, loop(c * u)), x, jnp.ones((2, 3)))[1])

        def twice(x):  # two steps of a loop that has a loop in its body
            if loop is doubling:
                return jnp.sum(lax.while_loop(lambda c: c[0] < 2, lambda c: (c[0] + 1, loop(0.1 * c[1])), (0, x))[1])
            return jnp.sum(loop(0.1 * loop(0.1 * x)))

        return {
            "scan": scanned if loop is doubling else scanned_unrolled,
            "cond": lambda x: jnp.sum(lax.cond(x[0] > 0, loop, jnp.sin, x)) if loop is doubling else jnp.sum(loop(x)),
            "while": twice,
            "remat": lambda x: jnp.sum((jax.checkpoint(loop) if loop is doubling else loop)(x)),
            "jacrev": loop,
        }[context]

    def scanned_unrolled(x):
        return sum(jnp.sum(doubling_unrolled(c)) for c in (x, jnp.sin(doubling_unrolled(x)) + 1.0))

    ours, theirs = (admodes.jacrev, jax.jacrev) if context == "jacrev" else (admodes.grad, jax.grad)
    close(ours(f(doubling))(X), theirs(f(doubling_unrolled))(X))


def test_second_order():
    f = lambda x: loss(iterate)(x, W, jnp.asarray(5))
    exact = jax.hessian(lambda x: loss(unrolled)(x, W, 5))(X)
    close(jax.jit(lambda x: admodes.hvp(f, x, x))(X), exact @ X)


@pytest.mark.parametrize("tapes", [pytest.param(n, marks=pytest.mark.slow) for n in (1, 2)])
def test_second_order_reverse_over_reverse(tapes):
    interpreter = Interpreter(checkpoints=Checkpoints(slots=2, tapes=tapes))

    def slope(x):
        _, tape = interpreter.record_function(lambda x: [loss(iterate)(x, W, jnp.asarray(3))], [x], [True])
        return jnp.vdot(tape.pull((jnp.ones(()),))[0], X)

    close(jax.jit(admodes.grad(slope))(X), jax.hessian(lambda x: loss(unrolled)(x, W, 3))(X) @ X)


def test_linearize_and_pull_agree():
    """⟨g, J t⟩ = ⟨Jᵀ g, t⟩ on one tape."""
    _, push = admodes.linearize(doubling, X)
    _, pullback = admodes.vjp(doubling, X)
    t, g = sample((3,), np.float64, seed=1), sample((3,), np.float64, seed=2)
    np.testing.assert_allclose(jnp.vdot(g, push(t)), jnp.vdot(pullback(g)[0], t), rtol=1e-12)


def test_pullback_can_be_returned_from_jit():
    _, pullback = jax.jit(lambda x: admodes.vjp(doubling, x))(X)
    close(pullback(X), admodes.vjp(doubling, X)[1](X))


@pytest.mark.parametrize("dtype", ["float32", "complex128", "bfloat16"])
def test_dtypes(dtype):
    x = sample((3,), dtype, 0.3, 1.2)
    ours = admodes.vjp(lambda x: lax.fori_loop(0, jnp.asarray(4), lambda i, c: jnp.sin(c) * x, x), x)
    theirs = jax.vjp(lambda x: lax.fori_loop(0, 4, lambda i, c: jnp.sin(c) * x, x), x)
    for mine, yours in ((ours[0], theirs[0]), (ours[1](x)[0], theirs[1](x)[0])):
        assert mine.dtype == yours.dtype
        np.testing.assert_allclose(
            np.asarray(mine, complex), np.asarray(yours, complex), rtol=2e-2 if dtype == "bfloat16" else 1e-5
        )


def test_random_keys_in_the_carry():
    """The same numbers are drawn when a step is run again."""

    def f(x, n):
        def body(c):
            i, key, y = c
            key, now = jax.random.split(key)
            return i + 1, key, y * x + jax.random.normal(now, (3,))

        return jnp.sum(lax.while_loop(lambda c: c[0] < n, body, (0, jax.random.key(0), x))[2])

    def unrolled(x):
        key, y = jax.random.key(0), x
        for _ in range(6):
            key, now = jax.random.split(key)
            y = y * x + jax.random.normal(now, (3,))
        return jnp.sum(y)

    close(admodes.grad(f)(X, jnp.asarray(6)), jax.grad(unrolled)(X))


def test_weak_types_are_those_of_the_loop():
    f = lambda x: lax.while_loop(lambda c: c < 9.0, lambda c: c * x, x)
    value, pullback = jax.jit(lambda x: admodes.vjp(f, x))(2.0)
    assert value.weak_type == jax.jit(f)(2.0).weak_type
    assert float(pullback(1.0)[0]) == 4 * 2.0**3


def test_side_effects_are_refused():
    def f(x):
        def body(c):
            i, y = c
            jax.experimental.io_callback(lambda i: None, None, i, ordered=True)
            return i + 1, jnp.sin(y)

        return jnp.sum(lax.while_loop(lambda c: c[0] < 3, body, (0, x))[1])

    with pytest.raises(SideEffectError, match=r"test_while_loops\.py"):
        admodes.grad(f)(X)


def steps_run(slots, n, tapes=1):
    """How often the body runs, by a callback that may be repeated, when a loop is walked back."""
    seen = []
    interpreter = Interpreter(checkpoints=Checkpoints(slots=slots, tapes=tapes))

    def f(x):
        def body(c):
            jax.debug.callback(lambda i: seen.append(int(i)), c[0])
            return c[0] + 1, jnp.sin(c[1])

        return [lax.while_loop(lambda c: c[0] < n, body, (0, x))[1]]

    _, tape = interpreter.record_function(f, [X], [True])
    jax.block_until_ready(tape.pull((X,)))
    jax.effects_barrier()
    return len(seen)


@pytest.mark.parametrize(("slots", "n", "steps"), [(3, 10, 18), (5, 5, 5), (10, 100, 245)])
def test_steps_are_nearly_the_fewest(slots, n, steps):
    """All states of up to ``slots`` steps are kept; beyond, the online schedule comes within a fifth of the optimum."""
    assert steps_run(slots, n) - n == steps
    assert steps <= 1.2 * (admodes.checkpointing.binomial.fewest_steps(n, slots) + 1)


def test_stretches_are_the_steps_of_the_schedule():
    """Full ones take ten times their number; the last one is run in the first sweep and where it is differentiated."""
    assert steps_run(3, 100, tapes=10) == 10 * (18 + 10)
    assert steps_run(3, 95, tapes=10) == 10 * (18 + 10) - 2 * 5
    assert steps_run(1, 7, tapes=10) == 7 + 7
