"""Operations for random programs, from vectors to vectors of the same length: one for each kind of equation.

Each keeps its result bounded and stays away from singularities by its own form: arguments are first brought into
(-1, 1), to (0.5, 2.5), or into a matrix that is regular and has distinct eigenvalues.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import jax.scipy as jsp
import numpy as np
from jax import lax
from jax.ad_checkpoint import checkpoint_name

N = 3
FAR = np.array([0, 2, 5])  # the last is out of bounds
TWICE = np.array([1, 1, 0])


def inside(v):
    return 0.9 * jnp.sin(v)


def positive(v):
    return 1.5 + jnp.sin(v)


def matrix(v):
    return jnp.diag(jnp.array([2.0, 4.0, 7.0])) + jnp.outer(jnp.sin(v), jnp.cos(v)) / 2


def symmetric(v):
    return jnp.diag(jnp.array([2.0, 4.0, 7.0])) + jnp.outer(jnp.sin(v), jnp.sin(v)) / 2


def image(v):
    return jnp.outer(jnp.sin(v), jnp.cos(jnp.arange(4.0)))[None, None]


def flat(x):
    """N numbers from an array of any shape, each a different sum."""
    x = jnp.ravel(jnp.real(x))
    return jnp.cos(jnp.arange(N)[:, None] + jnp.arange(x.size) / 3) @ x / max(x.size, 1)


def on(domain, *functions):
    """Elementwise functions of numbers in a domain, by name."""
    return {f.__name__: lambda v, f=f: jnp.sin(f(domain(v))) for f in functions}


ELEMENTWISE = {
    **on(inside, jnp.arcsin, jnp.arccos, jnp.arctan, jnp.arctanh, jnp.arcsinh, jnp.sinh, jnp.cosh, jnp.tan, jnp.expm1),
    **on(inside, jnp.exp2, jnp.sinc, jnp.square, lax.erf_inv, lax.erfc, jsp.special.ndtr, jsp.special.log_ndtr),
    **on(inside, jsp.special.i0, jsp.special.i0e, jsp.special.i1, jsp.special.i1e, jnp.nan_to_num, jnp.exp),
    **on(inside, jax.nn.silu, jax.nn.elu, jax.nn.selu, jax.nn.celu, jax.nn.leaky_relu, jax.nn.mish, jax.nn.soft_sign),
    **on(inside, jax.nn.squareplus, jax.nn.log_sigmoid, jax.nn.hard_tanh, jax.nn.relu6, jax.nn.hard_silu, jnp.deg2rad),
    **on(positive, jnp.log2, jnp.cbrt, lax.rsqrt, lax.lgamma, lax.digamma, jsp.special.entr, jnp.log, jnp.reciprocal),
    "arccosh": lambda v: jnp.arccosh(1 + positive(v)),
    "logit": lambda v: jsp.special.logit(positive(v) / 3),
    "logaddexp": lambda v: jnp.sin(jnp.logaddexp(v, v[::-1])),
    "logaddexp2": lambda v: jnp.sin(jnp.logaddexp2(v, v[::-1])),
    "hypot": lambda v: jnp.sin(jnp.hypot(positive(v), v[::-1])),
    "xlogy": lambda v: jsp.special.xlogy(jnp.sin(v), positive(v[::-1])),
    "float power": lambda v: jnp.sin(positive(v) ** inside(v[::-1])),
    "integer power": lambda v: lax.integer_pow(positive(v), -3) / 9,
    "betainc": lambda v: jsp.special.betainc(2.0, 3.0, positive(v) / 3),
    "gammainc": lambda v: jsp.special.gammainc(2.0, positive(v)),
    "zeta": lambda v: jnp.sin(jsp.special.zeta(3.0, positive(v))),
    "polygamma": lambda v: jnp.sin(jsp.special.polygamma(1, positive(v))),
    "polyval": lambda v: jnp.sin(jnp.polyval(v, inside(v))),
    "remainder": lambda v: lax.rem(v, positive(v[::-1])),
    "copysign": lambda v: jnp.copysign(jnp.cos(v), v),
    "clamp": lambda v: lax.clamp(-inside(v[::-1]) - 1, v, positive(v)),
    "select_n": lambda v: lax.select_n(jnp.int32(v > 0) + jnp.int32(v > 1), v, jnp.sin(v), jnp.cos(v)),
    "reduce_precision": lambda v: jnp.sin(lax.reduce_precision(v, 11, 52)),
    "round": lambda v: v - jnp.round(v),
    "dtypes": lambda v: jnp.sin(v.astype(jnp.complex128)).real,
}

INDEXED = {
    "gather clip": lambda v: v.at[FAR].get(mode="clip"),
    "gather fill": lambda v: v.at[FAR].get(mode="fill", fill_value=0.25),
    "gather promised": lambda v: v.at[TWICE].get(mode="promise_in_bounds"),
    "gather of a matrix": lambda v: flat(jnp.outer(v, jnp.cos(v))[TWICE, :2]),
    "take along axis": lambda v: jnp.take_along_axis(v, jnp.argsort(jnp.sin(v)), 0),
    "dynamic index": lambda v: v[jnp.argmax(v)] * jnp.cos(v),
    "dynamic slice at the end": lambda v: jnp.resize(lax.dynamic_slice(v, (jnp.int32(2),), (2,)), (N,)),
    "scatter add twice": lambda v: v.at[TWICE].add(jnp.sin(v)),
    "scatter add drop": lambda v: v.at[FAR].add(jnp.sin(v), mode="drop"),
    "scatter add clip": lambda v: v.at[FAR].add(jnp.sin(v), mode="clip"),
    "scatter set": lambda v: v.at[FAR].set(jnp.sin(v), mode="drop"),
    "scatter multiply": lambda v: v.at[np.array([2, 0])].multiply(jnp.sin(v[:2]), unique_indices=True),
    "scatter max": lambda v: v.at[TWICE].max(jnp.sin(v[::-1])),
    "scatter min": lambda v: v.at[TWICE].min(jnp.sin(v[::-1])),
    "segment sum": lambda v: jax.ops.segment_sum(v, TWICE, N),
    "dynamic update": lambda v: lax.dynamic_update_slice(v, jnp.sin(v[:2]), (jnp.int32(v[0] > 0),)),
    "scatter columns": lambda v: flat(jnp.outer(v, v[::-1]).at[:, TWICE].add(jnp.sin(v)[:, None])),
    "sort with values": lambda v: lax.sort_key_val(v, jnp.sin(v[::-1]))[1],
    "argsort": lambda v: jnp.sin(v)[jnp.argsort(v)],
    "top_k": lambda v: jnp.resize(lax.top_k(v, 2)[0], (N,)),
    "median": lambda v: jnp.median(v) * jnp.cos(v),
    "quantile": lambda v: jnp.quantile(v, 0.3) + jnp.sin(v),
    "interp": lambda v: jnp.interp(v, jnp.arange(4.0), jnp.sin(jnp.arange(4.0))),
    "one hot": lambda v: jax.nn.one_hot(jnp.argmin(v), N) * v,
}

STRUCTURAL = {
    "tile": lambda v: jnp.tile(v, 2)[1:4],
    "repeat": lambda v: jnp.repeat(v, 2)[2:5],
    "concatenate": lambda v: jnp.concatenate([v[1:], jnp.sin(v[:1])]),
    "split": lambda v: jnp.concatenate(jnp.split(jnp.concatenate([v, jnp.cos(v)]), 3)[::-1])[:N],
    "pad edge": lambda v: jnp.pad(v, 1, mode="edge")[:N],
    "pad reflect": lambda v: jnp.pad(v, 2, mode="reflect")[:N],
    "pad wrap": lambda v: jnp.pad(v, 2, mode="wrap")[1:4],
    "pad with holes": lambda v: lax.pad(v, jnp.sin(v[0]), [(-1, 1, 1)])[:N],
    "slice with steps": lambda v: lax.slice(jnp.concatenate([v, v]), (0,), (6,), (2,)),
    "rot90": lambda v: jnp.rot90(jnp.outer(v, jnp.sin(v)))[1],
    "triangle": lambda v: jnp.tril(jnp.outer(jnp.sin(v), jnp.cos(v)))[2],
    "diagonal": lambda v: jnp.diagonal(jnp.outer(jnp.sin(v), jnp.cos(v)), 0),
    "trace": lambda v: jnp.trace(jnp.outer(jnp.sin(v), v)) / (1 + v @ v) * jnp.cos(v),
    "moveaxis": lambda v: flat(jnp.moveaxis(jnp.sin(v)[:, None, None] * jnp.ones((1, 2, 4)), 0, 2)),
    "roll by a value": lambda v: jnp.roll(v, jnp.int32(v[0] > 0)),
    "where": lambda v: jnp.where(v > v[::-1], v, jnp.cos(v)),
}

WINDOWS = {
    "window sum": lambda v: lax.reduce_window(v, 0.0, lax.add, (2,), (1,), [(1, 0)]) / 2,
    "window sum with steps": lambda v: flat(lax.reduce_window(jnp.pad(v, 2), 0.0, lax.add, (3,), (2,), "VALID")),
    "window sum with holes": lambda v: flat(
        lax.reduce_window(jnp.pad(v, 2), 0.0, lax.add, (2,), (1,), "VALID", window_dilation=(2,))
    ),
    "window max": lambda v: lax.reduce_window(v, -jnp.inf, lax.max, (2,), (1,), "SAME"),
    "window min": lambda v: lax.reduce_window(v, jnp.inf, lax.min, (2,), (1,), "SAME"),
    "pool of an image": lambda v: flat(
        lax.reduce_window(image(v), -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 1, 2), "VALID")
    ),
    "cumsum back": lambda v: lax.cumsum(jnp.sin(v), reverse=True),
    "cumprod back": lambda v: lax.cumprod(jnp.cos(v), reverse=True),
    "cummin": lambda v: lax.cummin(v),
    "cumlogsumexp": lambda v: jnp.sin(lax.cumlogsumexp(v)),
    "associative scan": lambda v: lax.associative_scan(lambda a, b: a * jnp.cos(b) + b / 2, jnp.sin(v)),
    "convolution": lambda v: flat(
        lax.conv_general_dilated(image(v), image(v[::-1])[..., :2, :2], (1, 2), [(1, 0), (0, 1)])
    ),
    "convolution with holes": lambda v: flat(
        lax.conv_general_dilated(image(v), image(jnp.cos(v))[..., :2, :2], (1, 1), [(0, 0), (0, 1)], (2, 1), (1, 2))
    ),
    "convolution in groups": lambda v: flat(
        lax.conv_general_dilated(
            jnp.concatenate([image(v), image(2 * v)], 1),
            jnp.concatenate([image(v), image(v / 2)], 0)[..., :2],
            *((1, 1), "SAME"),
            feature_group_count=2,
        )
    ),
    "convolution transposed": lambda v: flat(
        lax.conv_transpose(image(v), image(v)[..., :2, :2], (2, 2), "SAME", dimension_numbers=("NCHW", "OIHW", "NCHW"))
    ),
    "correlate": lambda v: jnp.sin(jnp.correlate(v, jnp.cos(v), mode="same")),
}

LINALG = {
    "inv": lambda v: flat(jnp.linalg.inv(matrix(v))),
    "det": lambda v: jnp.linalg.det(matrix(v)) / 60 * jnp.cos(v),
    "slogdet": lambda v: jnp.linalg.slogdet(matrix(v))[1] * jnp.cos(v) / 4,
    "qr": lambda v: flat(jnp.linalg.qr(matrix(v))[1]),
    "svd": lambda v: jnp.sin(jnp.linalg.svd(matrix(v), compute_uv=False)),
    "svd vectors": lambda v: flat((f := jnp.linalg.svd(matrix(v))) and (f[0] * jnp.sin(f[1])) @ f[2]),
    "eigh": lambda v: flat((f := jnp.linalg.eigh(symmetric(v))) and (f[1] * jnp.sin(f[0])) @ f[1].T),
    "eigvalsh": lambda v: jnp.sin(jnp.linalg.eigvalsh(symmetric(v))),
    "lu": lambda v: flat(jsp.linalg.lu(matrix(v))[2]),
    "triangular solve": lambda v: jsp.linalg.solve_triangular(matrix(v), v, lower=True),
    "cho_solve": lambda v: jsp.linalg.cho_solve(jsp.linalg.cho_factor(symmetric(v)), v),
    "tridiagonal solve": lambda v: lax.linalg.tridiagonal_solve(
        *(inside(v).at[0].set(0), 3 + jnp.sin(v), inside(v[::-1]).at[2].set(0)), v[:, None]
    )[:, 0],
    "expm": lambda v: flat(jsp.linalg.expm(jnp.outer(jnp.sin(v), jnp.cos(v)) / 3)),
    "matrix power": lambda v: flat(jnp.linalg.matrix_power(matrix(v) / 8, 3)),
    "pinv": lambda v: flat(jnp.linalg.pinv(matrix(v)[:, :2])),
    "lstsq": lambda v: flat(jnp.linalg.lstsq(matrix(v)[:, :2], jnp.sin(v))[0]),
    "cross": lambda v: jnp.cross(jnp.sin(v), jnp.cos(v[::-1])),
    "kron": lambda v: flat(jnp.kron(jnp.sin(v), jnp.cos(v[:2]))),
    "einsum": lambda v: jnp.einsum("i,ij,jk->k", jnp.sin(v), symmetric(v) / 7, matrix(v) / 7),
    "batched product": lambda v: flat(jnp.stack([matrix(v), symmetric(v)]) @ jnp.stack([symmetric(v), matrix(v)]) / 49),
    "norm": lambda v: v / (1 + jnp.linalg.norm(positive(v))),
    "fft": lambda v: jnp.real(jnp.fft.ifft(jnp.fft.fft(v) * jnp.exp(1j * v))),
    "rfft": lambda v: flat(jnp.abs(jnp.fft.rfft(positive(v)) + 2)),
    "irfft": lambda v: jnp.sin(jnp.fft.irfft(v.astype(complex), 4)[:N]),
    "fft2": lambda v: flat(jnp.fft.fft2(jnp.outer(jnp.sin(v), jnp.cos(v)))),
    "dct": lambda v: jsp.fft.dct(jnp.sin(v)) / 6,
}

COMPLEX = {
    "complex abs": lambda v: jnp.abs(jnp.exp(1j * v) + 2),
    "complex angle": lambda v: jnp.angle(2 + jnp.exp(1j * v)),
    "complex square root": lambda v: jnp.sqrt(2 + jnp.exp(1j * v)).imag,
    "complex logarithm": lambda v: jnp.log(2 + jnp.exp(1j * v)).real,
    "complex power": lambda v: jnp.real((2 + jnp.exp(1j * v)) ** (0.3 + 0.1j)) / 2,
    "complex solve": lambda v: jnp.linalg.solve(matrix(v) + 1j * jnp.eye(N), v + 0j).imag,
    "complex product": lambda v: jnp.real(jnp.conj(jnp.exp(1j * v)) @ jnp.outer(jnp.exp(2j * v), jnp.sin(v))) / N,
    "complex division": lambda v: jnp.imag(jnp.exp(1j * v) / (2 + jnp.exp(1j * v[::-1]))),
    "complex tanh": lambda v: jnp.real(jnp.tanh(0.5 * jnp.exp(1j * v))),
}


@jax.custom_jvp
def half_slope(x):
    return jnp.cos(x)


half_slope.defjvp(lambda p, t: (half_slope(*p), -0.5 * jnp.sin(p[0]) * t[0]))


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def scaled_by(k, x):
    return k * jnp.sin(x)


scaled_by.defjvp(lambda k, p, t: (scaled_by(k, *p), (k + 1) * jnp.cos(p[0]) * t[0]))


def root(v):
    return lax.custom_root(
        *(lambda y: y + 0.3 * jnp.sin(y) - v, v, lambda f, y: lax.fori_loop(0, 40, lambda _, y: y - f(y) / 1.3, y)),
        lambda g, y: jnp.linalg.solve(jax.jacobian(g)(y), y),
    )


def solver(v):
    a = matrix(v)
    return lax.custom_linear_solve(
        *(lambda x: a @ x, jnp.sin(v), lambda f, b: jnp.linalg.solve(a, b)),
        transpose_solve=lambda f, b: jnp.linalg.solve(a.T, b),
    )


def step(c, u):
    return jnp.sin(c + u), c * jnp.cos(u)


XS = np.linspace(0.0, 1.0, 4)
STEPS = np.cos(np.arange(3.0))
NOTHING = jax.checkpoint_policies.nothing_saveable
NAMED = jax.checkpoint_policies.save_only_these_names("kept")

CALLS = {
    "scan over the vector": lambda v: lax.scan(step, 0.5, v)[1],
    "scan back": lambda v: lax.scan(step, v[0], v, reverse=True)[1],
    "scan unrolled": lambda v: lax.scan(step, v, XS, unroll=2)[0],
    "scan of checkpoints": lambda v: lax.scan(jax.checkpoint(step), v, XS)[0],
    "scan in scan": lambda v: lax.scan(lambda c, u: (lax.scan(step, c, XS[:2] * u)[0], None), v, STEPS)[0],
    "scan with a branch": lambda v: lax.scan(
        lambda c, u: (lax.cond(u > 0, jnp.sin, lambda c: c * jnp.cos(c), c), None), v, STEPS
    )[0],
    "loop with an index": lambda v: lax.fori_loop(0, 3, lambda i, c: c.at[i].set(jnp.sin(c[i - 1] + c[i])), v),
    "loop with a constant": lambda v: lax.fori_loop(0, 2, lambda i, c: jnp.sin(matrix(v) @ c / 7), v),
    "map": lambda v: lax.map(lambda x: lax.cond(x > 0, jnp.sin, jnp.cos, x), v),
    "map in batches": lambda v: lax.map(lambda x: x * jnp.cos(x), v, batch_size=2),
    "branch in vmap": jax.vmap(lambda x: lax.cond(x > 0.2, jnp.sin, lambda x: x * jnp.cos(x), x)),
    "switch in vmap": jax.vmap(lambda x: lax.switch(jnp.int32(x > 0), [jnp.sin, jnp.cos], x)),
    "scan in vmap": jax.vmap(lambda x: lax.scan(step, x, XS)[0]),
    "slice in vmap": lambda v: jax.vmap(lambda i: lax.dynamic_slice(v, (i,), (2,)).sum())(jnp.array([0, 1, 1])) / 2,
    "scatter in vmap": lambda v: flat(jax.vmap(lambda x: v.at[1].mul(jnp.sin(x)))(v)),
    "vmap in vmap": lambda v: flat(jax.vmap(lambda x: jax.vmap(lambda y: jnp.sin(x * y))(v))(v)),
    "vmap over columns": lambda v: jax.vmap(lambda x, y: x @ y, (1, None))(matrix(v) / 7, v),
    "remat": jax.checkpoint(lambda v: jnp.sin(jnp.cos(v) * v), policy=NOTHING),
    "remat with names": jax.checkpoint(lambda v: jnp.sin(checkpoint_name(jnp.cos(v), "kept") * v), policy=NAMED),
    "remat in remat": jax.checkpoint(lambda v: jax.checkpoint(lambda x: jnp.sin(jnp.sin(x)))(v) * v[::-1]),
    "custom_jvp": half_slope,
    "custom_jvp with a number": lambda v: scaled_by(0.5, v),
    "custom_jvp in scan": lambda v: lax.scan(lambda c, u: (half_slope(c + u), None), v, XS)[0],
    "custom_jvp in vmap": jax.vmap(lambda x: half_slope(x) * x),
    "custom_jvp in remat": jax.checkpoint(lambda v: half_slope(jnp.sin(v))),
    "custom_root": root,
    "custom_linear_solve": solver,
    "jit in jit": lambda v: jax.jit(lambda x: jax.jit(jnp.sin)(x) * x)(v) * jnp.cos(v),
    "stop_gradient": lambda v: lax.stop_gradient(v) * jnp.sin(v),
    "optimization_barrier": lambda v: lax.optimization_barrier(jnp.sin(v)),
}

REDUCED = {
    "log_softmax": lambda v: jnp.sin(jax.nn.log_softmax(v)),
    "logsumexp": lambda v: jnp.sin(jax.nn.logsumexp(v, b=positive(v[::-1]))) * jnp.cos(v),
    "standardize": lambda v: jnp.sin(jax.nn.standardize(v, epsilon=0.1)),
    "variance": lambda v: jnp.sin(jnp.var(v)) * v,
    "deviation": lambda v: jnp.std(positive(v) * jnp.array([1.0, 2.0, 4.0])) * jnp.cos(v) / 4,
    "product": lambda v: jnp.prod(jnp.cos(v)) * v,
    "maximum": lambda v: jnp.max(v) * jnp.cos(v),
    "argmax": lambda v: v * jnp.argmax(v),
    "range": lambda v: jnp.sin(jnp.max(v) - jnp.min(v)) * v,
    "trapezoid": lambda v: jnp.trapezoid(jnp.sin(v)) * jnp.cos(v) / 2,
    "average": lambda v: jnp.average(v, weights=positive(v)) * jnp.cos(v),
    "nansum": lambda v: jnp.nansum(jnp.sin(v)) * jnp.cos(v) / N,
    "softmax masked": lambda v: jax.nn.softmax(v, where=v > -5),
    "cross entropy": lambda v: jnp.sin(-jnp.sum(jax.nn.softmax(v[::-1]) * jax.nn.log_softmax(v))) * jnp.cos(v),
    "general reduction": lambda v: lax.reduce(jnp.cos(v), 1.0, lax.mul, (0,)) * v,
    "difference": lambda v: jnp.diff(v, append=jnp.sin(v[:1])),
}

OPERATIONS = {
    f"{kind}: {name}": jax.jit(f)
    for kind, table in {
        "elementwise": ELEMENTWISE,
        "indexed": INDEXED,
        "structural": STRUCTURAL,
        "window": WINDOWS,
        "linalg": LINALG,
        "complex": COMPLEX,
        "call": CALLS,
        "reduced": REDUCED,
    }.items()
    for name, f in table.items()
}
