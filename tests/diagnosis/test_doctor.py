"""The doctor against planted failures: the right equation, the right line, a cure that says something."""

import inspect
import json
from pathlib import Path

import failures
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import admodes

SOURCE = Path(failures.__file__).read_text(encoding="utf-8").splitlines()


def planted_line(name: str) -> int:
    """The number of the first line marked HERE from where the function starts (or, for a helper, before it)."""
    start = inspect.getsourcelines(getattr(failures, name))[1]
    helpers = {"compiled": "def inner", "custom_body": "def scaled(x)"}
    if name in helpers:
        start = next(k for k, line in enumerate(SOURCE, 1) if line.startswith(helpers[name]))
    return next(k for k, line in enumerate(SOURCE[start - 1 :], start) if "# HERE" in line)


@pytest.mark.parametrize("name", failures.FAILURES)
def test_planted_failures(name):
    args, primitive, sweep, word = failures.FAILURES[name]
    with jax.enable_x64(False):
        function, args = getattr(failures, name), [jnp.array(a) for a in args]
        report = admodes.doctor(function, *args)
        gradient = jax.grad(function)(*args) if name != "search" else jnp.nan
        value = function(*args)
        assert not (np.isfinite(value) and np.isfinite(gradient).all()), "the failure is not one"
        assert np.isfinite(value) == (report.value is None)
    assert not report.healthy
    first = next(k for k in ("value", "reverse", "forward") if getattr(report, k) is not None)
    finding = getattr(report, first)
    assert (first, finding.primitive) == (sweep, primitive), str(report)
    assert f"failures.py:{planted_line(name)}" in finding.source, str(report)
    assert word in finding.cure
    assert finding.primitive in str(report)
    assert finding.code in str(report)
    json.dumps(report.to_dict())


def test_healthy():
    report = admodes.doctor(lambda x: jnp.sum(jnp.tanh(x) ** 2), jnp.array([0.3, 1.0]))
    assert report.healthy
    assert (report.kinks, report.masked, report.losses) == ((), (), ())
    assert str(report) == "<lambda>: healthy"


def test_steps_of_loops_are_named():
    report = admodes.doctor(failures.recurrence, 10.0)
    assert report.value.path == ("scan step 8",)
    assert admodes.doctor(failures.branch, 0.0).value.path == ("branch 0 of cond",)
    assert admodes.doctor(failures.search, 1.5).value.path == ("while step 1",)


@pytest.mark.parametrize(
    ("function", "x", "primitive", "count", "jump"),
    [
        (jnp.abs, [0.0, 1.0, 0.0], "abs", 2, False),
        (jax.nn.relu, [0.0, 1.0, 0.0], "max", 2, False),
        (lambda x: jnp.maximum(x[0], x[1]), [2.0, 2.0, 0.0], "max", 1, False),
        (lambda x: jnp.clip(x, 0.0, 1.0), [0.0, 1.0, 0.5], "max", 1, False),
        (lambda x: lax.clamp(0.0, x, 1.0), [0.0, 1.0, 0.5], "clamp", 2, False),
        (lambda x: jnp.where(x > 1, x, 1.0), [0.0, 1.0, 0.5], "gt", 1, False),
        (jnp.floor, [0.0, 1.5, 2.0], "floor", 2, True),
        (jnp.sign, [0.0, 1.5, 2.0], "sign", 1, True),
        (lambda x: x % 2.0, [0.0, 1.5, 3.0], "rem", 1, True),
        (jnp.max, [2.0, 1.5, 2.0], "reduce_max", 1, False),
        (jnp.sort, [2.0, 1.5, 2.0], "sort", 1, False),
        (lambda x: lax.top_k(x, 2)[0], [2.0, 1.5, 2.0], "top_k", 1, False),
        (jnp.linalg.norm, [0.0, 0.0, 0.0], "sqrt", 1, False),
    ],
)
def test_kinks(function, x, primitive, count, jump):
    report = admodes.doctor(function, jnp.array(x))
    found = {k.primitive: k for k in report.kinks}
    assert primitive in found
    assert (found[primitive].count, found[primitive].jump) == (count, jump)
    assert primitive in str(report)


def test_no_kink_where_nothing_moves():
    report = admodes.doctor(lambda x: x * jnp.abs(jnp.zeros(2)).sum(), 1.0)
    assert report.kinks == ()


def test_jumps_are_reported():
    step = admodes.doctor(lambda x: jnp.where(x >= 0, 1.0, 0.0), 0.0)
    assert step.jumps
    assert not step.healthy
    assert "jump" in str(step)
    assert not admodes.doctor(lambda x: x - jnp.floor(x) + jnp.floor(x), 2.0).jumps  # two jumps that cancel


def test_masks_without_consequences():
    def f(x):
        return jnp.sum(jnp.where(x > 0, jnp.log(lax.stop_gradient(x)), x))

    report = admodes.doctor(f, jnp.array([0.0, 1.0]))
    assert report.value is report.reverse is None
    assert [m.primitive for m in report.masked] == ["log"]
    assert "leaves it out" in str(report)


@pytest.mark.parametrize(
    ("function", "x", "word"),
    [
        (lambda x: 1 - jnp.cos(x), 1e-3, "sin(x/2)"),
        (lambda x: jnp.exp(x) - 1, 1e-5, "expm1"),
        (lambda x: jnp.mean(x**2) - jnp.mean(x) ** 2, [1000.0, 1000.1], "rearrange"),
    ],
)
def test_lost_digits(function, x, word):
    with jax.enable_x64(False):
        report = admodes.doctor(function, jnp.array(x))
    assert len(report.losses) == 1
    assert report.losses[0].digits > 4
    assert word in str(report)


def test_differences_of_exact_numbers_lose_nothing():
    assert admodes.doctor(lambda x: jnp.sum(jnp.exp(x - jnp.max(x))), jnp.array([1.0, 2.0])).losses == ()
    assert admodes.doctor(lambda x: x[0] - x[1], jnp.array([1.0, 1.0000001])).losses == ()


def test_python_that_looks_at_values():
    def f(x):
        return jnp.sqrt(x) if x >= 0 else x

    assert admodes.doctor(f, 0.0).reverse.primitive == "sqrt"


def test_custom_vjp():
    @jax.custom_vjp
    def f(x):
        return x

    f.defvjp(lambda x: (x, x), lambda x, g: (g / x,))
    assert admodes.doctor(f, 0.0).reverse.primitive == "custom_vjp_call"
    assert admodes.doctor(f, 1.0).healthy


def test_arguments():
    with pytest.raises(TypeError, match="nothing to differentiate"):
        admodes.doctor(lambda n: n, 3)
    with pytest.raises(TypeError, match="outside of jit"):
        jax.jit(lambda x: admodes.doctor(jnp.sin, x))(1.0)
    report = admodes.doctor(lambda tree, n: tree["a"] ** n, {"a": 0.0}, -1)
    assert report.value.primitive in ("integer_pow", "pow")


# -- what was given, what vanishes only here, what is only compared -------------------------------------------


def test_what_is_not_finite_from_the_start_is_not_healthy():
    for f, x in (
        (lambda x: jnp.sum(x * 2), [jnp.nan, 1.0]),
        (lambda x: jnp.sum(x * jnp.roll(x, 1)), [jnp.inf, 1.0, 2.0]),
    ):
        report = admodes.doctor(f, jnp.array(x))
        assert not report.healthy
        assert report.value.primitive == "argument"
        assert "given" in str(report)


def test_a_zero_at_the_point_only_is_no_mask():
    report = admodes.doctor(lambda x: jnp.exp(jnp.log(x)), jnp.array(0.0))
    assert not report.reverse.masked
    assert "no influence" not in str(report)


def test_a_bisection():
    def root(t):
        def body(s):
            middle = (s[0] + s[1]) / 2
            return jnp.where(middle**3 < t, middle, s[0]), jnp.where(middle**3 < t, s[1], middle)

        return jax.lax.while_loop(lambda s: s[1] - s[0] > 1e-9, body, (jnp.zeros_like(t), 1.0 + t))[0]

    report = admodes.doctor(root, jnp.array(7.3))
    assert not report.healthy
    assert "custom_root" in report.compared[0]
    with pytest.raises(admodes.errors.OnlyComparedError, match="comparisons only"):
        admodes.grad(root)(7.3)
    assert admodes.grad(lambda t: root(jax.lax.stop_gradient(t)) * t)(7.3) > 0
