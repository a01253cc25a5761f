"""Problems: a function with what is known of it, and the table of all of them."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from numpy.typing import DTypeLike

from admodes.errors import UnknownProblemError
from admodes.text_tables import Brief


@dataclass(frozen=True, repr=False)
class Problem(Brief):
    """A function of some field, a point to differentiate it at, and what its Jacobian looks like.

    ``inputs`` and ``outputs`` count the scalars that are differentiated and that come out, at the default sizes.
    ``argnums`` are the positional arguments to differentiate (the others are data).
    """

    name: str
    summary: str
    field: str
    inputs: int
    outputs: int
    argnums: int | tuple[int, ...]
    build: Callable[..., Any]

    def make(
        self, dtype: DTypeLike = np.float32, seed: int = 0, **sizes: int
    ) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """The function and its arguments, the same for the same ``dtype`` and ``seed``; ``sizes`` as in ``self.sizes``.

        >>> import admodes
        >>> from admodes import problems
        >>> f, args = problems.get("speelpenning").make(n=3)
        >>> float(f(*args)) == float(args[0][0] * args[0][1] * args[0][2])
        True
        """
        dtype = np.dtype(dtype)
        if jax.dtypes.canonicalize_dtype(dtype) != dtype:
            raise ValueError(
                f"the problem '{self.name}' was asked for in {dtype.name}, but JAX has 64-bit types switched off. "
                "Switch them on first: jax.config.update('jax_enable_x64', True), or set JAX_ENABLE_X64=1."
            )
        unknown = set(sizes) - set(self.sizes)
        if unknown:
            known = ", ".join(self.sizes) or "none"
            raise TypeError(f"the problem '{self.name}' has no size {', '.join(sorted(unknown))}; it has: {known}.")
        fun, args = self.build(dtype, np.random.default_rng(seed), **sizes)
        return fun, jax.tree_util.tree_map(jax.numpy.asarray, args)

    @property
    def sizes(self) -> dict[str, Any]:
        """The sizes that ``make`` takes as keywords, with their defaults."""
        parameters = list(inspect.signature(self.build).parameters.values())[2:]
        return {p.name: p.default for p in parameters}

    @property
    def description(self) -> str:
        """The mathematics of the problem and its source in the literature."""
        return inspect.getdoc(self.build) or ""


_PROBLEMS: dict[str, Problem] = {}


def problem(*, summary: str, field: str, inputs: int, outputs: int, argnums: int | tuple[int, ...] = 0) -> Callable:
    """Enter a function ``build(dtype, rng, **sizes) -> (fun, args)`` of numpy arrays as the problem of that name."""

    def enter(build):
        _PROBLEMS[build.__name__] = Problem(build.__name__, summary, field, inputs, outputs, argnums, build)
        return build

    return enter


def names() -> list[str]:
    """The names of all problems, sorted."""
    return sorted(_PROBLEMS)


def all() -> list[Problem]:
    """All problems, by name."""
    return [_PROBLEMS[name] for name in names()]


def get(name: str) -> Problem:
    """The problem of that name.

    Raises:
      UnknownProblemError: there is none; the message names the ones that are spelt alike.

    >>> from admodes import problems
    >>> problems.get("roe_flux").outputs
    3
    """
    try:
        return _PROBLEMS[name]
    except KeyError:
        close = difflib.get_close_matches(str(name), names(), n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(map(repr, close))}? " if close else ""
        raise UnknownProblemError(f"there is no problem {name!r}. {hint}`admodes list` shows all of them.") from None
