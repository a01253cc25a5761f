"""Every demo runs, at tiny sizes; at its default size (slow) every claim comes out."""

import csv
import json
import runpy
import sys

import jax
import pytest

from admodes.compare.demos import demos

DEMOS = demos()
LONG = {"depth", "modes", "optimisers", "regularisation", "relu_kinks", "samples"}  # that compile the most


def test_the_demos_are_found_and_the_parts_they_share_are_not():
    assert {"accuracy", "backprop_by_hand", "depth", "double_descent", "implicit_regularisation"} <= set(DEMOS)
    assert {"modes", "optimisers", "regularisation", "samples", "train"} <= set(DEMOS)
    assert not {"story", "nets", "data"} & set(DEMOS)
    assert all(demo.summary.endswith(".") and ": " in demo.summary for demo in DEMOS.values())


def run(name, out, monkeypatch, *arguments) -> int:
    """The exit status of ``python demos/NAME.py``, in this process."""
    monkeypatch.setattr(sys, "argv", [name, "--out", str(out), *arguments])
    with pytest.raises(SystemExit) as exit:
        runpy.run_path(str(DEMOS[name].path), run_name="__main__")
    return exit.value.code


@pytest.fixture
def quick_compilation():
    """Most of the time of a demo at tiny sizes is compilation."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow if name in LONG else ()) for name in DEMOS])
def test_smoke(name, tmp_path, monkeypatch, capsys):
    assert run(name, tmp_path, monkeypatch, "--smoke") == 0
    found = json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))
    assert found["size"] == "smoke"
    assert found["title"]
    assert any("jax.grad the loss curve is the same" in c["text"] and c["holds"] for c in found["claims"])
    for picture in (f"{name}.png", f"{name}.svg"):
        assert (tmp_path / picture).stat().st_size > 10_000
    for table, rows in found["tables"].items():
        with open(tmp_path / f"{name}-{table}.csv", encoding="utf-8", newline="") as file:
            assert len(list(csv.DictReader(file))) == len(rows) > 0
    assert name in capsys.readouterr().out


@pytest.mark.usefixtures("quick_compilation")
def test_training_within_a_limit(tmp_path, monkeypatch):
    setting = ["--depth", "20", "--width", "16", "--batch", "256", "--memory-limit", "300 kB"]
    assert run("train", tmp_path, monkeypatch, "--smoke", *setting) == 0
    found = json.loads((tmp_path / "train.json").read_text(encoding="utf-8"))
    assert all(claim["holds"] for claim in found["claims"])
    ours, theirs = found["tables"]["memory"]
    assert ours["bytes"] <= ours["limit"] == 300_000 < theirs["bytes"]


def test_a_limit_that_is_none(tmp_path, monkeypatch, capsys):
    assert run("train", tmp_path, monkeypatch, "--memory-limit", "much") == 2
    assert "memory_limit must be" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", DEMOS)
def test_every_claim_comes_out(name, tmp_path):
    assert DEMOS[name].run(["--out", str(tmp_path)]) == 0
