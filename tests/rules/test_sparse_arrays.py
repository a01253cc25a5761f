"""Sparse arrays of jax.experimental.sparse: every primitive, with respect to the data and to dense operands."""

import subprocess
import sys

import jax
import numpy as np
import pytest
from jax import numpy as jnp
from jax.experimental import sparse
from jax.experimental.sparse import linalg

import admodes
from tests.oracle import check, sample

FORMATS = {"BCOO": sparse.BCOO, "BCSR": sparse.BCSR, "COO": sparse.COO, "CSR": sparse.CSR}
BATCHED = ("BCOO", "BCSR")  # the primitives of the others have no batching rule


def holes(shape, dtype=np.float64, seed=0, kept=0.5):
    """Random numbers, about half of them zero."""
    return np.where(np.random.default_rng(seed).random(shape) < kept, sample(shape, dtype, seed=seed), 0).astype(dtype)


def with_data(matrix):
    """The data of a sparse array, and the function that puts other data into it."""
    (data, *indices), tree = jax.tree_util.tree_flatten(matrix)
    return data, lambda d: tree.unflatten([d, *indices])


def bcoo(dense, **kwargs):
    return with_data(sparse.BCOO.fromdense(dense, **kwargs))


@pytest.mark.parametrize("name", FORMATS)
def test_products_and_conversions(name):
    dense, x, y = holes((4, 5)), sample(5, np.float64), sample((5, 3), np.float64)
    data, put = with_data(FORMATS[name].fromdense(dense))
    transforms = name in BATCHED
    check(lambda d, y: put(d) @ y, (data, y), order=2, transforms=transforms)
    check(lambda d, x: put(d) @ x, (data, x), transforms=transforms)
    check(lambda d: put(d).todense(), (data,), transforms=transforms)
    check(lambda d: sparse.todense(put(d)), (data,), modes=("jvp",), adjoint=True, transforms=transforms)
    from_dense = FORMATS[name].fromdense
    check(lambda m: jax.tree.leaves(from_dense(m, nse=data.size))[0], (dense,), fd=False, transforms=transforms)
    if name not in BATCHED:  # JAX's vjp of CSR with transpose=True takes the rows for the columns
        other = sample((4, 2), np.float64)
        check(lambda d, y: put(d).T @ y, (data, other), modes=("jvp",), adjoint=True, transforms=False)


@pytest.mark.parametrize("dtype", [np.float32, np.complex128, jnp.bfloat16])
def test_dtypes(dtype):
    data, put = bcoo(holes((3, 4)).astype(dtype))
    check(lambda d, y: put(d) @ y, (data, sample((4, 2), dtype)), transforms=False)


@pytest.mark.parametrize("name", FORMATS)
def test_padding_has_no_derivative(name):
    dense = holes((4, 5)) + np.eye(4, 5)
    fun = lambda m: FORMATS[name].fromdense(m, nse=18).todense()
    tangent = np.where(dense, sample((4, 5), np.float64, seed=1), 0)
    np.testing.assert_allclose(admodes.jvp(fun, (dense,), (tangent,))[1], tangent)
    np.testing.assert_allclose(admodes.vjp(fun, dense)[1](jnp.ones((4, 5)))[0], dense != 0)


@pytest.mark.parametrize(("n_batch", "n_dense"), [(1, 0), (0, 1), (1, 1)])
@pytest.mark.every(3)
def test_batches_and_blocks(n_batch, n_dense):
    dense = holes((3, 4, 5))
    data, put = bcoo(dense, n_batch=n_batch, n_dense=n_dense)
    check(lambda d: put(d).todense(), (data,))
    check(lambda d: put(d).sort_indices().data, (data,))
    check(lambda d: put(d).sum_duplicates(nse=data.shape[n_batch]).data, (data,))
    check(lambda m: sparse.bcoo_extract(put(data), m).data, (dense,), modes=("jvp",), adjoint=True)
    fromdense = lambda m: sparse.BCOO.fromdense(m, n_batch=n_batch, n_dense=n_dense, nse=data.shape[n_batch] + 1).data
    check(fromdense, (dense,), fd=False)
    if not n_dense:
        check(lambda d: put(d).transpose((0, 2, 1)).data, (data,))
        numbers = (((2,), (1,)), ((0,), (0,)))
        dot = lambda d, r: sparse.bcoo_dot_general(put(d), r, dimension_numbers=numbers)
        check(dot, (data, sample((3, 5, 2), np.float64)), order=2)


def test_products_of_two():
    (lhs, put_lhs), (rhs, put_rhs) = bcoo(holes((4, 5))), bcoo(holes((5, 3), seed=1))
    # JAX has the forward mode only
    check(lambda d, e: (put_lhs(d) @ put_rhs(e)).todense(), (lhs, rhs), modes=("jvp",), adjoint=True)
    indices = put_lhs(lhs).indices
    sampled = lambda a, b: sparse.bcoo_dot_general_sampled(a, b, indices, dimension_numbers=(((1,), (0,)), ((), ())))
    check(sampled, (sample((4, 2), np.float64), sample((2, 5), np.float64)), order=2)


def test_sum_of_duplicates_counts_each_of_them():
    indices = jnp.array([[0, 1], [2, 0], [0, 1]])
    total = lambda d: sparse.BCOO((d, indices), shape=(3, 2)).sum_duplicates().todense()[0, 1]
    np.testing.assert_array_equal(admodes.grad(total)(jnp.ones(3)), [1, 0, 1])


def test_spsolve():
    dense = holes((5, 5), kept=0.4) + 3 * np.eye(5)
    matrix, b = sparse.CSR.fromdense(dense), sample(5, np.float64)
    solve = lambda d, b: linalg.spsolve(d, matrix.indices, matrix.indptr, b)
    check(solve, (matrix.data, b), order=2, transforms=False)
    padded = sparse.CSR.fromdense(dense, nse=matrix.nse + 2)
    pullback = admodes.vjp(lambda d, b: linalg.spsolve(d, padded.indices, padded.indptr, b), padded.data, b)[1]
    expected = jax.vjp(jnp.linalg.solve, dense, b)[1](b)
    np.testing.assert_allclose(pullback(b)[0], [*expected[0][dense != 0], 0, 0], atol=1e-14)
    np.testing.assert_allclose(pullback(b)[1], expected[1])


def test_gradient_of_a_loss_with_a_sparse_leaf():
    dense, x = holes((4, 5)), sample(5, np.float64)
    matrix = sparse.BCOO.fromdense(dense)

    def loss(matrix, x):
        return jnp.sum(jnp.tanh(matrix @ x) ** 2)

    for transform in (lambda f: f, jax.jit):
        gradient = transform(admodes.grad(loss, allow_int=True))(matrix, x)
        expected = sparse.grad(loss)(matrix, x)
        np.testing.assert_allclose(gradient.data, expected.data)
    dense_gradient = jax.grad(loss)(jnp.asarray(dense), x)
    np.testing.assert_allclose(gradient.data, dense_gradient[tuple(matrix.indices.T)])


def test_loaded_with_the_module_only():
    program = """if True:
        import sys
        import admodes
        assert "bcoo_todense" not in admodes.rules.supported()
        assert "jax.experimental.sparse" not in sys.modules
        from jax.experimental import sparse
        assert admodes.rules.supported()["bcoo_todense"] == "multilinear"
    """
    subprocess.run([sys.executable, "-c", program], check=True)


def patterns_of_products():
    """name: (function, argument), of a matrix of each format at known places."""
    dense = holes((6, 5), kept=0.3)
    x, several = sample(5, np.float64), sample((5, 2), np.float64)
    for name, kind in FORMATS.items():
        matrix = kind.fromdense(dense)
        data, put = with_data(matrix)
        yield f"{name} @ x", lambda x, a=matrix: a @ x, x
        yield f"{name} @ X", lambda x, a=matrix: a @ x, several
        yield f"data of {name} @ 1", lambda d, put=put: put(d) @ np.ones(5), data
        yield f"data of {name}, dense", lambda d, put=put: put(d).todense(), data
        yield f"data of {name} times itself", lambda d, put=put: put(d) @ (d[:5] * x), data
    left = sparse.BCOO.fromdense(dense)
    yield "x @ BCOO", lambda x: x @ left, sample(6, np.float64)
    padded = sparse.BCOO.fromdense(dense, nse=20)
    data, put = with_data(padded)
    yield "padded", lambda d: put(d) @ x, data


@pytest.mark.parametrize("case", list(patterns_of_products()), ids=lambda case: case[0])
def test_patterns_are_those_of_the_matrix(case):
    _, fun, x = case
    x = jnp.asarray(x)
    pattern = admodes.sparsity(fun, x)
    axes = jnp.eye(x.size).reshape(x.size, *x.shape)  # (one by one: not all formats have batching rules)
    expected = np.stack([np.asarray(jax.jvp(fun, (x,), (axis,))[1]).ravel() for axis in axes], 1)
    assert np.array_equal(pattern.to_dense(), expected != 0)
    found = admodes.jacobian(fun, format="bcoo", chunk_size=1)(x)
    np.testing.assert_allclose(found.todense(), expected, rtol=1e-12)
