"""JAX's flags by which custom rules and checkpointed calls are objects: the same derivatives with them as without."""

from contextlib import contextmanager
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.custom_derivatives import SymbolicZero
from sweeps import FIRST, SECOND

import admodes
from admodes.program import jax_compat as jc
from admodes.program.fingerprint import has_rules
from admodes.program.trace import trace
from admodes.sparse import sparsity

FLAGS = [f for f in ("jax_custom_vjp3", "jax_custom_jvp3", "jax_remat3") if hasattr(jax.config, f)]
POINT = jnp.float64(0.37)


@contextmanager
def flags(value: bool):
    before = {f: getattr(jax.config, f) for f in FLAGS}
    try:
        for f in FLAGS:
            jax.config.update(f, value)
        yield
    finally:
        for f, x in before.items():
            jax.config.update(f, x)


@pytest.fixture
def objects():
    with flags(True):
        yield


def custom_jvp():
    @jax.custom_jvp
    def f(x, y):
        return jnp.sin(x) * y

    @f.defjvp
    def rule(primals, tangents):
        (x, y), (dx, dy) = primals, tangents
        return f(x, y), 3.0 * jnp.cos(x) * y * dx + jnp.sin(x) * dy

    return lambda x: f(x, x**2) + f(2.0, x)


def custom_jvp_of_a_function():
    @partial(jax.custom_jvp, nondiff_argnums=(0,))
    def f(g, x):
        return g(x)

    @f.defjvp
    def rule(g, primals, tangents):
        return f(g, *primals), 2.0 * g(primals[0]) * tangents[0]

    return lambda x: f(jnp.sin, x * x)


def custom_jvp_with_symbolic_zeros():
    @jax.custom_jvp
    def f(x, y):
        return x * y

    def rule(primals, tangents):
        (x, y), (dx, dy) = primals, tangents
        dx = 0.0 if type(dx) is SymbolicZero else 5.0 * dx * y
        return x * y, dx + (0.0 if type(dy) is SymbolicZero else 7.0 * dy * x)

    f.defjvp(rule, symbolic_zeros=True)
    return lambda x: f(x, x * x) * f(x, 2.0)


def custom_vjp():
    @jax.custom_vjp
    def f(x, d):
        return jnp.exp(x) * d["a"], x

    def bwd(residuals, g):
        y, d = residuals
        return 2.0 * y * d["a"] * g[0] + g[1], {"a": y * g[0]}

    f.defvjp(lambda x, d: (f(x, d), (jnp.exp(x), d)), bwd)
    return lambda x: f(x, {"a": x**2})[0] * f(x, {"a": x})[1]


def custom_vjp_of_a_function():
    @partial(jax.custom_vjp, nondiff_argnums=(0, 2))
    def f(g, x, n):
        return g(x) * n

    f.defvjp(lambda g, x, n: (g(x) * n, x), lambda g, n, x, ct: (4.0 * g(x) * n * ct,))
    return lambda x: f(jnp.sin, x * x, 2)


def custom_vjp_with_symbolic_zeros():
    @jax.custom_vjp
    def f(x, y):
        return x * y

    def fwd(x, y):
        return x.value * y.value, (x.value if y.perturbed else None, y.value if x.perturbed else None)

    def bwd(residuals, g):
        x, y = residuals
        return None if y is None else 2.0 * y * g, None if x is None else 3.0 * x * g

    f.defvjp(fwd, bwd, symbolic_zeros=True)
    return lambda x: f(x, x * x) + f(2.0, x)


def custom_vjp_of_integers():
    @jax.custom_vjp
    def f(x, i):
        return x**i

    f.defvjp(lambda x, i: (x**i, (x, i)), lambda r, g: (g * 9.0 * r[0] ** (r[1] - 1), None))
    return lambda x: f(x, 3)


def checkpointed():
    @partial(jax.checkpoint, policy=jax.checkpoint_policies.save_only_these_names("a"))
    def f(x):
        return jnp.exp(jnp.sin(checkpoint_name(jnp.sin(x), "a"))) * x

    return lambda x: f(f(x))


def checkpointed_with_statics():
    @partial(jax.checkpoint, static_argnums=(1,))
    def f(x, squared):
        return jnp.sin(x) ** 2 if squared else x

    return lambda x: f(x, True) * f(x, False)


def in_a_scan():
    f, g, h = custom_vjp_of_a_function(), custom_jvp(), checkpointed()
    return lambda x: lax.scan(lambda c, _: (0.1 * f(c) + g(c) + h(c), None), x, None, length=2)[0]


def in_branches():
    return lambda x: lax.cond(x > 0, custom_jvp(), custom_vjp(), x)


def under_vmap():
    f, g, h = custom_vjp_of_a_function(), custom_vjp_with_symbolic_zeros(), checkpointed()
    k = custom_jvp()
    each = lambda y: f(y) + g(y) + h(y) + k(y)
    return lambda x: jnp.sum(jax.vmap(jax.vmap(each))(jnp.ones((2, 2)) * x))


def of_the_library():
    return lambda x: jax.nn.relu(x) * jax.nn.silu(x) + jax.nn.logsumexp(jnp.stack([x, x * x]))


PROGRAMS = [
    custom_jvp,
    custom_jvp_of_a_function,
    custom_jvp_with_symbolic_zeros,
    custom_vjp,
    custom_vjp_of_a_function,
    custom_vjp_with_symbolic_zeros,
    custom_vjp_of_integers,
    checkpointed,
    checkpointed_with_statics,
    in_a_scan,
    in_branches,
    under_vmap,
    of_the_library,
]
SLOW = (under_vmap, in_branches, in_a_scan, of_the_library)  # to second order, what they are made of is not


def possible(f, modes) -> dict:
    """The modes in which JAX can evaluate the function: jax 0.10.2 has no names, when these are objects, under vmap."""
    try:
        f(POINT)
        jax.vmap(f)(jnp.stack([POINT, POINT]))
    except NotImplementedError as error:
        if "vmap" not in str(error):
            raise
        return {} if "vmap" in f.__qualname__ else {name: x for name, x in modes.items() if "vmap" not in name}
    return modes


@pytest.mark.parametrize("make", PROGRAMS)
@pytest.mark.every(3)
def test_first_derivatives(make):
    with flags(False):
        expected = jax.grad(make())(POINT)
    with flags(True):
        f = make()
        for mode, derivative in possible(f, FIRST).items():
            if mode != "subgradient":
                np.testing.assert_allclose(derivative(f, POINT), expected, rtol=1e-8, err_msg=mode)


@pytest.mark.parametrize(
    "make", [pytest.param(make, marks=pytest.mark.slow if make in SLOW else ()) for make in PROGRAMS]
)
def test_second_derivatives_subgradients_and_reports(make):
    """Those without the flags are the oracle: rules that are not the derivative have several second derivatives."""
    reports = {
        **SECOND,
        "subgradient": FIRST["subgradient"],
        "directional": lambda f, x: admodes.directional(f, x, 1.0),
        "pattern under vmap": lambda f, x: sparsity(jax.vmap(f), jnp.stack([x, x])).to_dense(),
        "rules": lambda f, x: has_rules(trace(f, x)),
        "doctor": lambda f, x: len(admodes.doctor(f, x).kinks),
    }
    with flags(False):
        f = make()
        expected = {name: report(f, POINT) for name, report in reports.items()}
    with flags(True):
        f = make()
        for name, report in possible(f, reports).items():
            np.testing.assert_allclose(report(f, POINT), expected[name], rtol=1e-8, err_msg=name)


def test_checkpointed_calls_keep_what_their_policy_says():
    """The program of the derivative is the same, so that what it keeps is."""
    programs = []
    kept, nothing = jax.checkpoint_policies.save_only_these_names("kept"), None
    for on, policy in ((False, kept), (True, kept), (True, nothing)):
        with flags(on):
            f = jax.checkpoint(lambda x: jnp.sum(jnp.sin(jnp.cos(checkpoint_name(jnp.sin(x), "kept")))), policy=policy)
            programs.append(str(jax.make_jaxpr(lambda x, f=f: admodes.vjp(f, x)[1](jnp.float64(1.0)))(jnp.ones(5))))
    assert programs[1] == programs[0]
    assert programs[1] != programs[2]


def test_objects_are_what_they_stand_for(objects):
    names = {
        e.primitive.name for make in (custom_jvp, custom_vjp, checkpointed) for e in trace(make(), POINT).equations
    }
    assert names >= {"custom_jvp_call", "custom_vjp_call", "remat2"}
    assert not any(isinstance(e.primitive, jc.HiPrimitive) for e in trace(checkpointed(), POINT).equations)


# -- rules that arrive as objects whatever the flags are ---------------------------------------------------------


def _defines(name: str, keyword: str = "") -> bool:
    method = getattr(jax.custom_vjp, name, None)
    return method is not None and keyword in method.__code__.co_varnames if keyword else method is not None


@pytest.mark.skipif(not _defines("defvjp", "generic_batching"), reason="this jax has no generic_batching")
@pytest.mark.parametrize("mode", [m for m in FIRST if m != "subgradient"])
def test_generic_batching(mode):
    f = jax.custom_vjp(lambda x, y: x * y)
    f.defvjp(lambda x, y: (x * y, (x, y)), lambda r, g: (2 * r[1] * g, 3 * r[0] * g), generic_batching=True)
    np.testing.assert_allclose(
        FIRST[mode](lambda x: f(x, jnp.sin(x)), POINT), 2 * np.sin(POINT) + 3 * POINT * np.cos(POINT)
    )


@pytest.mark.skipif(not _defines("defvjp_with_logs"), reason="this jax has no backward passes with logs")
@pytest.mark.parametrize("on", [False, True])
@pytest.mark.parametrize("mode", ["grad", "jvp", "grad under jit", "grad of vmap"])
def test_backward_passes_with_logs(on, mode):
    with flags(on):
        f = jax.custom_vjp(lambda x: x * x)
        f.defvjp_with_logs(lambda x: (x * x, x), lambda x, g: ((5 * x * g,), {"g": g}))
        np.testing.assert_allclose(FIRST[mode](f, POINT), 5 * POINT)


@pytest.mark.skipif(not _defines("defvjp_with_accums"), reason="this jax has no backward passes with accumulators")
@pytest.mark.parametrize("on", [False, True])
@pytest.mark.parametrize("mode", ["grad", "jvp", "grad under jit", "grad of jit", "grad of vmap", "jacobian"])
def test_backward_passes_with_accumulators(on, mode):
    with flags(on):
        f = jax.custom_vjp(lambda x: x * x)
        f.defvjp_with_accums(lambda x: (x * x, x), lambda x, g, accum: accum.accum(5 * x * g))
        np.testing.assert_allclose(FIRST[mode](lambda x: f(x) * x, POINT), 6 * POINT**2, rtol=1e-12)


@pytest.mark.skipif(not hasattr(jax, "custom_remat"), reason="this jax has no jax.custom_remat")
@pytest.mark.parametrize("mode", [m for m in FIRST if m != "subgradient" and "of vmap" not in m])  # JAX cannot
def test_custom_remat(objects, mode):
    f = jax.custom_remat(
        lambda x: jnp.sin(x),
        lambda policy, x: (jnp.sin(x), jnp.cos(x)),
        lambda cos, x: (jnp.sin(x), cos),
        lambda cos, g: (2 * cos * g,),
    )
    np.testing.assert_allclose(FIRST[mode](lambda x: f(x) * x, POINT), 2 * np.cos(POINT) * POINT + np.sin(POINT))


@pytest.mark.skipif(not _defines("defremat"), reason="this jax has no custom_vjp.defremat")
@pytest.mark.parametrize("mode", [m for m in FIRST if m != "subgradient"])
def test_rules_for_checkpointed_calls(objects, mode):
    f = jax.custom_vjp(jnp.sin)
    f.defremat(lambda x: (jnp.sin(x), jnp.cos(x)), lambda cos, x: (jnp.sin(x), cos), lambda cos, g: (2 * cos * g,))
    np.testing.assert_allclose(FIRST[mode](lambda x: f(x) * x, POINT), 2 * np.cos(POINT) * POINT + np.sin(POINT))
