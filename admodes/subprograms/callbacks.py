"""Calls out of the program: callbacks, foreign functions; and calls that carry their own transpose or batching."""

from __future__ import annotations

from dataclasses import dataclass

import jax
from jax import lax
from jax.tree_util import tree_leaves, tree_structure, tree_unflatten

from admodes.program import jax_compat as jc
from admodes.program.derived import instantiate, keep, merge, present, pushed
from admodes.rules.table import HigherOrderRule, LinearRule, LocalRule, higher_order, register, zero
from admodes.subprograms.control import CallRule

# -- what cannot be differentiated, and what needs not to be ------------------------------------------------


NO_TRANSPOSE = (
    "{} do not support transpose, but the rule of a custom_jvp function applies one to the tangents (of a custom_vjp "
    "function: to the cotangents), at {}, and the other mode needs the transpose of the rule. Use jax.custom_vjp for "
    "reverse mode (jax.custom_jvp for forward mode), or give the transpose as well, with jax.lax.custom_linear_solve "
    "or jax.custom_derivatives.linear_call."
)


@dataclass(frozen=True)
class Refused(LocalRule):
    """A primitive that nobody knows the inside of: a value that is differentiated must not reach it.

    ``plural`` is what it is called where a linear function is to be transposed.
    """

    message: str
    plural: str
    kind = "refused"

    def evaluate(self, primitive, primals, params):
        raise ValueError(self.message.format(**params))

    def refuse_transpose(self):
        raise ValueError(NO_TRANSPOSE.format(self.plural, jc.current_place()))


zero(jc.debug_callback_p, jc.debug_print_p, jc.inspect_sharding_p, cost="free")
register(
    jc.pure_callback_p,
    Refused(
        "Pure callbacks do not support JVP. Please use `jax.custom_jvp` to use callbacks while taking gradients.",
        "Pure callbacks",
    ),
    calls_out=True,
    cost="elementwise",
)
register(
    jc.io_callback_p, Refused("IO callbacks do not support JVP.", "IO callbacks"), calls_out=True, cost="elementwise"
)
register(
    jc.ffi_call_p,
    Refused(
        "The FFI call to `{target_name}` cannot be differentiated. "
        "You can use `jax.custom_jvp` or `jax.custom_vjp` to add support.",
        "FFI calls",
    ),
    calls_out=True,
    cost="elementwise",
)
register(
    jc.composite_p,
    Refused(
        "The composite `{name}` cannot be differentiated. You can use `jax.custom_jvp` to add support.", "Composites"
    ),
    cost="calling",
)


# -- linear_call -------------------------------------------------------------------------------------------


def _pull_linear_call(gs, *operands, callee, transpose_thunk, num_callee_consts, num_res):
    """Call the user's transpose, whose own transpose is what was called here."""
    transpose, consts = transpose_thunk()
    avals = transpose.in_avals[len(consts) + num_res :]
    return jc.linear_call_p.bind(
        *consts,
        *operands[num_callee_consts : num_callee_consts + num_res],
        *(jc.zeros(a) if g is None else g for g, a in zip(gs, avals, strict=True)),
        callee=transpose,
        transpose_thunk=lambda: (callee, list(operands[:num_callee_consts])),
        num_callee_consts=len(consts),
        num_res=num_res,
    )


class LinearCallRule(LocalRule):
    """Linear in the operands behind the residuals, with a transpose given by the user."""

    kind = "linear"

    def jacobian(self, interpreter, primitive, outs, primals, active, params):
        first = params["num_callee_consts"] + params["num_res"]
        if any(active[:first]):
            raise NotImplementedError("linear_call has no derivative with respect to its residual arguments")
        rule = LinearRule(_pull_linear_call, tuple(range(first, len(primals))))
        return rule.jacobian(interpreter, primitive, outs, primals, active, params)


register(jc.linear_call_p, LinearCallRule(), cost="elementwise")


# -- custom_vmap -------------------------------------------------------------------------------------------


class CustomVmapRule(HigherOrderRule):
    """The dual of a function with its own batching rule is one too: its rule is the dual of that rule.

    The rule says nothing about transposes, so that reverse mode goes through the function's body.
    """

    def push(self, interpreter, primitive, primals, tangents, params):
        active = present(tangents)
        program, found = pushed(params["call"], interpreter, active)
        n = len(found)
        flat = primitive.bind(
            *primals,
            *keep(active, tangents),
            call=program,
            rule=_pushed_batching(interpreter, params, active, found),
            in_tree=jc.operand_tree((list(primals), keep(active, tangents))),
            out_tree=tree_structure(([0] * n, [0] * sum(found))),
        )
        return flat[:n], merge(found, flat[n:])

    def record(self, interpreter, recorder, primitive, primals, slots, params):
        return interpreter.continue_program(recorder, params["call"], primals, slots)


def _pushed_batching(interpreter, params, active, found):
    """The user's batching rule on duals: operands of which value or tangent is batched are batched.

    If only tangents are, each is pushed through the rule at values that it is told not to be batched, as in JAX.
    """

    def rule(axis_size, in_batched, primals, tangents):
        batched = [tree_leaves(x) for x in in_batched]
        xs_batched, ts_batched = batched[0], merge(active, batched[1])
        if any(xs_batched):
            return of_batch(axis_size, xs_batched, ts_batched, primals, tangents)

        def of_one(*ts):
            return of_batch(axis_size, xs_batched, [False] * len(active), primals, ts)[0]

        axes = [0 if t else None for t in batched[1]]
        results = jax.vmap(of_one, axes, (None, 0), axis_size=axis_size)(*tangents)
        return results, ([False] * len(found), [True] * sum(found))

    def of_batch(axis_size, xs_batched, ts_batched, primals, tangents):
        either = [x or bool(t) for x, t in zip(xs_batched, ts_batched, strict=True)]

        def spread(x, is_batched, wanted):
            return lax.broadcast(x, (axis_size,)) if wanted and not is_batched else x

        xs = list(map(spread, primals, xs_batched, either))
        ts = [
            None if t is None else spread(t, b, e)
            for t, b, e in zip(merge(active, tangents), ts_batched, either, strict=True)
        ]
        out_batched: list = []

        def batching(*operands):
            args = tree_unflatten(params["in_tree"], operands)
            outs, flags = params["rule"](axis_size, list(tree_unflatten(params["in_tree"], either)), *args)
            out_batched[:] = tree_leaves(flags)
            return tree_leaves(outs)

        outs, out_ts = interpreter.push_function(batching, xs, ts)
        out_ts = keep(found, instantiate(out_ts, map(jc.typeof, outs), found))
        return (list(outs), list(out_ts)), (list(out_batched), keep(found, out_batched))

    return rule


higher_order(jc.custom_vmap_p, CustomVmapRule())


# -- calls -------------------------------------------------------------------------------------------------

higher_order(jc.remat_opt_p, CallRule("fwd_jaxpr"))
