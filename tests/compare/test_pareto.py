"""Memory against time: who is on the Pareto front, and the pictures."""

import math

import jax.numpy as jnp
import pytest
from jax import lax

from admodes.compare import compare
from admodes.compare.pareto import curve, draw, front
from admodes.compare.planned import strategies

POINTS = {"fast": (8e6, 1e-3), "frugal": (1e3, 5e-3), "middle": (1e5, 2e-3), "slow": (1e5, 3e-3), "large": (9e6, 1e-3)}


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        (POINTS, ("frugal", "middle", "fast")),
        ({"a": (1.0, 1.0), "b": (1.0, 1.0)}, ("a", "b")),  # neither is better
        ({"a": (0.0, 1.0), "b": (1.0, 2.0)}, ("a",)),
        ({"a": (2.0, 1.0), "b": (1.0, 1.0)}, ("b",)),
        ({}, ()),
        ({"a": (math.nan, 1.0), "b": (1.0, math.inf), "c": (2.0, 2.0)}, ("c",)),
    ],
)
def test_the_front(points, expected):
    assert front(points) == expected


def test_the_picture_as_text():
    _, *lines = curve(POINTS).splitlines()
    rows = [line.partition("|")[2] for line in lines if "|" in line]
    places = {letter: (row.index(letter), k) for k, row in enumerate(rows) for letter in row.strip().replace(" ", "")}
    assert set(places) == {"A", "B", "C", "d", "e"}
    assert places["B"] == (0, 0)  # the least memory, the longest time
    assert places["e"][0] == max(x for x, _ in places.values())
    assert places["A"][1] == len(rows) - 1
    assert places["B"][1] < places["d"][1] < places["C"][1] < places["A"][1]
    assert lines[-2:] == [f"{'':12}A fast   B frugal   C middle", f"{'':12}d slow   e large"]


def test_one_point_and_no_memory():
    assert "A only" in curve({"only": (0.0, 1e-3)})


@pytest.mark.parametrize("points", [{}, {"lost": (1e3, math.nan)}])
def test_what_was_not_measured_is_not_drawn(points, tmp_path):
    assert curve(points) == "time against temporary memory: nothing measured"
    assert curve({**points, "only": (1.0, 1.0)}).splitlines()[-1].strip() == "A only"
    draw(points, tmp_path / "none.svg", "none", "svg")
    assert "nothing measured" in (tmp_path / "none.svg").read_text()


def test_checkpointed_schedules_are_compared(tmp_path):
    def orbit(x):
        return jnp.sum(lax.scan(lambda y, _: (y + 1e-3 * jnp.sin(y[::-1]), None), x, None, length=1000)[0] ** 2)

    x = jnp.linspace(0.0, 1.0, 30)
    planned = [s for s in strategies(orbit, (x,)) if s.name in ("reverse (sqrt)", "reverse (revolve 10)")]
    assert [s.name for s in planned] == ["reverse (sqrt)", "reverse (revolve 10)"]
    found = compare(orbit, x, modes=["forward", "reverse", *planned], repeat=1)
    assert max(row.rel_error for row in found.rows) < 1e-12
    assert (
        found["reverse (revolve 10)"].temp_bytes < found["reverse (sqrt)"].temp_bytes < found["reverse"].temp_bytes / 4
    )
    assert found.pareto[0] == "reverse (revolve 10)"
    assert set(found.to_dict()["pareto"]) == set(found.pareto)
    marked = [line.strip().split("  ")[0] for line in str(found).splitlines() if line.endswith("*")]
    assert set(marked) == set(found.pareto)
    assert "jax.jacrev" in found.curve()
    found.plot(tmp_path / "curve.svg", format="svg")
    assert (tmp_path / "curve.svg").read_text().count("<svg") == 1
