"""``jacobian``, ``value_and_jacobian`` and ``hessian`` against JAX, whatever the plan behind them."""

import contextlib
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import sparse
from jax.tree_util import tree_leaves, tree_map, tree_structure

import admodes
from admodes.errors import PlanningError
from admodes.planner.calls import jacobian as module
from admodes.planner.calls.request import request
from admodes.planner.choice.candidates import best
from admodes.planner.cost.machine import NOMINAL
from admodes.planner.ways.chain_of_cuts import chained


def same(actual, expected, rtol=1e-12):
    """Equal structure, shapes and dtypes, and equal values up to rounding."""
    assert tree_structure(actual) == tree_structure(expected)
    for a, e in zip(tree_leaves(actual), tree_leaves(expected), strict=True):
        assert (a.shape, a.dtype, a.weak_type) == (e.shape, e.dtype, e.weak_type)
        np.testing.assert_allclose(a, e, rtol=rtol, atol=rtol * max(1.0, float(np.abs(e).max(initial=0))))


def waist(x):
    down, up = jnp.cos(jnp.arange(24.0).reshape(12, 2)), jnp.sin(jnp.arange(24.0).reshape(2, 12))
    return jnp.tanh(jnp.tanh(x @ down) @ up)


def arrow(x):
    return jnp.concatenate([jnp.sum(x * x)[None], x[1:] * x[0]])


FUNCTIONS = {
    "sparse": lambda x: x[1:] * x[:-1] + jnp.sin(x[1:]),
    "waist": waist,
    "skip": lambda x: waist(x) + x,
    "arrow": arrow,
    "full": lambda x: jnp.cumsum(jnp.exp(x)) * jnp.sum(x),
    "matrix": lambda x: jnp.arange(36.0).reshape(3, 12) @ x,
    "constant": lambda x: jnp.ones(3),
    "part constant": lambda x: jnp.concatenate([x[:2] ** 2, jnp.ones(3)]),
    "scalar": lambda x: jnp.sum(x**3),
    "stencil": lambda x: jnp.roll(x, 1) * x - jnp.roll(x, -1) ** 2,
    "scan": lambda x: jax.lax.scan(lambda c, u: (jnp.sin(c) + u, c * u), x[0], x)[1],
    "branch": lambda x: jax.lax.cond(x[0] > 0, lambda x: x**2, lambda x: jnp.roll(x, 1), x),
}
X = jnp.linspace(0.3, 1.4, 12)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_kind_of_structure(name):
    fun = FUNCTIONS[name]
    expected = jax.jacfwd(fun)(X)
    same(admodes.jacobian(fun)(X), expected)
    value, jacobian = jax.jit(admodes.value_and_jacobian(fun))(X)
    same((value, jacobian), (fun(X), expected))
    for form in ("bcoo", "scipy"):
        matrix = admodes.jacobian(fun, format=form)(X)
        dense = matrix.todense() if form == "bcoo" else matrix.toarray()
        np.testing.assert_allclose(dense, np.reshape(expected, dense.shape), rtol=1e-12, atol=1e-13)
    points = jnp.stack([X, X + 1])
    same(jax.vmap(admodes.jacobian(fun))(points), jax.vmap(jax.jacfwd(fun))(points))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_candidate_gives_the_jacobian(name):
    found = admodes.verify(FUNCTIONS[name], X)
    assert found.ok, str(found)


def test_points_where_jax_has_nan_are_said():
    f = lambda x: jnp.sqrt(x) * x[::-1]
    found = admodes.verify(f, jnp.array([0.0, 1.0, 2.0, jnp.nan]))
    assert found.ok, str(found)
    assert "JAX has NaN or infinity in 12 entries" in str(found)


def tree_function(a, b, scale=1.0):
    return {"s": a["x"] * b * scale, "t": (jnp.sum(b * a["y"]), a["x"][0] * b)}


A = {"x": jnp.array([1.0, 2.0, 3.0]), "y": jnp.array([[0.5], [2.0]])}


@pytest.mark.parametrize("argnums", [0, 1, -1, (0,), (1, 0), (0, 1)])
def test_trees_and_argnums(argnums):
    same(
        admodes.jacobian(tree_function, argnums)(A, 2.0, scale=jnp.float64(3.0)),
        jax.jacobian(tree_function, argnums)(A, 2.0, scale=jnp.float64(3.0)),
    )


def test_auxiliary_data():
    def fun(x):
        return jnp.sin(x), {"count": jnp.int32(3), "sum": x.sum()}

    same(admodes.jacobian(fun, has_aux=True)(X), jax.jacfwd(fun, has_aux=True)(X))
    (value, aux), jacobian = admodes.value_and_jacobian(fun, has_aux=True)(X)
    same((value, aux, jacobian), (*fun(X), jax.jacfwd(jnp.sin)(X)))


def test_mixed_precision_and_scalars():
    def fun(x, y):
        return x.astype(jnp.float64) * y, (x * 2).astype(jnp.float32)

    args = (jnp.arange(3, dtype=jnp.float32), jnp.float64(2.0))
    same(admodes.jacobian(fun, (0, 1))(*args), jax.jacobian(fun, (0, 1))(*args), rtol=1e-6)
    same(admodes.jacobian(jnp.sin)(2.0), jax.jacobian(jnp.sin)(2.0))


def test_complex():
    z = jnp.array([1.0 + 2j, 0.5 - 1j, 2.0])
    holomorphic = lambda z: z[1:] * z[:-1]
    same(admodes.jacobian(holomorphic, holomorphic=True)(z), jax.jacfwd(holomorphic, holomorphic=True)(z))
    real_to_complex = lambda x: jnp.exp(1j * x[1:]) * x[0]
    same(admodes.jacobian(real_to_complex)(X), jax.jacfwd(real_to_complex)(X))


def test_empty():
    for fun, x in ((lambda x: x**2, jnp.zeros(0)), (lambda x: x[:0], X), (lambda x: jnp.ones(3), jnp.zeros(0))):
        same(admodes.jacobian(fun)(x), jax.jacfwd(fun)(x))
        assert admodes.jacobian(fun, format="bcoo")(x).nse == 0


@pytest.mark.parametrize("form", ["dense", "bcoo", "scipy", "compressed"])
@pytest.mark.parametrize("entries", [(0, 4), (3, 0)])
def test_no_examples_through_a_waist(form, entries):
    fun = lambda x: jnp.tanh(x @ jnp.ones((entries[1], 2))) @ jnp.ones((2, 3))
    x = jnp.zeros(entries)
    found = admodes.jacobian(fun, format=form)(x)
    if form == "dense":
        same(found, jax.jacfwd(fun)(x))
    elif form == "compressed":
        assert found.values().size == 0
    else:
        assert found.shape == (fun(x).size, 0)


def test_fixed_arguments_steer_python():
    def fun(x, steps, name="sin"):
        for _ in range(steps):
            x = getattr(jnp, name)(x)
        return x

    jacobian = admodes.jacobian(fun)
    for steps in (1, 3):
        same(jacobian(X, steps, name="cos"), jax.jacfwd(fun)(X, steps, name="cos"))


def test_nesting():
    fun = FUNCTIONS["sparse"]
    same(admodes.jacobian(admodes.jacobian(fun))(X), jax.jacfwd(jax.jacfwd(fun))(X))
    loss = lambda jac: lambda x: jnp.sum(jac(fun)(x) ** 2)
    same(admodes.grad(loss(admodes.jacobian))(X), jax.grad(loss(jax.jacfwd))(X))
    same(jax.grad(loss(admodes.jacobian))(X), jax.grad(loss(jax.jacfwd))(X))


def test_closing_over_values_of_an_outer_trace():
    def total(jac):
        return lambda w: jnp.sum(jac(lambda x: jnp.sin(w * x))(X))

    same(jax.jit(total(admodes.jacobian))(2.0), total(jax.jacfwd)(2.0))
    weights = jnp.arange(3.0)
    same(jax.vmap(total(admodes.jacobian))(weights), jax.vmap(total(jax.jacfwd))(weights))
    same(jax.grad(total(admodes.jacobian))(2.0), jax.grad(total(jax.jacfwd))(2.0))


def test_a_method_that_reads_its_object_is_traced_anew_under_jit():
    class Model:
        weight = jnp.float64(2.0)

        def __call__(self, x):
            return self.weight * x**2

    model = Model()
    jacobian = admodes.jacobian(model.__call__)
    same(jacobian(X), jax.jacfwd(model.__call__)(X))
    model.weight = jnp.float64(5.0)
    same(jax.jit(lambda x: jacobian(x))(X), jax.jacfwd(model.__call__)(X))


def test_a_plan_is_made_once(monkeypatch):
    traces = []

    def fun(x):
        traces.append(x)
        return x**2

    jacobian = admodes.jacobian(fun)
    jacobian(X)
    first = len(traces)
    jacobian(X + 1)
    assert len(traces) == first
    jacobian(X[:5])
    assert len(traces) > first


def test_chunks():
    for name in ("full", "arrow"):
        fun = FUNCTIONS[name]
        for size in (1, 5, 100):
            same(admodes.jacobian(fun, chunk_size=size)(X), jax.jacfwd(fun)(X))


@pytest.mark.parametrize("form", ["dense", "bcoo"])
def test_one_seed_at_a_time_needs_no_batching_rule(form):
    matrix = jnp.eye(5) * 3 + jnp.eye(5, k=1)
    sparse_matrix = sparse.BCSR.fromdense(matrix)
    host = lambda fun, *xs: jax.pure_callback(fun, xs[0], *xs, vmap_method=None)

    @jax.custom_jvp
    def sine(x):
        return host(np.sin, x)

    sine.defjvp(lambda p, t: (sine(*p), host(lambda x, dx: np.cos(x) * dx, *p, *t)))

    def fun(x):
        solved = sparse.linalg.spsolve(sparse_matrix.data, sparse_matrix.indices, sparse_matrix.indptr, x**2)
        return sine(solved)

    expected = jax.jacfwd(lambda x: jnp.sin(jnp.linalg.solve(matrix, x**2)))(X[:5])
    found = admodes.jacobian(fun, chunk_size=1, format=form)(X[:5])
    np.testing.assert_allclose(found if form == "dense" else found.todense(), expected, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(admodes.diagonal(fun, chunk_size=1)(X[:5]), jnp.diag(expected), rtol=1e-12)


HESSIANS = {
    "chain": lambda x: jnp.sum((x[1:] - x[:-1] ** 2) ** 2),
    "separable": lambda x: jnp.sum(jnp.sin(x)),
    "full": lambda x: jnp.sum(x) ** 3,
    "linear": lambda x: jnp.sum(2 * x),
    "vector": lambda x: x[:2] ** 3 * x[2:4],
    "one entry": lambda x: jnp.sum(x**3)[None],
    "tree": lambda x: {"a": jnp.prod(x[:3])},
}


@pytest.mark.parametrize("name", HESSIANS)
def test_hessian(name):
    fun = HESSIANS[name]
    same(admodes.hessian(fun)(X), jax.hessian(fun)(X))
    if name in ("chain", "separable"):
        matrix = admodes.hessian(fun, format="scipy")(X)
        assert matrix.nnz <= 3 * X.size
        np.testing.assert_allclose(matrix.toarray(), jax.hessian(fun)(X), rtol=1e-12)


def test_hessian_of_several_arguments():
    fun = lambda a, b: jnp.sum(a["x"] ** 2 * b) + jnp.sum(a["y"]) ** 2
    for argnums in ((0, 1), (1, 0), 0):
        same(admodes.hessian(fun, argnums)(A, 2.0), jax.hessian(fun, argnums)(A, 2.0))


@pytest.mark.parametrize("argnums", [0, 1, (0, 2), (2, 1, 0)], ids=str)
def test_integers_have_blocks_of_zeros(argnums):
    fun = lambda x, n, tree: {"a": x * n[0], "b": jnp.sin(tree["u"]) * tree["k"] + x[0]}
    args = X, jnp.arange(3), {"u": X[0], "k": 2}
    expected = jax.jacobian(fun, argnums, allow_int=True)(*args)
    same(admodes.jacobian(fun, argnums, False, False, True)(*args), expected)
    same(jax.jit(admodes.value_and_jacobian(fun, argnums, allow_int=True))(*args)[1], expected)
    matrix = admodes.jacobian(fun, argnums, allow_int=True, format="scipy")(*args)
    assert matrix.shape[1] == {0: X.size, 1: 0, (0, 2): X.size + 1, (2, 1, 0): X.size + 1}[argnums]
    with pytest.raises(TypeError, match="int64"):
        admodes.jacobian(fun, 1)(*args)


def test_compressed_products():
    found = admodes.jacobian(FUNCTIONS["sparse"], format="compressed")(X)
    pattern = found.coloring.pattern
    dense = np.zeros(pattern.shape)
    dense[pattern.rows, pattern.cols] = found.values()
    np.testing.assert_allclose(dense, jax.jacfwd(FUNCTIONS["sparse"])(X))
    assert found.coloring.number == 2
    jitted = jax.jit(admodes.jacobian(FUNCTIONS["sparse"], format="compressed"))(X)
    np.testing.assert_array_equal(jitted.values(), found.values())


def test_clear_errors():
    branches = lambda x: x if x[0] > 0 else -x
    with pytest.raises(PlanningError, match=r"lax\.cond"):
        admodes.jacobian(branches, format="bcoo")(X)
    with pytest.raises(PlanningError, match=r"lax\.cond"):
        jax.jit(admodes.jacobian(branches))(X)
    with pytest.raises(PlanningError, match="values"):
        admodes.jacobian(lambda x: x[x > 0.5])(X)
    with pytest.raises(TypeError, match="int32"):
        admodes.jacobian(lambda x: x)(jnp.arange(3, dtype=jnp.int32))
    with pytest.raises(TypeError, match="has_aux"):
        admodes.jacobian(lambda x: x.astype(int))(X)
    with pytest.raises(TypeError, match="complex"):
        admodes.jacobian(lambda x: x, holomorphic=True)(X)
    with pytest.raises(ValueError, match="'bcoo'"):
        admodes.jacobian(jnp.sin, format="coo")
    with pytest.raises(ValueError, match="twice"):
        admodes.jacobian(jnp.add, argnums=(0, 0))(X, X)
    with pytest.raises(TypeError, match="bcoo"):
        jax.jit(admodes.jacobian(jnp.sin, format="scipy"))(X)
    with pytest.raises(PlanningError, match="closes over values that are being traced"):
        jax.jit(lambda a: admodes.jacobian(lambda x: a * jnp.sin(x), memory_limit="1MB")(X))(2.0)


def test_memory_limits_under_transformations():
    fun = lambda x: jnp.cumsum(jnp.sin(jnp.cumsum(jnp.tanh(x) ** 2)))
    x = jnp.linspace(0.0, 1.0, 300)
    expected = jax.jacrev(fun)(x)
    free, limit = (jax.jit(admodes.jacobian(fun, memory_limit=m)).lower(x).compile() for m in (None, "100kB"))
    assert limit.memory_analysis().temp_size_in_bytes <= 100_000 < free.memory_analysis().temp_size_in_bytes
    same(limit(x), expected)
    same(jax.vmap(admodes.jacobian(fun, memory_limit="100kB"))(x[None])[0], expected)


@pytest.mark.parametrize("transform", [admodes.jacobian, admodes.hessian, admodes.diagonal])
@pytest.mark.parametrize("size", [0, -1, 1.5, np.nan, "a", [1], True], ids=str)
def test_chunk_sizes_are_whole_numbers(transform, size):
    with pytest.raises(ValueError, match="chunk_size must be a whole number"):
        transform(jnp.sin, chunk_size=size)


def test_signatures_spell_out_the_same_options():
    def options(transform):
        parameters = inspect.signature(transform).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is not inspect.Parameter.POSITIONAL_OR_KEYWORD}

    assert {"format", "objective", "memory_limit", "measure", "chunk_size", "mesh"} <= set(options(admodes.jacobian))
    assert options(admodes.value_and_jacobian) == options(admodes.jacobian)
    by_default = {"nan_safe": None, "ties": None}  # a Hessian is settled where values are at hand
    of_hessians = {**options(admodes.jacobian), "triangle": None, **by_default}
    assert options(admodes.hessian) == of_hessians
    with_values = {name: default for name, default in of_hessians.items() if name not in by_default}
    assert options(admodes.value_and_hessian) == options(admodes.value_grad_and_hessian) == with_values


def test_options_of_other_types():
    same(admodes.jacobian(jnp.sin, chunk_size=np.int64(5))(X), jax.jacfwd(jnp.sin)(X))
    for objective in ([], {}, None):
        with pytest.raises(ValueError, match="objective must be one of"):
            admodes.jacobian(jnp.sin, objective=objective)


def test_fixed_arguments_of_hessians():
    fun = lambda x, steps, name: sum(jnp.sum(getattr(jnp, name)(x)) for _ in range(steps))
    same(admodes.hessian(fun)(X, 2, "sin"), jax.hessian(lambda x: fun(x, 2, "sin"))(X))


@pytest.mark.parametrize("transform", [admodes.hessian, admodes.jacobian, admodes.grad])
def test_auxiliary_data_comes_in_a_pair(transform):
    with pytest.raises(TypeError, match="two-element tuple"):
        transform(jnp.sum, has_aux=True)(X)


@pytest.mark.parametrize("transform", [admodes.hessian, admodes.jacobian])
def test_auxiliary_data_are_arrays(transform):
    with pytest.raises(TypeError, match=r"has_aux=True.* returned 'text', of type str"):
        transform(lambda x: (jnp.sum(x**2), {"a": 1.0, "b": "text"}), has_aux=True)(X)


def test_the_argument_that_is_not_an_array_is_named():
    fun = lambda a, b: a * b["x"]
    with pytest.raises(TypeError, match=r"jacobian .*argument 1 \(at \['x'\]\) is 'abc', of type str"):
        admodes.jacobian(fun, argnums=1)(X, {"x": "abc"})
    with pytest.raises(TypeError, match=r"jacobian .*argument 1 \(at \['x'\]\) is a ShapeDtypeStruct"):
        admodes.jacobian(fun, argnums=1)(X, {"x": jax.ShapeDtypeStruct((12,), X.dtype)})
    shape = jax.ShapeDtypeStruct((12,), X.dtype)  # may well be what a function is told
    same(admodes.jacobian(lambda x, like: x * jnp.ones(like.shape))(X, shape), jnp.eye(12))


def test_value_is_shared():
    jaxpr = jax.make_jaxpr(admodes.value_and_jacobian(lambda x: jnp.sin(x)))(X)
    assert str(jaxpr).count("= sin ") == 1


def test_jacobian_structure_matches_tree_map():
    out = admodes.jacobian(tree_function)(A, 2.0)
    assert tree_map(jnp.shape, out)["s"]["x"] == (3, 3)


def test_inside_shard_map():
    mesh = jax.make_mesh((4,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("i")
    x = jnp.arange(8.0)
    local = lambda x: jnp.sum(jnp.sin(x) * x[::-1])
    shared = lambda x: jax.lax.pmean(jnp.sin(x) * x[::-1], "i")
    for ours, theirs in (
        (admodes.hessian(local), jax.hessian(local)),
        (admodes.jacobian(local), jax.jacobian(local)),
        (admodes.jacobian(shared), jax.jacobian(shared)),
    ):
        a, e = (jax.shard_map(j, mesh=mesh, in_specs=spec, out_specs=spec)(x) for j in (ours, theirs))
        np.testing.assert_allclose(a, e, rtol=1e-12, atol=1e-14)


def test_explicit_sharding():
    mesh = jax.make_mesh((4,), ("i",), axis_types=(jax.sharding.AxisType.Explicit,))
    with jax.sharding.use_mesh(mesh) if hasattr(jax.sharding, "use_mesh") else jax.set_mesh(mesh):
        x = jax.device_put(jnp.arange(8.0), jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("i")))
        fun = lambda x: jnp.sin(x) * x
        np.testing.assert_allclose(admodes.jacobian(fun)(x), jax.jacfwd(fun)(x), rtol=1e-12)


def across(x):
    return jnp.sin(x) * jnp.roll(x, 1, axis=1)


def total(x):
    return jnp.sum(jnp.sin(x) * jnp.roll(x, 1, axis=1) ** 2)


@pytest.mark.parametrize("set_mesh", [False, True])
@pytest.mark.parametrize("spec", [(), ("i",)], ids=str)
def test_explicit_axes_with_and_without_mesh(spec, set_mesh):
    mesh = jax.make_mesh((2, 2), ("i", "j"), axis_types=(jax.sharding.AxisType.Explicit,) * 2)
    x = jnp.linspace(0.2, 1.7, 48).reshape(4, 12)
    spread = jax.device_put(x, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*spec)))
    expected, second = jax.jacfwd(across)(x), jax.hessian(total)(x)
    with jax.set_mesh(mesh) if set_mesh else contextlib.nullcontext():
        for options in ({}, {"mesh": mesh}):
            dense, sparse = admodes.jacobian(across, **options), admodes.jacobian(across, format="bcoo", **options)
            np.testing.assert_allclose(dense(spread), expected, rtol=1e-12)
            np.testing.assert_allclose(sparse(spread).todense(), expected.reshape(48, 48), rtol=1e-12)
            np.testing.assert_allclose(admodes.hessian(total, **options)(spread), second, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(admodes.laplacian(total)(spread), jnp.trace(second.reshape(48, 48)), rtol=1e-12)
        parts = admodes.block_jacobian(across)(spread)
        np.testing.assert_allclose(parts, jnp.einsum("ijik->ijk", expected.reshape(4, 12, 4, 12)), rtol=1e-12)


def test_seeds_are_split_over_the_explicit_axes_that_no_type_uses():
    mesh = jax.make_mesh((2, 2), ("i", "j"), axis_types=(jax.sharding.AxisType.Explicit,) * 2)
    x = jax.device_put(jnp.ones((4, 12)), jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("i")))
    with jax.set_mesh(mesh):
        text = str(jax.make_jaxpr(admodes.jacobian(across, format="compressed", mesh=mesh))(x).jaxpr)
    assert "[4@j,4@i,12]" in text  # two colors, filled up to four


def with_rule(c):
    @jax.custom_jvp
    def g(x):
        return jnp.sin(x)

    g.defjvp(lambda primals, tangents: (g(primals[0]), c * tangents[0]))
    return lambda x: g(x[1:]) * x[:-1]


def with_callback(c):
    def g(x):
        return jax.pure_callback(lambda y: np.asarray(c * y), x, lax.stop_gradient(x))

    return lambda x: g(x[1:]) * x[:-1]


@pytest.mark.parametrize("make", [with_rule, with_callback])
def test_programs_of_one_text_that_do_different_things(make):
    x = jnp.linspace(0.1, 1.0, 40)
    for c in (1.0, 5.0):
        np.testing.assert_allclose(admodes.jacobian(make(c))(x), jax.jacfwd(make(c))(x), rtol=1e-12)


def test_a_random_key_is_a_constant_like_others():
    key, x = jax.random.key(3), jnp.ones(60)
    f = lambda x: jnp.sin(x) * jax.random.normal(key, x.shape)
    np.testing.assert_allclose(admodes.jacobian(f)(x), jax.jacfwd(f)(x), rtol=1e-12)


def test_a_step_whose_matrix_is_not_colored_in_natural_order():
    table = np.random.default_rng(0).random((60, 60)) < 0.05
    f = lambda x: lax.scan(lambda c, _: (jnp.sin(jnp.asarray(table, x.dtype) @ c), None), x, None, length=1)[0]
    np.testing.assert_allclose(admodes.jacobian(f)(jnp.ones(60)), jax.jacfwd(f)(jnp.ones(60)), atol=1e-14)


def test_no_outputs():
    assert admodes.jacobian(lambda x: {})(jnp.ones(3)) == {}


def test_functions_that_decide_on_values():
    """They are no one program, and run on the values, as in JAX; each call may go another way."""
    f = lambda x, s, tol=1e-3: (jnp.stack([x[0], x[0] * x[1]]) if x[0] > 0 else jnp.sin(x)) * (2.0 if s > tol else 1.0)
    ours, theirs = admodes.jacobian(f), jax.jacobian(f)
    for x, s in ((X, 1.0), (-X, 1.0), (X, 0.0), (-X, -1.0)):
        same(ours(x, s), theirs(x, s))
        same(ours(x, s, tol=0.5), theirs(x, s, tol=0.5))
    tree = lambda x: ({"a": x["u"] ** 2 if x["u"].sum() > 0 else x["u"]}, x["u"][0])
    u = {"u": X}
    same(admodes.jacobian(tree, has_aux=True)(u), jax.jacrev(tree, has_aux=True)(u))
    (value, aux), jacobian = admodes.value_and_jacobian(tree, has_aux=True)(u)
    same((value, aux), tree(u))
    same(jacobian, jax.jacrev(tree, has_aux=True)(u)[0])
    energy = lambda x: jnp.sum(x**3) if x[0] > 0 else jnp.sum(jnp.cos(x))
    for x in (X, -X):
        same(admodes.hessian(energy)(x), jax.hessian(energy)(x))
    cube = lambda x: x**3 if x[0] > 0 else x
    same(admodes.jvp(admodes.jacobian(cube), (X,), (X,))[1], jax.jvp(jax.jacobian(cube), (X,), (X,))[1])


def test_what_one_side_of_a_cut_needs_of_the_other():
    """The narrowest cut is (s, l), where l follows from s too: what both sides need of s is computed on both."""
    rng = np.random.default_rng(0)
    weights, a, x = rng.standard_normal((40, 48)), np.arange(48.0), np.linspace(0.1, 1.0, 40)

    def f(x):
        u = jnp.sum(x) + a
        return weights @ jnp.sin(u) + jnp.ones(40) * ((x @ weights) @ jnp.cos(u))

    task = request("plan", f, 0, False, False).call((x,), {}).task()
    cuts = chained(task, NOMINAL, lambda part: best(part, NOMINAL))
    same(cuts.jacobian(task, cuts.tables, (x,))[1].rows, jax.jacobian(f)(x))
    same(admodes.jacobian(f)(x), jax.jacobian(f)(x))
    batch = lambda x: jax.vmap(f)(x)
    xs = np.stack([x, x**2, -x])
    same(admodes.block_jacobian(batch)(xs), jax.vmap(jax.jacobian(f))(xs))
    scalar = lambda x: (x @ weights) @ jnp.sin(jnp.sum(x) + a)
    same(admodes.hessian(scalar)(x), jax.hessian(scalar)(x), rtol=1e-10)


def test_programs_that_print():
    def f(x):
        jax.debug.print("{}", x[0])
        return jnp.sin(x) * x[0]

    same(admodes.jacobian(f)(X), jax.jacobian(f)(X))


def test_loops_of_no_steps():
    empty = lambda x: jax.lax.scan(lambda c, _: (c * x, c[0]), x, None, length=0)[1].sum()
    f = lambda x: jax.lax.scan(lambda c, _: (c * c, c), empty(x), None, length=2)[0] * jnp.ones(3)
    same(admodes.jacobian(f)(X), jax.jacobian(f)(X))


def test_a_large_matrix_that_varies_with_a_batch():
    """A few rows meet it from the right, but for one that does not depend on seeds."""
    rng = np.random.default_rng(0)
    inner, outer, x = rng.standard_normal((8, 180)), rng.standard_normal((200, 180)) / 10, rng.standard_normal(8)
    chosen = lambda x: jax.lax.cond(x.sum() > 0, jnp.sin, jnp.cos, x @ inner)
    f = lambda x, w: jnp.tanh(jnp.einsum("j,ij->i", chosen(x), w))
    ours, theirs, both = admodes.jacobian(f), jax.jacobian(f), np.stack([outer, 2 * outer])
    same(jax.vmap(ours, (None, 0))(x, both), jax.vmap(theirs, (None, 0))(x, both))
    same(jax.vmap(ours)(np.stack([x, x]), both), jax.vmap(theirs)(np.stack([x, x]), both))
    loss = lambda jacobian: lambda w: jnp.sum(jacobian(x, w) ** 2)
    same(jax.grad(loss(ours))(outer), jax.grad(loss(theirs))(outer), rtol=1e-10)


def test_complex_functions_have_no_count_of_real_multiplications():
    z = jnp.array([1 + 1j, 2.0])
    found = admodes.jacobian(lambda z: z[0] * z, objective="multiplications", holomorphic=True)(z)
    same(found, jax.jacobian(lambda z: z[0] * z, holomorphic=True)(z))


def test_jacobians_that_are_made_anew_are_not_compiled_again():
    weights = np.linspace(0.1, 1.0, X.size)
    make = lambda scale: admodes.jacobian(lambda x: scale * jnp.tanh(weights * x) * jnp.sum(x))
    same(make(2.0)(X), jax.jacobian(lambda x: 2.0 * jnp.tanh(weights * x) * jnp.sum(x))(X))
    runs = set(module._RUNS.entries)
    same(make(2.0)(2 * X), jax.jacobian(lambda x: 2.0 * jnp.tanh(weights * x) * jnp.sum(x))(2 * X))
    assert set(module._RUNS.entries) == runs
    same(make(3.0)(X), jax.jacobian(lambda x: 3.0 * jnp.tanh(weights * x) * jnp.sum(x))(X))
    (value, aux), jacobian = admodes.value_and_jacobian(lambda x: (2.0 * x, x[0]), has_aux=True)(X)
    same((value, aux), (2.0 * X, X[0]))
    same(jacobian, jax.jacobian(lambda x: 2.0 * x)(X))
    same(admodes.jacobian(lambda x: 2.0 * x)(X), jacobian)


def test_random_keys_among_the_constants_under_jit():
    key, x = jax.random.key(3), jnp.arange(3.0)
    f = lambda x: x**2 * jax.random.normal(key, x.shape)
    np.testing.assert_allclose(jax.jit(admodes.jacobian(f))(x), jax.jacobian(f)(x), rtol=1e-12)
