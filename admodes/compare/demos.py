"""``admodes demo``: the demos of a checkout, run one by one as programs of their own, and a page with their figures."""

from __future__ import annotations

import ast
import html
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

from admodes.errors import ArgumentError


@dataclass(frozen=True)
class Demo:
    """A program in the folder ``demos`` that tells a story; ``summary`` is the first line of its docstring."""

    path: Path
    summary: str

    @property
    def name(self) -> str:
        return self.path.stem

    def run(self, arguments: Sequence[str] = ()) -> int:
        """Run it in a process of its own; its exit status."""
        return subprocess.run([sys.executable, str(self.path), *arguments], check=False).returncode


def demos() -> dict[str, Demo]:
    """The demos by name, those that stand beside the package or in the working directory.

    They are found by the call ``story.run(...)`` at their end; nothing is imported.

    Raises:
      ArgumentError: there is no folder with demos.
    """
    for folder in (Path(__file__).parents[2] / "demos", Path.cwd() / "demos"):
        if (folder / "story.py").is_file():
            return {path.stem: demo for path in sorted(folder.glob("*.py")) if (demo := read(path))}
    raise ArgumentError(
        "there are no demos here: they are part of the source tree, not of the installed package. "
        "Run `admodes demo` at the top of a checkout."
    )


def read(path: Path) -> Demo | None:
    """The demo in a file, None if it holds something else."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    if any(isinstance(f, ast.Attribute) and ast.unparse(f) == "story.run" for f in calls):
        return Demo(path, (ast.get_docstring(tree) or "").partition("\n")[0])
    return None


def gallery(
    chosen: Mapping[str, Demo], out: Path, arguments: Sequence[str], progress: Callable[[str], None]
) -> dict[str, int]:
    """Run the demos and write ``out/index.html``, after each of them anew; their exit statuses."""
    statuses: dict[str, int] = {}
    out.mkdir(parents=True, exist_ok=True)
    for k, (name, demo) in enumerate(chosen.items(), start=1):
        progress(f"{name} ({k} of {len(chosen)}) ...")
        statuses[name] = demo.run([*arguments, "--out", str(out)])
        sections = [section(chosen[done], status, out) for done, status in statuses.items()]
        page = PAGE.substitute(sections="\n".join(sections))
        (out / "index.html").write_text(page, encoding="utf-8")
    return statuses


def section(demo: Demo, status: int, out: Path) -> str:
    """The part of the page that shows one demo, from the JSON file that it wrote."""
    title, _, rest = demo.summary.partition(":")
    parts = [f'<section id="{demo.name}"><h2>{html.escape(title)}</h2><p>{html.escape(rest.strip())}</p>']
    written = out / f"{demo.name}.json"
    if written.is_file():
        found = json.loads(written.read_text(encoding="utf-8"))
        parts.append(
            f'<a href="{demo.name}.svg"><img src="{demo.name}.png" alt="{html.escape(found["title"])}"></a><ul>'
        )
        parts += [
            f'<li class="{"holds" if claim["holds"] else "fails"}">{html.escape(claim["text"])}: '
            f"{html.escape(claim['measured'])}</li>"
            for claim in found["claims"]
        ]
        tables = [f'<a href="{demo.name}-{table}.csv">{html.escape(table)}</a>' for table in found["tables"]]
        numbers = ", ".join([f'<a href="{demo.name}.json">all</a>', *tables])
        parts.append(f"</ul><p>{found['seconds']['wall']} s. Numbers: {numbers}.</p>")
    if status:
        parts.append(f'<p class="fails">The demo ended with status {status}.</p>')
    return "\n".join([*parts, "</section>"])


PAGE = Template("""\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>admodes: demos</title>
<style>
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
  section { margin: 3rem 0; border-top: 1px solid #ddd }
  img { max-width: 100%; height: auto }
  ul { list-style: none; padding: 0 }
  .holds::before { content: "✓ "; color: #009E73; font-weight: bold }
  .fails::before { content: "✗ "; color: #D55E00; font-weight: bold }
</style>
<h1>admodes: demos</h1>
$sections
</html>
""")
