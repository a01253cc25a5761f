"""Functions that fail as users' programs do. The line that says ``# HERE`` is the one to be found."""

import jax
import jax.numpy as jnp
from jax import lax


def masked_sqrt(x):
    safe = x > 0
    y = jnp.sqrt(x)  # HERE
    return jnp.sum(jnp.where(safe, y, 0.0))


def norm_of_zero(x):
    centred = x - 1.0
    return jnp.linalg.norm(centred)  # HERE


def norm_by_hand(x):
    squares = jnp.sum(x**2, axis=-1)
    lengths = jnp.sqrt(squares)  # HERE
    return jnp.sum(lengths)


def pairwise_distances(x):
    differences = x[:, None] - x[None, :]
    return jnp.sum(jnp.sqrt(jnp.sum(differences**2, -1)))  # HERE


def log_of_softmax(x):
    p = jax.nn.softmax(x)
    return -jnp.sum(jnp.log(p))  # HERE


def masked_division(x):
    ratio = 1.0 / x  # HERE
    return jnp.sum(jnp.where(x != 0, ratio, 0.0))


def masked_zero_over_zero(x):
    ratio = jnp.sin(x) / x  # HERE
    return jnp.sum(jnp.where(x == 0, 1.0, ratio))


def angle(x):
    unit = jnp.clip(x, -1.0, 1.0)
    return jnp.sum(jnp.arccos(unit))  # HERE


def angle_beyond(x):
    return jnp.sum(jnp.arccos(x * 1.001))  # HERE


def softmax_by_hand(x):
    e = jnp.exp(x)  # HERE
    return jnp.sum(e / jnp.sum(e) * jnp.arange(x.size))


def root_by_power(x):
    return jnp.sum(x**0.5)  # HERE


def power_of_zero(x):
    base, exponent = x[0], x[1]
    return base**exponent  # HERE


def std_of_constants(x):
    mean = jnp.mean(x)
    variance = jnp.mean((x - mean) ** 2)
    return jnp.sqrt(variance)  # HERE


def normalise_zero(x):
    length = jnp.sqrt(jnp.sum(x**2) + 0.0 * x[0])
    return jnp.sum(x / length)  # HERE


def entropy(p):
    terms = p * jnp.log(p)  # HERE
    return -jnp.sum(jnp.where(p > 0, terms, 0.0))


def masked_angle(x):
    theta = jnp.arctan2(x[:, 0], x[:, 1])  # HERE
    return jnp.sum(jnp.where(jnp.abs(x).sum(1) > 0, theta, 0.0))


def log_of_negative(x):
    gap = x - 2.0
    return jnp.sum(jnp.log(gap))  # HERE


def cross_entropy(x):
    p = jax.nn.sigmoid(x)
    return -jnp.sum(jnp.log(1 - p))  # HERE


def empty_attention(x):
    scores = jnp.where(jnp.zeros((2, 3), bool), x, -jnp.inf)
    shifted = scores - jnp.max(scores, axis=1, keepdims=True)  # HERE
    return jnp.sum(jnp.exp(shifted))


def variance_by_moments(x):
    variance = jnp.mean(x) ** 2 - jnp.mean(x**2)
    return jnp.sqrt(variance)  # HERE


def recurrence(x):
    def step(c, _):
        c = c * c  # HERE
        return c, c

    return lax.scan(step, x, None, length=12)[0]


def recurrence_slope(x):
    def step(c, u):
        return jnp.sqrt(c) - u, c  # HERE

    return lax.scan(step, x, jnp.ones(2))[0]


def branch(x):
    return lax.cond(x < 0, lambda y: y, lambda y: jnp.log(y), x)  # HERE


def search(x):
    def body(c):
        return c[0] + 1, jnp.sqrt(c[1] - 1)  # HERE

    return lax.while_loop(lambda c: c[0] < 3, body, (0, x))[1]


@jax.jit
def inner(x):
    return jnp.log1p(x)  # HERE


def compiled(x):
    return jnp.sum(inner(x) * 2)


@jax.custom_jvp
def softened(x):
    return jnp.abs(x) ** 1.5


@softened.defjvp
def softened_jvp(primals, tangents):
    (x,), (t,) = primals, tangents
    return softened(x), 1.5 * x / jnp.sqrt(jnp.abs(x)) * t


def custom_rule(x):
    return jnp.sum(softened(x))  # HERE, in its rule


@jax.custom_jvp
def scaled(x):
    return jnp.log(x) * 2  # HERE


@scaled.defjvp
def scaled_jvp(primals, tangents):
    return scaled(*primals), 2 / primals[0] * tangents[0]


def custom_body(x):
    return jnp.sum(scaled(x))


def checkpointed(x):
    return jnp.sum(jax.checkpoint(lambda y: jnp.arctanh(y) ** 2)(x))  # HERE


def half_precision(x):
    wide = jnp.sum(x)
    narrow = wide.astype(jnp.float16)  # HERE
    return narrow.astype(jnp.float32)


def inverse_distance(x):
    return jnp.sum(lax.rsqrt(jnp.sum(x**2, 1)))  # HERE


# name -> (arguments, primitive, sweep in which it shows first, a word of the cure)
FAILURES = {
    "masked_sqrt": ([[4.0, 0.0]], "sqrt", "reverse", "double where"),
    "norm_of_zero": ([[1.0, 1.0]], "sqrt", "reverse", "subgradient"),
    "norm_by_hand": ([[[0.0, 0.0], [1.0, 2.0]]], "sqrt", "reverse", "subgradient"),
    "pairwise_distances": ([[[0.0, 0.0], [1.0, 2.0]]], "sqrt", "reverse", "subgradient"),
    "log_of_softmax": ([[0.0, 200.0]], "log", "value", "log_softmax"),
    "masked_division": ([[0.0, 2.0]], "div", "reverse", "double where"),
    "masked_zero_over_zero": ([[0.0, 2.0]], "div", "reverse", "double where"),
    "angle": ([[0.5, 1.0]], "acos", "reverse", "clip"),
    "angle_beyond": ([[0.5, 1.0]], "acos", "value", "clip"),
    "softmax_by_hand": ([[0.0, 100.0]], "exp", "value", "maximum"),
    "root_by_power": ([[0.0, 4.0]], "pow", "reverse", "base 0"),
    "power_of_zero": ([[0.0, 0.5]], "pow", "reverse", "base 0"),
    "std_of_constants": ([[2.0, 2.0, 2.0]], "sqrt", "reverse", "eps"),
    "normalise_zero": ([[0.0, 0.0]], "div", "value", "0/0"),
    "entropy": ([[0.0, 1.0]], "log", "reverse", "double where"),
    "masked_angle": ([[[0.0, 0.0], [1.0, 2.0]]], "atan2", "reverse", "double where"),
    "log_of_negative": ([[1.0, 3.0]], "log", "value", "negative"),
    "cross_entropy": ([[0.0, 60.0]], "log", "value", "log1p"),
    "empty_attention": ([[[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]], "sub", "value", "-inf"),
    "variance_by_moments": ([[1.0, 2.0, 4.0]], "sqrt", "value", "negative"),
    "recurrence": ([10.0], "mul", "value", "overflows"),
    "recurrence_slope": ([1.0], "sqrt", "reverse", "infinite"),
    "branch": ([0.0], "log", "value", "log(0)"),
    "search": ([1.5], "sqrt", "value", "negative"),
    "compiled": ([[-2.0, 1.0]], "log1p", "value", "below -1"),
    "custom_rule": ([[0.0, 1.0]], "div", "reverse", "0/0"),
    "custom_body": ([[0.0, 1.0]], "log", "value", "log(0)"),
    "checkpointed": ([[0.0, 1.0]], "atanh", "value", "clip"),
    "half_precision": ([[1e5, 1.0]], "convert_element_type", "value", "narrower"),
    "inverse_distance": ([[[0.0, 0.0], [1.0, 2.0]]], "rsqrt", "value", "eps"),
}
