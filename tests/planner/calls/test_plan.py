"""Plans: what they choose, say, keep, and refuse."""

import itertools
import math
import os
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import admodes
from admodes.errors import PatternError, PlanningError, StalePlanError
from admodes.linear.pattern import SparsityPattern
from admodes.planner.calls.plan import VERSION
from admodes.planner.choice import candidates as ways
from admodes.planner.cost.timings import recall
from admodes.text_tables import memory_bytes

X = jnp.linspace(0.3, 1.4, 40)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ADMODES_CACHE", str(tmp_path))


def network(*sizes, activation=jnp.tanh):
    shapes = itertools.pairwise(sizes)
    weights = [jnp.cos(jnp.arange(a * b, dtype=jnp.float64).reshape(a, b)) / a for a, b in shapes]

    def fun(x):
        for w in weights:
            x = activation(x @ w)
        return x

    return fun, jnp.linspace(-1, 1, sizes[0])


def arrow(x):
    return jnp.concatenate([jnp.sum(x * x)[None], x[1:] * x[0]])


def sparse(x):
    return x[1:] * x[:-1] + jnp.sin(x[1:])


@pytest.mark.parametrize(
    ("fun", "x", "winners"),
    [
        (*network(3, 50, 50), {"forward", "cuts", "network"}),
        (*network(50, 50, 3), {"reverse", "cuts", "network"}),
        (*network(300, 200, 4, 200, 300), {"network"}),
        (*network(300, 200, 4, 200, 300, activation=jax.checkpoint(jnp.tanh)), {"cuts"}),
        (lambda x: jnp.sum(x**2), X, {"reverse"}),
        (lambda t: jnp.sin(t * X), jnp.float64(1.0), {"forward"}),
        (arrow, jnp.ones(2000), {"bidirectional", "accumulation"}),
        (sparse, jnp.ones(2000), {"compressed forward", "compressed reverse", "accumulation"}),
    ],
)
def test_the_choice(fun, x, winners):
    found = admodes.plan(fun, x)
    assert found.best.name in winners, str(found)
    assert {"forward", "reverse"} <= {c.name for c in found.candidates}
    assert found.best.seconds == min(c.seconds for c in found.candidates)


def test_arrowheads_take_few_passes_at_any_size():
    for n in (100, 3000):
        plan = admodes.plan(arrow, jnp.ones(n), format="bcoo")
        assert min(c.method.passes for c in plan.candidates if c.name == "bidirectional") <= 4


def test_what_a_plan_says():
    fun, x = network(300, 200, 4, 200, 300, activation=jax.checkpoint(jnp.tanh))
    text = str(admodes.plan(fun, x))
    assert "300 x 300" in text
    assert "cuts wins" in text
    assert "times as much" in text
    assert "4 -> " in text
    mode = admodes.plan(*network(50, 50, 3))
    assert "would win" in mode.otherwise or "Next best" in mode.otherwise


def test_pictures():
    fun, x = network(300, 200, 4, 200, 300, activation=jax.checkpoint(jnp.tanh))
    picture = admodes.plan(fun, x).draw()
    assert picture.splitlines()[0].endswith(" 300")
    assert "J = " in picture
    colored = admodes.plan(sparse, X, format="compressed").draw()
    assert colored.splitlines()[1].startswith("|01 ") or colored.splitlines()[1].startswith("|00 ")
    figure = pytest.importorskip("matplotlib.figure").Figure()
    axes = figure.subplots()
    admodes.plan(sparse, X, format="compressed").draw(axes)
    assert axes.get_title() == "2 products instead of 39"
    bars = figure.subplots()
    admodes.plan(fun, x).draw(bars)
    assert [label.get_text() for label in bars.get_yticklabels()] == ["300", "200", "4", "300"]
    assert bars.get_title().startswith("J = ")
    words = figure.subplots()
    admodes.plan(jnp.sum, x).draw(words)
    assert words.texts[0].get_text().startswith("reverse")


def test_the_order_of_elimination_is_shown():
    plan = admodes.plan(lambda x: jnp.sin(x[0] * x[1]) * jnp.stack([x[0], x[1]]), X[:2], objective="multiplications")
    assert plan.best.name == "elimination"
    order = plan.draw().splitlines()[2].split()
    assert sorted(map(int, order)) == sorted(plan.best.method.accumulation.search.order)


def test_objectives():
    fun, x = network(30, 20, 2, 20, 30)
    for objective, amount in (
        ("flops", lambda c: c.work.flops),
        ("memory", lambda c: c.temp_bytes),
        ("multiplications", lambda c: c.multiplications),
    ):
        plan = admodes.plan(fun, x, objective=objective)
        assert amount(plan.best) == min(map(amount, plan.candidates))
        np.testing.assert_allclose(plan.jacobian(x), jax.jacfwd(fun)(x), rtol=1e-12, atol=1e-17)


@pytest.mark.slow
def test_a_memory_limit_is_kept():
    fun, x = network(200, 200, 200)
    fun_ = lambda x: jnp.cumsum(jnp.sin(jnp.cumsum(fun(x))))
    free = admodes.plan(fun_, x)
    limit = 200 * 200 * 8 * 2
    limited = admodes.plan(fun_, x, memory_limit=limit)
    compiled = jax.jit(admodes.jacobian(fun_, chunk_size=limited.chunk_size)).lower(x).compile()
    assert limited.best.measured_bytes <= limit
    assert limited.chunk_size is None or compiled.memory_analysis().temp_size_in_bytes <= 1.5 * limit
    np.testing.assert_allclose(limited.jacobian(x), free.jacobian(x), rtol=1e-10)
    with pytest.raises(PlanningError, match=r"memory_limit=\d+") as refused:
        admodes.plan(fun_, x, memory_limit=10)
    least = int(str(refused.value).split("memory_limit=")[1].split()[0])
    assert admodes.plan(fun_, x, memory_limit=least).best.measured_bytes <= least


def test_measured_times_are_remembered():
    fun, x = network(30, 20, 2, 20, 30)
    plan = admodes.plan(fun, x, measure=True)
    timed = [c for c in plan.candidates if not np.isnan(c.measured_s)]
    assert len(timed) == 3
    assert plan.best.measured_s == min(c.measured_s for c in timed)
    known = recall(plan.decision.fingerprint, "dense")
    assert len(known) == 3
    again = admodes.plan(fun, x, objective="time", format="dense")
    assert [c.measured_s for c in again.candidates if not np.isnan(c.measured_s)]


def test_text_and_numbers_of_bytes():
    assert memory_bytes("200MiB") == 200 * 2**20
    assert [memory_bytes(x) for x in (np.int64(10**6), np.float32(2.5))] == [10**6, 2]
    for bad in ("many", "-1kB", "0.5 B", 0, -5, math.inf, "5 parsecs", [], True):
        with pytest.raises(ValueError, match="memory_limit"):
            memory_bytes(bad)


def test_save_and_load(tmp_path):
    for fun, x in ((arrow, jnp.arange(1.0, 300.0)), network(300, 200, 4, 200, 300)):
        plan = admodes.plan(fun, x)
        plan.save(tmp_path / "p.npz")
        loaded = admodes.load_plan(tmp_path / "p.npz", fun)
        assert loaded.best.name == plan.best.name
        np.testing.assert_array_equal(loaded.jacobian(x), plan.jacobian(x))


SAVED_WITHOUT_ARGUMENTS = {
    "second argument": (lambda a, b: a[0] * b, (X, jnp.ones(3)), 1),
    "exchanged": (lambda a, b: a[0] * b, (X, jnp.ones(3)), (-1, 0)),
    "floats": (lambda a, b: jnp.sin(a) * b * jnp.arange(3, dtype=np.float32), (2.0, 3.0), 0),
    "an index": (lambda a, k: a[k : k + 1] if isinstance(k, int) else a[k] ** 2, (X, np.int32(2)), 0),
}


@pytest.mark.parametrize("name", SAVED_WITHOUT_ARGUMENTS)
def test_arrays_need_not_be_given_to_load(name, tmp_path):
    fun, args, argnums = SAVED_WITHOUT_ARGUMENTS[name]
    plan = admodes.plan(fun, *args, argnums=argnums)
    plan.save(tmp_path / "p")
    loaded = admodes.load_plan(tmp_path / "p", fun)
    for ours, theirs in zip(*map(jax.tree.leaves, (loaded.jacobian(*args), plan.jacobian(*args))), strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert ours.weak_type == theirs.weak_type


@pytest.mark.parametrize(
    ("fun", "args", "kwargs"),
    [
        (lambda d: d["a"] * 2, ({"a": X},), {}),
        (lambda x, k: x * k, (X, 3), {}),
        (lambda x, key: x * jax.random.normal(key, x.shape), (X, jax.random.key(1)), {}),
        (lambda x, *, b: x * b, (X,), {"b": X}),
        (lambda x, *, b: x, (X,), {"b": None}),
    ],
    ids=["dict", "fixed", "key", "keyword", "None"],
)
def test_other_arguments_are_to_be_given_to_load(fun, args, kwargs, tmp_path):
    admodes.plan(fun, *args, **kwargs).save(tmp_path / "p.npz")
    with pytest.raises(TypeError, match="pass the arguments to load_plan"):
        admodes.load_plan(tmp_path / "p.npz", fun)
    loaded = admodes.load_plan(tmp_path / "p.npz", fun, *args, **kwargs)
    assert loaded.jacobian(*args, **kwargs) is not None


def test_a_plan_is_saved_under_its_name_or_not_at_all(tmp_path):
    plan = admodes.plan(sparse, X)
    plan.save(tmp_path / "plan")
    assert [file.name for file in tmp_path.iterdir() if "plan" in file.name] == ["plan"]
    with pytest.raises(IsADirectoryError):
        plan.save(tmp_path)


def test_weak_types_become_the_planned_ones_but_not_the_reverse():
    fun, weak = (lambda x: x * jnp.float32(3.0)), jnp.full(4, 2.0)
    strong = admodes.plan(fun, jnp.ones(4))
    assert weak.weak_type
    assert strong.jacobian(weak).dtype == np.float64
    np.testing.assert_array_equal(strong.jacobian(weak), 3 * np.eye(4))
    with pytest.raises(StalePlanError, match=r"float64\[4\] \(weakly typed\), but was given .* float64\[4\]\."):
        admodes.plan(fun, weak).jacobian(jnp.ones(4))


def test_what_is_decided_in_a_trace_is_measured_later():
    fun = lambda x: sparse(x) * jnp.tanh(x[0])
    jacobian = admodes.jacobian(fun, measure=True)
    fingerprint = admodes.plan(fun, X).decision.fingerprint
    jax.jit(jacobian)(X)
    jax.vmap(jacobian)(X[None])
    assert not recall(fingerprint, "dense")
    jacobian(X)
    assert len(recall(fingerprint, "dense")) == 3


def test_plans_that_do_not_fit_are_refused(tmp_path):
    file = tmp_path / "p.npz"
    plan = admodes.plan(sparse, X, format="compressed")
    plan.save(file)
    with pytest.raises(StalePlanError, match="float64"):
        plan.jacobian(X[:5])
    with pytest.raises(StalePlanError, match="another function"):
        admodes.load_plan(file, lambda x: sparse(x) * x[0])
    with pytest.raises(StalePlanError, match="another function"):
        admodes.load_plan(file, sparse, X[:7])
    with np.load(file) as data:
        arrays = {name: data[name] for name in data.files}
    for damage in (
        {"color_columns": np.zeros_like(arrays["color_columns"])},
        {"color_columns": arrays["color_columns"][:-1]},
        {"rows": arrays["rows"][2:], "cols": arrays["cols"][2:]},
        {"header": np.array(str(arrays["header"]).replace(f'"version": {VERSION}', '"version": 0'))},
        {"header": np.array("not json")},
        {"header": np.array("[" * 100_000)},
        {"header": np.array('{"request":' * 50_000)},
    ):
        np.savez(file, **(arrays | damage))
        with pytest.raises(StalePlanError):
            admodes.load_plan(file, sparse)
    file.write_bytes(b"garbage")
    with pytest.raises(StalePlanError, match="cannot be read"):
        admodes.load_plan(file, sparse)
    with pytest.raises(FileNotFoundError):
        admodes.load_plan(tmp_path / "nothing.npz", sparse)


def test_patterns_that_are_given_must_cover():
    covering = admodes.sparsity(sparse, X).union(SparsityPattern.build([0], [7], (39, 40)))
    plan = admodes.plan(sparse, X, pattern=covering, format="bcoo")
    assert plan.pattern.nnz == covering.nnz
    np.testing.assert_allclose(plan.jacobian(X).todense(), jax.jacfwd(sparse)(X))
    with pytest.raises(PatternError, match=r"entry \(0, 1\)"):
        admodes.plan(sparse, X, pattern=SparsityPattern.identity(39, 40))
    with pytest.raises(PatternError, match="40 x 40"):
        admodes.plan(sparse, X, pattern=SparsityPattern.identity(40))


@pytest.mark.parametrize("objective", ["time", "memory", "multiplications"])
@pytest.mark.parametrize("form", ["bcoo", "scipy"])
def test_results_keep_the_pattern_that_was_given(form, objective):
    """Whoever subtracts a Jacobian from an identity needs the places of its diagonal, whatever the way to it."""
    fun = lambda x: jnp.roll(x, 1) * x[0]
    x = jnp.arange(1.0, 16.0)
    there = admodes.sparsity(fun, x).to_dense() | np.eye(15, dtype=bool)
    given = SparsityPattern.build(*np.nonzero(there), (15, 15))
    plan = admodes.plan(fun, x, format=form, pattern=given, objective=objective)
    found, expected = plan.jacobian(x), np.asarray(jax.jacfwd(fun)(x))
    if form == "bcoo":
        assert found.nse == given.nnz
        assert np.array_equal(found.indices, np.argwhere(there))
        np.testing.assert_allclose(found.todense(), expected, rtol=1e-12)
        return
    assert found.nnz == given.nnz
    np.testing.assert_allclose(found.toarray(), expected, rtol=1e-12)
    found.setdiag(found.diagonal() - 1.0)
    assert found.nnz == given.nnz
    np.testing.assert_allclose(found.toarray(), expected - np.eye(15), rtol=1e-12)
    np.testing.assert_allclose(admodes.plan(fun, x, pattern=given).jacobian(x), expected, rtol=1e-12)


@pytest.mark.parametrize("pattern", ["x", np.eye(4), 3])
def test_patterns_are_patterns(pattern):
    with pytest.raises(TypeError, match=r"pattern must be .*admodes\.sparsity"):
        admodes.plan(sparse, X, pattern=pattern)


def test_types_are_enough_to_plan_but_not_to_compute():
    types = jax.ShapeDtypeStruct(X.shape, X.dtype)
    plan = admodes.plan(sparse, types)
    np.testing.assert_allclose(plan.jacobian(X), jax.jacfwd(sparse)(X))
    for compute in (plan.jacobian, lambda x: admodes.plan(sparse, x, measure=True)):
        with pytest.raises(TypeError, match=r"argument 0 is a ShapeDtypeStruct"):
            compute(types)


def test_plans_are_made_outside_of_traces():
    with pytest.raises(PlanningError, match=r"admodes\.jacobian"):
        jax.jit(lambda x: admodes.plan(sparse, x).jacobian(x))(X)


def test_choose_mode():
    assert [admodes.choose_mode(n, m) for n, m in ((1, 9), (9, 1), (4, 4))] == ["forward", "reverse", "forward"]
    with pytest.raises(ValueError, match="negative"):
        admodes.choose_mode(-1, 2)


def test_seeds_are_split_over_devices():
    code = """if True:
        import jax, jax.numpy as jnp, numpy as np, admodes
        jax.config.update("jax_enable_x64", True)
        mesh = jax.make_mesh((4, 2), ("a", "b"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
        w = jnp.cos(jnp.arange(20.0 * 20).reshape(20, 20))
        f = lambda x: jnp.tanh(w @ jnp.tanh(w @ x))
        g = lambda x: x[1:] * x[:-1] * x[0]
        x = jnp.linspace(0.1, 1, 20)
        for fun in (f, g):
            plan = admodes.plan(fun, x, mesh=mesh)
            mapped = [c for c in plan.candidates if "of 8 devices" in c.method.detail]
            assert mapped, str(plan)
            np.testing.assert_allclose(admodes.jacobian(fun, mesh=mesh)(x), jax.jacfwd(fun)(x), rtol=1e-12, atol=1e-14)
        explicit = jax.make_mesh((8,), ("a",))  # the kind of axes that JAX makes unless told otherwise
        np.testing.assert_allclose(admodes.jacobian(f, mesh=explicit)(x), jax.jacfwd(f)(x), rtol=1e-12, atol=1e-14)
        plan = admodes.plan(f, x, mesh=mesh, chunk_size=8)
        assert "3 on each of 8 devices" in plan.candidates[-1].method.detail, str(plan)
        layout = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("a"))
        spread = jax.device_put(jnp.linspace(0.1, 1, 24), layout)  # over a mesh, which is taken then
        h = lambda x: jnp.tanh(jnp.cos(jnp.arange(24.0 * 24)).reshape(24, 24) @ jnp.sin(x))
        assert "3 on each of 8 devices" in admodes.plan(h, spread).best.method.detail
        found = admodes.jacobian(h)(spread)
        np.testing.assert_allclose(found, jax.jacfwd(h)(np.asarray(spread)), rtol=1e-11, atol=1e-14)
        assert not found.sharding.is_fully_replicated
        text = jax.jit(admodes.jacobian(f, mesh=mesh)).lower(x).compile().as_text()
        assert "num_partitions=8" in text
        print("fine")
    """
    environment = dict(os.environ, XLA_FLAGS="--xla_force_host_platform_device_count=8")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "fine", done.stderr


@pytest.mark.parametrize(("name", "best_known"), [("roe_flux", 160), ("propane_combustion", 24)])
def test_multiplications_of_scalar_functions(name, best_known, monkeypatch):
    monkeypatch.setattr(ways, "SEARCH_SECONDS", 1.0)
    problem = admodes.problems.get(name)
    fun, args = problem.make(np.float64)
    plan = admodes.plan(fun, *args, argnums=problem.argnums, objective="multiplications")
    assert plan.best.name == "elimination"
    assert plan.best.multiplications <= best_known
    found, expected = (jax.tree.leaves(j) for j in (plan.jacobian(*args), jax.jacfwd(fun, problem.argnums)(*args)))
    for a, e in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-10, atol=1e-13)
