"""Random piecewise linear programs, run by JAX (one compilation for all of them) and exactly, by fractions."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

N_INPUTS, N_STEPS = 3, 12

# (in JAX, in fractions): a, b -> a piecewise linear function of them; a pair (value, gradient) is compared by its value
OPERATIONS = [
    (lambda a, b: 2 * a - b, lambda a, b: combine(a, b, 2, -1)),
    (lambda a, b: a + b, lambda a, b: combine(a, b, 1, 1)),
    (lambda a, b: jax.nn.relu(a), lambda a, b: larger(a, ZERO)),
    (lambda a, b: jnp.maximum(a, b), lambda a, b: larger(a, b)),
    (lambda a, b: jnp.minimum(a, b), lambda a, b: smaller(a, b)),
    (lambda a, b: jnp.where(a > b, a, b), lambda a, b: larger(a, b)),
    (lambda a, b: jnp.abs(a), lambda a, b: larger(a, combine(a, ZERO, -1, 0))),
    (lambda a, b: jnp.clip(a, -1, 1), lambda a, b: larger(smaller(a, ONE), combine(ONE, ZERO, -1, 0))),
    (lambda a, b: lax.clamp(-1.0, a, 1.0), lambda a, b: larger(smaller(a, ONE), combine(ONE, ZERO, -1, 0))),
    (lambda a, b: jnp.sort(jnp.stack([a, b, 0 * a]))[1], lambda a, b: middle(a, b, ZERO)),
    (lambda a, b: jnp.max(jnp.stack([a, b])), lambda a, b: larger(a, b)),
    (lambda a, b: lax.top_k(jnp.stack([a, b]), 2)[0][1], lambda a, b: smaller(a, b)),
    (lambda a, b: a * jnp.sign(a), lambda a, b: larger(a, combine(a, ZERO, -1, 0))),
    (lambda a, b: jnp.stack([a, b])[jnp.argmin(jnp.stack([a, b]))], lambda a, b: smaller(a, b)),
    (lambda a, b: jax.nn.leaky_relu(a, 0.5), lambda a, b: larger(a, combine(a, ZERO, Fraction(1, 2), 0))),
    (lambda a, b: jnp.linalg.norm(a[None]), lambda a, b: larger(a, combine(a, ZERO, -1, 0))),
]
ONE, ZERO = ((Fraction(k), (Fraction(0),) * N_INPUTS) for k in (1, 0))


def combine(a, b, p, q):
    return p * a[0] + q * b[0], tuple(p * s + q * t for s, t in zip(a[1], b[1], strict=True))


def larger(a, b):
    return a if a[0] >= b[0] else b


def smaller(a, b):
    return a if a[0] <= b[0] else b


def middle(*triple):
    return sorted(triple, key=lambda pair: pair[0])[1]


def random_programs(rng, count):
    """For each program its steps (operation, register, register), and a point with many ties."""
    codes = rng.integers(0, len(OPERATIONS), (count, N_STEPS))
    registers = np.stack([rng.integers(0, N_INPUTS + k, (count, 2)) for k in range(N_STEPS)], 1)
    points = rng.choice([0.0, 0.0, 1.0, -1.0], (count, N_INPUTS))
    return codes, registers, points


def run(codes, registers, x):
    """One program, a scan over its steps."""

    def step(memory, instruction):
        k, code, (i, j) = instruction
        result = lax.switch(code, [op for op, _ in OPERATIONS], memory[i], memory[j])
        return memory.at[N_INPUTS + k].set(result), None

    memory = jnp.zeros(N_INPUTS + N_STEPS, x.dtype).at[:N_INPUTS].set(x)
    return lax.scan(step, memory, (jnp.arange(N_STEPS), codes, registers))[0][-1]


def exact_gradient(codes, registers, x, v):
    """The gradient at x + v/10⁴⁰: in the region that the ray along v enters, by exact arithmetic."""
    tiny = Fraction(1, 10**40)
    memory = []
    for k in range(N_INPUTS):
        value = Fraction(float(x[k])) + tiny * Fraction(float(v[k]))
        memory.append((value, tuple(Fraction(int(k == i)) for i in range(N_INPUTS))))
    for code, (i, j) in zip(codes, registers, strict=True):
        memory.append(OPERATIONS[code][1](memory[i], memory[j]))
    return [float(g) for g in memory[-1][1]]


# -- programs that equal a linear function ---------------------------------------------------------------

RELUS = [
    jax.nn.relu,
    lambda x: jnp.maximum(x, 0),
    lambda x: jnp.where(x > 0, x, 0),
    lambda x: jnp.where(x <= 0, 0, x),
    lambda x: (x + jnp.abs(x)) / 2,
    lambda x: jnp.clip(x, 0, None),
    lambda x: lax.max(x, 0 * x),
    lambda x: jnp.sort(jnp.stack([x, 0 * x]))[1],
    lambda x: jnp.max(jnp.stack([x, 0 * x])),
    lambda x: lax.cond(x > 0, lambda: x, lambda: 0 * x),
    lambda x: x * (jnp.sign(x) + 1) / 2,
    lambda x: lax.cummax(jnp.stack([0 * x, x]))[1],
]
IDENTITIES = [
    lambda r, q, x: r(x) - q(-x),
    lambda r, q, x: r(r(x)) - q(-x),
    lambda r, q, x: 10 * x - 9 * (r(x) - q(-x)),
    lambda r, q, x: jnp.maximum(x, r(x) - q(-x)),
    lambda r, q, x: r(x - q(-x) - r(-x)) + jnp.minimum(x, 0) - r(-q(-x)),
]


def identity_programs(rng, count, depth=6):
    """Chains of identities, each written with two of the relus: x ↦ x, in count · depth random ways."""
    return rng.integers(0, [len(IDENTITIES), len(RELUS), len(RELUS)], (count, depth, 3))


def run_identities(program, x):
    def step(x, instruction):
        form, first, second = instruction
        pick = lambda which: lambda y: lax.switch(which, RELUS, y)
        forms = [lambda y, f=f: f(pick(first), pick(second), y) for f in IDENTITIES]
        return lax.switch(form, forms, x), None

    return lax.scan(step, x, program)[0]
