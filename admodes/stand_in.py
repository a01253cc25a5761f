"""``as_jax``: our differentiation in the place of JAX's, for a while, for code that is not to be touched."""

from __future__ import annotations

import functools
import inspect
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import _GeneratorContextManager, contextmanager
from contextvars import ContextVar
from types import ModuleType
from typing import Any

from admodes.compare import jax_ad
from admodes.planner.calls.hessian import hessian
from admodes.planner.calls.jacobian import jacobian
from admodes.transforms.forward import jacfwd, jvp, linearize
from admodes.transforms.reverse import grad, jacrev, value_and_grad, vjp

OPTIONS = ("nan_safe", "ties", "memory_limit")
JAX = {name: getattr(jax_ad, name) for name in jax_ad.NAMES}
_OURS = {f.__name__: f for f in (jvp, vjp, linearize, grad, value_and_grad, jacfwd, jacrev, jacobian, hessian)}
# which options each takes; hessian hands its own on to jacobian
_TAKES = {name: [o for o in OPTIONS if o in inspect.signature(f).parameters] for name, f in _OURS.items()}


class _Entered:
    """One ``with`` block: the functions that stand in JAX's place, and whether it is still open."""

    def __init__(self, functions: Mapping[str, Callable]):
        self.open = True
        self.functions = functions


_blocks: ContextVar[tuple[_Entered, ...]] = ContextVar("admodes.as_jax", default=())  # those of this thread
_lock = threading.RLock()
_open = 0  # blocks of all threads


def _dispatcher(name: str) -> Callable:
    """The functions that stand in the modules: ours in the innermost block that is open, JAX's where there is none."""
    theirs = JAX[name]

    @functools.wraps(theirs)
    def differentiate(*args, **kwargs):
        for block in reversed(_blocks.get()):
            if block.open:
                return block.functions[name](*args, **kwargs)
        return theirs(*args, **kwargs)

    return differentiate


_DISPATCHERS = {name: _dispatcher(name) for name in jax_ad.NAMES}


def _replace(old: dict[str, Callable], new: dict[str, Callable]) -> None:
    """Put ``new`` for ``old`` wherever a module's namespace holds it, whatever its name there.

    JAX's own modules (and ours) keep what they hold: JAX's rules are written for it. ``jax`` itself is the exception,
    since its attributes are what everybody looks up.
    """
    by_identity = {id(old[name]): new[name] for name in old}
    for name, module in list(sys.modules.items()):
        if name.startswith(("jax.", "jaxlib.", "admodes.")) or not isinstance(module, ModuleType):
            continue
        names = vars(module)
        if by_identity.keys().isdisjoint(map(id, list(names.values()))):  # nearly always: quicker than a loop
            continue
        for key, value in list(names.items()):
            if id(value) in by_identity:
                names[key] = by_identity[id(value)]


def as_jax(**options: Any) -> _GeneratorContextManager[None]:
    """Inside of ``with as_jax():``, JAX's differentiation is ours; as a decorator, in each call of the function.

    ``jax.grad``, ``value_and_grad``, ``jvp``, ``vjp``, ``linearize``, ``jacfwd``, ``jacrev``, ``jacobian`` and
    ``hessian`` are admodes' functions there: as attributes of ``jax``, which libraries look up when they are called
    (``flax.nnx.grad``, ``equinox.filter_grad``), and under whatever name a module imported them before (``from jax
    import grad as g``). The end of the block puts JAX's back, however it comes. Blocks nest, and may end in any order:
    the innermost that is open gives the options.

    Out of its reach are:

    - JAX's own modules below ``jax.`` keep the functions that they imported (``jax.scipy.optimize.minimize``
      differentiates as ever); where they look up ``jax.vjp``, as ``jax.experimental.ode`` does, they get ours.
    - Functions made before stay what they are: ``g = jax.grad(f)`` outside of the block is JAX's inside too, and so is
    a
      ``functools.partial(jax.grad)``, a default argument or a class attribute. Functions made inside stay ours outside.
    - ``jax.jit`` keeps what it traced. A function that was traced before the block runs as it was traced; one that is
      first traced inside keeps our derivatives after it. Both have the same values, to rounding (not with ``nan_safe``
      and ``ties``). To have it traced anew: ``f.clear_cache()`` on what ``jax.jit`` returned, or
      ``jax.clear_caches()``.
    - Other threads have JAX's functions, unless they enter a block of their own: a block belongs to its thread (to its
      context, for asyncio), as JAX's own configuration contexts do.
    - :func:`admodes.compare` and :func:`admodes.verify` compare with JAX's functions, inside as outside.

    Args:
      options: ``nan_safe``, ``ties`` and ``memory_limit``, as in :func:`admodes.grad`; each goes to the functions that
        take it (``nan_safe`` and ``ties``: all of them;
        ``memory_limit``: grad, value_and_grad, jacobian, hessian).

    Returns:
      A context manager, which is a decorator too.

    Raises:
      TypeError: an option that does not exist.
      ValueError: an option with a value that it cannot have.

    >>> import admodes, jax
    >>> with admodes.as_jax(ties="average"):
    ...     float(jax.grad(lambda x: jax.numpy.where(x > 0, x, 0.0))(1.0))
    1.0
    >>> @admodes.as_jax()
    ... def slope(x):
    ...     return jax.grad(jax.numpy.sin)(x)
    >>> float(slope(0.0))
    1.0
    """
    for name in options:
        if name not in OPTIONS:
            raise TypeError(f"as_jax has no option {name!r}: there are {', '.join(OPTIONS)}")
    value_and_grad(lambda x: x, **options)  # looks at their values
    return in_place(ours(**options))


def ours(**options: Any) -> dict[str, Callable]:
    """Our functions by the names of JAX's, each with the options that it takes."""
    return {
        name: functools.partial(f, **{o: options[o] for o in _TAKES[name] if o in options}) for name, f in _OURS.items()
    }


@contextmanager
def in_place(functions: Mapping[str, Callable]) -> Iterator[None]:
    """Inside, these functions stand in the place of JAX's of the same names (all of ``JAX``)."""
    global _open
    block = _Entered(functions)
    with _lock:
        if _open == 0:
            _replace(JAX, _DISPATCHERS)
        _open += 1
    _blocks.set((*_blocks.get(), block))
    try:
        yield
    finally:
        block.open = False
        _blocks.set(tuple(b for b in _blocks.get() if b.open))
        with _lock:
            _open -= 1
            if _open == 0:
                _replace(_DISPATCHERS, JAX)
