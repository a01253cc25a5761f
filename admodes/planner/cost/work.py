r"""The work of a program: counted from the shapes of its equations, before anything is compiled.

Elementwise operations are counted by their elements (compilers fuse them, so that the values between them are never
stored), all others also by the bytes that they read and write. In a batch of p seeds, what depends on the seeds is
counted p times and the rest once: a constant matrix is read once for all seeds.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np

from admodes.program import jax_compat as jc
from admodes.program.dependence import carried, reached
from admodes.program.traits import traits

# The transcendental functions in the time of which an entry is computed, by class of cost (the trait of a primitive).
# Measured over 20,000 entries on a CPU core (tests/planner/cost/test_primitive_times.py): a sine takes 1 to 2, x**y and
# arctan2 4 to 6, a zeta, polygamma or betainc 20 to 100, an igamma or a sample of gamma 100 to 1500, for all entries
# iterate until the last has converged. So primitives of one class differ by as much as four. If a class is off by that,
# the wrong plan is chosen where one evaluates such functions more often than another, and the two are within four.
FUNCTIONS = {"transcendental": 1.0, "series": 50.0, "iterated": 400.0}
# Part of a kernel that an operation is which compilers fuse with its neighbours. Chosen: five to a kernel. If it is
# four times off, small programs, whose time is that of starting kernels, are predicted so much off, for all modes
# alike.
FUSED = 0.2
# Kernels of each step of a loop beside its body: it is counted, compared, and its carry copied. Chosen. An error
# matters for loops whose body is a few operations only.
STEP = 3.0
# Cheap operations in the time of an entry gathered where the place is known from another seed. Chosen. An error makes
# programs that index many seeds look cheaper or dearer than those that do not.
COPIED = 6.0
# Steps that a while loop is taken to run: nobody knows. Chosen. An error scales the loop in all candidates alike, and
# shifts the choice only where some run it more often.
UNKNOWN_TRIPS = 16


@dataclass(frozen=True)
class Work:
    """Counts: elements of cheap operations, of transcendental functions, multiply-adds, elements that are joined
    (concatenated, padded), gathered and scattered; bytes; kernels that are started (a fused operation is part of one).

    ``multiplications`` are those by local partials: of what depends on the seeds.
    ``peak`` is the largest number of bytes that are alive at once, arguments and results aside.
    """

    elements: float = 0.0
    transcendentals: float = 0.0
    products: float = 0.0
    joined: float = 0.0
    gathered: float = 0.0
    scattered: float = 0.0
    bytes: float = 0.0
    kernels: float = 0.0
    multiplications: float = 0.0
    peak: float = 0.0

    @property
    def flops(self) -> float:
        """Floating point operations: a multiply-add is two."""
        return self.elements + self.transcendentals + 2 * self.products

    def __add__(self, other: Work) -> Work:
        """One after the other."""
        sums = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in dataclasses.fields(self)}
        return Work(**{**sums, "peak": max(self.peak, other.peak)})

    def times(self, count: float) -> Work:
        """The same work again and again."""
        return Work(
            **{f.name: getattr(self, f.name) * (count if f.name != "peak" else 1) for f in dataclasses.fields(self)}
        )


@jc.weak_cache
def work(closed, batched: tuple[bool, ...], seeds: int) -> Work:
    """The work of a jaxpr whose marked inputs come in a batch of ``seeds``."""
    jaxpr = jc.inner(closed)
    many = {v for v, on in zip(jaxpr.invars, batched, strict=True) if on}
    parts: list[tuple[Work, int]] = []  # of each equation, and in how many copies its results come
    for eqn in jaxpr.eqns:
        flags = [v in many for v in map(_variable, eqn.invars)]
        many.update(itertools.compress(eqn.outvars, reached(eqn.primitive, eqn.params, flags, len(eqn.outvars))))
        done = _equation(eqn, flags, seeds)
        if any(flags) and _multiplies(eqn.primitive):
            done = dataclasses.replace(done, multiplications=done.products or done.elements)
        parts.append((done, seeds if any(flags) else 1))
    return dataclasses.replace(sum((done for done, _ in parts), Work()), peak=_peak(jaxpr, parts))


def _multiplies(primitive) -> bool:
    said = traits(primitive)
    return said.multiplies or said.cost in ("contracting", "solving")


def _peak(jaxpr, parts: Sequence[tuple[Work, int]]) -> float:
    """The most bytes alive. Fused results are not stored, unless they are read again after the next kernel."""
    last = {v: k for k, eqn in enumerate(jaxpr.eqns) for v in eqn.invars if not isinstance(v, jc.Literal)}
    kept = {v for v in jaxpr.outvars if not isinstance(v, jc.Literal)}
    costs = [traits(eqn.primitive).cost for eqn in jaxpr.eqns]
    kernels = [bool(done.bytes) or cost == "loop" for cost, (done, _) in zip(costs, parts, strict=True)]
    following = list(
        itertools.accumulate(
            range(len(kernels) - 1, -1, -1), lambda after, k: k if kernels[k] else after, initial=len(kernels)
        )
    )[::-1][1:]
    alive = peak = 0.0
    stored: dict = {}
    for k, (eqn, (done, copies)) in enumerate(zip(jaxpr.eqns, parts, strict=True)):
        for v in eqn.outvars:
            if kernels[k] or (last.get(v, -1) > following[k] and costs[k] != "free"):
                stored[v] = bytes_of(v.aval) * copies
                alive += stored[v]
        peak = max(peak, alive + done.peak)
        for v in {x for x in [*eqn.invars, *eqn.outvars] if not isinstance(x, jc.Literal)}:
            if last.get(v, -1) <= k and v not in kept:
                alive -= stored.pop(v, 0.0)
    return peak


def _variable(atom):
    return None if isinstance(atom, jc.Literal) else atom


def entries(aval) -> int:
    return math.prod(getattr(aval, "shape", ()))


def bytes_of(aval) -> int:
    return entries(aval) * np.dtype(getattr(aval, "dtype", np.int32)).itemsize if not _opaque(aval) else 0


def depth_of(primitive, params, operands: Sequence) -> int:
    """The number of products added up in an entry of a matrix product or a convolution; 0 for other primitives."""
    if primitive is jax.lax.dot_general_p:
        (contracted, _), _ = params["dimension_numbers"]
        return math.prod(operands[0].shape[d] for d in contracted)
    if primitive is jax.lax.conv_general_dilated_p:
        features = params["dimension_numbers"].rhs_spec[0]
        return entries(operands[1]) // max(operands[1].shape[features], 1)
    if primitive is jc.ragged_dot_general_p:  # each row meets the matrix of its group only
        (contracted, _), _ = params["ragged_dot_dimension_numbers"].dot_dimension_numbers
        return math.prod(operands[0].shape[d] for d in contracted)
    return 0


def _opaque(aval) -> bool:
    return not hasattr(aval, "shape") or jc.is_extended(aval.dtype)


def _equation(eqn, flags: Sequence[bool], seeds: int) -> Work:
    """The work of one equation, ``flags`` saying which of its operands come in a batch of ``seeds``.

    For 10 seeds T, an n x n matrix A that is known and one-dimensional x of n entries that depend on the arguments:

    ==================  =============================================================
    ``A @ t``           10 n² multiply-adds; A is read once, t and the result 10 times
    ``cos(x)``          n transcendental functions, for all seeds
    ``cos(x) * t``      10 n elements, a part of a kernel
    ``t[i]``, i known   n gathered entries, and 9 n that are copied likewise
    loop of 5 steps     5 times its body, with kernels that are cheap to start
    ``cond``            the dearest of its branches
    ==================  =============================================================
    """
    primitive, params = eqn.primitive, eqn.params
    kind = traits(primitive).cost
    p = seeds if any(flags) else 1
    outs = [v.aval for v in eqn.outvars]
    size = sum(map(entries, outs)) * p
    if primitive is jc.scan_p:
        loop, step = jc.scan_parts(params)
        body = work(step, tuple(carried(flags, params)), seeds)
        kept, carry = loop.n_consts + loop.n_carry, loop.n_carry
        stacked = [v.aval for v, on in zip(eqn.invars[kept:], flags[kept:], strict=True) if on]
        stacked += list(itertools.compress(outs[carry:], reached(primitive, params, flags, len(outs))[carry:]))
        turned = 2.0 * p * sum(map(bytes_of, stacked))  # steps come first inside of a loop, seeds outside
        return in_loop(body).times(loop.length) + Work(bytes=turned)
    if primitive is jc.while_p:
        step = jc.while_parts(params).body
        return in_loop(work(step, (any(flags),) * len(step.in_avals), seeds)).times(UNKNOWN_TRIPS)
    if primitive is jc.cond_p:
        branches = [work(b, tuple(flags[1:]), seeds) for b in jc.branches(params)]
        return max(branches, key=lambda w: w.flops + w.bytes)
    if kind in (None, "calling"):
        inner = jc.inlined(eqn) or next((params[k] for k in ("jaxpr", "call_jaxpr", "fun_jaxpr") if k in params), None)
        if inner is not None:
            return work(jc.close_jaxpr(inner), tuple(flags), seeds)
    if kind == "free":
        return Work()
    moved = size * 1.0
    moved_bytes = sum(bytes_of(a) for a in outs) * p
    moved_bytes += sum(bytes_of(v.aval) * (p if on else 1) for v, on in zip(eqn.invars, flags, strict=True))
    if depth := depth_of(primitive, params, [v.aval for v in eqn.invars]):
        return Work(products=size * depth, bytes=moved_bytes, kernels=1)
    if kind == "scattering":
        return Work(scattered=entries(eqn.invars[-1].aval) * p, bytes=moved_bytes, kernels=1)
    if kind == "reducing":
        read = sum(entries(v.aval) * (p if on else 1) for v, on in zip(eqn.invars, flags, strict=True))
        return Work(elements=read, bytes=moved_bytes, kernels=1)
    if kind == "moving":
        return Work(elements=moved, kernels=FUSED)
    if kind == "padding":
        return Work(joined=moved, kernels=FUSED)
    if kind == "joining":
        return Work(joined=moved, kernels=1)
    if kind == "gathering":
        places = moved if flags[1] else moved / p  # all seeds may be read at the same places
        return Work(gathered=places, elements=COPIED * (moved - places), bytes=moved_bytes, kernels=1)
    if kind in FUNCTIONS:
        return Work(transcendentals=FUNCTIONS[kind] * moved, kernels=FUSED)
    if kind == "solving":  # about n operations an entry
        n = max(max(v.aval.shape, default=1) for v in eqn.invars)
        return Work(products=size * n, bytes=moved_bytes, kernels=1)
    return Work(elements=moved, kernels=FUSED)  # elementwise, as what nothing is known of is taken to be


def in_loop(body: Work) -> Work:
    """The same work in a step of a loop, where a kernel is a call and nothing has to be started."""
    return dataclasses.replace(body, kernels=0.05 * (body.kernels + STEP))


def conversion(shape: tuple[int, int], entries: int, dtype) -> Work:
    """The work of writing a dense matrix of this shape from some of its entries."""
    size = float(math.prod(shape)) * jax.dtypes.canonicalize_dtype(dtype).itemsize
    return Work(scattered=entries, bytes=size, kernels=2)
