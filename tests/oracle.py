"""The oracle: compare the derivatives that admodes computes with those of JAX, and with each other.

:func:`check` looks at one function at one point in every way that matters: values, dtypes, weak types, shapes and the
positions of NaN and inf against JAX; finite differences in float64; the adjoint identity; the same under ``jit`` and
``vmap``; and, with ``order=2``, forward over reverse and reverse over forward.
"""

from __future__ import annotations

from functools import partial

import jax
import numpy as np
from jax import numpy as jnp
from jax.tree_util import tree_flatten, tree_flatten_with_path, tree_leaves, tree_map, tree_structure

import admodes

JAX_VERSION = jax.__version_info__[:2]  # some of JAX's derivatives changed from one version to the next
FLOAT0 = jax.dtypes.float0
RTOL = {
    "float16": 1e-2,
    "bfloat16": 6e-2,
    "float32": 2e-5,
    "complex64": 4e-5,
    "float64": 1e-11,
    "complex128": 1e-11,
}


def sample(shape, dtype, lo=-2.0, hi=2.0, seed=0):
    """Uniform random numbers in [lo, hi), both parts of complex ones; whole numbers for integers, coins for bool."""
    rng, dtype = np.random.default_rng(seed), np.dtype(dtype)
    if dtype == np.bool_:
        return rng.random(shape) < 0.5
    if jax.dtypes.issubdtype(dtype, np.integer):
        return rng.integers(int(lo), int(hi), shape).astype(dtype)
    x = rng.uniform(lo, hi, shape)
    if jax.dtypes.issubdtype(dtype, np.complexfloating):
        x = x + 1j * rng.uniform(lo, hi, shape)
    return np.asarray(x).astype(dtype)


def tangents_like(tree, seed=0):
    """A random tangent (or cotangent) for each leaf, of size about one, never near zero; float0 for integers."""
    leaves, treedef = tree_flatten(tree)
    return treedef.unflatten([_tangent(x, seed + 17 * i) for i, x in enumerate(leaves)])


def _tangent(x, seed):
    aval = jax.typeof(x)
    tangent = aval.to_tangent_aval()
    if tangent.dtype == FLOAT0:
        return np.zeros(aval.shape, FLOAT0)
    t = sample(aval.shape, aval.dtype, 0.5, 1.5, seed)
    sign = np.where(np.random.default_rng(seed + 1).random(aval.shape) < 0.5, -1, 1).astype(aval.dtype)
    return (t * sign).item() if type(x) in (float, complex) else jnp.asarray(t * sign)


def check(
    fun,
    args,
    *,
    modes=("jvp", "vjp"),
    order=1,
    fd=True,
    argnums=None,
    rtol=None,
    atol=None,
    transforms=True,
    adjoint=None,
    weak_types=True,
    step=1e-3,
    seed=0,
):
    """Compare the derivatives of ``fun`` at ``args`` with JAX's; raises AssertionError that names what differs.

    Args:
      fun: function of the positional arguments ``args`` (pytrees of arrays).
      modes: which of JAX's ``jvp`` and ``vjp`` serve as oracle (leave out the one that JAX cannot do).
      order: 2 compares second derivatives too.
      fd: compare with central differences, if all floating-point inputs have 64-bit parts; switch off at kinks.
      argnums: positions of the arguments that are differentiated (an int or a sequence); all by default.
      rtol, atol: tolerances; by default by dtype, ``atol`` relative to the largest entry.
      transforms: compare also under ``jit`` and under ``vmap`` (where JAX can batch it).
      adjoint: check ⟨g, J t⟩ = ⟨Jᵀ g, t⟩; by default if both modes are compared.
      weak_types: whether weak types must be JAX's too.
      step: of the finite differences.
      seed: of the random tangents and cotangents.
    """
    fun, args = _partial(fun, args, argnums)
    ts = tangents_like(args, seed + 1)
    out = jax.eval_shape(fun, *args)
    gs = tangents_like(tree_map(_zeros, out), seed + 2)
    same = partial(_assert_same, rtol=rtol, atol=atol)

    expected = _expected(fun, modes, args, ts, gs, transforms)
    both = "jvp" in modes and "vjp" in modes
    ours = dict.fromkeys([*modes, *(("jvp", "vjp") if adjoint else ())])
    found = {mode: _derivative(admodes, mode, fun)(args, ts, gs) for mode in ours}
    for mode in modes:
        same(found[mode], expected[mode], mode, weak_types=None if weak_types else False)
    if adjoint or (adjoint is None and both):
        _assert_adjoint(gs, found["jvp"][1], found["vjp"][1], ts, rtol)
    if fd and _is_64_bit(args) and "jvp" in found:
        _assert_finite_difference(fun, args, ts, found["jvp"][1], "jvp", step)
    if transforms:
        _check_transforms(fun, modes, args, ts, gs, expected, same)
    if order > 1:
        _check_second_order(fun, both, args, ts, gs, step if fd else None, same, seed)


def _expected(fun, modes, args, ts, gs, jit):
    """JAX's derivatives; in one compilation where that is possible, since compiling step by step takes longer."""

    def derivatives(args, ts, gs):
        return {mode: _derivative(jax, mode, fun)(args, ts, gs) for mode in modes}

    inputs, put = _without_float0((args, ts, gs))
    return jax.jit(lambda *leaves: derivatives(*put(leaves)))(*inputs) if jit else derivatives(args, ts, gs)


def _partial(fun, args, argnums):
    """``fun`` as a function of the arguments at ``argnums`` only."""
    if argnums is None:
        return fun, tuple(args)
    argnums = (argnums,) if isinstance(argnums, int) else tuple(argnums)

    def restricted(*given):
        full = list(args)
        for i, x in zip(argnums, given, strict=True):
            full[i] = x
        return fun(*full)

    return restricted, tuple(args[i] for i in argnums)


def _is_inexact(x):
    return jax.dtypes.issubdtype(x.dtype, np.inexact)


def _zeros(struct):
    """Zeros of this type; a Python number if that is what is weakly typed."""
    zeros = np.zeros(struct.shape, struct.dtype)
    is_number = struct.weak_type and not struct.shape and struct.dtype in (np.float64, np.complex128)
    return zeros.item() if is_number else zeros


def _derivative(library, mode, fun):
    """``(args, tangents, cotangents) -> (value, derivative)`` by ``library``, which is jax or admodes."""

    def by_jvp(args, ts, gs):
        return library.jvp(fun, args, ts)

    def by_vjp(args, ts, gs):
        value, pullback = library.vjp(fun, *args)
        return value, pullback(gs)

    return by_jvp if mode == "jvp" else by_vjp


def _check_transforms(fun, modes, args, ts, gs, expected, same):
    """All modes in one compilation; then batched, both copies of a batch of two being what one alone would be."""
    inputs, put = _without_float0((args, ts, gs))

    def everything(library):
        return lambda *leaves: [_derivative(library, mode, fun)(*put(leaves)) for mode in modes]

    once = jax.jit(everything(admodes))(*inputs)
    types = jax.eval_shape(everything(jax), *inputs)
    for mode, result, struct in zip(modes, once, types, strict=True):
        same(result, expected[mode], f"jit of {mode}", weak_types=struct)
    if not inputs:
        return
    twice = [jnp.stack([x, x]) for x in map(jnp.asarray, inputs)]
    try:
        batched = jax.jit(jax.vmap(everything(admodes)))(*twice)
    except Exception as error:
        try:
            jax.eval_shape(jax.vmap(everything(jax)), *twice)
        except type(error):
            return
        raise
    for mode, result in zip(modes, batched, strict=True):
        for k in range(2):
            same(tree_map(lambda x, k=k: x[k, ...], result), expected[mode], f"vmap of {mode}", weak_types=False)


def _check_second_order(fun, both, args, ts, gs, step, same, seed):
    """Forward over reverse, and reverse over forward (forward over forward where there is only forward mode)."""

    def gradient(library):
        return lambda *xs: _inexact(library.vjp(fun, *xs)[1](gs))

    def slope(library):
        return lambda *xs: _inexact(library.jvp(fun, xs, ts)[1])

    pairs = [("jvp", "vjp", gradient), ("vjp", "jvp", slope)] if both else [("jvp", "jvp", slope)]
    for outer, name, inner in pairs:
        inputs, put = _without_float0((args, tangents_like(args, seed + 3), _inexact(gs)))
        second = {lib: _jitted(_derivative(lib, outer, inner(lib)), put) for lib in (admodes, jax)}
        found = second[admodes](*inputs)
        try:
            same(found, second[jax](*inputs), f"{outer} of {name}")
        except NotImplementedError:
            assert step, "JAX has no second derivative here: finite differences must decide"
        if step and outer == "jvp" and _is_64_bit(args):
            us = tangents_like(args, seed + 3)
            _assert_finite_difference(jax.jit(inner(admodes)), args, us, found[1], f"{outer} of {name}", step)


def _jitted(derivative, put):
    return jax.jit(lambda *leaves: derivative(*put(leaves)))


def _inexact(tree):
    """The leaves that carry derivatives."""
    return [x for x in tree_leaves(tree) if jax.typeof(x).dtype != FLOAT0]


def _without_float0(tree):
    """The leaves of ``tree`` that may be arguments of jit, and a function that puts the whole together again."""
    leaves, treedef = tree_flatten(tree)
    is_float0 = [getattr(x, "dtype", None) == FLOAT0 for x in leaves]

    def put(given):
        it = iter(given)
        return treedef.unflatten([x if z else next(it) for x, z in zip(leaves, is_float0, strict=True)])

    return [x for x, z in zip(leaves, is_float0, strict=True) if not z], put


def _assert_same(found, expected, what, *, rtol, atol, weak_types=None):
    """Equal structure, types and weak types, entries equal up to the tolerance, NaN and inf at the same places.

    ``weak_types`` is what to take the weak types from, in the place of ``expected``; with False they are not compared.
    """
    typed = expected if weak_types is None else weak_types
    assert tree_structure(found) == tree_structure(expected), what
    weak = [getattr(jax.typeof(w), "weak_type", None) for w in tree_leaves(typed)] if typed is not False else None
    for i, ((path, x), y) in enumerate(zip(tree_flatten_with_path(found)[0], tree_leaves(expected), strict=True)):
        where = what + (" derivative" if path and path[0].idx == 1 else " value") + jax.tree_util.keystr(path[1:])
        a, b = jax.typeof(x), jax.typeof(y)
        assert (a.shape, a.dtype) == (b.shape, b.dtype), f"{where}: {a.str_short()} but JAX has {b.str_short()}"
        if weak is not None:
            assert a.weak_type == weak[i], f"{where}: weak_type {a.weak_type} but JAX has {weak[i]}"
        if a.dtype != FLOAT0 and not jax.dtypes.issubdtype(a.dtype, jax.dtypes.extended):
            _assert_close(
                np.asarray(x), np.asarray(y), RTOL.get(a.dtype.name, 0) if rtol is None else rtol, atol, where
            )


def _assert_close(x, y, rtol, atol, where):
    if not _is_inexact(x):
        np.testing.assert_array_equal(x, y, where)
        return
    wide = np.complex128 if jax.dtypes.issubdtype(x.dtype, np.complexfloating) else np.float64
    x, y = x.astype(wide), y.astype(wide)
    parts = np.abs(np.stack([y.real, y.imag]))
    atol = rtol * parts.max(initial=0, where=np.isfinite(parts)) if atol is None else atol
    np.testing.assert_allclose(x, y, rtol, atol, equal_nan=True, err_msg=where)


def _inner(xs, ys):
    """(Re Σ x y, Σ |x y|): the pairing of the transpose, and its scale for the tolerance."""
    total, scale = 0.0, 0.0
    for x, y in zip(tree_leaves(xs), tree_leaves(ys), strict=True):
        if np.asarray(x).dtype != FLOAT0 and np.asarray(y).dtype != FLOAT0:
            product = np.asarray(x).astype(np.complex128) * np.asarray(y).astype(np.complex128)
            total, scale = total + product.real.sum(), scale + np.abs(product).sum()
    return total, scale


def _assert_adjoint(gs, jt, jtg, ts, rtol):
    leaves = [np.asarray(x) for x in tree_leaves((jt, jtg))]
    if not all(np.isfinite(x.astype(np.complex128)).all() for x in leaves if x.dtype != FLOAT0):
        return
    (left, scale), (right, scale2) = _inner(gs, jt), _inner(jtg, ts)
    tolerance = max([rtol or 0, *(RTOL.get(x.dtype.name, 0) for x in leaves)])
    assert abs(left - right) <= 4 * tolerance * max(scale, scale2), f"adjoint identity: {left} != {right}"


def _is_64_bit(args):
    dtypes = [jax.typeof(x).dtype for x in tree_leaves(args)]
    floating = [d for d in dtypes if jax.dtypes.issubdtype(d, np.inexact)]
    return bool(floating) and all(d in (np.float64, np.complex128) for d in floating)


def _assert_finite_difference(fun, args, ts, derivative, what, step, tolerance=2e-6):
    """Central differences at steps h and h/2, extrapolated: (4 D(h/2) - D(h)) / 3 = f' + O(h⁴)."""

    def moved(h):
        at = tree_map(lambda x, t: x if getattr(t, "dtype", None) == FLOAT0 else x + h * t, args, ts)
        return [np.asarray(y) for y in tree_leaves(fun(*at))]

    def central(h):
        return [(p - m) / (2 * h) for p, m in zip(moved(h), moved(-h), strict=True) if _is_inexact(p)]

    exact = [np.asarray(d) for d in tree_leaves(derivative) if np.asarray(d).dtype != FLOAT0]
    with np.errstate(all="ignore"):
        for d, coarse, fine in zip(exact, central(step), central(step / 2), strict=True):
            estimate = (4 * fine - coarse) / 3
            known = np.isfinite(d) & np.isfinite(estimate)
            scale = np.abs(d[known]).max(initial=1)
            np.testing.assert_allclose(
                d[known], estimate[known], tolerance, tolerance * scale, err_msg=f"finite differences, {what}"
            )
