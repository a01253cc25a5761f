r"""One equation on Taylor numbers, from the entry of its primitive in the table.

- Linear in what moves: J is constant, and acts on each coefficient.
- A product, linear in each of two operands: the convolution Σ x_i y_{k-i}.
- With a recurrence of its own (the trait ``series``): that.
- Anything else by its slope. y' = J(x, y) x', where the right side is what the rule does, run on series: on x, on the
  derivative of the series x, and on y itself, whose coefficients are known as far as they are needed. For ``tanh`` that
  is y' = (1 - y²) x'. Where a rule needs other functions (the cosine, for the sine), their series are made in the same
  way; functions that lead back to each other share them.
"""

from __future__ import annotations

from collections.abc import Sequence

from admodes.linear.maps import LinearMap
from admodes.modes.dual import bind_without_rule
from admodes.modes.interpreter import INTERPRETER
from admodes.program import jax_compat as jc
from admodes.program.derived import present
from admodes.program.evaluate import bind
from admodes.program.traits import traits
from admodes.rules.recurrences import convolution, half_convolution, scaled
from admodes.rules.references import check_references
from admodes.rules.table import BilinearRule, ElementwiseRule, LinearRule, LocalRule, ProgramRule, lookup
from admodes.series.decisions import decision_of
from admodes.series.numbers import CircularTermsError, Series, Terms, jointly
from admodes.series.subprograms import CALLS, SUBPROGRAMS


def expand(interpreter, primitive, operands: Sequence[Series], params: dict) -> list[Series]:
    """The results of an equation; their coefficients are computed when they are asked for."""
    primals = [x.primal for x in operands]
    if not any(x.moves for x in operands):
        return _unmoved(primitive, operands, params)
    decide = decision_of(primitive, operands)
    if decide is not None:
        return decide(interpreter, primitive, operands, params)
    rule = lookup(primitive)
    if rule is None:
        return list(map(Series, bind_without_rule(primitive, primals, params)))
    if primitive in CALLS:
        return CALLS[primitive](interpreter, primitive, operands, params)
    if primitive in SUBPROGRAMS:
        return _subprogram(interpreter, primitive, operands, params)
    if isinstance(rule, ProgramRule):
        return interpreter.push_series(lambda *xs: rule.run(*xs, **params), operands)
    if isinstance(rule, LocalRule):
        return _local(interpreter, primitive, rule, operands, params)
    check_references(primitive, primals)
    return _by_rule(interpreter, primitive, rule, operands, params)


def _unmoved(primitive, operands, params) -> list[Series]:
    """Results without coefficients; masks know what they are beside the point if their operands do."""
    outs = bind(primitive, [x.primal for x in operands], params)
    if all(x.tangent is None for x in operands) or not all(jc.dtype_of(o).kind == "b" for o in outs):
        return list(map(Series, outs))
    beside = bind(primitive, [x.germ for x in operands], params)
    return [Series(o, Terms(beside=b)) for o, b in zip(outs, beside, strict=True)]


def _subprogram(interpreter, primitive, operands, params) -> list[Series]:
    """A loop or branches. Within a slope that leads back to its operands it is run for each order anew."""
    if interpreter.family is None:
        return SUBPROGRAMS[primitive](interpreter, primitive, operands, params)
    found: dict = {}

    def at(k):
        for order in (interpreter.order, k):
            try:
                if order not in found:
                    found[order] = SUBPROGRAMS[primitive](interpreter.upto(order), primitive, operands, params)
                return [y[k] for y in found[order]]
            except CircularTermsError:
                if order == k:
                    raise
        raise AssertionError

    return jointly(bind(primitive, [x.primal for x in operands], params), at)


def _local(interpreter, primitive, rule, operands, params) -> list[Series]:
    primals = [x.primal for x in operands]
    moving = tuple(x.moves for x in operands)
    outs = tuple(rule.evaluate(primitive, primals, params))
    avals = tuple(map(jc.typeof, primals))
    if rule.is_zero(primals):
        return list(map(Series, outs))
    if _is_linear(primitive, rule, avals, moving, params):
        germs = [x.germ for x in operands]
        jacobian = rule.jacobian(INTERPRETER, primitive, outs, germs, moving, params)
        return list(map(Series, outs)) if jacobian is None else _mapped(jacobian, outs, operands)
    if _is_product(primitive, rule, avals, moving, params):
        return [_product(primitive, outs[0], operands, params)]
    recurrence = traits(primitive).series
    if recurrence is not None:
        terms = Terms()
        result = Series(outs[0], terms)
        terms.rule = recurrence(result, *operands, **params)
        if terms.rule is not None:
            return [result]
    return _by_slope(interpreter, primitive, rule, outs, operands, params)


def _is_linear(primitive, rule, avals, moving, params) -> bool:
    if isinstance(rule, (LinearRule, BilinearRule, ElementwiseRule)):
        return rule.is_linear(primitive, avals, moving, params)
    return traits(primitive).moves


def _is_product(primitive, rule, avals, moving, params) -> bool:
    if isinstance(rule, BilinearRule):
        return True
    if not (traits(primitive).multiplies and isinstance(rule, ElementwiseRule)):
        return False
    return all(rule.is_linear(primitive, avals, alone, params) for alone in ((True, False), (False, True)))


def _mapped(jacobian: LinearMap, outs, operands) -> list[Series]:
    def at(k):
        tangents = tuple(x[k] if x.moves else None for x in operands)
        return (None,) * len(outs) if not any(present(tangents)) else jacobian.push(tangents)

    return jointly(outs, at)


def _product(primitive, out, operands, params) -> Series:
    x, y = operands

    def times(a, b):
        return primitive.bind(a, b, **params)

    if x is y and traits(primitive).commutative:
        return Series(out, Terms(rule=lambda k: half_convolution(x, k, times=times)))
    return Series(out, Terms(rule=lambda k: convolution(x, y, k, times=times)))


# -- by the slope ----------------------------------------------------------------------------------------


def _by_slope(interpreter, primitive, rule, outs, operands, params) -> list[Series]:
    """y' = J(x, y) x', y being what is defined."""
    key = _key(primitive, operands, params)
    family = _family(interpreter)
    if key is not None and key in family:
        return family[key][1]
    moving = tuple(x.moves for x in operands)
    right: list = []  # of the equation, when it is first asked for

    def at(k):
        if not right:
            right.append(sides())
        return tuple(None if s is None else scaled(s[k - 1], 1 / k) for s in right[0])

    results = jointly(outs, at)
    if key is not None:
        family[key] = (list(operands), results)  # the operands stay alive, and with them their identities

    def sides():
        n, m = len(results), len(operands)

        def push(*values):
            ys, xs, vs = values[:n], values[n : n + m], iter(values[n + m :])
            jacobian = rule.jacobian(INTERPRETER, primitive, tuple(ys), list(xs), moving, params)
            tangents = tuple(next(vs) if on else None for on in moving)
            return [None] * n if jacobian is None else list(jacobian.push(tangents))

        inner = interpreter.inside(family)
        rates = [derivative(x) for x in operands if x.moves]
        return inner.push_series(push, [*results, *operands, *rates])

    return results


def _key(primitive, operands, params):
    """The identity of an equation: the same one on the same series has the same results."""
    key = primitive, tuple(id(x.primal if x.tangent is None else x.tangent) for x in operands), tuple(params.items())
    try:
        hash(key)
    except TypeError:
        return None
    return key


def _by_rule(interpreter, primitive, rule, operands, params) -> list[Series]:
    """Results of a rule that gives values and tangents at once (a user's, say), y' being the tangents."""
    moving = tuple(x.moves for x in operands)
    m = len(operands)
    right: list = []

    def at(k):
        if not right:
            right[:] = sides()
        return tuple(None if s is None else scaled(s[k - 1], 1 / k) for s in right)

    def sides():
        if primitive in (jc.custom_jvp_call_p, jc.custom_vjp_call_p):
            jc.forget_call(params["subfuns"][0])  # its rule is called now

        def push(*values):
            xs, vs = values[:m], iter(values[m:])
            tangents = tuple(next(vs) if on else None for on in moving)
            return rule.push(INTERPRETER, primitive, list(xs), tangents, params)[1]

        rates = [derivative(x) for x in operands if x.moves]
        return interpreter.inside(_family(interpreter)).push_series(push, [*operands, *rates])

    return jointly(bind(primitive, [x.primal for x in operands], params), at)


def _family(interpreter) -> dict:
    """The equations that have been met within the present slope; none outside of one."""
    return {} if interpreter.family is None else interpreter.family


def derivative(x: Series) -> Series:
    """The series of x'(t) = x₁ + 2 x₂ t + 3 x₃ t² + ..."""
    assert x.tangent is not None
    first = x[1]
    value = jc.zeros(jc.typeof(x.primal)) if first is None else first
    if x.tangent.rule is None:
        rest = [scaled(c, k) for k, c in enumerate(x.known[1:], 2)]
        return Series(value, Terms(rest) if any(present(rest)) else None)
    return Series(value, Terms(rule=lambda k: scaled(x[k + 1], k + 1)))
