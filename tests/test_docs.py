"""Every example in the README and in docs/ is run: Python by doctest where it shows results, commands by the CLI."""

import contextlib
import doctest
import io
import re
import shlex
from pathlib import Path

import jax
import pytest

from admodes.cli import main

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#:]+)\)")


def blocks(page: Path, language: str) -> list[str]:
    return [code for name, code in BLOCK.findall(page.read_text(encoding="utf-8")) if name == language]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "python")], ids=name_of)
def test_python_examples(page):
    """The blocks of a page share their names, as they would in a session; precision is JAX's default."""
    names: dict = {}
    parser, runner = doctest.DocTestParser(), doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    with jax.enable_x64(False):
        for k, code in enumerate(blocks(page, "python")):
            if ">>>" in code:
                test = parser.get_doctest(code, names, f"{name_of(page)}, block {k + 1}", str(page), 0)
                report = io.StringIO()
                runner.run(test, out=report.write, clear_globs=False)
                names.update(test.globs)
                assert runner.failures == 0, report.getvalue()
            else:
                with contextlib.redirect_stdout(io.StringIO()):
                    exec(compile(code, str(page), "exec"), names)


@pytest.mark.parametrize(
    "command",
    [
        line
        for page in PAGES
        for code in blocks(page, "sh")
        for line in code.splitlines()
        if line.startswith("admodes ")
    ],
)
def test_commands(command, capsys):
    assert main(shlex.split(command)[1:]) == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / link).exists(), f"{name_of(page)} links to {link}"
