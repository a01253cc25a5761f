"""What the table says of primitives beside their derivatives."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax import lax
from jax import numpy as jnp
from jax.extend.core import Primitive

from admodes.nonsmooth.decisions import DECISIONS
from admodes.program import jax_compat as jc
from admodes.program.common_subexpressions import merge_common
from admodes.program.folding import evaluate_known
from admodes.program.text import Names
from admodes.program.trace import trace
from admodes.program.traits import KINKS, Traits, describe, traits
from admodes.rules.table import ElementwiseRule, elementwise, entries, lookup

ELEMENTWISE = [p for p in entries() if lookup(p).kind == "elementwise"]
COMPARING = {"gt", "lt", "ge", "le", "eq", "ne", "select_n", "sign", "floor", "ceil", "round", "is_finite"}
PARAMS = {
    "integer_pow": {"y": 3},
    "random_gamma": {"log_space": True},
    **{name: {"accuracy": None} for name in ("sin", "cos", "tanh", "exp", "expm1", "logistic")},
}
WITHOUT_DERIVATIVE = {("polygamma", 0), ("zeta", 0)}


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


def test_every_kind_of_kink_is_decided():
    assert set(DECISIONS) == set(KINKS)


@pytest.mark.parametrize("said", [{"cost": "cheap"}, {"kink": "corner"}], ids=["cost", "kink"])
def test_what_is_not_known_is_refused(said):
    new = Primitive("new")
    with pytest.raises(ValueError, match=r"is not known: there are '"):
        elementwise(new, None, **said)
    assert lookup(new) is None
    with pytest.raises(TypeError, match="price"):
        elementwise(new, None, price=3)


def test_what_was_said_before_stays():
    new = Primitive("new")
    describe(new, cost="series", commutative=True)
    describe(new, cost="arithmetic", text="&")
    assert traits(new) == Traits(cost="arithmetic", commutative=True, text="&")
    assert traits(Primitive("new")) == Traits()


def test_an_object_has_the_traits_of_its_class():
    class Base:
        pass

    class Derived(Base):
        pass

    describe(jc.HiPrimitive(Base), cost="series")
    assert traits(jc.HiPrimitive(Derived)).cost == "series"


def test_formulas_are_written_by_what_is_said():
    new = Primitive("new")
    x = np.float32(1)
    new.def_abstract_eval(lambda x, y: x)
    program = trace(lambda x, y: new.bind(x, y), x, x)

    def formula():
        return Names(program).formula(program.equations[0])

    assert formula() == "new(x1, x2)"
    describe(new, text="&")
    assert formula() == "x1 & x2"
    describe(new, text=lambda words: f"<{words[0]}|{words[1]}>")
    assert formula() == "<x1|x2>"


def test_what_commutes_is_computed_once():
    new = Primitive("new")
    new.def_abstract_eval(lambda x, y: x)
    program = trace(lambda x, y: new.bind(x, y) + new.bind(y, x), 1.0, 2.0)
    assert len(merge_common(program).equations) == 3
    describe(new, commutative=True)
    assert len(merge_common(program).equations) == 2


def test_a_host_function_is_asked_and_may_decline():
    new = Primitive("new")
    new.def_impl(lambda x: jnp.sin(x))
    assert evaluate_known(new, [np.ones(2)], {})[0][0] == np.sin(1.0)
    describe(new, host=lambda x: x + 1 if x.dtype.kind == "i" else None)
    assert evaluate_known(new, [np.ones(2)], {})[0][0] == np.sin(1.0)
    assert evaluate_known(new, [np.ones(2, int)], {})[0].tolist() == [2, 2]
