"""Python that looks at values which are differentiated: what it may decide, and what it must not take for constants."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.ode import odeint

import admodes


def _through_a_buffer(x):
    buffer = np.zeros(2)
    buffer[0] = x**2
    return jnp.sum(jnp.asarray(buffer)) * x


def _through_items_of_a_buffer(x):
    buffer = [0.0, 0.0]
    buffer[0] = float(x) ** 2
    return sum(buffer) * x


DROPPING = {  # what would make a constant of x
    "float": lambda x: x * float(x),
    "complex": lambda x: x * complex(x).real,
    "item": lambda x: x * x.item(),
    "tolist": lambda x: x * x.tolist(),
    "math.sin": lambda x: x * math.sin(x),
    "math.pow": lambda x: x * math.pow(x, 2),
    "np.float64": lambda x: x * np.float64(x),
    "np.asarray": lambda x: x * np.asarray(x),
    "numpy buffer": _through_a_buffer,
    "list": _through_items_of_a_buffer,
    "beside a branch": lambda x: x * float(x) if x > 0 else x,
}


DERIVE = {
    "jvp": lambda f: admodes.jvp(f, (1.5,), (1.0,)),
    "linearize": lambda f: admodes.linearize(f, 1.5),
    **{
        name: lambda f, name=name: getattr(admodes, name)(f)(jnp.array(1.5))
        for name in ("grad", "value_and_grad", "jacfwd", "jacrev", "jacobian", "hessian")
    },
}


@pytest.mark.parametrize("name", DROPPING)
@pytest.mark.parametrize("derive", DERIVE)
def test_a_number_made_of_a_differentiated_value_raises(derive, name):
    f = DROPPING[name]
    errors = jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError
    with pytest.raises(ValueError if name == "numpy buffer" else errors) as raised:  # a ValueError of numpy's
        DERIVE[derive](f)
    error = raised.value.__cause__ if name == "numpy buffer" else raised.value
    assert isinstance(error, errors)
    traced = name == "numpy buffer" and derive in ("jacobian", "hessian")  # jax.jit's own error
    assert "jax.lax.stop_gradient(x)" in str(error) or name == "tolist" or traced


def test_the_errors_of_numbers_are_those_of_jax():
    for name, f in DROPPING.items():
        if name != "item":  # for which JAX gives the value, without its derivative
            with pytest.raises((jax.errors.JAXTypeError, ValueError)) as theirs:
                jax.grad(f)(1.5)
            with pytest.raises(type(theirs.value)):
                admodes.grad(f)(1.5)


def test_python_decides_on_differentiated_values():
    def f(x):
        y = x if x > 1.0 and bool(x) and x != 2.0 else -x
        for _ in range(int(x)):
            y = y * x
        return y

    for x in (0.5, 1.5, 2.0, 3.25):
        assert admodes.grad(f)(x) == jax.grad(f)(x)
        assert admodes.jvp(f, (x,), (1.0,))[1] == jax.jvp(f, (x,), (1.0,))[1]
        assert admodes.hessian(f)(x) == jax.hessian(f)(x)


@pytest.mark.parametrize("derive", ["grad", "jacfwd", "jacrev", "hessian"])
def test_closure_convert_sees_what_is_differentiated(derive):
    """It makes arguments of what a function closes over, if that may be differentiated: custom rules need that."""

    @partial(jax.custom_vjp, nondiff_argnums=(0,))
    def doubled(f, x, consts):
        return 2 * f(x, *consts)

    def fwd(f, x, consts):
        return doubled(f, x, consts), (x, consts)

    def bwd(f, residuals, g):
        x, consts = residuals
        return jax.vjp(lambda x, consts: 2 * f(x, *consts), x, consts)[1](g)

    doubled.defvjp(fwd, bwd)

    def f(k):
        converted, consts = jax.closure_convert(lambda x: jnp.sin(k * x), k)
        return doubled(converted, k * k, consts)

    expected = getattr(jax, derive if derive == "hessian" else "grad")(lambda k: 2 * jnp.sin(k**3))(0.7)
    np.testing.assert_allclose(getattr(admodes, derive)(f)(0.7), expected, rtol=1e-12)
    np.testing.assert_allclose(getattr(admodes, derive)(jax.jit(f))(0.7), expected, rtol=1e-12)


def test_odeint_with_a_closure():
    t = jnp.linspace(0.0, 1.0, 3)
    solve = lambda k: odeint(lambda y, t: -k * y, 1.0, t)[-1]
    np.testing.assert_allclose(admodes.grad(solve)(0.7), jax.grad(solve)(0.7), rtol=1e-6)
    np.testing.assert_allclose(admodes.grad(jax.jit(solve))(0.7), -np.exp(-0.7), rtol=1e-5)
