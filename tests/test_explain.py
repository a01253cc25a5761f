"""Evaluation traces: the textbook's numbers, agreement with the modes, and what stays one line."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import admodes
from admodes import problems
from admodes.explain import Explanation, Row, explain


def test_lecture_softplus_in_reverse():
    """α: −2x, exp, 1 +, log, 10 ·; β from the bottom up."""
    f, args = problems.get("lecture_softplus").make(np.float64)
    e = np.exp(-1.0)
    rows = explain(f, *args).rows
    assert [row.formula for row in rows] == ["input x", "-2 * x1", "exp(v1)", "1 + v2", "log(v3)", "10 * v4", "v5"]
    np.testing.assert_allclose(
        [r.value for r in rows], [0.5, -1, e, 1 + e, np.log1p(e), 10 * np.log1p(e), rows[-2].value]
    )
    adjoint = 10 / (1 + e)
    np.testing.assert_allclose(
        [r.derivative for r in rows], [-2 * e * adjoint, e * adjoint, adjoint, adjoint, 10, 1, 1], rtol=1e-14
    )
    assert "-5.37883" in str(explain(f, *args)).splitlines()[3]


def test_lecture_softplus_forward():
    f, args = problems.get("lecture_softplus").make(np.float64)
    e = np.exp(-1.0)
    tangents = [row.derivative for row in explain(f, *args, mode="forward").rows]
    slope = -2 * e / (1 + e)
    np.testing.assert_allclose(tangents, [1, -2, -2 * e, -2 * e, slope, 10 * slope, 10 * slope], rtol=1e-14)


def test_lecture_graph_prints_as_in_the_textbook():
    f, args = problems.get("lecture_graph").make(np.float64)
    assert str(explain(f, *args)) == (
        "f, reverse mode: values from the top down, adjoints from the bottom up\n"
        "variable  operation  value α   adjoint β\n"
        "----------------------------------------\n"
        "x1        input x1   0.5       2.87758\n"
        "x2        input x2   2         0.5\n"
        "v1        sin(x1)    0.479426  1\n"
        "v2        x1 * x2    1         1\n"
        "v3        v1 + v2    1.47943   1\n"
        "y1        v3         1.47943   1"
    )
    forward = explain(f, *args, mode="forward", tangents=(1.0, 0.0))
    assert float(forward["y1"].derivative) == pytest.approx(np.cos(0.5) + 2.0)
    assert "tangent" in str(forward)


@pytest.mark.parametrize("name", ["roe_flux", "speelpenning", "arrowhead"])
def test_adjoints_and_tangents_are_those_of_the_modes(name):
    f, args = problems.get(name).make(np.float64)
    ones = jax.tree_util.tree_map(jnp.ones_like, args)
    y, dy = jax.jit(lambda *xs: admodes.jvp(f, xs, ones))(*args)
    _, pullback = jax.jit(lambda *xs: admodes.vjp(f, *xs))(*args)
    cts = jax.tree_util.tree_leaves(pullback(jax.tree_util.tree_map(jnp.ones_like, y)))
    reverse, forward = explain(f, *args), explain(f, *args, mode="forward")
    for k, ct in enumerate(cts, start=1):
        np.testing.assert_allclose(reverse[f"x{k}"].derivative, ct, rtol=1e-12)
    for k, (value, tangent) in enumerate(zip(*map(jax.tree_util.tree_leaves, (y, dy)), strict=True), start=1):
        np.testing.assert_allclose(forward[f"y{k}"].value, value, rtol=1e-12)
        np.testing.assert_allclose(forward[f"y{k}"].derivative, tangent, rtol=1e-12)


def test_each_line_satisfies_the_adjoint_identity():
    """⟨adjoint, tangent⟩ over a cut of the graph is the same at every cut: here at the inputs and at the outputs."""
    f, args = problems.get("robot_arm").make(np.float64)
    reverse, forward = explain(f, *args), explain(f, *args, mode="forward")

    def inner(letter):
        names = [row.name for row in reverse.rows if row.name.startswith(letter)]
        return sum(float(reverse[n].derivative * forward[n].derivative) for n in names)

    assert inner("x") == pytest.approx(inner("y"), rel=1e-12)


def test_custom_derivatives_and_loops_stay_one_line():
    @jax.custom_jvp
    def step(x):
        return jnp.floor(jnp.sin(x) * 10.0)

    step.defjvp(lambda primals, tangents: (step(*primals), 2.0 * tangents[0]))

    def f(x):
        return lax.scan(lambda c, _: (c * 0.5, None), step(x), None, length=3)[0]

    for mode in ("reverse", "forward"):
        explanation = explain(f, 1.0, mode=mode)
        assert [row.formula for row in explanation.rows] == [
            "input x",
            "custom_jvp_call:step(x1)",
            "scan(v1, length=3)",
            "v2",
        ]
        assert float(explanation["x1" if mode == "reverse" else "y1"].derivative) == 0.25


def test_constants_integers_several_results_and_dead_code():
    table = np.array([1.0, 4.0, 9.0])

    def f(x, i):
        jnp.sinh(x)  # dead code is not explained
        low, high = jnp.split(jnp.asarray(table) * x[i], 2 * [1])[::2]
        return {"low": low, "n": i + 1, "high": high}

    explanation = explain(f, np.ones(2), 1, cotangents={"low": np.ones(1), "n": 0, "high": np.array([0.0, 1.0])})
    assert explanation["c1"].derivative is None
    assert explanation["x2"].derivative is None
    assert explanation["x1"].derivative.tolist() == [0.0, 10.0]
    assert not any("sinh" in row.formula for row in explanation.rows)
    assert [row.name for row in explanation.rows if row.name[0] == "y"] == ["y1", "y2", "y3"]
    assert "input x" in str(explanation)
    assert "constant" in str(explanation)


def test_unused_input_has_adjoint_zero():
    assert float(explain(lambda x, y: x, 1.0, 2.0)["x2"].derivative) == 0.0


def test_long_arrays_are_summarised_and_json_works():
    explanation = explain(lambda x: jnp.sum(x * x), np.full((4, 9), 0.5, np.float32))
    assert "float32[4,9] with norm 3" in str(explanation)
    data = json.loads(json.dumps(explanation.to_dict()))
    assert data["mode"] == "reverse"
    assert data["rows"][0]["derivative"] == {"type": "float32[4,9]", "norm": 6.0}
    assert data["rows"][-1] == {"name": "y1", "formula": "v2", "value": 9.0, "derivative": 1.0}
    assert isinstance(explanation, Explanation)
    assert isinstance(explanation.rows[0], Row)


def test_complex_and_half_values():
    square = lambda z: (z * z).real
    explanation = explain(square, 1.0 + 2.0j)
    assert complex(explanation["x1"].derivative) == complex(jax.vjp(square, 1.0 + 2.0j)[1](1.0)[0])
    assert "1+2j" in str(explanation)
    assert float(explain(lambda x: x * x, jnp.bfloat16(3.0))["x1"].derivative) == 6.0


def test_random_keys():
    explanation = explain(lambda key, x: x * jax.random.uniform(key), jax.random.key(7), 3.0)
    assert explanation["x1"].value.tolist() == [0, 7]
    assert explanation["x1"].derivative is None
    assert float(explanation["x2"].derivative * 3.0) == pytest.approx(float(explanation["y1"].value))


def test_bad_input():
    f = lambda x: jnp.sin(x)
    with pytest.raises(ValueError, match="mode must be 'reverse' or 'forward', got 'backward'"):
        explain(f, 1.0, mode="backward")
    with pytest.raises(ValueError, match="reverse mode takes cotangents"):
        explain(f, 1.0, tangents=(1.0,))
    with pytest.raises(ValueError, match="forward mode takes tangents"):
        explain(f, 1.0, mode="forward", cotangents=1.0)
    with pytest.raises(TypeError, match="tangents must be structured like the arguments"):
        explain(f, 1.0, mode="forward", tangents=(1.0, 2.0))
    with pytest.raises(ValueError, match="cotangents must have the shapes of the output"):
        explain(f, 1.0, cotangents=np.ones(3))
    with pytest.raises(KeyError, match="no variable 'v9'; there are x1, v1, y1"):
        explain(f, 1.0)["v9"]
