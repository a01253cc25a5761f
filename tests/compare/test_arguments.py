"""Functions and arguments as they are written on a command line."""

import sys

import jax
import numpy as np
import pytest

from admodes.compare.arguments import load_function, parse_argument, parse_arguments
from admodes.errors import ArgumentError

FLOAT = jax.dtypes.canonicalize_dtype(float)

VALUES = [
    ("1.5", np.array(1.5, FLOAT)),
    ("-2.0", np.array(-2.0, FLOAT)),
    ("-inf", np.array(-np.inf, FLOAT)),
    ("nan", np.array(np.nan, FLOAT)),
    ("pi", np.array(np.pi, FLOAT)),
    ("3", np.array(3, FLOAT)),
    ("[1, 2]", np.array([1, 2], FLOAT)),
    ("int32(2147483647)", np.array(2147483647, np.int32)),
    ("True", np.array(True)),
    (" [1.0, -2.0] ", np.array([1.0, -2.0], FLOAT)),
    ("[[1.0, 2.0], [3.0, 4.0]]", np.array([[1.0, 2.0], [3.0, 4.0]], FLOAT)),
    ("zeros(3,4)", np.zeros((3, 4), FLOAT)),
    ("ones(5)", np.ones(5, FLOAT)),
    ("ones()", np.ones((), FLOAT)),
    ("arange(2, 2)", np.array([[0, 1], [2, 3]], FLOAT)),
    ("int32(zeros(3))", np.zeros(3, np.int32)),
    ("complex64([1, 2])", np.array([1, 2], np.complex64)),
    ("float16(1.5)", np.array(1.5, np.float16)),
    ("1j", np.array(1j, jax.dtypes.canonicalize_dtype(complex))),
]


@pytest.mark.parametrize(("text", "expected"), VALUES, ids=[t for t, _ in VALUES])
def test_values(text, expected):
    value = parse_argument(text)
    assert isinstance(value, jax.Array)
    assert value.dtype == expected.dtype
    np.testing.assert_array_equal(value, expected)


def test_pytrees():
    x, net = parse_argument("(1.0, {'w': normal(3, 4), 'b': int32(zeros(4))})")
    assert (x.shape, net["w"].shape, net["b"].dtype) == ((), (3, 4), np.int32)
    assert parse_argument("int32({'w': (1.0, 2.0)})")["w"][1].dtype == np.int32


def test_random_entries_are_reproducible_and_independent():
    x, y = parse_arguments(["normal(4)", "normal(4)"])
    again, _ = parse_arguments(["normal(4)", "normal(4)"])
    np.testing.assert_array_equal(x, again)
    assert not np.any(x == y)
    assert np.any(x != parse_arguments(["normal(4)"], seed=1)[0])
    u = parse_argument("uniform(1000)")
    assert 0 <= u.min() < 0.1 < 0.9 < u.max() < 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot read"),
        ("normal(3", "cannot read"),
        ("gauss(3)", "normal, uniform, zeros"),
        ("normal", "not understood"),
        ("normal(3.0)", "whole numbers"),
        ("normal(-3)", "whole numbers"),
        ("normal(shape=3)", "not understood"),
        ("[1.0, [2.0]]", "different lengths"),
        ("1 + 1", "not understood"),
        ("__import__('os').getcwd()", "not understood"),
        ("{1.0: zeros(3)}", "keys of a dict"),
        ("{**{}}", "keys of a dict"),
        ("int33(1)", "not understood"),
        ("int32(1, 2)", "not understood"),
        ("'text'", "not understood"),
        ("(zeros(2), gauss(3))", "'gauss\\(3\\)' in the argument"),
        ("-[1.0]", "not understood"),
    ],
)
def test_errors(text, message):
    with pytest.raises(ArgumentError, match=message):
        parse_argument(text)


def test_wide_dtypes_need_x64():
    with jax.enable_x64(False), pytest.raises(ArgumentError, match="jax_enable_x64"):
        parse_argument("float64(1.0)")
    with jax.enable_x64(True):
        assert parse_argument("float64(1.0)").dtype == np.float64


def test_functions(tmp_path, monkeypatch):
    (tmp_path / "named_functions.py").write_text("class Net:\n    def call(x):\n        return x\n\nnumber = 3\n")
    (tmp_path / "broken_import.py").write_text("import a_package_that_is_not_there\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert load_function("named_functions:Net.call")(2) == 2
    for name, message in [
        ("named_functions", "package.module:function"),
        (":f", "package.module:function"),
        ("no_such_module:f", "no module 'no_such_module'"),
        ("named_functions.deeper:f", "no module"),
        ("named_functions:f", "has no 'f', but Net"),
        ("jax.numpy:cumsumm", "but cumsum, "),
        ("named_functions:number", "not a function but of type int"),
    ]:
        with pytest.raises(ArgumentError, match=message):
            load_function(name)
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_not_there"):
        load_function("broken_import:f")


def test_a_function_in_a_file(tmp_path, monkeypatch):
    (tmp_path / "helping.py").write_text("two = 2.0\n")
    (tmp_path / "a_model.py").write_text("from helping import two\n\ndef f(x):\n    return two * x\n")
    monkeypatch.syspath_prepend("")  # a copy of sys.path that is put back
    assert load_function(f"{tmp_path}/a_model.py:f")(3.0) == 6.0
    monkeypatch.chdir(tmp_path)
    assert load_function("./a_model.py:f")(3.0) == 6.0
    with pytest.raises(ArgumentError, match=r"there is no file 'no_model\.py'"):
        load_function("no_model.py:f")
    with pytest.raises(ArgumentError, match=r"the name of a file ends in \.py: file\.py:f"):
        load_function("./a_model:f")


def test_what_does_not_fit_into_memory():
    with pytest.raises(ArgumentError, match="8 EB do not fit"):
        parse_argument("normal(1000000000000000000)")
