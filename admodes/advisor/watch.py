"""Watching: each derivative that a program takes with JAX, by the place in its code, with an example of its arguments.

Nothing is measured here, so that the program runs as it would alone: a call costs a look at the stack and at types.
"""

from __future__ import annotations

import functools
import sys
import sysconfig
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
from jax.tree_util import tree_leaves, tree_map, tree_structure

from admodes.program import jax_compat as jc

AT_ONCE = ("jvp", "vjp", "linearize")  # these take the function and the point in one call
_LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
_OURS = str(Path(__file__).parents[1])


@dataclass
class Place:
    """A derivative in somebody's code: ``jax.NAME(fun, *options, **named)``, called on arguments of certain types.

    ``args`` are an example: the values of the first call with values, or the types of one that was traced.
    """

    file: str
    line: int
    name: str
    fun: Callable
    options: tuple
    named: dict[str, Any]
    args: tuple
    keywords: dict[str, Any]
    calls: int = 0
    traced: int = 0

    def program(self, functions: Mapping[str, Callable]) -> Callable:
        """The derivative as a function of ``(args, keywords)``, taken with these functions instead of JAX's."""
        derive = functions[self.name]

        def run(args, keywords):
            if self.name not in AT_ONCE:
                return derive(self.fun, *self.options, **self.named)(*args, **keywords)
            found = derive(self.fun, *args, **self.named)
            if self.name == "jvp":
                return found
            seeds = tree_map(jax.numpy.ones_like, found[0] if self.name == "vjp" else args)
            return found[1](seeds) if self.name == "vjp" else found[1](*seeds)

        return run


@dataclass
class Watch:
    """The places that were met so far."""

    places: dict[Any, Place] = field(default_factory=dict)
    _inside: threading.local = field(default_factory=threading.local)

    def functions(self, theirs: Mapping[str, Callable]) -> dict[str, Callable]:
        """Functions that stand in the place of ``theirs``, do what these do, and note it."""
        return {name: (self._at_once if name in AT_ONCE else self._made)(name, f) for name, f in theirs.items()}

    def _made(self, name: str, theirs: Callable) -> Callable:
        @functools.wraps(theirs)
        def transform(fun, *options, **named):
            derivative = theirs(fun, *options, **named)
            here = _users_line()

            @functools.wraps(derivative)
            def call(*args, **keywords):
                place = (*here, name, fun, options, named, args, keywords)
                return self._noted(place, lambda: derivative(*args, **keywords))

            return call

        return transform

    def _at_once(self, name: str, theirs: Callable) -> Callable:
        @functools.wraps(theirs)
        def call(fun, *args, **named):
            place: tuple = (*_users_line(), name, fun, (), named, args, {})
            return self._noted(place, lambda: theirs(fun, *args, **named))

        return call

    def _noted(self, place: tuple, run: Callable) -> Any:
        """The derivative; it is noted unless it is taken inside of another one, whose cost includes it."""
        if getattr(self._inside, "depth", 0):
            return run()
        self._note(Place(*place))
        self._inside.depth = 1
        try:
            return run()
        finally:
            self._inside.depth = 0

    def _note(self, new: Place) -> None:
        leaves = tree_leaves((new.args, new.keywords))
        traced = any(isinstance(leaf, jc.Tracer) for leaf in leaves)
        types = tuple(map(_type, leaves))
        new.args, new.keywords = tree_map(_example, (new.args, new.keywords))
        key = (new.file, new.line, new.name, tree_structure((new.args, new.keywords)), types)
        known = self.places.setdefault(key, new)
        if known.calls == known.traced and not traced:  # now there are values
            known.args, known.keywords, known.fun = new.args, new.keywords, new.fun
        known.calls += 1
        known.traced += traced


def _type(leaf: Any) -> Any:
    try:
        aval = jc.typeof(leaf)
        return aval.shape, str(aval.dtype)
    except TypeError:
        return type(leaf)


def _example(leaf: Any) -> Any:
    """A value as it is; the type of a traced one, which does not outlive its trace."""
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) if isinstance(leaf, jc.Tracer) else leaf


def _users_line() -> tuple[str, int]:
    """The file and line of the innermost caller that belongs to no library; of the innermost one but us, else."""
    frame: Any = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_OURS):
        frame = frame.f_back
    nearest = frame
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith((*_LIBRARIES, _OURS, "<")):
            return file, frame.f_lineno
        frame = frame.f_back
    return (nearest.f_code.co_filename, nearest.f_lineno) if nearest is not None else ("unknown", 0)
