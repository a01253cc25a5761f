"""Users' own derivative rules: what they may apply to tangents, and what they may keep."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import admodes

A = np.array([[4.0, 1.0, 0.0], [0.5, 3.0, 0.3], [0.0, 0.2, 5.0]])
B = np.array([1.0, 2.0, -0.5])

# -- rules that apply their own function -------------------------------------------------------------------


def by_jvp(wrap=lambda f: f):
    """A linear solver whose rule solves for the tangent."""

    @jax.custom_jvp
    def solve(a, b):
        return wrap(jnp.linalg.solve)(a, b)

    @solve.defjvp
    def _(primals, tangents):
        (a, b), (da, db) = primals, tangents
        x = solve(a, b)
        return x, wrap(solve)(a, db - da @ x)

    return solve


def by_vjp(wrap=lambda f: f):
    """A linear solver whose backward pass solves for the cotangent."""

    @jax.custom_vjp
    def solve(a, b):
        return wrap(jnp.linalg.solve)(a, b)

    def fwd(a, b):
        x = solve(a, b)
        return x, (a, x)

    def bwd(residuals, g):
        a, x = residuals
        w = wrap(solve)(a.T, g)
        return -jnp.outer(w, x), w

    solve.defvjp(fwd, bwd)
    return solve


WRAPS = {
    "plain": lambda f: f,
    "jit": jax.jit,
    "checkpoint": jax.checkpoint,
    "cond": lambda f: lambda a, b: lax.cond(a[0, 0] > 0, f, lambda a, b: b, a, b),
    "scan": lambda f: lambda a, b: lax.scan(lambda c, _: (c, f(a, b)), b, None, length=2)[1][1],
}


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("make", [by_jvp, by_vjp])
def test_a_rule_may_apply_its_own_function(make, wrap):
    solve, plain = make(WRAPS[wrap]), jnp.linalg.solve
    for argnum in (0, 1):
        for derive in ("jacfwd", "jacrev", "jacobian"):
            expected = jax.jacfwd(plain, argnum)(A, B)
            np.testing.assert_allclose(getattr(admodes, derive)(solve, argnum)(A, B), expected, rtol=1e-10, atol=1e-12)
        assert admodes.sparsity(solve, A, B, argnums=argnum).to_dense().all()


@pytest.mark.parametrize("make", [by_jvp, by_vjp])
def test_second_derivatives_of_a_rule_that_applies_its_own_function(make):
    loss = lambda solve: lambda a, b: jnp.sum(jnp.sin(solve(a, b)))
    f, plain = loss(make()), loss(jnp.linalg.solve)
    for argnum in (0, 1):
        expected = jax.hessian(plain, argnum)(A, B)
        for outer, inner in (("jacfwd", "grad"), ("jacrev", "grad"), ("jacrev", "jacfwd"), ("jacfwd", "jacfwd")):
            found = getattr(admodes, outer)(getattr(admodes, inner)(f, argnum), argnum)(A, B)
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(admodes.hessian(f, argnum)(A, B), expected, rtol=1e-9, atol=1e-11)
    batch = jnp.stack([B, 2 * B])
    found = jax.vmap(admodes.grad(f, 1), (None, 0))(A, batch)
    np.testing.assert_allclose(found, jax.vmap(jax.grad(plain, 1), (None, 0))(A, batch), rtol=1e-10)


@pytest.mark.parametrize("make", [by_jvp, by_vjp])
def test_generalised_derivatives_through_a_rule_that_applies_its_own_function(make):
    f = lambda x: jnp.sum(jnp.abs(make()(A, x)))
    np.testing.assert_allclose(
        admodes.subgradient(f)(B), jax.grad(lambda x: jnp.sum(jnp.abs(jnp.linalg.solve(A, x))))(B)
    )
    assert admodes.doctor(f, B).healthy


def test_a_rule_that_applies_its_own_function_inside_shard_map():
    mesh = jax.make_mesh((2,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec

    @jax.custom_jvp
    def solve(b):
        return jnp.linalg.solve(A, b)

    @solve.defjvp
    def _(primals, tangents):
        halves = jax.shard_map(solve, mesh=mesh, in_specs=spec(None, "i"), out_specs=spec(None, "i"))
        return solve(*primals), halves(*tangents)

    b = np.stack([B, 2 * B], 1)
    expected = jax.jacrev(partial(jnp.linalg.solve, A))(b)
    np.testing.assert_allclose(admodes.jacrev(solve)(b), expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(admodes.jacfwd(solve)(b), expected, rtol=1e-10, atol=1e-12)


def test_functions_whose_rules_apply_each_other():
    s = np.array([[2.0, 2.0, 1.0], [2.0, 2.0, 3.0], [1.0, 3.0, 2.0]])

    @jax.custom_jvp
    def once(x):
        return s @ x

    @jax.custom_jvp
    def again(x):
        return s @ x

    once.defjvp(lambda p, t: (once(*p), again(*t)))
    again.defjvp(lambda p, t: (again(*p), once(*t)))
    f = lambda x: jnp.sum(once(x) ** 3)
    plain = lambda x: jnp.sum((s @ x) ** 3)
    np.testing.assert_allclose(admodes.grad(f)(B), jax.grad(plain)(B), rtol=1e-12)
    np.testing.assert_allclose(admodes.hessian(f)(B), jax.hessian(plain)(B), rtol=1e-12)


def test_the_pattern_is_that_of_the_function_itself():
    """A banded symmetric operator whose backward pass applies the operator."""

    @jax.custom_vjp
    def second_difference(x):
        return jnp.convolve(x, jnp.array([1.0, -2.0, 1.0]), mode="same")

    second_difference.defvjp(lambda x: (second_difference(x), None), lambda _, g: (second_difference(g),))
    x = jnp.arange(6.0)
    assert admodes.sparsity(second_difference, x).nnz == 16
    assert admodes.sparsity(jax.jit(second_difference), x).nnz == 16
    jacobian = admodes.jacobian(second_difference, format="bcoo")(x)
    np.testing.assert_allclose(jacobian.todense(), admodes.jacrev(second_difference)(x))


def by_callback(x):
    return jax.pure_callback(lambda x: A @ x, jax.ShapeDtypeStruct((3,), np.float64), x, vmap_method="sequential")


def test_a_callback_is_not_transposed():
    """A custom_jvp rule that applies the callback to the tangent serves forward mode, one that pulls reverse mode."""

    @jax.custom_jvp
    def pushed(x):
        return by_callback(x)

    pushed.defjvp(lambda p, t: (pushed(*p), pushed(*t)))
    np.testing.assert_allclose(admodes.jacfwd(pushed)(B), A)
    for library in (jax, admodes):
        with pytest.raises(ValueError, match="Pure callbacks do not support transpose"):
            library.jacrev(pushed)(B)
    with pytest.raises(ValueError, match=r"test_custom\.py"):
        admodes.jacrev(jax.jit(pushed))(B)
    assert admodes.sparsity(pushed, B).nnz == 9

    @jax.custom_vjp
    def pulled(x):
        return A.T @ x

    pulled.defvjp(lambda x: (pulled(x), None), lambda _, g: (by_callback(g),))
    np.testing.assert_allclose(admodes.jacrev(pulled)(B), A.T)
    with pytest.raises(ValueError, match="Pure callbacks do not support transpose"):
        admodes.jacfwd(pulled)(B)
    assert admodes.sparsity(pulled, B).nnz == 9


def test_a_callback_that_is_its_own_backward_pass():
    """The transpose of the backward pass is a call of the function, as a forward pass needs it."""
    s = A + A.T

    @jax.custom_vjp
    def op(x):
        return jax.pure_callback(lambda x: s @ x, jax.ShapeDtypeStruct((3,), np.float64), x, vmap_method="sequential")

    op.defvjp(lambda x: (op(x), None), lambda _, g: (op(g),))
    for derive in ("jacfwd", "jacrev", "jacobian"):
        np.testing.assert_allclose(getattr(admodes, derive)(op)(B), s)
    np.testing.assert_allclose(admodes.hessian(lambda x: jnp.sum(op(x) ** 2))(B), 2 * s @ s)


# -- residuals that are numbers ----------------------------------------------------------------------------

RESIDUALS = {
    "bool": True,
    "int": 3,
    "float": 0.5,
    "complex": 1.5j,
    "numpy bool": np.bool_(True),
    "numpy number": np.float32(2.0),
    "none": None,
    "nested": {"flag": True, "order": (2, None), "scale": 0.25},
}
PLACES = {
    "as it is": lambda f: f,
    "jit": jax.jit,
    "cond": lambda f: lambda x: lax.cond(x > 0, f, jnp.cos, x),
    "scan": lambda f: lambda x: lax.scan(lambda c, _: (f(c), None), x, None, length=3)[0],
    "while": lambda f: lambda x: lax.fori_loop(0, 3, lambda _, c: f(c), x),
    "checkpoint": jax.checkpoint,
    "vmap": lambda f: lambda x: jnp.sum(jax.vmap(f)(jnp.stack([x, 2 * x]))),
}


def keeping(kept):
    """sin with a backward pass that decides on what it kept: the derivative is zero if it does not see that."""

    @jax.custom_vjp
    def f(x):
        return jnp.sin(x)

    def bwd(residuals, g):
        x, found = residuals
        leaves, tree = jax.tree.flatten(found)
        flags = sum(isinstance(leaf, bool) for leaf in leaves)
        same = tree == jax.tree.structure(kept) and leaves == jax.tree.leaves(kept)
        return (g * jnp.cos(x) * (2 + flags if same else 0),)

    f.defvjp(lambda x: (jnp.sin(x), (x, kept)), bwd)
    return f


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", RESIDUALS)
@pytest.mark.every(3)
def test_numbers_among_the_residuals_are_never_traced(name, place):
    h = PLACES[place](keeping(RESIDUALS[name]))
    expected = jax.grad(h)(0.3)
    assert expected != 0
    np.testing.assert_allclose(admodes.grad(h)(0.3), expected, rtol=1e-12)
    np.testing.assert_allclose(jax.jit(admodes.grad(h))(0.3), expected, rtol=1e-12)
    np.testing.assert_allclose(admodes.jvp(h, (0.3,), (1.0,))[1], expected, rtol=1e-12)


def power(n):
    @jax.custom_vjp
    def f(x):
        return x**n

    f.defvjp(lambda x: (x**n, (x, n)), lambda r, g: (g if r[1] is True else g * r[1] * r[0] ** (r[1] - 1),))
    return f


def test_branches_that_keep_different_numbers():
    powers = [power(n) for n in (True, 2, 3)]
    h = lambda x: lax.switch(x.astype(int), powers, x)
    for i in range(3):
        np.testing.assert_allclose(admodes.grad(h)(i + 0.5), jax.grad(h)(i + 0.5), rtol=1e-12)


def test_a_pullback_with_numbers_leaves_jit():
    _, pullback = jax.jit(partial(admodes.vjp, keeping({"flag": True, "order": 2})))(0.3)
    np.testing.assert_allclose(pullback(1.0)[0], 3 * np.cos(0.3), rtol=1e-12)


@pytest.mark.parametrize("kept", ["abc", object()])
def test_other_objects_among_the_residuals_are_refused_as_in_jax(kept):
    for library in (jax, admodes):
        with pytest.raises(TypeError, match="not a valid JAX type"):
            library.grad(keeping(kept))(0.3)


# -- what is differentiated --------------------------------------------------------------------------------


@jax.custom_jvp
def constant_only(x):
    return x


@partial(constant_only.defjvp, symbolic_zeros=True)
def _constant_only_jvp(primals, tangents):
    if not isinstance(tangents[0], jax.custom_derivatives.SymbolicZero):
        raise RuntimeError("a tangent of what is not differentiated")
    return primals[0], tangents[0]


SUBPROGRAMS = {
    "checkpoint": jax.checkpoint,
    "jit": jax.jit,
    "checkpointed jit": lambda step: jax.checkpoint(jax.jit(step)),
    "checkpointed twice": lambda step: jax.checkpoint(lambda t, y: jax.checkpoint(step)(t, y)),
    "checkpoint with a policy": partial(jax.checkpoint, policy=jax.checkpoint_policies.everything_saveable),
    "scan": lambda step: lambda t, y: lax.scan(lambda c, _: (step(*c), None), (t, y), None, length=3)[0],
    "scan of checkpoints": lambda step: (
        lambda t, y: lax.scan(lambda c, _: (jax.checkpoint(step)(*c), None), (t, y), None, length=3)[0]
    ),
    "cond": lambda step: lambda t, y: lax.cond(y > 0, step, lambda t, y: (t, y * y), t, y),
    "fori_loop": lambda step: lambda t, y: lax.fori_loop(0, 3, lambda _, c: step(*c), (t, y)),
    "while": lambda step: lambda t, y: lax.while_loop(lambda c: c[0] < 3, lambda c: step(*c), (t, y)),
}


@pytest.mark.parametrize("name", SUBPROGRAMS)
def test_results_that_depend_on_no_differentiated_value_are_not_differentiated(name):
    step = SUBPROGRAMS[name](lambda t, y: (t + 1.0 + lax.stop_gradient(y), y * jnp.sin(y)))

    def f(y):
        t, y = step(0.0, y)
        return y * constant_only(t)

    slope = jax.jvp(f, (0.3,), (1.0,))[1]
    np.testing.assert_allclose(admodes.jvp(f, (0.3,), (1.0,))[1], slope, rtol=1e-12)
    np.testing.assert_allclose(admodes.grad(f)(0.3), slope, rtol=1e-12)
    np.testing.assert_allclose(jax.jit(admodes.grad(f))(0.3), slope, rtol=1e-12)
    np.testing.assert_allclose(admodes.hessian(f)(0.3), jax.jacfwd(jax.jacfwd(f))(0.3), rtol=1e-10)


@pytest.mark.parametrize("around", ["scan", "cond", "jit"])
def test_an_array_among_nondiff_argnums_is_explained(around):
    """JAX's error of a leaked tracer does not say where it comes from."""
    scaled = jax.custom_jvp(lambda x, m: x * m, nondiff_argnums=(1,))
    scaled.defjvp(lambda m, primals, tangents: (primals[0] * m, tangents[0] * m))
    fun = {
        "scan": lambda x, m: lax.scan(lambda c, _: ((scaled(*c), c[1]), None), (x, m), None, length=2)[0][0],
        "cond": lambda x, m: lax.cond(x > 0, lambda x, m: scaled(x, 2 * m), lambda x, m: x, x, m),
        "jit": jax.jit(lambda x, m: scaled(x, 2 * m)),
    }[around]
    for derivative in (admodes.grad, admodes.jacfwd, admodes.jacobian):
        with pytest.raises(jax.errors.UnexpectedTracerError, match=r"nondiff_argnums .* make it an ordinary argument"):
            derivative(fun)(1.5, 2.0)


def test_a_selection_between_a_tangent_and_zero_in_a_rule_keeps_the_tangent():
    """relu selects so: its gradient must not vanish behind another operation."""
    x = jnp.array([-1.0, 0.5, 2.0, -3.0])
    gradient = admodes.grad(lambda x: jnp.sum(jax.nn.relu(x * 2.0)))(x)
    np.testing.assert_array_equal(gradient, [0.0, 2.0, 2.0, 0.0])


def test_an_integer_that_is_differentiated_beside_floats_has_no_tangent_point():
    @jax.custom_jvp
    def power(x, n):
        return x**n

    @power.defjvp
    def _(primals, tangents):
        x, n = primals
        return power(x, n), n * power(x, n - 1) * tangents[0]

    (dx, dn) = admodes.vjp(power, 2.0, 3)[1](1.0)
    assert dx == 12.0
    assert dn.dtype == jax.dtypes.float0
