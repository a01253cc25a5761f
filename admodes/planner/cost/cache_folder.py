"""The user's cache folder: what was measured here, kept from one session to the next.

Each identity (machine, device, version of JAX) has a folder of its own there, so that none calls another's files stale.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import jax

T = TypeVar("T")

# Bytes of a file that is read; written ones have hundreds. Chosen, against files that are not ours. Any size between
# does.
MOST_BYTES = 2**20
# what decoding a damaged file, and looking at what it holds, may raise
DAMAGED = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)


class UnreadableError(Exception):
    """A file of the cache that is damaged, or of another identity: it is to be replaced."""


def directory() -> Path:
    """The cache folder: ``$ADMODES_CACHE``, or ``admodes`` in the user's cache directory.

    Raises:
      OSError: there is no such directory, as the user has no home.
    """
    if own := os.environ.get("ADMODES_CACHE"):
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "admodes"
    except RuntimeError as error:
        raise OSError(f"{error}: set ADMODES_CACHE to a folder") from error


def identity() -> dict:
    """The surroundings, beside the program, that measured times depend on."""
    device = jax.devices()[0]
    return {
        "jax": jax.__version__,
        "backend": device.platform,
        "device": device.device_kind,
        "host": platform.node(),
        "cpus": os.cpu_count(),
    }


def file(*names: str) -> Path:
    """The place of what is kept for this identity: below a folder with a name for people, and a digest to be sure.

    Raises:
      OSError: there is no cache folder.
    """
    who = identity()
    readable = re.sub(r"[^A-Za-z0-9.]+", "-", f"jax-{who['jax']}-{who['device']}-{who['host']}")
    digest = hashlib.sha256(json.dumps(who, sort_keys=True).encode()).hexdigest()
    return directory().joinpath(f"{readable[:100]}-{digest[:8]}", *names)


def read(path: Path, content: Callable[[dict], T]) -> T | None:
    """``content`` of what a file holds; None if there is no such file, or it must not be read.

    Raises:
      UnreadableError: it is damaged in any way (``content`` raises one of ``DAMAGED``), or of another identity.
    """
    try:
        if path.exists() and not path.is_file():
            raise ValueError("it is no file")
        with path.open("rb") as opened:
            text = opened.read(MOST_BYTES + 1)
        if len(text) > MOST_BYTES:
            raise ValueError("it is too large")
        data = json.loads(text)
        if data["identity"] != identity():
            raise ValueError("it is of another machine, device or version of JAX")
        return content(data)
    except OSError:
        return None
    except DAMAGED as error:
        raise UnreadableError(f"{path} cannot be used ({type(error).__name__}: {error})") from None


def write(path: Path, **data) -> None:
    """Replace a file at once; processes and threads that do so at the same time do not mix.

    Raises:
      OSError: that cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}.part")
    try:
        part.write_text(json.dumps({"identity": identity(), **data}, indent=2), encoding="utf-8")
        part.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
