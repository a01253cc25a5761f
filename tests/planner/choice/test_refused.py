"""Functions whose derivative rules are for one mode only: the other ways drop out, and the plan says why."""

import jax
import numpy as np
import pytest
from jax import numpy as jnp

import admodes
from admodes.errors import NotLinearError


def only_pulled(bwd_slope=jnp.cos):
    """An elementwise sine whose pullback cannot be transposed, so that there is no forward mode."""

    @jax.custom_vjp
    def sine(x):
        return jnp.sin(x)

    def bwd(x, g):
        return (jnp.where(jnp.abs(g) >= 0, g, jnp.abs(g)) * bwd_slope(x),)

    sine.defvjp(lambda x: (jnp.sin(x), x), bwd)
    return sine


def only_pushed():
    """An elementwise sine whose rule refuses to be recorded: with reverse mode's zero tangents it raises."""

    @jax.custom_jvp
    def sine(x):
        return jnp.sin(x)

    @sine.defjvp
    def _(primals, tangents):
        (x,), (t,) = primals, tangents
        return jnp.sin(x), jnp.abs(t) * jnp.cos(x)  # right for tangents that are not negative: unit vectors

    return sine


X = jnp.arange(1.0, 5.0)


def tridiagonal(sine):
    return lambda x: sine(x[1:]) * x[:-1] + sine(x[:-1])


@pytest.mark.parametrize("sine", [only_pulled(), only_pushed()], ids=["reverse only", "forward only"])
@pytest.mark.parametrize("format", ["dense", "bcoo"])
def test_the_other_way_is_taken(sine, format):
    expected = jax.jacfwd(tridiagonal(jnp.sin))(X)
    found = admodes.jacobian(tridiagonal(sine), format=format)(X)
    np.testing.assert_allclose(found if format == "dense" else found.todense(), expected, rtol=1e-12)


def test_parts_take_the_other_way_too():
    slope = jnp.cos(X)
    np.testing.assert_allclose(admodes.diagonal(only_pulled())(X), slope, rtol=1e-12)
    np.testing.assert_allclose(admodes.diagonal(only_pushed())(X), slope, rtol=1e-12)


def test_the_plan_says_which_way_is_left_out_and_why():
    plan = admodes.plan(tridiagonal(only_pulled()), X)
    assert {c.name for c in plan.candidates} == {"reverse"}
    assert "forward is left out, as the function refuses it: NotLinearError" in str(plan)
    assert plan.to_dict()["refused"]["forward"].startswith("NotLinearError: ")


def test_no_way_at_all_is_the_error_of_the_rule():
    @jax.custom_jvp
    def refuses(x):
        return jnp.sin(x)

    @refuses.defjvp
    def _(primals, tangents):
        raise RuntimeError("no derivative here")

    for derivative in (admodes.jacobian, admodes.diagonal):
        with pytest.raises(RuntimeError, match="no derivative here"):
            derivative(refuses)(X)


def test_plans_tell_rules_apart_where_there_is_no_forward_mode():
    one, other = only_pulled(), only_pulled(lambda x: 2 * jnp.cos(x))
    assert np.allclose(2 * admodes.jacobian(one)(X), admodes.jacobian(other)(X))


def test_reverse_mode_of_a_rule_that_is_not_linear_says_so():
    with pytest.raises(NotLinearError):
        admodes.jacrev(only_pushed())(X)
