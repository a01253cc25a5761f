"""Output of the commands: files, standard output, progress lines, exit statuses.

Files are opened before the work, so that a wrong path is known at once and not after minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import runpy
import shutil
import sys
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO, TextIO


def fail(error: object, status: int) -> int:
    print(f"admodes: error: {error}", file=sys.stderr)
    return status


def chosen_names(names: Sequence[str] | None, known: Collection[str], noun: str) -> list[str]:
    """The names, or all that are known; one that is not ends the command."""
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise SystemExit(fail(f"unknown {noun} {unknown[0]!r}; there are {', '.join(known)}", 2))
    return list(names or known)


def choice(find: Callable[[str], Any], name: str) -> Any:
    """``find(name)``; a name that is not known ends the command as argparse's own errors do."""
    try:
        return find(name)
    except ValueError as error:
        raise SystemExit(fail(error, 2)) from None


def progress_line(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def precision(options: argparse.Namespace) -> AbstractContextManager:
    import jax

    return jax.enable_x64(True) if options.dtype == "float64" else nullcontext()


def opened(path: str | None) -> AbstractContextManager[TextIO]:
    """The file to write to, opened before the work; standard output for None. A path that is wrong ends the command."""
    try:
        return open(path, "w", encoding="utf-8") if path else nullcontext(sys.stdout)
    except OSError as error:
        raise SystemExit(fail(error, 2)) from None


def opened_binary(path: str | None) -> AbstractContextManager[BinaryIO | None]:
    """The same for a file that is not text; None for None."""
    try:
        return open(path, "wb") if path else nullcontext(None)
    except OSError as error:
        raise SystemExit(fail(error, 2)) from None


def opened_figure(path: str | None) -> AbstractContextManager[BinaryIO | None]:
    """The file for a figure, opened before the work; None for None. Anything that stands in its way ends the
    command."""
    if path is None:
        return nullcontext(None)
    try:
        from matplotlib.backend_bases import FigureCanvasBase
    except ModuleNotFoundError:
        raise SystemExit(fail("figures need matplotlib (pip install 'admodes[docs]')", 2)) from None

    known = FigureCanvasBase.get_supported_filetypes()
    if Path(path).suffix[1:] not in known:
        raise SystemExit(fail(f"{path}: the file of a figure must end in one of {', '.join(sorted(known))}", 2))
    return opened_binary(path)


def execute(module: str | None, program: Sequence[str]) -> int:
    """Runs a script (or ``-m module``) as ``python`` would, with its arguments; gives its exit status."""
    argv, path = sys.argv, sys.path[:]
    try:
        if module is not None:
            sys.argv = [module, *program]
            sys.path.insert(0, os.getcwd())
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        else:
            sys.argv = list(program)
            sys.path.insert(0, str(Path(program[0]).resolve().parent))
            runpy.run_path(program[0], run_name="__main__")
    except SystemExit as end:
        if end.code is not None and not isinstance(end.code, int):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception:  # whatever the program raised is shown as python shows it; the report still follows
        traceback.print_exc()
        return 1
    finally:
        sys.argv, sys.path[:] = argv, path
    return 0


def columns(options: argparse.Namespace) -> int:
    """The width of what is printed, in characters: of the terminal, 80 where there is none, any with ``--wide``."""
    return 10**4 if options.wide else shutil.get_terminal_size().columns


@contextmanager
def output(options: argparse.Namespace) -> Iterator[Callable]:
    """Gives ``write(data, *tables)``. Names must have been resolved: the JSON file is opened (and emptied) at once."""
    from admodes.compare.comparison import finite
    from admodes.text_tables import show

    target = options.json
    with opened(None if target == "-" else target) as file:

        def write(data: Any, *parts: Any) -> None:
            if target != "-":
                show(*parts, width=columns(options))
            if target:
                json.dump(finite(data), file, indent=2)
                file.write("\n")

        yield write
