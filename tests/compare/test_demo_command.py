"""``admodes demo``: what is found, how it is run, the page of all demos."""

import json

import pytest

from admodes.cli import main
from admodes.compare import demos as module
from admodes.compare.demos import demos, gallery
from admodes.errors import ArgumentError

PROGRAM = '''"""Title: a summary <here>.

More.
"""
import json, pathlib, sys
import story
if "--smoke" not in sys.argv:
    story.run(None)
out = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
claims = [{"text": "a < b", "holds": True, "measured": "1 < 2"}, {"text": "no", "holds": False, "measured": "2"}]
found = {"title": "It is so", "claims": claims, "tables": {"numbers": []}, "seconds": {"wall": 1.5}}
(out / "good.json").write_text(json.dumps(found))
'''


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A folder with one demo that works, one that fails, and a module that is no demo."""
    folder = tmp_path / "demos"
    folder.mkdir()
    (folder / "story.py").write_text('"""Not a demo."""\n')
    (folder / "good.py").write_text(PROGRAM)
    (folder / "bad.py").write_text('"""Bad: it fails."""\nimport story, sys\nsys.exit(3)\nstory.run(None)\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "__file__", str(tmp_path / "elsewhere" / "admodes" / "compare" / "demos.py"))
    return tmp_path


def test_demos_are_found_without_importing_them(checkout, capsys):
    assert {name: demo.summary for name, demo in demos().items()} == {
        "bad": "Bad: it fails.",
        "good": "Title: a summary <here>.",
    }
    assert main(["demo", "--list"]) == 0
    assert "it fails" in capsys.readouterr().out


def test_the_exit_status_is_the_demos(checkout):
    assert main(["demo", "good", "--smoke", "--out", str(checkout)]) == 0
    assert json.loads((checkout / "good.json").read_text())["title"] == "It is so"
    assert main(["demo", "bad"]) == 3


def test_the_page_shows_claims_and_failures(checkout, capsys):
    assert main(["demo", "--all", "--smoke", "--out", str(checkout / "out")]) == 3
    page = (checkout / "out" / "index.html").read_text(encoding="utf-8")
    assert "a summary &lt;here&gt;" in page
    assert '<li class="holds">a &lt; b: 1 &lt; 2</li>' in page
    assert '<li class="fails">no: 2</li>' in page
    assert "ended with status 3" in page
    assert 'href="good-numbers.csv"' in page
    assert "index.html" in capsys.readouterr().err


def test_the_page_grows_demo_by_demo(checkout):
    lines = []
    assert gallery(demos(), checkout / "out", ["--smoke"], lines.append) == {"bad": 3, "good": 0}
    assert lines == ["bad (1 of 2) ...", "good (2 of 2) ..."]


@pytest.mark.parametrize("command", [["demo"], ["demo", "good", "--all"], ["demo", "good", "--full", "--smoke"]])
def test_wrong_commands(command):
    with pytest.raises(SystemExit) as exit:
        main(command)
    assert exit.value.code == 2


def test_an_unknown_demo_names_those_there_are(checkout, capsys):
    with pytest.raises(SystemExit) as exit:
        main(["demo", "goood"])
    assert exit.value.code == 2
    assert "bad, good" in capsys.readouterr().err


def test_without_a_checkout(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(module, "__file__", str(tmp_path / "admodes" / "compare" / "demos.py"))
    with pytest.raises(ArgumentError, match="top of a checkout"):
        demos()
    assert main(["demo", "--list"]) == 2
    assert "checkout" in capsys.readouterr().err
