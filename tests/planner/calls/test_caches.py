"""What is kept from one call to the next serves only those for whom it is right, from any thread, and not for ever."""

import contextlib
import gc
import itertools
import threading
import weakref
from functools import partial

import jax
import numpy as np
import pytest
import scipy.sparse as sp
from jax import lax
from jax import numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

import admodes
from admodes.planner.calls import jacobian as module

X = jnp.linspace(0.3, 0.9, 3)


# -- functions that look alike: a sine whose derivative of some order has a factor k ---------------------------


def by_custom_jvp(order, k):
    if order == 0:
        return lambda x: k * jnp.sin(x)
    slope = by_custom_jvp(order - 1, k)

    @jax.custom_jvp
    def sine(x):
        return jnp.sin(x)

    sine.defjvp(lambda p, t: (sine(*p), slope(p[0]) * t[0]))
    return sine


def by_custom_vjp(order, k):
    if order == 0:
        return lambda x: k * jnp.sin(x)
    slope = by_custom_vjp(order - 1, k)

    @jax.custom_vjp
    def sine(x):
        return jnp.sin(x)

    sine.defvjp(lambda x: (sine(x), x), lambda x, g: (slope(x) * g,))
    return sine


def by_static_argument(order, k):
    @partial(jax.custom_jvp, nondiff_argnums=(0,))
    def sine(factors, x):
        return jnp.sin(x)

    def rule(factors, p, t):
        slope = sine(factors[1:], p[0]) if len(factors) > 1 else factors[0] * jnp.sin(p[0])
        return sine(factors, *p), slope * t[0]

    sine.defjvp(rule)
    return (lambda x: k * jnp.sin(x)) if order == 0 else lambda x: sine((1.0,) * (order - 1) + (k,), x)


def by_callback(order, k):
    """The factor is that of a Python function, which the rule of the last order calls."""
    if order == 0:
        scaled = lambda x: np.asarray(k * np.sin(x), x.dtype)
        return lambda x: jax.pure_callback(scaled, jax.typeof(x), x, vmap_method="broadcast_all")
    slope = by_callback(order - 1, k)

    @jax.custom_jvp
    def sine(x):
        return jnp.sin(x)

    sine.defjvp(lambda p, t: (sine(*p), slope(p[0]) * t[0]))
    return sine


def by_registered_primitive(order, k):
    if order == 0:
        return lambda x: k * jnp.sin(x)
    slope = by_registered_primitive(order - 1, k)
    primitive = Primitive("sine")
    primitive.def_impl(jnp.sin)
    primitive.def_abstract_eval(lambda x: x)
    mlir.register_lowering(primitive, mlir.lower_fun(jnp.sin, multiple_results=False))
    batching.defvectorized(primitive)
    ad.defjvp(primitive, lambda t, x: t * slope(x))
    return primitive.bind


KINDS = [by_custom_jvp, by_custom_vjp, by_static_argument, by_callback, by_registered_primitive]
AROUND = {
    "plain": lambda f: f,
    "jit": lambda f: jax.jit(lambda x: f(x)),
    "scan": lambda f: lambda x: lax.scan(lambda c, _: (c, f(c)), x, None, length=1)[1][0],
    "cond": lambda f: lambda x: lax.cond(x[0] > 0, lambda x: f(x), lambda x: x, x),
    "vmap": lambda f: lambda x: jax.vmap(f)(x),
    "remat": lambda f: jax.checkpoint(lambda x: f(x)),
}


def derivative(jacobian, f, order):
    """Of a function that acts on each number for itself."""
    for _ in range(order):
        f = (lambda g: lambda x: jacobian(g)(x) @ jnp.ones(x.size, x.dtype))(f)
    return f


@pytest.mark.parametrize("seed", range(12))
def test_functions_that_differ_in_one_hidden_respect_do_not_share(seed):
    rng = np.random.default_rng(seed)
    kind, order = KINDS[rng.integers(len(KINDS))], int(rng.integers(1, 3))
    around = list(AROUND.values())[rng.integers(len(AROUND))]
    if kind is by_callback:
        order = 1  # nobody differentiates what a callback returns
        around = AROUND["plain"]
    for k in (2.0, 5.0):
        f = around(kind(order, k))
        for asked in range(1, order + 1):
            found = derivative(admodes.jacobian, f, asked)(X)
            np.testing.assert_allclose(found, derivative(jax.jacrev, f, asked)(X), rtol=1e-10)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_rules_of_higher_order_do_not_mix(kind):
    order = 1 if kind is by_callback else 2
    for k in (2.0, 5.0):
        found = derivative(admodes.jacobian, kind(order, k), order)(X)
        np.testing.assert_allclose(found, k * jnp.sin(X), rtol=1e-10)


def test_schedules_of_functions_that_look_alike():
    """The gradient under a memory limit is kept too, and may be differentiated."""
    for k in (2.0, 5.0):
        f = by_custom_jvp(2, k)
        gradient = admodes.grad(lambda x, f=f: jnp.sum(f(x)), memory_limit="1MiB")
        np.testing.assert_allclose(admodes.jacobian(gradient)(X), jnp.diag(k * jnp.sin(X)), rtol=1e-10)


@pytest.mark.parametrize("kind", [by_custom_jvp, by_static_argument], ids=lambda kind: kind.__name__)
def test_functions_with_rules_share_what_is_made_of_the_same_rules(kind):
    sine = kind(2, 2.0)
    jacobian = lambda: admodes.jacobian(lambda x: sine(x) * jnp.sum(x))(X)
    first, runs = jacobian(), set(module._RUNS.entries)
    np.testing.assert_array_equal(jacobian(), first)
    assert set(module._RUNS.entries) == runs


SETTINGS = {
    "jax_threefry_partitionable": (True, False),
    "jax_random_seed_offset": (0, 7),
    "jax_enable_x64": (True, False),
    "jax_numpy_rank_promotion": ("allow", "raise"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_that_jit_traces_anew_for(name):
    before = getattr(jax.config, name)
    vector = jnp.ones(3, jnp.float32)

    def f(x):
        return (x if name != "jax_numpy_rank_promotion" else x[None] + x) * jax.random.normal(jax.random.key(3), (3,))

    ours, jitted = admodes.jacobian(f), jax.jit(jax.jacobian(f))
    limited = admodes.grad(lambda x: jnp.sum(f(x)), memory_limit="1MiB")
    try:
        for value in SETTINGS[name]:
            jax.config.update(name, value)
            if value == "raise":
                for transformed in (ours, limited):
                    with pytest.raises(ValueError, match="rank"):
                        transformed(vector)
                continue
            expected = jitted(vector)
            found = ours(vector)
            np.testing.assert_allclose(found, expected, rtol=1e-6)
            assert found.dtype == expected.dtype
            np.testing.assert_allclose(limited(vector), expected.reshape(-1, 3).sum(0), rtol=1e-6)
    finally:
        jax.config.update(name, before)


def test_objects_that_are_changed_in_place():
    """They are as fixed as what jit is told to be static: an equal object is the same one, whatever it holds."""

    class Scale:
        by = 2.0

    scale = Scale()
    f = lambda x, scale: scale.by * x
    ours, jitted = admodes.jacobian(f), jax.jit(f, static_argnums=1)
    for by in (2.0, 3.0):
        scale.by = by
        np.testing.assert_allclose(ours(X, scale), 2.0 * jnp.eye(3))
        np.testing.assert_allclose(jitted(X, scale), 2.0 * X)
    np.testing.assert_allclose(admodes.jacobian(f)(X, scale), 3.0 * jnp.eye(3))


# -- threads and time ----------------------------------------------------------------------------------------


def test_ten_threads():
    """Each makes Jacobians anew, more than are kept, some of them the same as others' and some not."""
    failures = []
    start = threading.Barrier(10)

    def work(number):
        try:
            start.wait()
            for step in range(4):
                k = float(step if step % 2 else 100 * number + step)
                found = admodes.jacobian(lambda x, k=k: k * jnp.sin(x))(X)
                np.testing.assert_allclose(found, jnp.diag(k * jnp.cos(X)), rtol=1e-10)
                gradient = admodes.grad(lambda x, k=k: k * jnp.sum(jnp.sin(x)), memory_limit="1MiB")(X)
                np.testing.assert_allclose(gradient, k * jnp.cos(X), rtol=1e-10)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]


@pytest.mark.slow
def test_two_thousand_closures_leave_nothing_behind():
    alive = weakref.WeakSet()
    total = itertools.count()

    def call(k):
        def fresh(x):
            return jnp.tanh(x) * x.sum() * k

        alive.add(fresh)
        next(total)
        admodes.jacobian(fresh)(X)

    for step in range(2000):
        call(float(step % 50 == 0 and step))
    gc.collect()
    assert next(total) == 2000
    assert len(alive) <= module.MOST_PLANS
    assert len(module._RUNS.entries) <= module.MOST_PLANS


# -- results are the user's ----------------------------------------------------------------------------------


def test_a_result_may_be_changed_in_place():
    f = lambda x: jnp.stack([x[0] * x[1], x[1] * x[2], x[2] ** 2])
    ours, at, zero = admodes.jacobian(f, format="scipy"), jnp.array([1.0, 2.0, 3.0]), jnp.array([0.0, 0.0, 3.0])
    changed = ours(zero)
    assert isinstance(changed, sp.csr_array)
    for array in (changed.data, changed.indices, changed.indptr):
        assert array.flags.writeable
    changed.eliminate_zeros()
    changed.indices[:] = 0
    changed.data[:] = 7
    np.testing.assert_allclose(ours(at).toarray(), jax.jacobian(f)(at))
    plan = admodes.plan(f, at, format="scipy")
    for array in (plan.pattern.cols, plan.pattern.to_scipy().indices):
        with contextlib.suppress(ValueError):
            array[:] = 0
    np.testing.assert_allclose(plan.jacobian(at).toarray(), jax.jacobian(f)(at))
    np.testing.assert_allclose(ours(at).toarray(), jax.jacobian(f)(at))


def test_colors_of_a_compressed_result_cannot_be_changed():
    chain = lambda x: x[1:] * x[:-1]
    found = admodes.jacobian(chain, format="compressed")(X)
    with pytest.raises(ValueError, match="read-only"):
        found.coloring.columns[:] = 0
