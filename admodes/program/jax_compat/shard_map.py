"""shard_map: its per-device function, and binding it to another one."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jax import lax
from jax._src import shard_map
from jax._src.shard_map import shard_map_p as shard_map_p

from admodes.program.jax_compat.contacts import contact
from admodes.program.jax_compat.values import typeof

flatten_tree = contact("flatten_tree") or contact("FlatTree").flatten


class LocalFunction:
    """The per-device function of a shard_map, on flat values; ``out_specs`` is known once it has run."""

    def __init__(self, params):
        (self.fun,) = params["subfuns"]
        self.out_specs: list = []

    def __call__(self, *args) -> list:
        outs, specs = self.fun(*args).unpack_aux()
        self.out_specs = list(specs)
        return list(outs)


def cotangent_spec(spec):
    """The layout of the cotangent of a value with this spec."""
    return spec.to_ct_spec()


@dataclass(frozen=True)
class ShardMap:
    """The static part of a shard_map: the mesh, and how operands are laid out on it."""

    mesh: Any
    in_specs: tuple
    check_vma: bool
    newly_manual_axes: frozenset
    names: tuple  # the mesh axes that become manual: known outside of the per-device function only
    debug_info: Any = field(compare=False)

    @staticmethod
    def of(params) -> ShardMap:
        info = params["debug_info"].with_unknown_names()
        mesh, manual = params["mesh"], params["newly_manual_axes"]
        names = shard_map._all_newly_manual_mesh_names(mesh, manual)
        return ShardMap(mesh, tuple(params["in_specs"]), params["check_vma"], manual, names, info)

    def bind(self, fun, args, in_specs) -> list:
        """Run ``fun``, which returns (flat list, specs of its entries), on each device."""

        def flat(*xs):
            outs, specs = fun(*xs)
            return flatten_tree(outs).with_aux(tuple(specs))

        outs = shard_map_p.bind(
            *args,
            subfuns=(flat,),
            mesh=self.mesh,
            in_specs=tuple(in_specs),
            check_vma=self.check_vma,
            newly_manual_axes=self.newly_manual_axes,
            debug_info=self.debug_info,
        )
        return list(outs)

    def per_device_spec(self, x):
        """The spec that lays values that differ by device along a leading axis."""
        return typeof(x).nospec(self.mesh, self.check_vma, self.names)

    def _copies(self, spec) -> tuple:
        """The mesh axes along which a value with this spec is replicated."""
        return tuple(shard_map._unmentioned2(self.mesh, spec, self.newly_manual_axes))

    def is_tracked(self, spec) -> bool:
        """True if copies of a value with this spec are known to be the same (or there are none)."""
        return self.check_vma or not self._copies(spec)

    def divide_by_copies(self, g, spec):
        """Without replication tracking, each copy of a replicated result gets its share of the cotangent."""
        if self.is_tracked(spec):
            return g
        copies = math.prod(self.mesh.shape[name] for name in self._copies(spec))
        return lax.div(g, np.array(copies, g.dtype))

    def sum_over_copies(self, ct, spec):
        """Without replication tracking, the cotangent of a replicated operand is the sum over its copies."""
        return ct if self.is_tracked(spec) else lax.psum(ct, self._copies(spec))
