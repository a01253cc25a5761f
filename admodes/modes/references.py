"""Mutable references (``jax.new_ref``) that live within the differentiated function.

A reference that is created under a trace of ours does not exist outside of it: it is a tracer that holds a *value* of
that trace. Reading returns this value, writing puts another one in its place. So a program with references is the
program without them, on which duals and tapes need no further rule; sub-programs that are handed a reference return
its new content as a further result. References from outside are JAX's, and a matter of ``rules/references.py``.
"""

from __future__ import annotations

from dataclasses import replace

import jax

from admodes.errors import UnsupportedPrimitiveError
from admodes.program import jax_compat as jc
from admodes.rules.references import check_references


class Reference(jc.Tracer):
    """A mutable reference whose content is a value of the trace."""

    __slots__ = ["content"]

    def __init__(self, trace, aval, content):
        super().__init__(trace, aval)
        self.content = content

    def _short_repr(self):
        return f"Reference({self.content})"


class ReferenceTrace(jc.DerivativeTrace):
    """A trace that keeps the references created under it."""

    def holds(self, value) -> bool:
        return isinstance(value, Reference) and value._trace is self

    def process_primitive(self, primitive, args, params, /):
        if primitive is jc.new_ref_p or primitive is jc.empty_ref_p:
            aval = jc.abstract_results(primitive, map(jc.typeof, args), params)
            if not jc.is_without_derivative(aval):
                with jc.set_current_trace(self):
                    return Reference(self, aval, args[0] if args else jc.empty(aval))
        if any(map(self.holds, args)):
            return self.apply_to_contents(primitive, args, params)
        return super().process_primitive(primitive, args, params)

    def apply_to_contents(self, primitive, args, params):
        """The results of an equation with references among its operands, whose contents it may replace."""
        if primitive is jc.freeze_p:
            return args[0].content
        if primitive is jc.free_ref_p:
            return []
        avals = [jc.typeof(x) for x in args]
        ours = [self.holds(x) for x in args]
        if primitive is jc.custom_vjp_call_p and self.only_reads(params["subfuns"][0], avals):
            return self.process_primitive(
                primitive, [self.copy(x) if own else x for x, own in zip(args, ours, strict=True)], params
            )
        pure = jc.discharged(primitive, ours, avals, params)
        if pure is None or any(jc.is_reference(a) and not own for a, own in zip(avals, ours, strict=True)):
            raise UnsupportedPrimitiveError(primitive.name, jc.current_place(), "cannot be applied to this reference")
        with jc.set_current_trace(self):
            contents, results = pure(*(x.content if own else x for x, own in zip(args, ours, strict=True)))
        for x, content in zip(args, contents, strict=True):
            if content is not None:
                x.content = content
        return results

    def only_reads(self, fun, avals) -> bool:
        """True if a function writes to none of its arguments that are references."""
        with jc.set_current_trace(self.parent_trace):
            closed = jc.trace_flat(fun.call_wrapped, avals, "custom_vjp")
        jc.forget_call(fun)
        return not any(jc.touched_references(closed)[1])

    def copy(self, reference: Reference):
        """A reference of JAX's to what one of ours holds, for a rule that reads it; its derivative is the content's."""
        content = self.unpack(reference.content)
        with jc.set_current_trace(self.parent_trace):
            return self.pack(replace(content, primal=jax.new_ref(content.primal)))

    def unpack(self, value):
        """The dual, or the recorded value, that a tracer carries."""
        raise NotImplementedError

    def pack(self, value):
        """Its inverse."""
        raise NotImplementedError

    def returned(self, outputs):
        """The outputs of the function, none of which may be a reference."""
        outputs = list(outputs)
        check_references(jc.new_ref_p, filter(self.holds, outputs))
        return outputs
