"""The pullback of a function at a point, as :func:`admodes.vjp` returns it.

It is the tape with the structure of inputs and outputs around it, and can do all that JAX's can.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
from jax.tree_util import Partial, tree_flatten, tree_leaves, tree_unflatten

from admodes.linear.algebra import LinearMap, structured
from admodes.linear.logs import page
from admodes.modes import checks
from admodes.modes.flags import mirrored
from admodes.modes.tape import Tape
from admodes.program import jax_compat as jc
from admodes.text_tables import clipped

WANTED: Any = jax.ad  # JAX's words for what with_refs does with a cotangent


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class NotNeeded:
    """In the place of an argument that the pullback does not need."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class NotSaveable:
    """In the place of an argument that the pullback needs, but was told not to keep (``saveable_args``)."""


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["args_res", "opaque_residuals", "point"],
    meta_fields=[
        "sources",
        "references",
        "tape_tree",
        "in_tree",
        "out_tree",
        "out_avals",
        "name",
        "want_logs",
        "settle",
    ],
)
@dataclass(eq=False, repr=False)
class Pullback:
    """g ↦ gᵀ f'(x) at a fixed x, walking a tape backwards; a pytree, so that it can be returned from ``jit``.

    The tape keeps residuals: ``args_res``, those that are leaves of the arguments (with tuples in the
    place of other containers, and :class:`NotNeeded` or :class:`NotSaveable` for the leaves that are not kept), and
    ``opaque_residuals``, the others. Both lists may be written to: an argument that was not stored, say, may be put
    back before the call. ``references`` are the places of leaves that are references: the tape is on what they hold.
    ``settle`` says what replaces entries that are not finite, at the ``point`` (leaves); ``map`` has them as they are.
    """

    args_res: list[Any]
    opaque_residuals: list[Any]
    sources: tuple[tuple[bool, int], ...]
    references: tuple[int, ...]
    tape_tree: Any
    in_tree: Any
    out_tree: Any
    out_avals: tuple[Any, ...]
    name: str
    want_logs: bool = False
    point: tuple[Any, ...] = ()
    settle: Any = None  # (point, tape -> cotangents, cotangents) -> cotangents

    @staticmethod
    def of(
        tape: Tape,
        arguments: Sequence[Any],
        saveable: Sequence[bool],
        references: tuple[int, ...],
        in_tree: Any,
        out_tree: Any,
        out_avals: tuple[Any, ...],
        name: str,
    ) -> Pullback:
        """The pullback along a tape; ``arguments`` are the leaves of the arguments."""
        residuals, tape_tree = tree_flatten(tape)
        places = {id(x): i for i, x in reversed(list(enumerate(arguments))) if not jc.is_number(x)}
        sources: list = []
        opaque: list = []
        for x in residuals:
            place = places.get(id(x))
            sources.append((True, place) if place is not None else (False, len(opaque)))
            if place is None:
                opaque.append(x)
        needed = {i for is_argument, i in sources if is_argument}
        kept = [
            NotNeeded() if i not in needed else x if may else NotSaveable()
            for i, (x, may) in enumerate(zip(arguments, saveable, strict=True))
        ]
        args_res = list(in_tree.walk(lambda xs, _: tuple(xs), lambda x: x, kept))
        return Pullback(args_res, opaque, tuple(sources), references, tape_tree, in_tree, out_tree, out_avals, name)

    @property
    def tape(self) -> Tape:
        """The tape with its residuals."""
        arguments = tree_leaves(self.args_res, is_leaf=lambda x: isinstance(x, (NotNeeded, NotSaveable)))
        missing = {i for own, i in self.sources if own and isinstance(arguments[i], NotSaveable)}
        if missing:
            raise ValueError(
                f"the pullback of {self.name} was told not to keep arguments that it needs (saveable_args): put back, "
                f"by writing to its args_res, the not-saveable {', '.join(map(self._place, sorted(missing)))}"
            )
        return tree_unflatten(
            self.tape_tree, [(arguments if own else self.opaque_residuals)[i] for own, i in self.sources]
        )

    def _place(self, i: int) -> str:
        """The argument that leaf ``i`` is."""
        paths = jax.tree_util.tree_flatten_with_path(tree_unflatten(self.in_tree, range(self.in_tree.num_leaves)))[0]
        return f"args{jax.tree_util.keystr(paths[i][0])}"

    @property
    def out_nzs(self) -> Any:
        """Bools in the place of the leaves of the output: True where it depends on what is differentiated."""
        slots = self._structure.outputs[: self.out_tree.num_leaves]
        return mirrored([s is not None for s in slots], self.out_tree)

    @property
    def _structure(self) -> Tape:
        """The tape, with numbers in the place of its residuals."""
        return tree_unflatten(self.tape_tree, range(self.tape_tree.num_leaves))

    @property
    def map(self) -> LinearMap:
        """f'(x) as a linear map, of which this is the transpose; of several arguments it takes a tuple."""
        return structured(self.tape, self.in_tree, self.out_tree)

    def __repr__(self) -> str:
        return clipped(f"Pullback({clipped(self.name, 20)}, {self.map.T.types})")

    @property
    def jaxpr(self) -> Any:
        """The linearised program ẋ ↦ f'(x) ẋ (of the leaves, where these carry derivatives) as a jaxpr.

        Its constants are the residuals.
        """
        tape = self.tape
        on = [jc.is_differentiable(a) for a in tape.domain]

        def push(*tangents):
            given = iter(tangents)
            outs = tape.push(tuple(next(given) if active else None for active in on))
            return [jc.zeros(a) if t is None else t for a, t in zip(self.out_avals, outs, strict=True)]

        avals = [jc.tangent_aval(a) for a, active in zip(tape.domain, on, strict=True) if active]
        return jc.trace_flat(push, avals, self.name).jaxpr

    def __call__(self, *cotangents: Any) -> Any:
        if len(cotangents) != 1:
            raise TypeError(
                f"the function returned by admodes.vjp applied to {self.name} takes one argument, a cotangent with the "
                f"structure of the output (even if that is a tuple), but got {len(cotangents)} arguments. Pass them as "
                "one tuple."
            )
        if self.references:
            raise ValueError(
                f"{self._place(self.references[0])} of {self.name} is a mutable reference, which has no cotangent as a "
                "value: give a reference to which its gradient is added, pullback.with_refs(ref)(cotangent), or "
                "jax.ad.DontWant()"
            )
        return self._result(*self._pull(cotangents[0]))

    @property
    def with_logs(self) -> Pullback:
        """The pullback that returns a pair: the cotangents, and a dict of the entries logged on the way.

        Entries come from the backward rules of functions with ``defvjp_with_logs`` (JAX 0.11 and newer). Entries of a
        loop are stacked. Two entries of one key raise ValueError; entries inside of ``cond``, ``shard_map`` and of
        loops in bounded memory raise NotImplementedError.
        """
        return replace(self, want_logs=True)

    def _result(self, cts: Sequence, logs: dict):
        found = tree_unflatten(self.in_tree, cts)
        return (found, logs) if self.want_logs else found

    def with_refs(self, *refs: Any) -> Partial:
        """The pullback that adds gradients to mutable references.

        Args:
          refs: for each leaf of the arguments (in their structure) a reference, to which its cotangent is added (and
            ``jax.ad.GradRef()`` returned for it); ``jax.ad.GradValue()`` where the cotangent itself is to be returned;
            or ``jax.ad.DontWant()`` where it is not wanted (``jax.ad.DidntWant()`` is returned).

        Returns:
          A function of one cotangent of the output, as the pullback is.

        >>> import admodes, jax, jax.numpy as jnp
        >>> total = jax.new_ref(jnp.zeros(2))
        >>> _, pullback = admodes.vjp(jnp.sum, jnp.ones(2))
        >>> _ = pullback.with_refs(total)(3.0)
        >>> total[...].tolist()
        [3.0, 3.0]
        """
        flat, tree = tree_flatten(refs)
        if tree != self.in_tree:
            differences = "\n".join(
                f"  * args{jax.tree_util.keystr(path)} was a {was} in the arguments, but a {now} here, so {why}."
                for path, was, now, why in jc.equality_errors_pytreedef(self.in_tree, tree)
            )
            raise ValueError(
                f"with_refs takes references in the structure of the arguments of {self.name}, with "
                "jax.ad.GradValue() or jax.ad.DontWant() where there is none.\n\nBut the tree structures differ:\n"
                f"{differences}"
            )
        for i, (ref, aval) in enumerate(zip(flat, self._structure.domain, strict=True)):
            self._check_ref(i, ref, jc.cotangent_aval(aval))
        return Partial(_accumulate, self, flat)

    def _check_ref(self, i: int, ref, expected) -> None:
        """Raise an error if ``ref`` cannot take up the cotangent of leaf ``i``."""
        if isinstance(ref, WANTED.DontWant):
            return
        if isinstance(ref, WANTED.GradValue):
            if i in self.references:
                raise ValueError(
                    f"{self._place(i)} of {self.name} is a mutable reference, whose gradient can't be returned as a "
                    "value: give a reference to which it is added, or jax.ad.DontWant()"
                )
            return
        if not jc.is_value(ref) or not jc.is_reference(jc.typeof(ref)):
            raise TypeError(f"with_refs takes references, jax.ad.GradValue() and jax.ad.DontWant(), not {ref!r}")
        content = jc.typeof(ref).inner_aval
        if getattr(expected, "dtype", None) != jc.float0 and not jc.same_type(content, expected):
            raise ValueError(
                f"a reference to {content} cannot take up a cotangent of type {expected}, that of {self._place(i)} of "
                f"{self.name}"
            )

    def _pull(self, cotangent, contents: Sequence = ()) -> tuple[list, dict]:
        """The cotangents of the leaves of the arguments, and the logs if they are wanted.

        ``contents`` are the cotangents of what the references among the arguments hold in the end (None if zero).
        """
        flat, tree = tree_flatten(cotangent)
        if tree != self.out_tree:
            differences = "\n".join(
                f"  * out{jax.tree_util.keystr(path)} was a {was} in the original output, but a {now} here, so {why}."
                for path, was, now, why in jc.equality_errors_pytreedef(self.out_tree, tree)
            )
            raise ValueError(
                "unexpected tree structure.\n\nThe argument to a VJP function must match the pytree structure of the "
                f"output of the differentiated function {self.name}.\n\nBut the tree structures differ:\n{differences}"
            )
        flat = list(map(jc.canonicalize, flat))
        for aval, g in zip(self.out_avals, flat, strict=True):
            checks.cotangent(aval, g)
        gs = tuple(g if jc.is_differentiable(a) else None for a, g in zip(self.out_avals, flat, strict=True))
        tape = self.tape
        with page({} if self.want_logs else None) as logs:
            cts = tape.pull((*gs, *contents))
        if self.settle is not None:
            cts = self.settle(self.point, lambda tape: tape.pull((*gs, *contents)), cts)
        return [jc.cotangent_zeros(a) if ct is None else ct for a, ct in zip(tape.domain, cts, strict=True)], logs or {}


def _accumulate(pullback: Pullback, refs: Sequence, cotangent):
    places = pullback.references
    contents = [None if isinstance(refs[i], WANTED.DontWant) else refs[i][...] for i in places]
    cts, logs = pullback._pull(cotangent, contents)
    results = [_delivered(ref, ct, i in places) for i, (ref, ct) in enumerate(zip(refs, cts, strict=True))]
    return pullback._result(results, logs)


def _delivered(ref, ct, replaced: bool):
    """The cotangent where it was asked for: returned, added to a reference (or in its content's place), or nowhere."""
    if isinstance(ref, WANTED.GradValue):
        return ct
    if isinstance(ref, WANTED.DontWant):
        return WANTED.DidntWant()
    if jc.dtype_of(ct) != jc.float0:
        (jax.ref.set if replaced else jax.ref.addupdate)(ref, ..., ct)
    return WANTED.GradRef()
