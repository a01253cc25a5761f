"""Random programs for the fuzz test: a list of steps, each of which applies an operation to earlier values.

Values have one of three shapes, so that what is compiled for one program serves the next. Operations keep values
bounded and stay away from singularities by their own form, not by the choice of inputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st
from jax import lax

N, M = 3, 2
SCALAR, VECTOR, MATRIX = (), (N,), (M, N)

INDEX = np.array([2, 0, 1])


@jax.custom_jvp
def scaled_sin(x):
    return jnp.sin(x)


scaled_sin.defjvp(lambda p, t: (scaled_sin(*p), 1.5 * jnp.cos(p[0]) * t[0]))


@jax.custom_vjp
def clipped_identity(x):
    return x * 1.0


clipped_identity.defvjp(lambda x: (clipped_identity(x), x), lambda x, g: (g * jnp.cos(x),))

UNARY = {
    "sin": jnp.sin,
    "tanh": jnp.tanh,
    "logistic": jax.nn.sigmoid,
    "relu": jax.nn.relu,
    "softplus": jax.nn.softplus,
    "gelu": jax.nn.gelu,
    "abs": jnp.abs,
    "sign": jnp.sign,
    "floor": lambda x: x - jnp.floor(x),
    "erf": jax.scipy.special.erf,
    "log1p of square": lambda x: jnp.log1p(x * x),
    "sqrt": lambda x: jnp.sqrt(1 + x * x),
    "reciprocal": lambda x: 1 / (1.5 + jnp.cos(x)),
    "power": lambda x: (1.5 + jnp.sin(x)) ** 1.7,
    "cube": lambda x: jnp.sin(x) ** 3,
    "where": lambda x: jnp.where(x > 0.1, jnp.cos(x), x),
    "clip": lambda x: jnp.clip(x, -0.5, 0.5),
    "stop_gradient": lambda x: x * lax.stop_gradient(jnp.sin(x)),
    "custom_jvp": scaled_sin,
    "float32": lambda x: jnp.sin(x.astype(jnp.float32)).astype(jnp.float64),
    "jit": jax.jit(lambda x: jnp.sin(x) * x),
    "remat": jax.checkpoint(lambda x: jnp.tanh(jnp.sin(x) * x)),
    "scan": lambda x: lax.scan(lambda c, u: (jnp.sin(c + u), c * u), x, jnp.linspace(0.0, 1.0, 3))[0],
    "scan outputs": lambda x: jnp.sum(lax.scan(lambda c, u: (c * 0.9, jnp.cos(c) * u), x, jnp.arange(3.0))[1], 0),
    "fori": lambda x: lax.fori_loop(0, 2, lambda i, c: jnp.sin(c) + x, x),
    "cond": lambda x: lax.cond(jnp.sum(x) > 0, jnp.sin, lambda x: x * x / (1 + x * x), x),
    "switch": lambda x: lax.switch(jnp.int32(jnp.sum(x) > 0) + 1, [jnp.cos, jnp.sin, jnp.tanh], x),
    "complex": lambda x: jnp.real(jnp.exp(1j * x) * jnp.conj(1 + 1j * x)) / (1 + x * x),
}
# Jitted, control flow is compiled once for all the programs that contain it.
COMPILED = ("remat", "scan", "scan outputs", "fori", "cond", "switch", "complex")
UNARY |= {name: jax.jit(UNARY[name]) for name in COMPILED}
REVERSE_ONLY = {"custom_vjp": clipped_identity}
FORWARD_ONLY = {"while": jax.jit(lambda x: lax.while_loop(lambda c: jnp.sum(c * c) < 4.0, lambda c: c * 1.5 + 0.1, x))}
BINARY = {
    "add": jnp.add,
    "sub": jnp.subtract,
    "mul": lambda x, y: jnp.tanh(x) * y,
    "max": jnp.maximum,
    "min": jnp.minimum,
    "div": lambda x, y: x / (1 + y * y),
    "atan2": lambda x, y: jnp.arctan2(x, 1.5 + jnp.cos(y)),
    "hypot": lambda x, y: jnp.sqrt(1 + x * x + y * y),
    "select": lambda x, y: jnp.where(y > x, x, jnp.sin(y)),
}
VECTOR_TO_VECTOR = {
    "reverse": lambda v: v[::-1],
    "sort": jnp.sort,
    "cumsum": jnp.cumsum,
    "cumprod": lambda v: jnp.cumprod(jnp.cos(v)),
    "cummax": lax.cummax,
    "softmax": jax.nn.softmax,
    "gather": lambda v: v[INDEX],
    "scatter": lambda v: jnp.zeros(N).at[INDEX[:2]].add(v[:2]),
    "set": lambda v: v.at[1].set(jnp.sin(v[0])),
    "dynamic": lambda v: lax.dynamic_update_slice(v, lax.dynamic_slice(v, (1,), (2,)), (jnp.argmax(v) % 2,)),
    "pad": lambda v: jnp.pad(v[:2], (1, 0)),
    "roll": lambda v: jnp.roll(v, 1),
    "outer solve": lambda v: jnp.linalg.solve(jnp.eye(N) * 4 + jnp.outer(jnp.sin(v), jnp.cos(v)), v),
    "cholesky": lambda v: jnp.linalg.cholesky(jnp.eye(N) * 3 + jnp.outer(jnp.sin(v), jnp.sin(v)))[:, 0],
    "fft": lambda v: jnp.real(jnp.fft.fft(v)) / N,
    "convolve": lambda v: jnp.convolve(v, jnp.sin(v), mode="same"),
    "vmap": jax.vmap(lambda x: jnp.sin(x) * x),
    "map": lambda v: lax.map(lambda x: jnp.cos(x) * x, v),
}
VECTOR_TO_VECTOR |= {
    name: jax.jit(f)
    for name, f in VECTOR_TO_VECTOR.items()
    if name in ("vmap", "map", "dynamic", "sort", "cholesky", "outer solve", "convolve", "fft")
}
REDUCTIONS = {
    "sum": jnp.sum,
    "mean": jnp.mean,
    "max": jnp.max,
    "prod": lambda x: jnp.prod(jnp.cos(x)),
    "logsumexp": jax.nn.logsumexp,
}
CONVERSIONS = {
    (SCALAR, VECTOR): [lambda s: s * jnp.arange(1.0, N + 1) / N, lambda s: jnp.broadcast_to(s, VECTOR)],
    (VECTOR, MATRIX): [lambda v: jnp.stack([v, jnp.sin(v)]), lambda v: jnp.outer(jnp.arange(1.0, M + 1) / M, v)],
    (MATRIX, VECTOR): [lambda m: m.sum(0), lambda m: m[1], lambda m: m.T[:, 0], lambda m: jnp.tanh(m.T @ jnp.ones(M))],
    (SCALAR, MATRIX): [lambda s: jnp.full(MATRIX, 0.5) * s],
}
PRODUCTS = {
    (MATRIX, VECTOR): lambda m, v: jnp.pad(jnp.tanh(m @ v), (0, 1)),
    (VECTOR, VECTOR): lambda v, w: jnp.tanh(v @ w),
    (MATRIX, MATRIX): lambda a, b: jnp.tanh(a @ b.T) @ a,
}


@dataclass(frozen=True)
class Step:
    """An operation and the numbers of the values that it is applied to."""

    name: str
    operands: tuple[int, ...]
    apply: object

    def __repr__(self):
        return f"{self.name}{self.operands}"


@dataclass(frozen=True)
class RandomProgram:
    """A function of three arrays, one of each shape, that returns its last values."""

    steps: tuple[Step, ...]

    def __call__(self, s, v, m):
        values = [s, v, m]
        for step in self.steps:
            values.append(step.apply(*(values[i] for i in step.operands)))
        return tuple(values[-3:])


@st.composite
def programs(draw, modes=("jvp", "vjp"), max_steps=30):
    """A strategy of programs of up to ``max_steps`` steps that JAX can differentiate in these modes."""
    unary = dict(UNARY)
    if "jvp" not in modes:
        unary |= REVERSE_ONLY
    if "vjp" not in modes:
        unary |= FORWARD_ONLY
    shapes = [SCALAR, VECTOR, MATRIX]
    steps = []
    for _ in range(draw(st.integers(1, max_steps))):
        kind = draw(st.sampled_from(["unary", "binary", "vector", "reduction", "conversion", "product"]))
        i = draw(st.integers(0, len(shapes) - 1))
        if kind == "vector" and shapes[i] == VECTOR:
            name = draw(st.sampled_from(sorted(VECTOR_TO_VECTOR)))
            step, shape = Step(name, (i,), VECTOR_TO_VECTOR[name]), VECTOR
        elif kind == "reduction" and shapes[i] != SCALAR:
            name = draw(st.sampled_from(sorted(REDUCTIONS)))
            step, shape = Step(name, (i,), REDUCTIONS[name]), SCALAR
        elif kind == "conversion":
            (_, shape), options = draw(st.sampled_from([(k, v) for k, v in CONVERSIONS.items() if k[0] == shapes[i]]))
            k = draw(st.integers(0, len(options) - 1))
            step = Step(f"conversion {k} to {shape}", (i,), options[k])
        elif kind == "binary":
            j = draw(st.sampled_from([j for j, s in enumerate(shapes) if s in (SCALAR, shapes[i])]))
            name = draw(st.sampled_from(sorted(BINARY)))
            step, shape = Step(name, (i, j), BINARY[name]), shapes[i]
        elif kind == "product" and shapes[i] != SCALAR:
            partners = [j for j, s in enumerate(shapes) if (shapes[i], s) in PRODUCTS]
            j = draw(st.sampled_from(partners))
            apply = PRODUCTS[shapes[i], shapes[j]]
            shape = {VECTOR: SCALAR, MATRIX: MATRIX}[shapes[i]] if shapes[i] == shapes[j] else VECTOR
            step = Step("product", (i, j), apply)
        else:
            name = draw(st.sampled_from(sorted(unary)))
            step, shape = Step(name, (i,), unary[name]), shapes[i]
        steps.append(step)
        shapes.append(shape)
    return RandomProgram(tuple(steps))
