"""Running the command line: exit statuses and interruptions."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from admodes.cli.output import fail
from admodes.cli.parser import make_parser

USERS = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)  # what a user's function may raise


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status (2 for a wrong command, 1 for work that failed)."""
    options = make_parser().parse_args(_as_options(sys.argv[1:] if argv is None else list(argv)))
    from admodes.errors import AdmodesError, ArgumentError, UnknownProblemError

    try:
        status = options.run(options)
        sys.stdout.flush()
    except (ArgumentError, UnknownProblemError) as error:
        return fail(error, 2)
    except (AdmodesError, OSError) as error:
        if isinstance(error, BrokenPipeError):  # the reader of our output has seen enough (`admodes list | head`)
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        return fail(error, 1)
    except USERS as error:
        if ":" not in (getattr(options, "function", "") or ""):
            raise
        return fail(f"{options.function}: {type(error).__name__}: {error}", 1)
    except KeyboardInterrupt:
        return fail("interrupted", 130)
    return status or 0


def _as_options(argv: list[str]) -> list[str]:
    """``admodes`` alone and ``admodes help [COMMAND]`` as ``--help``, ``admodes version`` as ``--version``."""
    if not argv or argv[0] == "help":
        return [*argv[1:], "--help"]
    return ["--version"] if argv == ["version"] else argv
