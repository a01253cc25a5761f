"""The parts of loops and branches: what takes apart the parameters of ``scan``, ``while`` and ``cond``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax

from admodes.program.jax_compat.contacts import contact
from admodes.program.jax_compat.functions import substituted
from admodes.program.jax_compat.hijax import call_hi_primitive_p, stands_for
from admodes.program.jax_compat.jaxprs import ClosedJaxpr, close_jaxpr, trace_flat
from admodes.program.jax_compat.primitives import scan_p, while_p

pack_trees, tree_of_nones = contact("pack_trees"), contact("tree_of_nones")


@dataclass(frozen=True)
class ScanLoop:
    """A loop of known length: its operands are constants, carries and scanned inputs, in this order.

    The body is not part of it, so that a cache may be keyed by a body and its loop without keeping the body alive.
    """

    n_consts: int
    n_carry: int
    length: int
    reverse: bool = False
    unroll: int = 1

    def split(self, values) -> tuple[tuple, tuple, tuple]:
        """(constants, carries, scanned inputs)."""
        a, b = self.n_consts, self.n_consts + self.n_carry
        return tuple(values[:a]), tuple(values[a:b]), tuple(values[b:])

    def bind(self, body, consts, carry, xs, reverse=None) -> tuple[Any, Any]:
        """Run a scan of this length over ``body``: (carries, stacked outputs)."""
        groups = _groups(len(consts), len(carry), len(xs), len(body.out_avals) - len(carry))
        flat = scan_p.bind(
            *consts,
            *carry,
            *xs,
            jaxpr=body,
            length=self.length,
            reverse=self.reverse if reverse is None else reverse,
            unroll=self.unroll,
            **groups,
        )
        return flat[: len(carry)], flat[len(carry) :]


def _groups(n_consts: int, n_carry: int, n_xs: int, n_ys: int) -> dict[str, Any]:
    """The parameters that say how the operands and results of a scan divide."""
    if pack_trees is None:
        return {"num_consts": n_consts, "num_carry": n_carry}
    nones = lambda *sizes: pack_trees(tuple(map(tree_of_nones, sizes)))
    return {"ft_in": nones(n_consts, n_carry, n_xs), "ft_out": nones(n_carry, n_ys)}


def scan_parts(params) -> tuple[ScanLoop, ClosedJaxpr]:
    """A scan by its parameters: the loop, and its body (constants, carries, slices) -> (carries, outputs)."""
    if "ft_in" in params:
        consts, carry, _ = map(len, params["ft_in"].unpack())
    else:
        consts, carry = params["num_consts"], params["num_carry"]
    loop = ScanLoop(consts, carry, params["length"], params["reverse"], params["unroll"])
    return loop, close_jaxpr(params["jaxpr"])


@dataclass(frozen=True)
class WhileLoop:
    """A loop that runs while ``cond`` holds.

    Its operands are constants of the condition, constants of the body, and carries.
    """

    n_cond: int
    n_body: int
    cond: Any
    body: Any

    def split(self, values) -> tuple[tuple, tuple, tuple]:
        """(constants of the condition, constants of the body, carries)."""
        a, b = self.n_cond, self.n_cond + self.n_body
        return tuple(values[:a]), tuple(values[a:b]), tuple(values[b:])

    @property
    def steps(self) -> ScanLoop:
        """The body as that of a scan without scanned inputs."""
        return ScanLoop(self.n_body, len(self.body.out_avals), 0)

    def bind(self, cond_consts, body_consts, carry) -> list:
        """Run the loop: the carries at its end."""
        return while_p.bind(*cond_consts, *body_consts, *carry, **self.params)

    @property
    def params(self) -> dict[str, Any]:
        """The parameters of the equation."""
        return {
            "cond_nconsts": self.n_cond,
            "cond_jaxpr": self.cond,
            "body_nconsts": self.n_body,
            "body_jaxpr": self.body,
        }


def while_parts(params) -> WhileLoop:
    """A while loop by its parameters."""
    cond, body = close_jaxpr(params["cond_jaxpr"]), close_jaxpr(params["body_jaxpr"])
    return WhileLoop(params["cond_nconsts"], params["body_nconsts"], cond, body)


def branches(params) -> tuple[ClosedJaxpr, ...]:
    """The branches of a cond, which take all operands but the first, the index."""
    return tuple(map(close_jaxpr, params["branches"]))


EVALUATED = "jaxpr" if jax.__version_info__ < (0, 11) else "call_jaxpr"  # eval_jaxpr's parameter
INLINED = {"closed_call": "call_jaxpr", "core_call": "call_jaxpr", "eval_jaxpr": EVALUATED, "jit": "jaxpr"}


def inlined(equation) -> ClosedJaxpr | None:
    """The program that may be put in the place of an equation (the sub-program of a call, what an object stands for);
    or None."""
    if equation.primitive is call_hi_primitive_p:
        prim = equation.params["_prim"]
        rewritten = stands_for(prim)
        return None if rewritten is None else trace_flat(rewritten, prim.in_avals_flat, type(prim).__name__)
    name = INLINED.get(equation.primitive.name)
    if name is None:
        return None
    return substituted(close_jaxpr(equation.params[name]))


def subprograms(params) -> Sequence[ClosedJaxpr]:
    """The branches of a cond, or the body of a call."""
    return branches(params) if "branches" in params else [close_jaxpr(params["jaxpr"])] if "jaxpr" in params else []
