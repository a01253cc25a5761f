"""The contact points with JAX: where the table says they are, and what happens where they are not."""

import ast
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from admodes.errors import UnsupportedJaxError
from admodes.program.jax_compat import contacts

FOLDER = Path(contacts.__file__).parent
PLACES, OPTIONAL = contacts.read_table()


@pytest.mark.parametrize("name", PLACES)
def test_a_contact_point_is_where_the_table_says(name):
    due = [place for place in PLACES[name] if place.since <= jax.__version_info__]
    if not due or (name in OPTIONAL and contacts.contact(name) is None):
        assert name in OPTIONAL
        pytest.skip(f"jax {jax.__version__} does not have {name}")
    assert due[0].find() is not None, f"{name} has moved from {due[0].module}: add a row for it"


def names_of_jax_internals() -> set[str]:
    """What the folder takes from ``jax._src``: imported by name, or as an attribute of an imported module."""
    found = set()
    for file in FOLDER.glob("*.py"):
        tree, modules = ast.parse(file.read_text(encoding="utf-8")), {}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("jax._src"):
                for alias in node.names:
                    origin = f"{node.module}.{alias.name}".removeprefix("jax._src.")
                    modules[alias.asname or alias.name] = origin
        attributes = [
            (modules[node.value.id], node.attr)
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules
        ]
        as_modules = {origin for origin, _ in attributes}
        found |= {f"{origin}.{name}" for origin, name in attributes}
        found |= {origin for origin in modules.values() if origin not in as_modules}
    return found


def test_the_table_names_all_that_is_taken_from_inside_of_jax():
    known = {f"{place.module}.{place.attribute}" for places in PLACES.values() for place in places}
    modules = {module for _, module, _ in contacts.TABLE}
    unknown = {name for name in names_of_jax_internals() if name not in known | modules}
    below = {name for name in unknown if any(name.startswith(k + ".") for k in known)}  # attributes of what is known
    assert not unknown - below, f"enter these in contacts.TABLE: {sorted(unknown - below)}"


def test_what_is_missing_is_named():
    with pytest.raises(UnsupportedJaxError) as caught:
        contacts.find_all((("0.10", "core", "Jaxpr no_such_thing"), ("0.10", "no_such_module", "anything unneeded?")))
    message = str(caught.value)
    assert "\n" not in message
    for part in (jax.__version__, "core.no_such_thing", "no_such_module.anything", *contacts.KNOWN, "pip install"):
        assert part in message
    assert "unneeded" not in message


def test_a_jax_that_has_moved_a_name_is_refused_in_one_line():
    program = "import jax; from jax._src import core; del core.take_current_trace\nimport admodes"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("admodes.errors.UnsupportedJaxError: ")
    assert jax.__version__ in last
    assert "core.take_current_trace" in last


def test_a_name_is_also_found_where_a_later_version_has_it():
    table = (("0.10", "core", "gone"), ("99.0", "core", "Jaxpr as gone"))
    assert contacts.find_all(table)["gone"] is jax._src.core.Jaxpr


def test_a_rule_for_a_primitive_that_this_version_lacks_is_left_out():
    from admodes.rules import table

    before = dict(table._RULES)
    table.elementwise(None, lambda out, x: x)
    assert before == table._RULES
