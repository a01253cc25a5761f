"""What the table says of primitives beside their derivatives."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax import lax

from admodes.nonsmooth.decisions import DECISIONS
from admodes.program import jax_compat as jc
from admodes.program.traits import SLOPE, SMOOTH, traits
from admodes.rules.table import ElementwiseRule, entries, lookup

ELEMENTWISE = [p for p in entries() if lookup(p).kind == "elementwise"]
COMPARING = {"gt", "lt", "ge", "le", "eq", "ne", "select_n", "sign", "floor", "ceil", "round", "is_finite"}
PARAMS = {
    "integer_pow": {"y": 3},
    "random_gamma": {"log_space": True},
    **{name: {"accuracy": None} for name in ("sin", "cos", "tanh", "exp", "expm1", "logistic")},
}
WITHOUT_DERIVATIVE = {("polygamma", 0), ("zeta", 0)} | {("regularized_incomplete_beta", i) for i in range(2)}


def operands_of(primitive, rule) -> list:
    """Types of operands; of a primitive that takes any number of them, four."""
    real = jax.ShapeDtypeStruct((), np.float32)
    if primitive.name == "random_gamma":
        return [jax.eval_shape(lambda: jax.random.key(0)), real]
    if primitive.name == "Ldexp":
        return [real, jax.ShapeDtypeStruct((), np.int32)]
    return [real] * (4 if callable(rule.partials) else len(rule.partials))


def names_in(jaxpr) -> set[str]:
    found = {e.primitive.name for e in jaxpr.eqns}
    parts = [jc.inner(x) for e in jaxpr.eqns for x in e.params.values() if hasattr(x, "eqns") or hasattr(x, "jaxpr")]
    return found.union(*map(names_in, parts))


def compared_in_slopes(primitive, rule) -> set[str]:
    """The comparisons and selections in the partials of a primitive."""
    types = operands_of(primitive, rule)
    found = set()
    for i in range(len(types)):
        active = tuple(k == i for k in range(len(types)))

        def slope(out, *xs, active=active):
            params = PARAMS.get(primitive.name, {})
            return jax.tree.leaves(rule.jacobian(None, primitive, (out,), xs, active, params))

        if (primitive.name, i) not in WITHOUT_DERIVATIVE:
            found |= names_in(jc.inner(jax.make_jaxpr(slope)(types[-1], *types)))
    return found & COMPARING


def test_it_is_seen_whether_a_slope_compares():
    rule = ElementwiseRule((lambda out, x: lax.select(lax.gt(x, np.float32(0)), x, out),))
    assert compared_in_slopes(SimpleNamespace(name="new"), rule) == {"gt", "select_n"}


@pytest.mark.parametrize("primitive", ELEMENTWISE, ids=lambda p: p.name)
def test_an_entry_whose_slope_compares_says_what_its_kink_is(primitive):
    rule = lookup(primitive)
    compares = not isinstance(rule, ElementwiseRule) or compared_in_slopes(primitive, rule)
    assert traits(primitive).kink is not None or not compares


@pytest.mark.parametrize("primitive", entries(), ids=lambda p: p.name)
def test_the_kinks_are_those_that_are_decided(primitive):
    kink = traits(primitive).kink
    assert kink is None or callable(kink) or kink in {*DECISIONS, SLOPE, SMOOTH}
