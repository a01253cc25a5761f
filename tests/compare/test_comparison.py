"""``admodes.compare``: the rows, the errors it must see, the arguments it must refuse."""

import json
from functools import partial

import jax
import numpy as np
import pytest
from jax import numpy as jnp

import admodes
from admodes import problems
from admodes.compare import Strategy, compare
from admodes.compare.check import errors


def f(x, power=2, scale=None):
    """Three inputs, two outputs; ``power`` must stay a Python number, and ``scale`` may be None."""
    y = jnp.stack([jnp.prod(x), jnp.sum(jnp.sin(x) ** power)])
    return y if scale is None else y * scale


X = np.array([0.5, 1.5, 2.0])


@pytest.fixture(scope="module")
def result():
    return compare(f, X, repeat=2)


def test_one_row_per_mode_with_the_passes_that_theory_gives(result):
    assert [(row.mode, row.passes) for row in result.rows] == [("forward", 3), ("reverse", 2)]
    assert [(row.mode, row.passes) for row in result.oracle_rows] == [("jax.jacfwd", 3), ("jax.jacrev", 2)]
    assert (result.function, result.inputs, result.outputs, result.repeat) == ("f", 3, 2, 2)


def test_costs_are_measured_and_errors_are_rounding(result):
    for row in (*result.rows, *result.oracle_rows):
        assert row.trace_s > 0
        assert row.compile_s > 0
        assert row.run_s > 0
        assert row.flops > 0
        assert row.bytes > 0
        assert row.temp_bytes >= 0
        assert row.abs_error < 1e-14
        assert row.rel_error < 1e-14
    assert result["forward"].oracle == "jax.jacfwd"
    assert result["reverse"].oracle == "jax.jacrev"
    assert result["jax.jacrev"].run_ratio == 1.0


def test_a_row_that_is_not_there(result):
    with pytest.raises(KeyError, match="there are forward, reverse"):
        result["sideways"]


def test_the_table_has_a_line_per_row(result):
    lines = str(result).splitlines()
    assert lines[0] == "f: 3 inputs, 2 outputs"
    for name in ("forward", "reverse", "jax.jacfwd", "jax.jacrev"):
        assert sum(line.split()[:1] == [name] for line in lines) == 1


def test_json_holds_what_the_result_holds(result):
    data = json.loads(result.to_json())
    assert [row["mode"] for row in data["rows"]] == ["forward", "reverse"]
    assert data["rows"][1]["passes"] == 2
    assert data["jax_version"] == jax.__version__


def test_json_has_no_nan():
    pole = compare(lambda x: jnp.sqrt(x), 0.0, repeat=1)
    wrong = Strategy("wrong", lambda g, argnums, holomorphic: lambda x: x * np.nan, lambda n, m: 1, jax.jacrev)
    bad = compare(lambda x: 2 * x, 1.0, modes=[wrong], repeat=1)
    assert pole["forward"].abs_error == 0.0
    assert bad["wrong"].abs_error == float("inf")
    assert json.loads(bad.to_json())["rows"][0]["abs_error"] is None


def test_modes_by_name_and_of_ones_own():
    def halved(g, argnums, holomorphic):
        return lambda *args: admodes.jacfwd(g, argnums)(*args) * 0.5

    half = Strategy("half", halved, lambda n, m: n, jax.jacfwd)
    result = compare(lambda x: 2 * x, jnp.ones(4), modes=["reverse", half], repeat=1)
    assert [row.mode for row in result.rows] == ["reverse", "half"]
    assert result["half"].abs_error == 1.0
    assert result["half"].rel_error == 0.5
    assert result["reverse"].abs_error == 0.0


def test_several_arguments_and_pytrees():
    def g(p, data, q):
        return {"a": p["w"] @ data, "b": q}

    result = compare(g, {"w": jnp.ones((2, 3))}, jnp.arange(3.0), jnp.float32(2.0), argnums=(0, -1), repeat=1)
    assert (result.inputs, result.outputs) == (7, 3)
    assert result["forward"].abs_error == result["reverse"].abs_error == 0.0


def test_arguments_that_hold_no_arrays_stay_python():
    result = compare(f, X, 3, None, repeat=1)
    assert result["reverse"].abs_error < 1e-14


def test_partial_and_callable_objects_have_a_name():
    assert compare(partial(f, power=1), X, repeat=1).function == "partial"


def test_holomorphic():
    result = compare(lambda z: jnp.sin(z) ** 2, np.complex128(1 + 2j), holomorphic=True, repeat=1)
    assert result["forward"].rel_error < 1e-14
    assert result["reverse"].rel_error < 1e-14


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"modes": ["revers"]}, ValueError, "Did you mean 'reverse'"),
        ({"modes": [3]}, ValueError, "unknown mode 3"),
        ({"repeat": 0}, ValueError, "at least 1"),
        ({"fallback": "tensorflow"}, ValueError, "None or 'jax'"),
        ({"argnums": 1}, ValueError, "was given 1 argument"),
        ({"argnums": (0, -2)}, ValueError, "was given 1 argument"),
    ],
)
def test_wrong_arguments(arguments, kind, message):
    with pytest.raises(kind, match=message):
        compare(f, X, **arguments)


def test_integer_inputs_are_refused_as_by_the_modes():
    with pytest.raises(TypeError):
        compare(lambda n: n * 2, np.arange(3), repeat=1)


@pytest.mark.parametrize(("name", "dtype"), [("lecture_graph", "float64"), ("human_heart_dipole", "float32")])
def test_problems(name, dtype):
    problem = problems.get(name)
    g, args = problem.make(dtype)
    result = compare(g, *args, argnums=problem.argnums, repeat=1)
    assert (result.inputs, result.outputs) == (problem.inputs, problem.outputs)
    for row in result.rows:
        assert row.rel_error < 50 * np.finfo(dtype).eps


# -- errors ------------------------------------------------------------------------------------------


def test_errors_of_equal_special_values_are_zero():
    special = np.array([np.nan, np.inf, -np.inf, 1.0])
    assert errors(special, special) == (0.0, 0.0)
    assert errors(np.zeros(0), np.zeros(0)) == (0.0, 0.0)
    assert errors((), ()) == (0.0, 0.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_errors_of_a_special_value_on_one_side_are_infinite(bad):
    assert errors(np.array([1.0, bad]), np.array([1.0, 2.0])) == (np.inf, np.inf)
    assert errors(np.array([1.0, 2.0]), np.array([1.0, bad])) == (np.inf, np.inf)
    assert errors(np.array([-np.inf]), np.array([np.inf])) == (np.inf, np.inf)


def test_errors_are_relative_to_the_largest_entry_of_each_array():
    actual = [np.array([1e-9, 100.0]), np.array([3.0])]
    expected = [np.array([0.0, 100.0]), np.array([2.0])]
    assert errors(actual, expected) == (1.0, 0.5)
    assert errors(np.array([1.0]), np.array([0.0])) == (1.0, np.inf)


@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        (np.ones(2), np.ones(3)),
        (np.ones(2), np.ones(2, np.float32)),
        ((np.ones(2),), [np.ones(2)]),
        (np.ones(1), np.ones(())),
    ],
)
def test_errors_refuse_other_structures_shapes_and_dtypes(actual, expected):
    with pytest.raises(TypeError, match="but JAX's"):
        errors(actual, expected)
