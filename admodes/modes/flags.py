"""Flags for the leaves of a tree, given by a tree of bools that has its outer containers.

Users say so which leaves they mean: True for all of an argument, ``{"w": True, "b": False}`` for a part of it.
"""

from __future__ import annotations

from typing import Any

from jax.tree_util import tree_flatten


def flags_of_leaves(flags, tree, name: str) -> list[bool]:
    """A flag for each leaf; a bool in the place of a container is that of all its leaves.

    Containers need only have as many children (dicts: the same keys): a tuple of bools may stand for a list or dict.
    Raises ValueError, where ``name`` is the argument with the flags.
    """
    if isinstance(flags, bool):
        return [flags] * tree.num_leaves
    children, given = tree_flatten(flags, is_leaf=lambda x: x is not flags)
    if children and children[0] is flags:
        raise ValueError(
            f"{name} must be a tree of bools (a tuple-tree of bools, say), but it holds {flags!r} of type "
            f"{type(flags).__name__}"
        )
    expected = tree.children()
    if not expected and tree.num_leaves:
        raise ValueError(f"{name} has the container {flags!r} where the value is a leaf: give a single bool for it")
    if len(children) != len(expected):
        raise ValueError(
            f"{name} has a container with {len(children)} children where the value has {len(expected)}; their number "
            "of children must be the same"
        )
    (kind, keys), (tree_kind, tree_keys) = given.node_data(), tree.node_data()  # type: ignore[attr-defined]
    if kind is tree_kind is dict and keys != tree_keys:
        raise ValueError(f"{name} has a dict with keys {keys} where the value has keys {tree_keys}")
    return [on for child, sub in zip(children, expected, strict=True) for on in flags_of_leaves(child, sub, name)]


def mirrored(leaves, tree) -> Any:
    """The leaves in lists, tuples and dicts as in the tree, with tuples in the place of other containers."""
    it = iter(leaves)

    def build(tree):
        data = tree.node_data()
        if data is None:
            return next(it)
        kind, keys = data
        children = [build(child) for child in tree.children()]
        if kind is type(None):
            return None
        return dict(zip(keys, children, strict=True)) if kind is dict else children if kind is list else tuple(children)

    return build(tree)
