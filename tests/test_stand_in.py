"""``admodes.as_jax``: ours in JAX's place inside of the block, JAX's after it, whatever happens."""

import asyncio
import functools
import sys
import threading
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import admodes
from admodes import stand_in
from admodes.compare import jax_ad
from admodes.modes.pullback import Pullback
from admodes.transforms.forward import Pushforward

X = jnp.array([0.3, -1.2, 0.7])


def f(x):
    return jnp.sum(jnp.sin(x) * x)


def stands_in() -> bool:
    """True if ours are in JAX's place."""
    return type(jax.vjp(f, X)[1]) is Pullback


@pytest.fixture
def calls(monkeypatch):
    """How often each of our functions is called."""
    count: dict = {}

    def counted(name, function):
        @functools.wraps(function)
        def call(*args, **kwargs):
            count[name] = count.get(name, 0) + 1
            return function(*args, **kwargs)

        return call

    monkeypatch.setattr(stand_in, "_OURS", {n: counted(n, function) for n, function in stand_in._OURS.items()})
    return count


@pytest.fixture
def module():
    """A module that imported JAX's functions before, some by other names."""
    made = ModuleType("imported_before")
    exec("from jax import grad, jvp as push, hessian\nfrom jax import numpy", vars(made))
    sys.modules["imported_before"] = made
    yield made
    del sys.modules["imported_before"]


USES = {
    "jvp": lambda d: d.jvp(f, (X,), (X,)),
    "vjp": lambda d: d.vjp(f, X)[1](1.0),
    "linearize": lambda d: d.linearize(f, X)[1](X),
    "grad": lambda d: d.grad(f)(X),
    "value_and_grad": lambda d: d.value_and_grad(f)(X),
    "jacfwd": lambda d: d.jacfwd(jnp.sin)(X),
    "jacrev": lambda d: d.jacrev(jnp.sin)(X),
    "jacobian": lambda d: d.jacobian(jnp.sin)(X),
    "hessian": lambda d: d.hessian(f)(X),
}


def test_every_function_of_jax_that_differentiates_is_stood_in_for():
    assert sorted(USES) == sorted(jax_ad.NAMES)


@pytest.mark.parametrize("name", USES)
def test_each_function_is_ours_inside_and_jax_outside(name, calls):
    expected = USES[name](jax)
    assert not calls
    with admodes.as_jax():
        assert getattr(jax, name) is not getattr(jax_ad, name)
        actual = USES[name](jax)
    assert calls[name] == 1
    assert getattr(jax, name) is getattr(jax_ad, name)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-12), actual, expected)


def test_names_imported_before_are_ours_inside(module, calls):
    with admodes.as_jax():
        module.grad(f)(X), module.push(f, (X,), (X,)), module.hessian(f)(X)
        assert calls == {"grad": 1, "jvp": 1, "hessian": 1}
        assert module.numpy is jnp
    assert (module.grad, module.push, module.hessian) == (jax_ad.grad, jax_ad.jvp, jax_ad.hessian)


def test_names_imported_inside_are_jax_after(module):
    with admodes.as_jax():
        exec("from jax import jacfwd", vars(module))
        kept = [module.jacfwd]
        assert module.jacfwd is not jax_ad.jacfwd
    assert module.jacfwd is jax_ad.jacfwd
    assert kept[0](jnp.sin)(1.0) == jax.jacfwd(jnp.sin)(1.0)  # out of reach, but no block is open: JAX's


def test_jax_and_admodes_keep_their_own():
    from jax._src import api

    before = vars(api).copy(), vars(admodes).copy()
    with admodes.as_jax():
        assert all(vars(api)[name] is value for name, value in before[0].items())
        assert all(vars(admodes)[name] is value for name, value in before[1].items())


def test_an_exception_puts_jax_back():
    with pytest.raises(ZeroDivisionError), admodes.as_jax():
        raise ZeroDivisionError(stands_in())
    assert jax.grad is jax_ad.grad


def test_an_exception_inside_of_a_derivative_puts_jax_back():
    with pytest.raises(TypeError, match="scalar"), admodes.as_jax():
        jax.grad(jnp.sin)(X)
    assert jax.grad is jax_ad.grad


def test_blocks_nest():
    with admodes.as_jax(), admodes.as_jax():
        assert stands_in()
    with admodes.as_jax():
        with admodes.as_jax():
            pass
        assert stands_in()
    assert jax.vjp is jax_ad.vjp


def test_the_innermost_open_block_gives_the_options_in_whatever_order_they_end():
    def slope():
        return float(jax.grad(lambda x: jnp.maximum(x, 0.0))(0.0))

    outer, inner = admodes.as_jax(ties="average"), admodes.as_jax(ties="first")
    outer.__enter__()
    assert slope() == 0.5
    inner.__enter__()
    assert slope() == 1.0
    outer.__exit__(None, None, None)
    assert slope() == 1.0
    inner.__exit__(None, None, None)
    assert jax.grad is jax_ad.grad


def test_decorator():
    @admodes.as_jax()
    def inside(again):
        assert stands_in()
        return inside(again - 1) if again else jax.grad(f)(X)

    np.testing.assert_allclose(inside(2), jax.grad(f)(X), rtol=1e-12)
    np.testing.assert_allclose(inside(0), jax.grad(f)(X), rtol=1e-12)
    assert jax.vjp is jax_ad.vjp


def test_options_go_to_the_functions_that_take_them(calls):
    received = {}

    def noted(name, function):
        @functools.wraps(function)
        def call(*args, **kwargs):
            received[name] = set(kwargs)
            return function(*args, **kwargs)

        return call

    for name, function in stand_in._OURS.items():
        stand_in._OURS[name] = noted(name, function)
    with admodes.as_jax(nan_safe=True, ties="average", memory_limit="1GiB"):
        for use in USES.values():
            use(jax)
    both = {"nan_safe", "ties", "memory_limit"}
    assert received == {
        "jvp": {"nan_safe", "ties"},
        "vjp": {"nan_safe", "ties"},
        "linearize": {"nan_safe", "ties"},
        "grad": both,
        "value_and_grad": both,
        "jacfwd": {"nan_safe", "ties"},
        "jacrev": {"nan_safe", "ties"},
        "jacobian": both,
        "hessian": both,
    }


def test_options_are_in_force():
    def root(x):
        return jnp.where(x > 0, jnp.sqrt(x), 0.0)

    assert np.isnan(jax.grad(root)(0.0))
    with admodes.as_jax(nan_safe=True):
        assert jax.grad(root)(0.0) == 0.0
        assert jax.jvp(root, (0.0,), (1.0,))[1] == 0.0
    with admodes.as_jax(memory_limit=1), pytest.raises(admodes.errors.MemoryLimitError):
        jax.grad(lambda x: jnp.sum(jax.lax.fori_loop(0, 9, lambda i, y: jnp.sin(y), x)))(X)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"format": "bcoo"}, TypeError, "nan_safe, ties, memory_limit"),
        ({"ties": "lowest"}, ValueError, "lexicographic"),
        ({"memory_limit": "much"}, ValueError, "much"),
        ({"ties": "lexicographic", "memory_limit": 100}, ValueError, "leave out one"),
    ],
)
def test_wrong_options_are_named_and_nothing_is_replaced(options, error, says):
    with pytest.raises(error, match=says):
        admodes.as_jax(**options)
    assert jax.grad is jax_ad.grad


def in_thread(function):
    found = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    thread.join()
    return found[0]


def test_other_threads_have_jax():
    def theirs():
        own = stands_in()
        with admodes.as_jax():
            return own, stands_in()

    with admodes.as_jax():
        assert in_thread(theirs) == (False, True)
        assert stands_in()
    assert in_thread(stands_in) is False


def test_a_block_that_another_thread_ends_is_over():
    block = admodes.as_jax()
    block.__enter__()
    in_thread(lambda: block.__exit__(None, None, None))
    assert jax.vjp is jax_ad.vjp
    assert not stands_in()


def test_tasks_have_blocks_of_their_own():
    async def one():
        with admodes.as_jax():
            await asyncio.sleep(0.01)
            return stands_in()

    async def other():
        await asyncio.sleep(0.005)
        return stands_in()

    async def both():
        return await asyncio.gather(one(), other())

    assert asyncio.run(both()) == [True, False]
    assert jax.vjp is jax_ad.vjp


def test_what_jit_traced_it_keeps_until_its_cache_is_cleared(calls):
    @jax.jit
    def slope(x):
        return jax.grad(f)(x)

    slope(X)
    with admodes.as_jax():
        slope(X)
        assert not calls
        slope.clear_cache()
        slope(X)
        assert calls == {"grad": 1}
    slope(X)
    assert calls == {"grad": 1}
    slope.clear_cache()
    slope(X)
    assert calls == {"grad": 1}


def test_what_is_made_inside_stays_ours(calls):
    with admodes.as_jax():
        gradient, (_, push) = jax.grad(f), jax.linearize(f, X)
    assert type(push) is Pushforward
    np.testing.assert_allclose(gradient(X), jax.grad(f)(X), rtol=1e-12)
    assert calls == {"grad": 1, "linearize": 1}


def test_our_comparisons_are_with_jax_inside_too(calls):
    with admodes.as_jax():
        compared = admodes.compare(jnp.sin, X, repeat=1)
        assert not calls
        assert {row.mode for row in compared.oracle_rows} == {"jax.jacfwd", "jax.jacrev"}
        admodes.verify(jnp.sin, X)
        assert not calls


def test_admodes_is_as_ever_inside(calls):
    with admodes.as_jax():
        np.testing.assert_allclose(admodes.hessian(f)(X), jax_ad.hessian(f)(X), rtol=1e-12)
        np.testing.assert_allclose(jax.jvp(jax.grad(f), (X,), (X,))[1], admodes.hvp(f, X, X), rtol=1e-12)
    assert calls == {"jvp": 1, "grad": 1}


DATA = jnp.asarray(np.random.default_rng(0).normal(size=(16, 4)))
TARGET = jnp.sum(jnp.sin(DATA), axis=1, keepdims=True)


def same_losses(train, calls):
    expected = train()
    assert not calls
    with admodes.as_jax():
        actual = train()
    assert calls, "ours did not run"
    assert expected[-1] < expected[0]
    np.testing.assert_allclose(actual, expected, rtol=1e-9)


def test_training_loop_in_equinox(calls):
    equinox = pytest.importorskip("equinox")

    def train():
        model = equinox.nn.MLP(4, 1, 8, 2, key=jax.random.key(0))
        optimiser = optax.adam(1e-2)

        @equinox.filter_jit
        def step(model, state):
            def loss(model):
                return jnp.mean((jax.vmap(model)(DATA) - TARGET) ** 2)

            value, gradient = equinox.filter_value_and_grad(loss)(model)
            updates, state = optimiser.update(gradient, state)
            return equinox.apply_updates(model, updates), state, value

        state, losses = optimiser.init(equinox.filter(model, equinox.is_array)), []
        for _ in range(4):
            model, state, value = step(model, state)
            losses.append(float(value))
        return losses

    same_losses(train, calls)


def test_training_loop_in_nnx(calls):
    nnx = pytest.importorskip("flax.nnx")

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.first = nnx.Linear(4, 8, rngs=rngs)
            self.norm = nnx.LayerNorm(8, rngs=rngs)
            self.dropout = nnx.Dropout(0.2, rngs=rngs)
            self.last = nnx.Linear(8, 1, rngs=rngs)

        def __call__(self, x):
            return self.last(self.dropout(nnx.relu(self.norm(self.first(x)))))

    def train():
        model = Net(nnx.Rngs(0))
        optimiser = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)

        @nnx.jit
        def step(model, optimiser):
            value, gradient = nnx.value_and_grad(lambda m: jnp.mean((m(DATA) - TARGET) ** 2))(model)
            optimiser.update(model, gradient)
            return value

        return [float(step(model, optimiser)) for _ in range(4)]

    same_losses(train, calls)
