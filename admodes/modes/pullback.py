"""What ``vjp`` returns: the tape with the calling conventions of JAX's pullback."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
from jax.tree_util import tree_flatten, tree_leaves, tree_unflatten

from admodes.modes import checks
from admodes.modes.tape import Tape
from admodes.program import jax_compat as jc


@jax.tree_util.register_pytree_node_class
class Pullback:
    """g ↦ gᵀ f'(x) at a fixed x, walking a tape backwards; a pytree, so that it can be returned from ``jit``.

    What the tape keeps is in two lists: ``args_res`` holds the arguments that are kept as they are (in the structure of
    the arguments, ``NotNeeded()`` for the others), ``opaque_residuals`` everything else. An entry of ``args_res`` may
    be emptied (``pullback.args_res[1] = None``) to save its memory, and must be put back before the pullback is called.

    >>> import admodes, jax.numpy as jnp
    >>> w = jnp.ones(3)
    >>> _, pullback = admodes.vjp(lambda x, w: x * w, jnp.arange(3.0), w)
    >>> pullback.args_res[1] = None
    >>> pullback.args_res[1] = 2 * w
    >>> pullback(w)[0].tolist()
    [2.0, 2.0, 2.0]
    """

    def __init__(self, tape: Tape, in_tree, out_tree, out_avals: tuple, name: str, arguments: Sequence = ()):
        self._about = in_tree, out_tree, out_avals, name, tape.domain
        self._tape: Tape | None = tape  # None: what it keeps is in the two lists
        self._arguments = [weakref.ref(x) if isinstance(x, jax.Array) else None for x in arguments]  # not kept alive
        self._args_res: list = []
        self._opaque: list = []
        self._sources: tuple = ()  # of each thing that the tape keeps: which argument it is, or None
        self._structure: Any = None  # that of the tape

    def tree_flatten(self):
        parts = self._tape if self._tape is not None else (self._args_res, self._opaque)
        return (parts,), (self._about, self._tape is not None, self._sources, self._structure)

    @classmethod
    def tree_unflatten(cls, static, parts):
        made = object.__new__(cls)
        made._about, whole, made._sources, made._structure = static
        made._arguments = []
        made._tape, (made._args_res, made._opaque) = (parts[0], ([], [])) if whole else (None, parts[0])
        return made

    @property
    def args_res(self) -> list:
        """The arguments that the tape keeps, each in its place; a list that may be changed."""
        self._divide()
        return self._args_res

    @args_res.setter
    def args_res(self, arguments) -> None:
        self._divide()
        self._args_res = list(arguments)

    @property
    def opaque_residuals(self) -> list:
        """What the tape keeps that is no argument."""
        self._divide()
        return self._opaque

    def _divide(self) -> None:
        """Put what the tape keeps into the two lists, in place of the tape."""
        if self._tape is None:
            return
        in_tree = self._about[0]
        kept, self._structure = tree_flatten(self._tape)
        arguments = [ref and ref() for ref in self._arguments] or [None] * in_tree.num_leaves
        place = {id(x): k for k, x in enumerate(arguments) if x is not None}
        self._sources = tuple(place.get(id(x)) for x in kept)
        needed = [x if k in self._sources else jc.NotNeeded() for k, x in enumerate(arguments)]
        self._args_res = list(tree_unflatten(in_tree, needed))
        self._opaque = [x for x, source in zip(kept, self._sources, strict=True) if source is None]
        self._tape = None

    @property
    def tape(self) -> Tape:
        """The tape, with whatever is in the two lists now."""
        if self._tape is not None:
            return self._tape
        in_tree = self._about[0]
        arguments = tree_leaves(tuple(self._args_res), is_leaf=lambda x: isinstance(x, jc.NotNeeded))
        if len(arguments) != in_tree.num_leaves:
            raise ValueError(f"args_res lacks arguments: put back what was taken out, in the structure {in_tree}")
        opaque = iter(self._opaque)
        kept = [next(opaque) if source is None else arguments[source] for source in self._sources]
        return tree_unflatten(self._structure, kept)

    def __call__(self, *cotangents):
        in_tree, *_, domain = self._about
        cts = zip(domain, self._pull(cotangents), strict=True)
        return tree_unflatten(in_tree, [jc.zeros(a) if ct is None else ct for a, ct in cts])

    def with_refs(self, *wanted) -> Callable:
        """The pullback that adds cotangents to references instead of returning them.

        Args:
          wanted: for each leaf of the arguments a reference (``jax.new_ref``), to which the cotangent is added;
            ``jax.ad.GradValue()``, for one that is returned; or ``jax.ad.DontWant()``.

        Returns:
          A function of a cotangent, which returns a tuple as the pullback does, with ``jax.ad.GradRef()`` where a
          reference was added to and ``jax.ad.DidntWant()`` where nothing was wanted.

        >>> import admodes, jax
        >>> total = jax.new_ref(jax.numpy.zeros(()))
        >>> for x in 1.0, 2.0:
        ...     _ = admodes.vjp(lambda x: x**2, x)[1].with_refs(total)(1.0)
        >>> float(total[...])
        6.0
        """
        in_tree, *_, domain = self._about
        flat, tree = tree_flatten(wanted)
        if tree != in_tree:
            raise ValueError(f"with_refs takes the structure of the arguments, {in_tree}, but got {tree}")
        for wish, aval in zip(flat, domain, strict=True):
            checks.wish(wish, aval)
        return partial(self._accumulate, flat)

    def _accumulate(self, wanted, *cotangents):
        in_tree, *_, domain = self._about
        cts = zip(wanted, self._pull(cotangents), domain, strict=True)
        return tree_unflatten(in_tree, [_granted(wish, ct, aval) for wish, ct, aval in cts])

    def _pull(self, cotangents) -> Sequence:
        """The cotangents of the leaves of the arguments; None for a zero."""
        _, out_tree, out_avals, name, _ = self._about
        if len(cotangents) != 1:
            raise TypeError(
                f"the function returned by admodes.vjp applied to {name} takes one argument, a cotangent with the "
                f"structure of the output (even if that is a tuple), but got {len(cotangents)} arguments. Pass them as "
                "one tuple."
            )
        flat, tree = tree_flatten(cotangents[0])
        if tree != out_tree:
            differences = "\n".join(
                f"  * out{jax.tree_util.keystr(path)} was a {was} in the original output, but a {now} here, so {why}."
                for path, was, now, why in jc.equality_errors_pytreedef(out_tree, tree)
            )
            raise ValueError(
                "unexpected tree structure.\n\nThe argument to a VJP function must match the pytree structure of the "
                f"output of the differentiated function {name}.\n\nBut the tree structures differ:\n{differences}"
            )
        flat = list(map(jc.canonicalize, flat))
        for aval, g in zip(out_avals, flat, strict=True):
            checks.cotangent(aval, g)
        gs = tuple(g if jc.is_differentiable(a) else None for a, g in zip(out_avals, flat, strict=True))
        return self.tape.pull(gs)


def _granted(wish, ct, aval):
    """What is returned for a cotangent (None: zero) of which ``wish`` is wanted."""
    if isinstance(wish, jc.DontWant):
        return jc.DidntWant()
    if isinstance(wish, jc.GradValue):
        return jc.zeros(aval) if ct is None else ct
    if ct is not None:
        jax.ref.addupdate(wish, ..., ct)
    return jc.GradRef()
