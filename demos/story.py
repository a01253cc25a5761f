"""What the demos share: the command line, progress, figures, tables of numbers, and claims that are checked.

A demo is a module whose docstring says in its first line what it shows, and a function of a :class:`Story`::

    def tell(s):
        steps = s.scaled(smoke=5, default=200, full=2000)
        for rate in s.track((0.1, 0.3), "training"):
            ...
        s.table("accuracy", [{"rate": 0.1, "accuracy": 0.97}, ...])
        figure, (left, right) = story.panels(1, 2)
        ...
        s.figure(figure, f"A step of 0.3 is {ratio:.1f} times faster")
        s.claim("larger steps are faster up to a point", ratio > 1, f"{ratio:.2f} times")

    if __name__ == "__main__":
        story.run(tell)

Import ``story`` before optax and matplotlib: it says which extra brings what is missing.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

MISSING = [name for name in ("matplotlib", "optax", "sklearn") if find_spec(name) is None]
if MISSING:
    sys.exit(f'demos: {", ".join(MISSING)} cannot be imported: pip install "admodes[demos]" brings it')

import jax
import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt

T = TypeVar("T")

# Okabe and Ito's colours: told apart with any colour vision, and in the order of their contrast on white.
BLUE, VERMILION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, BLACK = "#E69F00", "#56B4E9", "#000000"
COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
STYLE = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.prop_cycle": mpl.cycler(color=COLOURS),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": "medium",
    "figure.dpi": 120,
    "figure.titlesize": "large",
    "figure.titleweight": "bold",
    "font.size": 10,
    "grid.alpha": 0.3,
    "legend.fontsize": "small",
    "legend.framealpha": 0.85,
    "lines.linewidth": 1.8,
    "svg.hashsalt": "admodes",
}

COINCIDE = 1e-3  # two loss curves coincide when they differ by less than this part of the first loss


@dataclass(frozen=True)
class Claim:
    """A sentence, whether the numbers bear it out, and the numbers."""

    text: str
    holds: bool
    measured: str

    def __str__(self) -> str:
        return f"{'✓' if self.holds else '✗'} {self.text}: {self.measured}"


@dataclass
class Story:
    """One run of a demo: its settings, and what it has found so far.

    ``size`` is ``"smoke"`` (does it run at all), ``"default"`` (under a minute on two cores) or ``"full"``.
    """

    name: str
    out: Path
    size: str = "default"
    seed: int = 0
    options: argparse.Namespace = field(default_factory=argparse.Namespace)
    claims: list[Claim] = field(default_factory=list)
    tables: dict[str, list[dict]] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    title: str = ""
    say: Callable[[str], None] = lambda text: None

    def scaled(self, smoke: T, default: T, full: T) -> T:
        """The setting that goes with the size of this run."""
        return {"smoke": smoke, "default": default, "full": full}[self.size]

    def key(self, offset: int = 0) -> jax.Array:
        """A random key that depends on the seed of this run."""
        return jax.random.key(1000 * self.seed + offset)

    def rng(self, *which: int) -> np.random.Generator:
        """A numpy generator that depends on the seed of this run and on the numbers given."""
        return np.random.default_rng([self.seed, *which])

    def track(self, items: Collection[T], what: str) -> Iterator[T]:
        """The items one by one, with a progress bar on the terminal; :meth:`say` adds a line to the bar."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        console = Console(stderr=True)
        columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
        columns.append(TextColumn("{task.fields[said]}"))
        with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
            task = progress.add_task(what, total=len(items), said="")
            self.say = lambda text: progress.update(task, said=text)
            for item in items:
                yield item
                progress.advance(task)

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Keep the rows (all with the same keys): they go to NAME-table.csv and into NAME.json."""
        self.tables[name] = [{key: plain(value) for key, value in row.items()} for row in rows]

    def figure(self, figure: plt.Figure, title: str, name: str = "") -> None:
        """Write the figure as PNG and SVG under its title, which says what was found."""
        figure.suptitle(title)
        self.title = self.title or title
        stem = f"{self.name}-{name}" if name else self.name
        for suffix in (".png", ".svg"):
            path = self.out / (stem + suffix)
            figure.savefig(path, metadata={"Date": None} if suffix == ".svg" else None)
            self.files.append(path)
        plt.close(figure)

    def claim(self, text: str, holds: bool, measured: str) -> None:
        """Check a claim against the numbers; one that does not hold makes the demo fail at its end."""
        self.claims.append(Claim(text, bool(holds), measured))

    def coincide(self, axes: plt.Axes, ours: Sequence[float], jaxs: Sequence[float], what: str) -> None:
        """Draw the losses of two trainings that differ in nothing but whose gradient they use; claim they coincide."""
        ours, jaxs = np.asarray(ours, float), np.asarray(jaxs, float)
        gap = float(np.max(np.abs(ours - jaxs)) / abs(jaxs[0]))
        axes.plot(ours, color=BLUE, linewidth=3, alpha=0.6, label="admodes")
        axes.plot(jaxs, color=BLACK, linestyle=(0, (3, 3)), linewidth=1.2, label="jax.grad")
        largest = "no difference at all" if gap == 0 else f"largest difference {gap:.0e} of the first loss"
        if jaxs.min() > 0 and jaxs.max() > 100 * jaxs.min():
            axes.set_yscale("log")
        axes.set(xlabel="step", ylabel="training loss", title=f"{what}:\n{largest}")
        axes.legend()
        self.claim(f"{what}: trained with jax.grad the loss curve is the same", gap < COINCIDE, largest)
        self.table("coincide", [{"step": k, "admodes": a, "jax": b} for k, (a, b) in enumerate(zip(ours, jaxs))])

    def write(self, seconds: Mapping[str, float]) -> None:
        """Write the tables as CSV, and everything as JSON."""
        for name, rows in self.tables.items():
            path = self.out / f"{self.name}-{name}.csv"
            with open(path, "w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
            self.files.append(path)
        path = self.out / f"{self.name}.json"
        packages = {name: version(name) for name in ("admodes", "jax", "optax", "numpy")}
        data = {
            "demo": self.name,
            "title": self.title,
            "size": self.size,
            "seed": self.seed,
            "seconds": dict(seconds),
            "versions": {"python": platform.python_version(), **packages},
            "claims": [asdict(claim) for claim in self.claims],
            "tables": self.tables,
        }
        path.write_text(json.dumps(data, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        self.files.append(path)


def plain(value: Any) -> Any:
    """A number or string that JSON can hold; what is not finite becomes None.

    >>> plain(np.float32(0.5)), plain(float("inf")), plain("adam"), plain(np.int64(3))
    (0.5, None, 'adam', 3)
    """
    if isinstance(value, str | bool | int | None):
        return value
    number = np.asarray(value).item()
    return None if isinstance(number, float) and not np.isfinite(number) else number


def panels(rows: int = 1, columns: int = 1, *, width: float = 4.6, height: float = 3.8, **kwargs: Any):
    """A figure and its axes, of ``width`` times ``height`` inches each, in the style of all demos."""
    plt.rcParams.update(STYLE)
    size = (width * columns, height * rows + 0.4)
    return plt.subplots(rows, columns, figsize=size, layout="constrained", **kwargs)


def parser(name: str, summary: str) -> argparse.ArgumentParser:
    """The options that every demo has."""
    parser = argparse.ArgumentParser(name, description=summary)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--full", dest="size", action="store_const", const="full", help="more sizes, more seeds, longer")
    size.add_argument(
        "--smoke", dest="size", action="store_const", const="smoke", help="tiny sizes; claims are not enforced"
    )
    parser.add_argument("--seed", type=int, default=0, help="of data splits, initial weights and noise (default: 0)")
    parser.add_argument(
        "--out", type=Path, default=Path("demo-results"), metavar="DIR", help="for figures and numbers (%(default)s)"
    )
    parser.set_defaults(size="default")
    return parser


def main(
    tell: Callable[[Story], None],
    argv: Sequence[str] | None = None,
    *,
    options: Callable[[argparse.ArgumentParser], None] = lambda parser: None,
    x64: bool = False,
) -> int:
    """Run a demo from its command line; the exit status is 1 if a claim did not come out.

    ``options`` adds arguments of the demo's own (read them from ``s.options``); ``x64`` asks for double precision.
    """
    module = sys.modules[tell.__module__]
    name = Path(module.__file__).stem
    arguments = parser(name, module.__doc__.splitlines()[0])
    options(arguments)
    chosen = arguments.parse_args(argv)
    try:
        chosen.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        arguments.error(f"argument --out: {error}")
    story = Story(name, chosen.out, chosen.size, chosen.seed, chosen)
    wall, cpu = time.perf_counter(), time.process_time()
    with jax.enable_x64(x64):
        try:
            tell(story)
        except KeyboardInterrupt:
            print(f"{name}: interrupted", file=sys.stderr)
            return 130
    seconds = {"wall": round(time.perf_counter() - wall, 1), "cpu": round(time.process_time() - cpu, 1)}
    story.write(seconds)
    print(f"{name}: {story.title}")
    for claim in story.claims:
        print(f"  {claim}")
    print(f"{seconds['wall']} s ({seconds['cpu']} s of CPU); wrote {', '.join(map(str, story.files))}")
    failed = [claim for claim in story.claims if not claim.holds]
    if failed and story.size != "smoke":
        print(f"{name}: {len(failed)} of {len(story.claims)} claims did not come out", file=sys.stderr)
        return 1
    return 0


def run(tell: Callable[[Story], None], **kwargs: Any) -> None:
    """:func:`main` with the arguments of the process, then exit."""
    sys.exit(main(tell, **kwargs))
