"""Meshes of devices: which one types name, and how values are laid out on it."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
from jax import lax
from jax._src import core
from jax._src import mesh as mesh_lib


def mesh_of(aval) -> tuple:
    """The mesh that the type of an array names, and how it is laid out there; empty if none."""
    mesh = getattr(getattr(aval, "sharding", None), "mesh", None)
    return () if mesh is None or mesh.empty else (str(aval.sharding),)


def placed(x):
    """The type of a value, with the devices that it is on as far as these are known: what a program is compiled for.

    Where only types of arrays are known (below a ``jit``), those on automatic axes of a mesh count as whole on each.
    """
    aval = x if isinstance(x, core.ShapedArray) else core.typeof(x)
    own = x.sharding if isinstance(x, jax.Array) and not isinstance(x, core.Tracer) else None
    if not isinstance(aval, core.ShapedArray) or jax.sharding.AxisType.Manual in aval.sharding.mesh.axis_types:
        return aval
    if not isinstance(own, jax.sharding.NamedSharding):
        abstract = aval.sharding.mesh
        own = None if abstract.empty else jax.sharding.NamedSharding(_mesh_like(abstract), aval.sharding.spec)
    return jax.ShapeDtypeStruct(aval.shape, aval.dtype, sharding=own, weak_type=aval.weak_type)


def split_batch(x, mesh: jax.sharding.Mesh, avals: Sequence):
    """``x`` with its leading axis split over the devices of ``mesh``, in a program with values of types ``avals``.

    If these are on explicit axes, it is split over those of the axes that no type uses.
    """
    axes, spec = tuple(mesh.axis_names), core.typeof(x).sharding.spec
    own = explicit_mesh(avals)
    if own is None:
        layout = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(axes))
        return lax.with_sharding_constraint(x, layout)
    taken = frozenset().union(*map(_axes_of, avals))
    kinds = dict(zip(own.axis_names, own.axis_types, strict=True))
    explicit = (a for a in axes if kinds.get(a) == jax.sharding.AxisType.Explicit and own.shape[a] == mesh.shape[a])
    free = tuple(a for a in explicit if a not in taken)
    layout = jax.sharding.NamedSharding(own, jax.sharding.PartitionSpec(free or None, *spec[1:]))
    return jax.sharding.reshard(x, layout)


def explicit_mesh(avals: Sequence):
    """The mesh with explicit axes that types name, or that is set; None if there is none."""
    meshes = [a.sharding.mesh for a in avals if isinstance(a, core.ShapedArray)]
    meshes.append(jax.sharding.get_abstract_mesh())
    return next((m for m in meshes if jax.sharding.AxisType.Explicit in m.axis_types), None)


def whole(x, axes: int | None = None):
    """``x`` with its first axes (by default all) whole on each device, where its type says that they are split."""
    sharding = core.typeof(x).sharding
    cut = x.ndim if axes is None else axes
    if all(axis is None for axis in sharding.spec[:cut]):
        return x
    spec = jax.sharding.PartitionSpec(*(None for _ in range(cut)), *sharding.spec[cut:])
    return jax.sharding.reshard(x, sharding.update(spec=spec))


def _axes_of(aval) -> frozenset:
    """The axes of a mesh that the type of an array uses."""
    if not isinstance(aval, core.ShapedArray):
        return frozenset()
    names = (axis if isinstance(axis, tuple) else (axis,) for axis in aval.sharding.spec if axis is not None)
    return frozenset(name for group in names for name in group)


def is_here(x) -> bool:
    """True if this process can read all entries of an array."""
    return not isinstance(x, jax.Array) or x.is_fully_addressable or x.is_fully_replicated


def without_mesh():
    """A context in which new arrays have types that name no mesh."""
    return mesh_lib.use_abstract_mesh(mesh_lib.empty_abstract_mesh)


def _mesh_like(abstract) -> jax.sharding.Mesh:
    """The mesh that is set, if it is like this one, else one of the first devices."""
    current = mesh_lib.get_concrete_mesh()
    if current is not None and not current.empty and current.abstract_mesh == abstract:
        return current
    devices = np.array(jax.devices()[: abstract.size]).reshape(abstract.axis_sizes)
    return jax.sharding.Mesh(devices, abstract.axis_names, axis_types=abstract.axis_types)
