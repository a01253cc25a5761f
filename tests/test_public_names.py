"""What tools see of the package: its names, their types, their signatures."""

import ast
import inspect
from pathlib import Path

import jax.numpy as jnp
import pytest

import admodes
from tests.typed import public_calls

PACKAGE = Path(admodes.__file__)
FUNCTIONS = [name for name in admodes.__all__ if inspect.isfunction(getattr(admodes, name))]
CLASSES = (
    public_calls.Plan,
    public_calls.Candidate,
    public_calls.Comparison,
    public_calls.Verification,
    public_calls.Report,
    public_calls.Explanation,
    public_calls.LinearMap,
    public_calls.SparsityPattern,
    public_calls.Coloring,
    public_calls.MemoryProfile,
    public_calls.Problem,
    public_calls.Pullback,
    public_calls.Pushforward,
)
METHODS = {
    f"{cls.__name__}.{name}": getattr(member, "__func__", getattr(member, "fget", getattr(member, "func", member)))
    for cls in CLASSES
    for name, member in vars(cls).items()
    if not name.startswith("_")
}


def test_dir_has_every_public_name():
    assert set(admodes.__all__) <= set(dir(admodes))
    assert len(set(admodes.__all__)) == len(admodes.__all__)


def test_type_checkers_are_told_the_names_that_are_imported_late():
    (told,) = [
        node
        for node in ast.parse(PACKAGE.read_text()).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "_typing.TYPE_CHECKING"
    ]
    imports = {alias.name: node.module for node in told.body for alias in node.names}
    assert imports == {**admodes._LATE, "problems": "admodes"}
    assert set(imports) <= set(admodes.__all__)


def test_unknown_names_are_errors():
    with pytest.raises(AttributeError, match="has no attribute 'jacobain'"):
        admodes.jacobain  # noqa: B018


def test_the_calls_for_type_checkers_have_every_public_name():
    tree = ast.parse(Path(public_calls.__file__).read_text())
    used = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert {f"admodes.{name}" for name in admodes.__all__} <= used


@pytest.mark.parametrize(
    "name", ["modes", "composed", "planned", "sparse", "kinks", "seen", "collected", "in_place_of_jax"]
)
def test_the_calls_for_type_checkers_run(name, tmp_path):
    call = getattr(public_calls, name)
    given = {"x": jnp.arange(1.0, 5.0), "folder": tmp_path}
    call(**{parameter: given[parameter] for parameter in inspect.signature(call).parameters})


@pytest.mark.parametrize("name", [*FUNCTIONS, *(name for name, member in METHODS.items() if callable(member))])
def test_signatures_are_typed(name):
    signature = inspect.signature(METHODS.get(name) or getattr(admodes, name))
    given = [p for p in signature.parameters.values() if p.name not in ("self", "cls")]
    assert signature.return_annotation is not inspect.Signature.empty
    assert all(p.annotation is not inspect.Parameter.empty for p in given)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_options_are_spelt_out(name):
    parameters = inspect.signature(getattr(admodes, name)).parameters.values()
    open_ended = [p for p in parameters if p.kind is inspect.Parameter.VAR_KEYWORD]
    takes_a_function = next(iter(parameters)).name in ("fun", "f", "file")
    assert all(p.name == "kwargs" and takes_a_function for p in open_ended) or name == "as_jax"


def test_rules_export_what_enters_a_primitive():
    """Also the family of rules of the same name does not hide the function."""
    rules = admodes.rules
    assert set(rules.__all__) <= set(dir(rules))
    for name in ("elementwise", "linear", "bilinear", "zero", "function", "program", "higher_order", "register"):
        assert inspect.isfunction(getattr(rules, name))
        assert f"``{name}``" in rules.__doc__
