"""Programs within programs: jit, remat, cond, switch, scan, while, custom rules, against the oracle."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import admodes
from tests.oracle import check, sample

X = sample((3,), np.float64, 0.3, 1.2, seed=5)
W = sample((3, 3), np.float64, -0.5, 0.5, seed=6)


def scan_rnn(x, w):
    """A weight matrix that does not change over the loop, a carry, scanned inputs and stacked outputs."""

    def body(h, u):
        h = jnp.tanh(w @ h + u)
        return h, jnp.sin(h)

    return lax.scan(body, x, jnp.linspace(0.0, 1.0, 4))


def scan_integer_carry(x):
    def body(carry, u):
        i, y = carry
        return (i + 1, y * jnp.sin(u) + i), i

    return lax.scan(body, (0, x), jnp.ones((3, 3)) * x)


def scan_inactive_carry_that_becomes_active(x):
    """The second carry starts as a constant and picks up the first one step later."""

    def body(carry, _):
        a, b = carry
        return (a * 1.1, jnp.sin(b) + a), b

    return lax.scan(body, (x, jnp.zeros(3)), None, length=3)


def scan_reverse_unrolled(x):
    return lax.scan(lambda c, u: (c * u, c + u), x, jnp.ones((4, 3)) * x, reverse=True, unroll=2)


def scan_without_carry(x):
    return lax.scan(lambda _, u: (None, jnp.exp(u)), None, x)


def scan_of_length_zero(x):
    return lax.scan(lambda c, u: (c * u, c), x, jnp.zeros((0, 3)))


def scan_of_scan(x):
    def inner(c, u):
        return jnp.sin(c) * u, c

    def outer(c, u):
        c, ys = lax.scan(inner, c, jnp.ones((2, 3)) * u)
        return c, ys.sum()

    return lax.scan(outer, x, x)


def scan_that_returns_its_inputs(x):
    return lax.scan(lambda c, u: (u, (c, u, c)), x, jnp.ones((2, 3)) * x)


def fori_static(x):
    return lax.fori_loop(0, 4, lambda i, c: jnp.sin(c) * (i + 1), x)


def associative(x):
    return lax.associative_scan(jnp.multiply, x)


def map_over(x):
    return lax.map(lambda u: jnp.sin(u) * x, x)


def cond_taken(x):
    return lax.cond(x[0] > 0, lambda x: (jnp.sin(x), x[0]), lambda x: (x * x, jnp.sum(x)), x)


def cond_not_taken(x):
    return lax.cond(x[0] < 0, lambda x: (jnp.sin(x), x[0]), lambda x: (x * x, jnp.sum(x)), x)


def cond_one_branch_constant(x):
    return lax.cond(x[1] > 0, lambda x: jnp.ones(3), lambda x: jnp.sin(x), x)


def cond_closes_over(x, w):
    return lax.cond(x[0] > 0, lambda: jnp.tanh(w @ x), lambda: x * 2.0)


def cond_integer_output(x):
    return lax.cond(x[0] > 0, lambda: (x * x, 1), lambda: (x, 2))


def switch(x):
    return lax.switch(2, [jnp.sin, jnp.cos, lambda x: x * jnp.sum(x), jnp.exp], x)


def switch_traced(x):
    index = jnp.int32(jnp.floor(x[0] * 3))
    return lax.switch(index, [jnp.sin, jnp.cos, lambda x: x * jnp.sum(x), jnp.exp], x)


def cond_in_scan(x):
    def body(c, u):
        return lax.cond(u > 0.7, jnp.sin, lambda c: c * u, c), c

    return lax.scan(body, x, x)


def remat(x):
    return jax.checkpoint(lambda x: jnp.sin(jnp.exp(x) * x))(x)


def remat_with_policy(x, w):
    f = lambda x: jnp.tanh(w @ jnp.sin(w @ x))
    return jax.checkpoint(f, policy=jax.checkpoint_policies.dots_saveable)(x)


def remat_named(x):
    from jax.ad_checkpoint import checkpoint_name

    f = lambda x: jnp.sin(checkpoint_name(jnp.exp(x), "e") * x)
    return jax.checkpoint(f, policy=jax.checkpoint_policies.save_only_these_names("e"))(x)


def remat_of_scan(x):
    body = jax.checkpoint(lambda c, u: (jnp.sin(c) * u, c))
    return jax.checkpoint(lambda x: lax.scan(body, x, x))(x)


def remat_static_argument(x):
    return jax.checkpoint(lambda x, n: x**n, static_argnums=1)(x, 3)


def jitted(x):
    return jax.jit(lambda x, y: (jnp.sin(x) * y, x))(x, x[0])


def jitted_static(x):
    return jax.jit(lambda x, n: x**n, static_argnums=1)(x, 3)


@jax.custom_jvp
def doubled_sin(x, y):
    return jnp.sin(x) * y


doubled_sin.defjvps(lambda t, out, x, y: 2 * t * jnp.cos(x) * y, None)


@jax.custom_jvp
def asks_for_zeros(x, y):
    return x * y


@lambda f: asks_for_zeros.defjvp(f, symbolic_zeros=True)
def _asks_for_zeros_jvp(primals, tangents):
    x, y = primals
    dx, dy = tangents
    zero = jax.custom_derivatives.SymbolicZero
    return x * y, (0.0 if isinstance(dx, zero) else dx * y) + (0.0 if isinstance(dy, zero) else 3 * x * dy)


@jax.custom_vjp
def clipped(x, lo):
    return x * 1.0


clipped.defvjp(lambda x, lo: (clipped(x, lo), (x, lo)), lambda res, g: (jnp.clip(g, -0.5, 0.5) * res[0], None))


@jax.custom_vjp
def linear_back(x, w):
    return w @ jnp.sin(x)


linear_back.defvjp(
    lambda x, w: (linear_back(x, w), (jnp.cos(x), jnp.sin(x), w)),
    lambda res, g: (res[0] * (res[2].T @ g), jnp.outer(g, res[1])),
)

both = [
    scan_rnn,
    scan_integer_carry,
    scan_inactive_carry_that_becomes_active,
    scan_reverse_unrolled,
    scan_without_carry,
    scan_of_length_zero,
    scan_of_scan,
    scan_that_returns_its_inputs,
    fori_static,
    associative,
    map_over,
    cond_taken,
    cond_not_taken,
    cond_one_branch_constant,
    cond_closes_over,
    cond_integer_output,
    switch,
    switch_traced,
    cond_in_scan,
    remat,
    remat_with_policy,
    remat_named,
    remat_of_scan,
    remat_static_argument,
    jitted,
    jitted_static,
]


def _args(fun):
    names = fun.__code__.co_varnames[: fun.__code__.co_argcount]
    return [X if n == "x" else W for n in names]


@pytest.mark.parametrize("fun", both, ids=lambda f: f.__name__)
def test_against_the_oracle(fun):
    check(fun, _args(fun), order=2)


@pytest.mark.parametrize("fun", [scan_rnn, cond_closes_over, remat_with_policy], ids=lambda f: f.__name__)
@pytest.mark.parametrize("argnums", [0, 1])
def test_with_one_active_argument(fun, argnums):
    check(fun, _args(fun), argnums=argnums)


def test_custom_jvp_rule_is_the_derivative():
    check(doubled_sin, [X, X + 1], fd=False, order=2)
    check(lambda x: doubled_sin(x, x[0]), [X], fd=False)
    check(asks_for_zeros, [X, X + 1], fd=False)
    check(lambda x: asks_for_zeros(x, 2.0), [X], fd=False)


def test_custom_jvp_inside_control_flow():
    check(lambda x: lax.scan(lambda c, u: (doubled_sin(c, u), c), x, x), [X], fd=False)
    check(lambda x: jax.vmap(doubled_sin)(x, x), [X], fd=False)
    check(lambda x: lax.cond(x[0] > 0, lambda: doubled_sin(x, x), lambda: x), [X], fd=False)


def scaled_by(w):
    @jax.custom_jvp
    def scaled(x):
        return x * w

    scaled.defjvp(lambda primals, tangents: (scaled(*primals), tangents[0] * w))
    return scaled


@pytest.mark.parametrize("jit", [lambda f: f, jax.jit], ids=["eager", "jit"])
@pytest.mark.parametrize(
    "fun",
    [
        lambda w: lax.scan(lambda c, _: (scaled_by(w)(c), None), 1.0, None, length=2)[0],
        lambda w: lax.cond(w > 0, lambda: scaled_by(w)(w), lambda: 1.0),
        lambda w: jax.checkpoint(lambda x: scaled_by(w)(x))(w),
    ],
    ids=["scan", "cond", "checkpoint"],
)
def test_custom_jvp_rule_that_closes_over_a_differentiated_value(fun, jit):
    """Its derivative by that value would be lost in silence."""
    with pytest.raises(jax.errors.UnexpectedTracerError):
        jit(admodes.grad(fun))(2.0)
    with pytest.raises(jax.errors.UnexpectedTracerError, match="make that value an argument of the function"):
        jit(lambda w: admodes.jvp(fun, (w,), (1.0,)))(2.0)


def test_custom_vjp_rule_is_the_derivative():
    check(clipped, [X, 0.1], argnums=0, modes=["vjp"], fd=False)
    check(linear_back, [X, W], modes=["vjp"], fd=False, order=1)
    check(lambda x: jax.vmap(lambda u: linear_back(u, W))(jnp.stack([x, x + 1])), [X], modes=["vjp"], fd=False)
    check(lambda x: lax.scan(lambda c, u: (linear_back(c, W), u), x, x), [X], modes=["vjp"], fd=False)


def test_forward_mode_through_custom_vjp():
    t = jnp.ones(3)
    _, dy = admodes.jvp(lambda x: linear_back(x, W), (X,), (t,))
    np.testing.assert_allclose(dy, W @ (np.cos(X) * t), rtol=1e-12)
    np.testing.assert_allclose(admodes.jacfwd(lambda x: linear_back(x, W))(X), W * np.cos(X), rtol=1e-12)
    scanned = lambda x: lax.scan(lambda c, u: (linear_back(c, W), u), x, x)[0]
    np.testing.assert_allclose(admodes.jacfwd(scanned)(X), jax.jacrev(scanned)(X), rtol=1e-12)


NOT_LINEAR = {
    "product": lambda x, t: t * t,
    "contraction": lambda x, t: jnp.dot(t, t) * x,
    "elementwise": lambda x, t: jnp.sin(t),
    "step": lambda x, t: jnp.sign(t) * x,
    "scan": lambda x, t: lax.scan(lambda c, u: (c * u, None), t, jnp.stack([t, t]))[0],
    "cond": lambda x, t: lax.cond(x[0] > 0, lambda: t * t, lambda: t),
}


@pytest.mark.parametrize("jit", [lambda f: f, jax.jit], ids=["eager", "jit"])
@pytest.mark.parametrize("rule", NOT_LINEAR.values(), ids=NOT_LINEAR)
def test_custom_rule_that_is_not_linear(rule, jit):
    """At zero its derivative is often zero: nothing that may be returned in silence."""
    forward, backward = jax.custom_jvp(jnp.sin), jax.custom_vjp(jnp.sin)
    forward.defjvp(lambda p, t: (jnp.sin(*p), rule(*p, *t)))
    backward.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (rule(x, g),))
    with pytest.raises(admodes.errors.NotLinearError, match=r"must be linear.*test_control_flow\.py"):
        jit(admodes.grad(lambda x: forward(x).sum()))(X)
    with pytest.raises(admodes.errors.NotLinearError, match="must be linear"):
        jit(lambda x: admodes.jvp(backward, (x,), (x,)))(X)


def test_straight_through_estimator_is_not_inlined():
    @jax.custom_jvp
    def rounded(x):
        return jnp.round(x)

    rounded.defjvp(lambda p, t: (rounded(*p), t[0]))
    assert admodes.grad(rounded)(0.3) == 1.0
    assert jax.jit(admodes.grad(rounded))(0.3) == 1.0
    assert admodes.jvp(rounded, (0.3,), (1.0,))[1] == 1.0
    assert admodes.grad(jax.nn.relu)(0.0) == 0.0


def while_doubling(x):
    return lax.while_loop(lambda c: jnp.sum(c) < 100.0, lambda c: c * 2.0 + x, x)


def fori_dynamic(x, n=3):
    return lax.fori_loop(0, jnp.asarray(n), lambda i, c: jnp.sin(c) * x, x)


@pytest.mark.parametrize("fun", [while_doubling, fori_dynamic], ids=lambda f: f.__name__)
def test_while_in_forward_mode(fun):
    check(lambda x: fun(x), [X], modes=["jvp"], order=2)
    _, push = admodes.linearize(fun, X)
    np.testing.assert_allclose(push(X), jax.jvp(fun, (X,), (X,))[1], rtol=1e-12)


@pytest.mark.parametrize(
    "loop",
    [
        lambda x: lax.while_loop(lambda i: i < 5, lambda i: i + 1, 0),
        lambda x: lax.while_loop(lambda c: c < 10 * x[0], lambda c: c + 1.0, 0.0),
        lambda x: lax.while_loop(lambda c: c < 9.0, lambda c: c + lax.stop_gradient(x[0]), 0.0),
        lambda x: lax.while_loop(lambda c: c[0].sum() < 9.0, lambda c: (c[0] + x, c[1] * 2.0), (x, 1.0))[1],
    ],
    ids=["integer", "predicate", "stopped", "other carry"],
)
def test_while_with_inactive_carry_needs_no_derivative(loop):
    check(lambda x: x * loop(x), [X], fd=False)


def test_constants_of_a_branch_are_not_residuals():
    """A batched cond takes both branches; zeros for the constants of the other one would spread by the collective."""
    fun = lambda x: lax.cond(x[0] > 0, lambda: lax.pmean(x, "i").sum(), lambda: x[0])
    points = jnp.array([[0.3, -0.7, 1.2], [-0.3, 0.7, -1.2]])
    gradients = jax.vmap(admodes.grad(fun), axis_name="i")(points)
    np.testing.assert_array_equal(gradients, [[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])


def test_scan_keeps_invariant_residuals_out_of_the_loop():
    """The weight matrix is neither stacked nor is its cosine recomputed in each step."""
    steps, n = 50, 40
    w = jnp.ones((n, n)) / n

    def loss(w, x):
        return jnp.sum(lax.scan(lambda h, _: (jnp.tanh(jnp.cos(w) @ h), None), x, None, length=steps)[0])

    memory = jax.jit(admodes.grad(loss)).lower(w, jnp.ones(n)).compile().memory_analysis().temp_size_in_bytes
    assert memory < steps * n * n * 8 / 2


def test_remat_keeps_less():
    """A checkpointed loop body stores its inputs only."""

    def block(x):
        for _ in range(8):
            x = jnp.sin(x @ x)
        return x

    def loss(x, remat):
        body = jax.checkpoint(block) if remat else block
        return jnp.sum(lax.scan(lambda c, _: (body(c), None), x, None, length=10)[0])

    x = jnp.ones((32, 32))
    memory = [
        jax.jit(admodes.grad(lambda x, r=r: loss(x, r))).lower(x).compile().memory_analysis().temp_size_in_bytes
        for r in (False, True)
    ]
    assert memory[1] < memory[0] / 2


def test_shardings_of_an_inner_jit_are_kept():
    mesh = jax.make_mesh((4,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("i"))
    inner = jax.jit(lambda x: jnp.sin(x), in_shardings=split, out_shardings=split)
    x = jnp.arange(8.0)
    y, pullback = admodes.vjp(inner, x)
    assert y.sharding.is_equivalent_to(split, 1)
    np.testing.assert_allclose(pullback(jnp.ones(8))[0], jnp.cos(x))
    jaxpr = str(jax.make_jaxpr(lambda x: admodes.vjp(inner, x)[0])(x))
    assert jaxpr.count("sharding_constraint") >= 1
