"""The algebra of linear maps, against that of their matrices and against JAX's own linear functions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import tree_map

import admodes
from admodes.linear.algebra import Compose, LinearMap
from admodes.linear.materialise import materialise
from admodes.modes.interpreter import INTERPRETER

X = jnp.array([0.3, -0.7, 1.1])
Y = jnp.array([1.5, 0.2])


def first(x):
    return jnp.stack([jnp.sin(x[0]) * x[1], x[2] ** 2])


def second(y):
    return jnp.stack([y[0] * y[1], jnp.exp(y[0]), y[1] ** 3, y[0] + y[1]])


def other(x):
    return jnp.stack([x[0] * x[2], jnp.cosh(x[1])])


def map_of(fun, *args) -> LinearMap:
    return admodes.linearize(fun, *args)[1].map


def random(shape, seed, dtype=np.float64):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=shape)
    return jnp.asarray(values + 1j * rng.normal(size=shape) if dtype == np.complex128 else values, dtype)


A, B, C = map_of(first, X), map_of(other, X), map_of(second, first(X))
a, b, c = jax.jacfwd(first)(X), jax.jacfwd(other)(X), jax.jacfwd(second)(first(X))
EXPRESSIONS = {
    "A": (A, a),
    "A.T": (A.T, a.T),
    "C @ A": (C @ A, c @ a),
    "(C @ A).T": ((C @ A).T, (c @ a).T),
    "A.T @ A": (A.T @ A, a.T @ a),
    "A + B": (A + B, a + b),
    "A - B": (A - B, a - b),
    "-A": (-A, -a),
    "2 * A": (2 * A, 2 * a),
    "A * numpy": (A * np.float32(0.5), a * 0.5),
    "numpy * A": (np.float64(0.5) * A, a * 0.5),
    "array * A": (jnp.asarray(3) * A, 3 * a),
    "0.1 A.T A - (B.T @ C.T @ C @ A)": (0.1 * A.T @ A - B.T @ C.T @ C @ A, 0.1 * a.T @ a - b.T @ c.T @ c @ a),
}


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_maps_and_their_matrices(name):
    linear, matrix = EXPRESSIONS[name]
    assert linear.shape == matrix.shape
    close = lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-12, atol=1e-12)
    close(linear.materialise(), matrix)
    close(linear.T.materialise(), matrix.T)
    close(materialise(linear, "push")[0, 0], matrix)
    close(materialise(linear, "pull")[0, 0], matrix)
    t, g = random(matrix.shape[1], 1), random(matrix.shape[0], 2)
    close(linear @ t, matrix @ t)
    close(linear.T @ g, matrix.T @ g)
    close(g @ linear, g @ matrix)
    close(np.asarray(g) @ linear, g @ matrix)
    assert not np.any((np.asarray(matrix) != 0) & ~linear.pattern()[0, 0].to_dense())


def test_patterns_follow_from_those_of_the_parts():
    diagonal, shift = map_of(jnp.sin, X), map_of(lambda x: jnp.roll(x, 1) ** 2, X)
    for linear in (diagonal, shift, diagonal @ shift, diagonal + shift, shift.T, 2 * shift, (shift - diagonal).T):
        np.testing.assert_array_equal(linear.pattern()[0, 0].to_dense(), np.asarray(linear.materialise()) != 0)


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_zeros_stay_symbolic(name):
    linear = EXPRESSIONS[name][0]
    assert linear.push((None,)) == (None,)
    assert linear.pull((None,)) == (None,)
    np.testing.assert_array_equal(linear @ None, np.zeros(linear.shape[0]))


def test_the_transpose_of_the_transpose_is_the_map():
    assert A.T.T is A


def tree_function(p, x):
    return {"u": jnp.tanh(p["w"] @ x + p["b"]), "v": (x[0] * p["b"],)}


P = {"w": random((2, 3), 3), "b": random(2, 4)}


def test_pytrees():
    tangents = tree_map(lambda leaf: random(leaf.shape, 5), (P, X))
    y, push = admodes.linearize(tree_function, P, X)
    _, pullback = admodes.vjp(tree_function, P, X)
    expected = jax.jvp(tree_function, (P, X), tangents)[1]
    close = lambda x, y: tree_map(lambda s, t: np.testing.assert_allclose(s, t, rtol=1e-12), x, y)
    for linear in (push.map, pullback.map):
        close(linear @ tangents, expected)
        close(linear.T @ y, jax.vjp(tree_function, P, X)[1](y))
        normal = linear.T @ linear
        close(normal @ tangents, jax.vjp(tree_function, P, X)[1](expected))
        close((normal - 2.0 * normal) @ tangents, tree_map(jnp.negative, normal @ tangents))


def test_one_argument_stands_for_itself():
    only = lambda p: tree_function(p, X)
    linear = map_of(only, P)
    tangents = tree_map(lambda leaf: random(leaf.shape, 5), P)
    expected = jax.jvp(only, (P,), (tangents,))[1]
    tree_map(np.testing.assert_array_equal, jax.tree.structure(linear @ tangents), jax.tree.structure(expected))
    np.testing.assert_allclose((linear @ tangents)["u"], expected["u"])
    np.testing.assert_allclose((linear @ {**tangents, "w": None})["v"][0], X[0] * tangents["b"])
    assert jax.tree.structure(linear.T @ expected) == jax.tree.structure(P)


def test_operands_and_results_one_after_the_other():
    linear = map_of(tree_function, P, X)
    jacobian = jax.jacrev(tree_function, (0, 1))(P, X)
    rows = [
        jnp.concatenate([block.reshape(2, -1) for block in jax.tree.leaves(row)], 1)
        for row in (jacobian["u"], jacobian["v"][0])
    ]
    assert linear.shape == (4, 11)
    np.testing.assert_allclose(linear.materialise(), jnp.concatenate(rows), rtol=1e-12, atol=1e-14)


def test_tapes_take_arrays_or_tuples_of_them():
    _, one = INTERPRETER.record_function(lambda x: [first(x)], [X], [True])
    np.testing.assert_array_equal(one @ X, A @ X)
    np.testing.assert_array_equal(one @ (X,), A @ X)
    _, two = INTERPRETER.record_function(lambda x, y: [x * y[0], y], [X, Y], [True, True])
    pushed = two @ (X, None)
    np.testing.assert_array_equal(pushed[0], X * Y[0])
    np.testing.assert_array_equal(pushed[1], np.zeros(2))
    with pytest.raises(ValueError, match="has 2 operands, but was applied to 1"):
        two @ X


def test_complex_maps_are_transposed_without_conjugation():
    z = random(3, 6, np.complex128)
    linear = map_of(lambda z: jnp.stack([z[0] * z[1], z[2] ** 2]), z)
    matrix = jax.jacfwd(lambda z: jnp.stack([z[0] * z[1], z[2] ** 2]), holomorphic=True)(z)
    t, g = random(3, 7, np.complex128), random(2, 8, np.complex128)
    np.testing.assert_allclose((2j * linear) @ t, 2j * matrix @ t, rtol=1e-12)
    np.testing.assert_allclose((2j * linear).T @ g, 2j * matrix.T @ g, rtol=1e-12)
    np.testing.assert_allclose((linear.T @ (1j * linear)).materialise(), 1j * matrix.T @ matrix, rtol=1e-12)


def test_maps_from_real_to_complex_numbers_and_back():
    turned = lambda x: x * jnp.exp(1j * x)
    there, back = map_of(turned, X), map_of(jnp.real, turned(X))
    both = back @ (2j * there)
    expected = jax.jacfwd(lambda x: jnp.real(2j * turned(x)))(X)
    np.testing.assert_allclose(both.materialise(), expected, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(both.T.materialise(), expected.T, rtol=1e-12, atol=1e-14)
    with pytest.raises(TypeError, match="real results"):
        1j * back


def test_integers_carry_no_derivatives():
    linear = map_of(lambda k, x: (k, k * x), 2, X)
    assert linear.shape == (3, 3)
    np.testing.assert_array_equal((linear @ (None, X))[1], 2 * X)
    np.testing.assert_array_equal(linear.materialise(), 2 * np.eye(3))


def test_maps_pass_through_transformations():
    applied = jax.jit(lambda linear, t: (linear @ t, linear.T, linear @ linear.T))
    pushed, transposed, product = applied(2.0 * C @ A, X)
    np.testing.assert_allclose(pushed, 2 * c @ a @ X, rtol=1e-12)
    np.testing.assert_allclose(transposed.materialise(), 2 * (c @ a).T, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(product.materialise(), 4 * c @ a @ (c @ a).T, rtol=1e-12, atol=1e-14)
    many = jax.vmap(lambda t: (A + B) @ t)(jnp.eye(3))
    np.testing.assert_allclose(many.T, a + b, rtol=1e-12, atol=1e-14)
    scaled = jax.grad(lambda s: jnp.sum((s * A) @ X))(2.0)
    np.testing.assert_allclose(scaled, jnp.sum(a @ X), rtol=1e-12)


def test_spaces_must_agree():
    with pytest.raises(ValueError, match="no A @ B"):
        A @ C
    with pytest.raises(ValueError, match=r"no A \+ B"):
        A + C
    with pytest.raises(ValueError, match="no A @ B"):
        map_of(lambda p: p["u"] * 2, {"u": Y}) @ A
    with pytest.raises(TypeError, match="multiplied by numbers"):
        A * X
    with pytest.raises(TypeError, match="multiplied by numbers"):
        A * B
    with pytest.raises(TypeError, match=r"array of type float64\[2\]"):
        A @ Y
    with pytest.raises(TypeError, match=r"array of type float32\[3\]"):
        A @ X.astype(jnp.float32)
    with pytest.raises(TypeError, match="unsupported operand"):
        A + 1
    with pytest.raises(TypeError, match="unsupported operand"):
        A - 1


def test_reprs_show_shapes():
    assert repr(A) == "Structured(float64[3] -> float64[2])"
    assert repr(C @ A) == "Compose(float64[3] -> float64[4])"
    many = map_of(lambda xs: sum(xs), [X] * 30)
    assert repr(many.T) == "Transposed(float64[3] -> float64[3], 29 more)"
    assert repr(admodes.linearize(first, X)[1]) == "Pushforward(float64[3] -> float64[2])"
    assert repr(admodes.vjp(first, X)[1]) == "Pullback(first, float64[2] -> float64[3])"


def test_products_form_no_matrix():
    wide = jnp.ones(100_000)
    linear = map_of(lambda x: jnp.cumsum(x) * x, wide)
    assert isinstance(linear.T @ linear, Compose)
    assert (linear.T @ linear @ wide).shape == wide.shape
