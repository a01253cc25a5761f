"""Logs of a backward pass: the entries that users' ``bwd`` rules return beside cotangents (``defvjp_with_logs``).

They are written down where a pullback asks for them (:meth:`~admodes.modes.pullback.Pullback.with_logs`), and dropped
elsewhere. A pass through a sub-program returns the entries of its body, because values must not leave a trace in
another way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_PAGE: ContextVar[dict | None] = ContextVar("logs", default=None)


def wanted() -> bool:
    """True if entries are written down now."""
    return _PAGE.get() is not None


def write(entries: dict | None) -> None:
    """Write entries down; ValueError if one of that key is there."""
    page = _PAGE.get()
    if page is None or not entries:
        return
    twice = [key for key in entries if key in page]
    if twice:
        raise ValueError(f"the backward pass logs {twice[0]!r} twice: each key must be unique in one pass")
    page.update(entries)


@contextmanager
def page(entries: dict | None) -> Iterator[dict | None]:
    """Context in which entries are written to this dictionary; with None they are dropped."""
    token = _PAGE.set(entries)
    try:
        yield entries
    finally:
        _PAGE.reset(token)


def logged(fun: Callable, on: bool) -> Callable:
    """The function that returns its result and the entries that are written in it, none if not ``on``.

    >>> logged(lambda x: write({"x": x}), True)(3)
    (None, {'x': 3})
    """

    def with_entries(*args):
        with page({} if on else None) as entries:
            return fun(*args), entries or {}

    return with_entries


def refusing(fun: Callable, where: str, on: bool) -> Callable:
    """The function, run where no entry can be handed out: NotImplementedError if ``on`` and there is one."""

    def without_entries(*args):
        result, entries = logged(fun, on)(*args)
        if entries:
            raise NotImplementedError(
                f"with_logs: the entry {next(iter(entries))!r} is logged inside {where}, which keeps no entries. Call "
                "the pullback without with_logs, or log outside of it."
            )
        return result

    return without_entries
