"""shard_map: the derivative of a per-device program is a per-device program.

Residuals stay on the device that made them: each gets a leading axis over the devices when the forward
sweep returns it, and loses it again on the way back.
"""

from __future__ import annotations

from typing import Any

import jax
from jax import lax

from admodes.linear import logs
from admodes.linear.maps import LinearMap, linear_map, static
from admodes.program import jax_compat as jc
from admodes.program.derived import keep, merge, present
from admodes.rules.table import HigherOrderRule, higher_order
from admodes.subprograms.control import keep_slots


class ShardMapRule(HigherOrderRule):
    def push(self, interpreter, primitive, primals, tangents, params):
        fun, mesh = jc.LocalFunction(params), jc.ShardMap.of(params)
        active, n = present(tangents), len(primals)
        found: list = []

        def local(*args):
            outs, ts = interpreter.push_function(fun, args[:n], merge(active, args[n:]))
            found[:] = present(ts)
            return [*outs, *keep(found, ts)], [*fun.out_specs, *keep(found, fun.out_specs)]

        specs = [*mesh.in_specs, *keep(active, mesh.in_specs)]
        flat = mesh.bind(local, [*primals, *keep(active, tangents)], specs)
        return flat[: len(found)], merge(found, flat[len(found) :])

    def record(self, interpreter, recorder, primitive, primals, slots, params):
        fun, mesh = jc.LocalFunction(params), jc.ShardMap.of(params)
        active = present(slots)
        found: dict[str, Any] = {}

        def local(*args):
            outs, tape = interpreter.record_function(fun, args, active, linear=recorder.linear)
            leaves, tree = jax.tree_util.tree_flatten(tape)
            places = {id(x): ("output", j) for j, x in enumerate(outs) if mesh.is_tracked(fun.out_specs[j])}
            places |= {id(x): ("input", i) for i, x in enumerate(args)}
            own: list = []
            for x in leaves:
                if id(x) not in places:
                    places[id(x)] = ("own", len(own))
                    own.append(x)
            specs, scalars = [mesh.per_device_spec(x) for x in own], [jc.typeof(x).ndim == 0 for x in own]
            sources = [places[id(x)] for x in leaves]
            found.update(tree=tree, sources=sources, specs=specs, scalars=scalars, active=present(tape.outputs))
            lifted = [lax.broadcast(x, (1,)) if scalar else x for x, scalar in zip(own, scalars, strict=True)]
            return [*outs, *lifted], [*fun.out_specs, *specs]

        flat = mesh.bind(local, primals, mesh.in_specs)
        outs, own = flat[: len(found["active"])], flat[len(found["active"]) :]
        values = {"input": primals, "output": outs, "own": own}
        specs = {"input": mesh.in_specs, "output": fun.out_specs, "own": found["specs"]}
        kept = list(dict.fromkeys(found["sources"]))
        linear = ShardMapped(
            tuple(values[kind][k] for kind, k in kept),
            found["tree"],
            tuple(map(kept.index, found["sources"])),
            tuple(specs[kind][k] for kind, k in kept),
            tuple(kind == "own" and found["scalars"][k] for kind, k in kept),
            mesh,
            tuple(fun.out_specs),
            active,
            tuple(map(jc.typeof, primals)),
            tuple(map(jc.typeof, outs)),
        )
        return outs, keep_slots(found["active"], recorder.append(slots, lambda: linear, outs))


@linear_map
class ShardMapped(LinearMap):
    """The Jacobian of a shard_map: one tape per device.

    A residual that is an operand or a result of the shard_map is not kept a second time; ``places`` says which of the
    ``residuals`` each leaf of the tape is.
    """

    residuals: tuple
    tree: Any = static()
    places: tuple = static()
    specs: tuple = static()
    scalars: tuple = static()
    mesh: Any = static()
    out_specs: tuple = static()
    active: tuple = static()
    domain: tuple = static()
    codomain: tuple = static()

    def push(self, tangents):
        return self._walk("push", tangents, self.mesh.in_specs, self.out_specs)

    def pull(self, cotangents):
        in_specs = [jc.cotangent_spec(s) for s in self.mesh.in_specs]
        out_specs = [jc.cotangent_spec(s) for s in self.out_specs]
        shared = [
            None if g is None else self.mesh.divide_by_copies(g, s) for g, s in zip(cotangents, out_specs, strict=True)
        ]
        return self._walk("pull", tuple(shared), out_specs, in_specs)

    def _walk(self, direction, seeds, seed_specs, result_specs):
        given = present(seeds)
        if not any(given):
            return (None,) * len(result_specs)
        n = len(self.residuals)
        found: list = []

        def local(*args):
            residuals = [
                lax.squeeze(r, (0,)) if scalar else r for r, scalar in zip(args[:n], self.scalars, strict=True)
            ]
            tape = jax.tree_util.tree_unflatten(self.tree, [residuals[k] for k in self.places])
            walk = logs.refusing(getattr(tape, direction), "shard_map", logs.wanted())
            results = walk(merge(given, args[n:]))
            if direction == "pull":
                results = [
                    None if ct is None or not on else self.mesh.sum_over_copies(ct, spec)
                    for ct, spec, on in zip(results, result_specs, self.active, strict=True)
                ]
            found[:] = present(results)
            return keep(found, results), keep(found, result_specs)

        flat = self.mesh.bind(local, [*self.residuals, *keep(given, seeds)], [*self.specs, *keep(given, seed_specs)])
        return merge(found, flat)


higher_order(jc.shard_map_p, ShardMapRule(), cost="elementwise")
