"""Differential operators against nested derivatives of JAX, and of polynomials, whose derivatives are known."""

import itertools
import math

import jax
import numpy as np
import pytest
from jax import lax
from jax import numpy as jnp

import admodes
from admodes.series.directions import lines_for, tensor_lines
from tests.series.nested import assert_close

RNG = np.random.default_rng(0)
W = RNG.normal(size=(5, 5)) / 2
X = RNG.normal(size=5)
WEIGHTS = np.array([1.0, 0.0, -2.0, 0.5, 3.0])


def net(x):
    h = jnp.tanh(W @ x)
    h = jax.nn.silu(W @ h) + h
    return jnp.sum(h**2) + jnp.linalg.slogdet(jnp.eye(5) * 3 + jnp.outer(h, h))[1]


def looping(x):
    return jnp.sum(lax.scan(lambda c, w: (jnp.sin(c) * w, jnp.exp(-c)), x, W)[0]) * lax.cond(
        x[0] > 0, jnp.sin, jnp.cos, x[1]
    )


def vector(x):
    return {"a": jnp.tanh(W @ x) * x[0], "b": jnp.prod(jnp.cos(x))}


FUNCTIONS = {"net": net, "looping": looping, "vector": vector, "relu": lambda x: jnp.sum(jax.nn.relu(W @ x) ** 3)}


def trace(fun, x=X, w=None):
    hessian = jax.jacfwd(jax.jacfwd(fun))(x)
    return jax.tree.map(lambda h: jnp.einsum("...ii,i->...", h, np.ones(5) if w is None else w), hessian)


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["plain", "jit"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_laplacian(name, wrap):
    fun = FUNCTIONS[name]
    assert_close(wrap(admodes.laplacian(fun))(X), trace(fun))
    assert_close(wrap(admodes.laplacian(fun, weights=WEIGHTS))(X), trace(fun, w=WEIGHTS))
    value, jacobian, second = wrap(admodes.value_grad_laplacian(fun))(X)
    assert_close((value, jacobian, second), (fun(X), jax.jacfwd(fun)(X), trace(fun)))


@pytest.mark.parametrize("size", [1, 2, 3])
def test_chunks(size):
    for weights in (None, WEIGHTS):
        found = admodes.value_grad_laplacian(net, chunk_size=size, weights=weights)(X)
        assert_close(found, (net(X), jax.grad(net)(X), trace(net, w=weights)))


def test_pytrees_and_auxiliary_data():
    fun = lambda tree, s: (jnp.sum(tree["a"] ** 3) * tree["b"] ** 2 * s, s + 1)
    tree = {"a": X.reshape(1, 5), "b": 1.5}
    weights = {"a": 2.0, "b": 1.0}
    (value, aux), gradient, second = admodes.value_grad_laplacian(fun, has_aux=True, weights=weights)(tree, 2.0)
    assert aux == 3.0
    assert_close(gradient, jax.grad(lambda t: fun(t, 2.0)[0])(tree))
    expected = 2 * 6 * X.sum() * 1.5**2 * 2 + 2 * np.sum(X**3) * 2
    assert_close([value, second], [fun(tree, 2.0)[0], expected])
    assert_close(admodes.laplacian(fun, has_aux=True, weights=weights)(tree, 2.0)[0], expected)


@pytest.mark.parametrize("library", [admodes, jax], ids=["admodes", "jax"])
def test_transforms(library):
    batch = np.stack([X, 2 * X])
    loss = lambda w: jnp.sum(jax.vmap(admodes.laplacian(lambda x: jnp.sum(jnp.tanh(w @ x) ** 2)))(batch))
    nested = lambda w: sum(trace(lambda x: jnp.sum(jnp.tanh(w @ x) ** 2), x) for x in batch)
    assert_close(library.grad(loss)(W), jax.grad(nested)(W))
    assert_close(jax.vmap(admodes.laplacian(net))(batch), jnp.stack([trace(net, x) for x in batch]))


def test_a_sparse_hessian_is_asked_for_products():
    """Few products give the diagonal of a banded Hessian: the work does not grow with n directions."""
    banded = lambda x: jnp.sum(x[1:] ** 2 * jnp.sin(x[:-1]))
    flops = [
        jax.jit(admodes.laplacian(banded)).lower(np.ones(n)).compile().cost_analysis()["flops"] for n in (100, 200)
    ]
    assert flops[1] < 3 * flops[0]
    assert_close(admodes.laplacian(banded)(X), trace(banded))


def test_functions_without_reverse_mode():
    fun = lambda x: lax.while_loop(lambda c: jnp.sum(c**2) < 50, lambda c: c * 1.5 + jnp.sin(c), x).sum()
    assert_close(admodes.laplacian(fun)(X), trace(fun))


def mixed(fun, index, x):
    for i, k in enumerate(index):
        for _ in range(k):
            fun = lambda x, f=fun, i=i: jax.jvp(f, (x,), (np.eye(len(x))[i],))[1]
    return jax.jit(fun)(x)


def small(x):
    return jnp.exp(x[0] - 0.5 * x[1]) * jnp.sin(x[1] * x[2]) + x[2] ** 5


OPERATORS = {
    "laplacian": {(2, 0, 0): 1.0, (0, 2, 0): 1.0, (0, 0, 2): 1.0},
    "heat": {(1, 0, 0): 1.0, (0, 2, 0): -1.0},
    "mixed": {(1, 1, 0): 2.0, (0, 1, 1): -1.0},
    "fourth": {(2, 2, 0): 1.0, (4, 0, 0): -0.5, (1, 1, 2): 0.3, (0, 3, 1): 1.0},
    "orders": {(0, 0, 0): 3.0, (1, 0, 0): -1, (0, 1, 1): 1.0, (1, 1, 1): 2.0},
    "value": {(0, 0, 0): 2.0},
    "given": {(2, 0, 0): np.float64(1.5), (0, 1, 1): lambda x: x[0] ** 2, (0, 0, 0): lambda x: x[1], (1, 0, 0): 2.0},
}


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["plain", "jit"])
@pytest.mark.parametrize("name", OPERATORS)
def test_operators(name, wrap):
    x, terms = X[:3], OPERATORS[name]
    expected = sum((c(x) if callable(c) else c) * mixed(small, index, x) for index, c in terms.items())
    assert_close(wrap(admodes.differential_operator(terms)(small))(x), expected)


def test_operators_of_vectors_below_grad():
    operator = admodes.differential_operator({(2, 1): 1.0, (0, 1): -1.0})
    fun = lambda x, w: {"u": jnp.sin(w * x[0]) * x[1] ** 2}
    expected = lambda w: -(w**2) * jnp.sin(w * X[0]) * 2 * X[1] - jnp.sin(w * X[0]) * 2 * X[1]
    assert_close(operator(fun)(X[:2], 1.3), {"u": expected(1.3)})
    assert_close(jax.grad(lambda w: operator(fun)(X[:2], w)["u"])(1.3), jax.grad(expected)(1.3))


def test_coefficients_may_be_differentiated():
    def loss(c):
        return admodes.differential_operator({(2, 0): c, (0, 2): 1.0})(lambda x: jnp.sum(x**3))(X[:2])

    np.testing.assert_allclose(jax.grad(loss)(2.0), 6 * X[0], rtol=1e-10)


def test_biharmonic():
    expected = trace(lambda x: trace(net, x))
    for wrap in (lambda f: f, jax.jit):
        assert_close(wrap(admodes.biharmonic(net))(X), expected, 1e-9)
    assert_close(
        admodes.biharmonic(lambda x: {"a": x**4 * x[0]})(X)["a"], trace(lambda x: trace(lambda y: y**4 * y[0], x))
    )


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_derivative_tensors(order):
    x, fun = X[:3], lambda x: {"u": jnp.stack([small(x), x[0] * x[1] ** 3])}
    expected = fun
    for _ in range(order):
        expected = jax.jacfwd(expected)
    found = admodes.derivative_tensor(fun, order)(x)["u"]
    assert found.values.shape == (math.comb(order + 2, order), 2)
    assert_close(found.dense(), expected(x)["u"])
    assert_close(jax.jit(admodes.derivative_tensor(fun, order))(x)["u"].values, found.values)
    index = (order - 1, 1, 0)
    assert_close(found[index], jnp.stack([mixed(lambda x, k=k: fun(x)["u"][k], index, x) for k in range(2)]))


# -- lines -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in OPERATORS if n not in ("given", "value", "orders", "heat")])
def test_lines_solve_the_moment_equations(name):
    terms = OPERATORS[name]
    lines, weights = lines_for(terms)
    order = sum(next(iter(terms)))
    for powers in itertools.product(range(order + 1), repeat=3):
        if sum(powers) == order:
            multinomial = math.factorial(order) / math.prod(map(math.factorial, powers))
            moment = multinomial * np.sum(weights * np.prod(lines ** np.array(powers), 1))
            np.testing.assert_allclose(moment, terms.get(powers, 0.0), atol=1e-12)


def test_how_many_lines_there_are():
    assert len(lines_for({(2, 0, 0): 1.0, (0, 2, 0): 1.0, (0, 0, 2): 1.0})[0]) == 3
    assert len(lines_for({(1, 1): 1.0})[0]) == 2  # ((e₁ + e₂)² - (e₁ - e₂)²) / 4
    assert len(lines_for({(2, 2): 1.0})[0]) == 4
    assert len(lines_for({(4, 0): 1.0, (2, 2): 2.0, (0, 4): 1.0})[0]) <= 4
    indices, lines, matrix = tensor_lines(4, 3)
    assert len(indices) == len(lines) == math.comb(6, 3) == len(matrix)


# -- errors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: admodes.differential_operator({}), ValueError, "multi-indices to coefficients"),
        (lambda: admodes.differential_operator({(1, 0): 1.0, (1,): 1.0}), ValueError, r"lengths \[1, 2\]"),
        (lambda: admodes.differential_operator({(1, -1): 1.0}), TypeError, "whole numbers"),
        (lambda: admodes.differential_operator({(2, 0): 1.0})(net)(X), ValueError, "of 2 entries, but it has 5"),
        (lambda: admodes.differential_operator({(2,): X})(jnp.sum)(X[:1]), ValueError, "must be a scalar"),
        (lambda: admodes.derivative_tensor(net, 0), ValueError, "at least 1"),
        (lambda: admodes.laplacian(net, argnums=(0,)), TypeError, "one argument"),
        (lambda: admodes.laplacian(net, weights=[1.0])(X), TypeError, "structure"),
        (lambda: admodes.laplacian(net, weights=np.ones(4))(X), ValueError, "shape"),
        (lambda: admodes.laplacian(jnp.sum)(np.arange(3)), TypeError, "int"),
        (lambda: admodes.laplacian(lambda x: jnp.round(x).astype(int))(X), TypeError, "floating-point outputs"),
        (lambda: admodes.biharmonic(jnp.sum)(X + 1j), TypeError, "real"),
    ],
)
def test_errors(call, error, words):
    with pytest.raises(error, match=words):
        call()
