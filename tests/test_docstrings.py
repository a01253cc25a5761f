"""Docstrings and pages name what there is: cross-references, files of the package, names of ``admodes``."""

import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest

import admodes

PACKAGE = Path(admodes.__file__).parent
ROOT = PACKAGE.parent
FILES = [file for file in sorted(PACKAGE.rglob("*.py")) if file.stem != "__main__"]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
ROLE = re.compile(r":(?:func|class|meth|mod|data|attr):`~?([\w.]+)`")
FILE = re.compile(r"(?<![\w/.])((?:admodes/)?(?:\w+/)+\w+\.py)\b")
CLAUSE = re.compile(r"(?:^|[.!?]\s+|\n\s*\n)[(*`_]*(?:What|Whether|Those|Which|How)\b(?![^.]*\?)[^.]*")
NAME = re.compile(r"(?<![\w/.])(admodes(?:\.\w+)+)")


def module_of(file: Path):
    return importlib.import_module(".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))


def is_there(name: str, inside) -> bool:
    """True if the dotted name is one inside of a module (or a class of it), or can be imported."""
    classes = [value for value in vars(inside).values() if inspect.isclass(value)] if inside else []
    return any(has(base, name.split(".")) for base in (inside, *classes)) or imported(name.split("."))


def has(base, parts: list[str]) -> bool:
    for part in parts:
        if not hasattr(base, part):
            return False
        base = getattr(base, part)
    return True


def imported(parts: list[str]) -> bool:
    for k in range(len(parts), 0, -1):
        try:
            return has(importlib.import_module(".".join(parts[:k])), parts[k:])
        except ImportError:
            continue
    return False


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_references_lead_somewhere(file):
    text, module = file.read_text(encoding="utf-8"), module_of(file)
    missing = [name for name in ROLE.findall(text) if not is_there(name, module)]
    files = [path for path in FILE.findall(text) if not any((base / path).exists() for base in (ROOT, PACKAGE))]
    assert not missing + files


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_name_what_there_is(page):
    text = page.read_text(encoding="utf-8")
    missing = [name for name in NAME.findall(text) if not is_there(name, None)]
    files = [path for path in FILE.findall(text) if path.startswith("admodes/") and not (ROOT / path).exists()]
    assert not missing + files


def prose(file: Path) -> list[str]:
    """The docstrings of a file, or the text of a page without code and headings, row by row of its tables."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".py":
        nodes = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Expr))
        return [
            n.value.value.strip() for n in nodes if isinstance(n.value, ast.Constant) and isinstance(n.value.value, str)
        ]
    text = re.sub(r"^```.*?^```|^#+ .*?$", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"^\|.*$", lambda row: row[0].replace("|", "\n\n"), text, flags=re.MULTILINE)
    return [part.strip() for part in text.split("\n\n")]


@pytest.mark.parametrize("file", [*FILES, *PAGES], ids=lambda file: str(file.relative_to(ROOT)))
def test_sentences_begin_with_nouns(file):
    """A clause in the place of a name (What follows, How it ...) makes the reader wait for what is meant."""
    assert not [match[0].strip() for text in prose(file) for match in CLAUSE.finditer(text)]
