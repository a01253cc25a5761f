"""The public functions against their JAX namesakes: results, types, structures and error classes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import admodes

FLOAT0 = jax.dtypes.float0
ONES = np.ones(3, np.float32)


def zero_tangent(shape=()):
    return np.zeros(shape, FLOAT0)


def sqrt_by_newton(x):
    y = x
    while abs(y * y - x) > 1e-6:
        y = (y + x / y) / 2
    return y


# each case is called with the library, admodes or jax
CASES = {
    "weak float": lambda m: m.grad(lambda x: x * 2.0)(1.0),
    "weak float, value": lambda m: m.value_and_grad(lambda x: x * jnp.float32(3))(1.0),
    "weak through a strong constant": lambda m: m.grad(lambda x: jnp.sin(x) * np.float64(2))(1.0),
    "python int power": lambda m: m.grad(lambda x, n: x**n if isinstance(n, int) else 1 / 0)(1.0, 3),
    "jvp of a python float": lambda m: m.jvp(lambda x: x * 2.0, (1.0,), (1.0,)),
    "numpy scalar": lambda m: m.grad(lambda x: x * 2.0)(np.float32(1.0)),
    "numpy array": lambda m: m.grad(lambda x: x.sum())(ONES),
    "16 bit": lambda m: m.grad(lambda x: x * x)(jnp.bfloat16(2)),
    "allow_int": lambda m: m.grad(lambda x: x * 2.0, allow_int=True)(1),
    "allow_int array": lambda m: m.grad(lambda x: x.sum() * 2.0, allow_int=True)(jnp.arange(3)),
    "integer argument of vjp": lambda m: m.vjp(lambda x, y: (x * y, y), 2, 3.0)[1]((1.0, 1.0)),
    "integer argument of jvp": lambda m: m.jvp(lambda x, y: (x * y, x), (2, 3.0), (zero_tangent(), 1.0)),
    "integer output of vjp": lambda m: m.vjp(lambda x: (x, 2), 1.0)[1]((1.0, zero_tangent())),
    "integer cotangent": lambda m: m.vjp(lambda x: (x * 2, jnp.int32(3)), 1.0)[1]((1.0, jnp.int32(5))),
    "float cotangent of an integer": lambda m: m.vjp(lambda x: (x * 2, jnp.int32(3)), 1.0)[1]((1.0, 5.0)),
    "weak through where": lambda m: m.grad(lambda x: jnp.where(True, x, 2.0))(3.0),
    "weak no longer after a power": lambda m: (m.grad(lambda x: x**1.5)(2.0), m.grad(lambda x: x**x)(2.0)),
    "weak through sinc": lambda m: m.grad(lambda x: jnp.sinc(x))(0.0),
    "weak through relu": lambda m: m.grad(jax.nn.relu)(3.0),
    "argnums": lambda m: m.grad(lambda x, y: x * y, argnums=1)(1.0, 2.0),
    "argnums negative": lambda m: m.grad(lambda x, y: x * y, argnums=-1)(1.0, 2.0),
    "argnums tuple": lambda m: m.grad(lambda x, y: x * y, argnums=(1, 0))(1.0, 2.0),
    "argnums list": lambda m: m.grad(lambda x, y: x * y, argnums=[0, 1])(1.0, 2.0),
    "keyword argument": lambda m: m.grad(lambda x, y=1.0: x * y)(1.0, y=2.0),
    "keyword string": lambda m: m.grad(lambda x, *, mode: x if mode == "a" else x * 2)(1.0, mode="a"),
    "unhashable keyword": lambda m: m.grad(lambda x, *, sizes: x * len(sizes))(1.0, sizes=[1, 2]),
    "function argument": lambda m: m.grad(lambda x, f: f(x))(1.0, jnp.sin),
    "dictionary with None": lambda m: m.grad(lambda d: d["a"] * d["b"][0])({"a": 1.0, "b": (2.0, None)}),
    "empty pytree": lambda m: m.grad(lambda d: 1.0)({}),
    "constant function": lambda m: m.grad(lambda x: 1.0)(2.0),
    "no output": lambda m: m.vjp(lambda x: None, 1.0)[0],
    "has_aux": lambda m: m.grad(lambda x: (x * x, {"a": x, "b": 3}), has_aux=True)(1.0),
    "has_aux of value_and_grad": lambda m: m.value_and_grad(lambda x: (x * x, [x]), has_aux=True)(1.0),
    "has_aux of vjp": lambda m: m.vjp(lambda x: (x * x, x), 2.0, has_aux=True)[2],
    "has_aux of jvp": lambda m: m.jvp(lambda x: (x * x, {"x": x}), (2.0,), (1.0,), has_aux=True),
    "has_aux of linearize": lambda m: m.linearize(lambda x: (x * x, x), 2.0, has_aux=True)[2],
    "has_aux of jacfwd": lambda m: m.jacfwd(lambda x: (x * x, x), has_aux=True)(ONES),
    "has_aux of jacrev": lambda m: m.jacrev(lambda x: (x * x, x), has_aux=True)(ONES),
    "has_aux of hessian": lambda m: m.hessian(lambda x: (jnp.sum(x**3), x), has_aux=True)(ONES),
    "complex input": lambda m: m.grad(lambda x: jnp.real(x * x))(1 + 1j),
    "holomorphic": lambda m: m.grad(lambda x: x * x, holomorphic=True)(1 + 1j),
    "holomorphic jacfwd": lambda m: m.jacfwd(lambda x: x * x, holomorphic=True)(ONES * 1j),
    "holomorphic jacrev": lambda m: m.jacrev(lambda x: x * x, holomorphic=True)(ONES * 1j),
    "holomorphic hessian": lambda m: m.hessian(lambda x: jnp.sum(x**3), holomorphic=True)(ONES * 1j),
    "if": lambda m: m.grad(lambda x: x * x if x > 0 else -x)(1.0),
    "while": lambda m: m.grad(sqrt_by_newton)(2.0),
    "while, forward": lambda m: m.jvp(sqrt_by_newton, (2.0,), (1.0,)),
    "concrete closed-over value": lambda m: m.grad(lambda x: x if ONES[0] > 0 else -x)(1.0),
    "numpy on concrete values": lambda m: m.grad(lambda x: x * np.prod(x.shape))(1.0),
    "indexing by a value": lambda m: m.grad(lambda x: x[int(x[1])] * 2.0)(ONES),
    "linearize": lambda m: m.linearize(lambda x, y: (x * y, 3), 2.0, 3.0)[1](1.0, 1.0),
    "random key argument": lambda m: m.grad(lambda x, k: x * jax.random.normal(k))(1.0, jax.random.key(0)),
    "random key differentiated": lambda m: m.vjp(lambda k, x: x * jax.random.normal(k), jax.random.key(0), 1.0)[1](1.0)[
        1
    ],
    "jacfwd pytrees": lambda m: m.jacfwd(lambda d: {"y": d["a"] * d["b"], "z": d["a"]})({"a": 2.0, "b": ONES}),
    "jacrev pytrees": lambda m: m.jacrev(lambda d: {"y": d["a"] * d["b"], "z": d["a"]})({"a": 2.0, "b": ONES}),
    "jacfwd argnums": lambda m: m.jacfwd(lambda a, b: a * b, argnums=(0, 1))(ONES, ONES * 2),
    "jacrev argnums": lambda m: m.jacrev(lambda a, b: a * b, argnums=(0, 1))(ONES, ONES * 2),
    "jacfwd mixed dtypes": lambda m: m.jacfwd(lambda a: (a[0] * a[1]).sum())((ONES, ONES.astype(np.float16))),
    "hessian": lambda m: m.hessian(lambda x: jnp.prod(x))(ONES * 2),
    "partial": lambda m: m.grad(functools.partial(lambda a, x: a * x, 3.0))(2.0),
    "jit inside": lambda m: m.grad(jax.jit(lambda x: x**2))(3.0),
    "debug print": lambda m: m.grad(lambda x: (jax.debug.print("", ordered=True), x * x)[1])(3.0),
}


def describe(x):
    if getattr(x, "dtype", None) == FLOAT0:
        return FLOAT0, np.shape(x)
    return jax.typeof(x).dtype, np.shape(x), jax.typeof(x).weak_type


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_same_result_as_jax(case):
    with jax.enable_x64(False):
        ours, theirs = case(admodes), case(jax)
        assert jax.tree.structure(ours) == jax.tree.structure(theirs)
        for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
            assert describe(a) == describe(b)
            if getattr(a, "dtype", None) != FLOAT0:
                np.testing.assert_allclose(np.asarray(a, np.complex128), np.asarray(b, np.complex128), rtol=1e-6)


ERRORS = {
    "integer input": lambda m: m.grad(lambda x: x * 2.0)(1),
    "boolean input": lambda m: m.grad(lambda x: x * 1.0)(True),
    "key input": lambda m: m.grad(lambda k: 1.0)(jax.random.key(0)),
    "string input": lambda m: m.grad(lambda x: x)("a"),
    "not a function": lambda m: m.grad(3),
    "argnums beyond the arguments": lambda m: m.grad(lambda x: x, argnums=2)(1.0),
    "argnums before the arguments": lambda m: m.grad(lambda x, y: x * y, argnums=-3)(1.0, 2.0),
    "one of argnums before the arguments": lambda m: m.jacrev(lambda x, y: x * y, argnums=(0, -3))(1.0, 2.0),
    "argnums empty": lambda m: m.grad(lambda x, y: x * y, argnums=())(1.0, 2.0),
    "argnums is a string": lambda m: m.grad(lambda x, y: x * y, argnums="a")(1.0, 2.0),
    "argnums is a float": lambda m: m.grad(lambda x, y: x * y, argnums=1.0)(1.0, 2.0),
    "vector output": lambda m: m.grad(lambda x: x * 2.0)(ONES),
    "tuple output": lambda m: m.grad(lambda x: (x, x))(1.0),
    "string output": lambda m: m.vjp(lambda x: "a", 1.0),
    "has_aux without a pair": lambda m: m.grad(lambda x: x * x, has_aux=True)(1.0),
    "complex output": lambda m: m.grad(lambda x: x * x)(1 + 1j),
    "holomorphic with a real input": lambda m: m.grad(lambda x: x * x, holomorphic=True)(1.0),
    "jacfwd of complex": lambda m: m.jacfwd(lambda x: x * x)(ONES * 1j),
    "jacfwd of integers": lambda m: m.jacfwd(lambda x: x * x)(jnp.arange(2)),
    "jacrev of integers": lambda m: m.jacrev(lambda x: x * x)(jnp.arange(2)),
    "cotangent of another shape": lambda m: m.vjp(lambda x: x, ONES)[1](jnp.ones(4)),
    "cotangent of another dtype": lambda m: m.vjp(lambda x: x, ONES)[1](jnp.ones(3, jnp.int32)),
    "cotangent of another shape for an integer": lambda m: m.vjp(lambda x: 3, 1.0)[1](jnp.ones(2, jnp.int32)),
    "float0 cotangent of a float": lambda m: m.vjp(lambda x: x, 1.0)[1](zero_tangent()),
    "cotangent of another structure": lambda m: m.vjp(lambda x: (x, x), ONES)[1](ONES),
    "two cotangents": lambda m: m.vjp(lambda x: (x, x), ONES)[1](ONES, ONES),
    "tangent of another shape": lambda m: m.jvp(lambda x: x, (ONES,), (jnp.ones(4, jnp.float32),)),
    "tangent of another dtype": lambda m: m.jvp(lambda x: x, (ONES,), (jnp.ones(3, jnp.float16),)),
    "tangent of another structure": lambda m: m.jvp(lambda x: x, ((ONES,),), (ONES,)),
    "list of tangents for a tuple": lambda m: m.jvp(lambda x, y: x * y, (1.0, 2.0), [3.0, 4.0]),
    "integer tangent": lambda m: m.jvp(lambda x, y: (x * y, y), (2, 3.0), (1, 1.0)),
    "too few tangents": lambda m: m.jvp(lambda x, y: x, (1.0, 2.0), (1.0,)),
    "primals are not a tuple": lambda m: m.jvp(lambda x: x, ONES, ONES),
    "linearized at another shape": lambda m: m.linearize(lambda x: x, 2.0)[1](ONES),
    "linearized with more arguments": lambda m: m.linearize(lambda x: x, 2.0)[1](1.0, 1.0),
    "branch on a traced value": lambda m: jax.jit(m.grad(lambda x: x if x > 0 else -x))(1.0),
}


@pytest.mark.parametrize("case", ERRORS.values(), ids=ERRORS)
def test_same_error_class_as_jax(case):
    with pytest.raises(Exception) as theirs:  # noqa: PT011  (whatever JAX raises is the expectation)
        case(jax)
    with pytest.raises(theirs.type) as ours:
        case(admodes)
    assert len(str(ours.value)) > 20


@pytest.mark.parametrize("argnums", [(0, 0), (1, -1)])
@pytest.mark.parametrize("derive", [admodes.grad, admodes.jacfwd, admodes.jacrev])
def test_argument_named_twice(derive, argnums):
    with pytest.raises(ValueError, match="twice"):
        derive(lambda x, y: x * y, argnums=argnums)(1.0, 2.0)


@pytest.mark.parametrize("derive", [admodes.grad, admodes.jacfwd, admodes.jacobian, admodes.hessian])
@pytest.mark.parametrize("argnums", ["a", None, 1.5, (0, "a")], ids=str)
def test_argnums_that_are_no_integers(derive, argnums):
    with pytest.raises(TypeError, match="argnums must be an int or a sequence of ints"):
        derive(lambda x, y: x * y, argnums=argnums)


@pytest.mark.parametrize("x", [1.0, 1 + 2j, np.float64(1), ONES], ids=lambda x: type(x).__name__)
def test_values_that_pass_through_stay_python_objects(x):
    def both(m):
        value, push = m.linearize(lambda x: (x, 3), x)
        return m.jvp(lambda x: (x, 3), (x,), (x,)), value, push(x)[0]

    ours, theirs = jax.tree.leaves(both(admodes)), jax.tree.leaves(both(jax))
    assert [type(v) for v in ours] == [type(v) for v in theirs]


@pytest.mark.parametrize("kind", [jax.sharding.AxisType.Explicit, jax.sharding.AxisType.Auto], ids=str)
@pytest.mark.parametrize("jacobian", ["jacfwd", "jacrev", "twice"])
@pytest.mark.every(3)
def test_jacobians_of_sharded_values(jacobian, kind):
    mesh, split = jax.make_mesh((4,), ("i",), axis_types=(kind,)), jax.sharding.PartitionSpec("i")

    def derive(m):
        if jacobian == "twice":
            return m.jacfwd(m.jacrev(lambda x: jnp.sum(jnp.sin(x) * x)))
        return getattr(m, jacobian)(lambda x: jnp.sin(x) * x)

    with jax.set_mesh(mesh):
        x = jax.device_put(jnp.arange(8.0), jax.sharding.NamedSharding(mesh, split))
        for apply in (lambda f: f, lambda f: jax.shard_map(f, in_specs=split, out_specs=split)):
            ours, theirs = (apply(derive(m))(x) for m in (admodes, jax))
            assert jax.typeof(ours) == jax.typeof(theirs)
            np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), atol=1e-12)


@pytest.mark.parametrize("derive", ["jacrev", "jacobian"])
def test_jacobians_of_matrices_laid_out_over_devices(derive):
    mesh = jax.make_mesh((4,), ("i",))
    x = jnp.linspace(-1.0, 1.0, 8 * 3).reshape(8, 3)
    split = jax.device_put(x, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("i")))
    f = lambda x: jnp.sin(x) * jnp.sum(x, 1, keepdims=True)
    ours, theirs = (getattr(m, derive)(f)(split) for m in (admodes, jax))
    like = [jax.typeof(derived(f)(split)) for derived in (jax.jacrev, jax.jacfwd)]
    assert jax.typeof(ours) in (like if derive == "jacobian" else like[:1])  # a plan may be by columns
    np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), atol=1e-12)


def test_names_and_docs_come_from_the_function():
    def parabola(x):
        """A parabola."""
        return x * x

    for derive in (admodes.grad, admodes.value_and_grad, admodes.jacfwd, admodes.jacrev, admodes.hessian):
        assert derive(parabola).__name__ == "parabola"
        assert "parabola" in derive(parabola).__doc__


def test_undifferentiated_arguments_arrive_unconverted():
    seen = []
    admodes.grad(lambda x, n, s, a: seen.extend([n, s, a]) or x * n)(1.0, 3, "text", ONES)
    assert type(seen[0]) is int
    assert seen[1] == "text"
    assert seen[2] is ONES


def test_unsupported_primitive_names_itself_and_the_line():
    with pytest.raises(admodes.errors.UnsupportedPrimitiveError, match=r"(?s)'rng_uniform'.*test_api\.py"):
        admodes.jvp(lambda x: lax.rng_uniform(x, x + 1, (3,)), (1.0,), (1.0,))


def test_dead_code_never_asks_for_a_rule():
    assert admodes.grad(lambda x: (lax.rng_uniform(x, x + 1, (3,)), x * x)[1])(3.0) == 6.0


def test_optimiser_step_is_a_drop_in():
    import optax

    def loss(p, x, y):
        return jnp.mean((jnp.tanh(x @ p["w"]) + p["b"] - y) ** 2)

    x, y = np.linspace(-1, 1, 12).reshape(4, 3), np.linspace(0, 1, 4)
    curves = []
    for lib in (admodes, jax):
        p, optimiser = {"w": jnp.ones(3), "b": jnp.zeros(())}, optax.adam(0.1)
        state, losses = optimiser.init(p), []
        for _ in range(5):
            value, g = lib.value_and_grad(loss)(p, x, y)
            updates, state = optimiser.update(g, state)
            p = optax.apply_updates(p, updates)
            losses.append(float(value))
        curves.append(losses)
    np.testing.assert_allclose(curves[0], curves[1], rtol=1e-12)


@pytest.mark.parametrize(
    "derive", [admodes.grad, lambda f: lambda x: admodes.jvp(f, (x,), (1.0,))], ids=["grad", "jvp"]
)
@pytest.mark.every(2)
def test_leaked_tracers_are_found(derive):
    """``jax.checking_leaks`` sees ours too."""
    kept = []

    def leaking(x):
        kept.append(jnp.sin(x))
        return 2 * kept[-1]

    def tidy(x):
        return jax.lax.scan(lambda c, _: (jnp.sin(c) * x, None), jax.jit(jnp.cos)(x), None, length=3)[0]

    with jax.checking_leaks():
        for fun in (derive(tidy), jax.jit(derive(tidy)), derive(lambda x: admodes.grad(tidy)(x))):
            fun(1.0)
        with pytest.raises(Exception, match=r"Leaked trace (Tape|Dual)Trace"):
            derive(leaking)(1.0)
