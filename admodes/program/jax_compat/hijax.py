"""Equations that are objects: ``call_hi_primitive``, whose one parameter says what the equation is.

Such an equation is dealt with as early as it is met. The object of a function with a rule of the user's, or of a
checkpointed call, *stands for* an equation that JAX also writes without objects (``custom_jvp_call``,
``custom_vjp_call``, ``remat2``, ``name``): it is replaced by that, so that there is one way to treat these. Any other
object is kept. Its equation then has a :class:`HiPrimitive` as primitive, named after the class of the object.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import jax
from jax import lax
from jax._src import ad_util, api_util
from jax._src import linear_util as lu
from jax.custom_derivatives import SymbolicZero
from jax.tree_util import tree_flatten, tree_leaves, tree_unflatten

from admodes.program.jax_compat.contacts import contact
from admodes.program.jax_compat.primitives import custom_jvp_call_p, custom_vjp_call_p, name_p, remat_p
from admodes.program.jax_compat.values import canonicalize

Zero = ad_util.Zero
call_hi_primitive_p = contact("call_hi_primitive_p")
HiPrim, VmapOf = contact("HiPrim"), contact("VmapOf")
ValAccum, NullAccum = contact("ValAccum"), contact("NullAccum")


@dataclass(frozen=True)
class HiPrimitive:
    """The primitive of the equations whose objects are of this class; the object is their parameter ``_prim``."""

    kind: type

    multiple_results = True

    @property
    def name(self) -> str:
        return self.kind.__name__

    @property
    def kinds(self) -> list[HiPrimitive]:
        """This one, then those of the classes that it inherits from."""
        return [HiPrimitive(kind) for kind in self.kind.__mro__ if kind is not object]

    def bind(self, *args, _prim):
        return call_hi_primitive_p.bind(*args, _prim=_prim)

    def get_bind_params(self, params):
        return params


def hi_primitive(name: str) -> HiPrimitive | None:
    """The primitive of a class of JAX's own; None if the installed version does not have it."""
    kind = contact(name)
    return None if kind is None else HiPrimitive(kind)


def face(primitive, params):
    """The primitive of an equation: of one that is an object the one of its class."""
    return HiPrimitive(type(unmapped(params["_prim"]))) if primitive is call_hi_primitive_p else primitive


def unmapped(prim):
    """The object that was vmapped (before jax 0.12, where a batched object is one of another class)."""
    return unmapped(prim.prim) if VmapOf is not None and isinstance(prim, VmapOf) else prim


# -- trees --------------------------------------------------------------------------------------------------


def operands_of(prim, flat: Sequence) -> tuple:
    """The operands of an object from flat ones."""
    return tree_unflatten(prim.in_tree, list(flat))


def flat_results(prim, tree) -> list:
    """The flat results (or tangents of results, with None or Zero in their places) of an object."""
    flat = prim.out_tree.flatten_up_to(tree)
    return [x if x is None or isinstance(x, Zero) else canonicalize(x) for x in flat]


def zero_tangent(aval):
    """The argument that methods of objects get for a zero tangent of a value of this type."""
    return Zero(aval.to_tangent_aval())


def zero_cotangent(aval):
    """The argument that methods of objects get for a zero cotangent of a value of this type."""
    return Zero(aval.to_ct_aval())


def jvp_of(prim, primals: Sequence, tangents: Sequence) -> tuple[list, list]:
    """An object's own ``jvp``: (flat results, their tangents); a tangent None is zero."""
    outs, ts = prim.jvp(operands_of(prim, primals), operands_of(prim, _tangents(prim, tangents)))
    return flat_results(prim, outs), flat_results(prim, ts)


def linearized_by(prim, primals: Sequence, tangents: Sequence) -> tuple[list, list]:
    """An object's own ``lin`` and ``linearized``: (flat results, their tangents); a tangent None is zero."""
    nonzeros = [t is not None for t in tangents]
    outs, *residuals = prim.lin(operands_of(prim, nonzeros), *operands_of(prim, primals))
    ts = prim.linearized(*_residuals(residuals), *operands_of(prim, _tangents(prim, tangents)))
    return flat_results(prim, outs), flat_results(prim, ts)


def _tangents(prim, tangents) -> list:
    return [zero_tangent(a) if t is None else t for t, a in zip(tangents, prim.in_avals_flat, strict=True)]


def _residuals(found: Sequence) -> tuple:
    """The argument that a backward pass gets of (residuals, which results have a derivative, structured residuals)."""
    return (found[0],) if len(found) < 3 or found[2] is None else (found[0], found[2])


def vjp_of(prim, nonzeros: Sequence[bool], primals: Sequence) -> tuple[list, tuple, list]:
    """An object's own forward pass: (flat results, what its backward pass needs, which results have a derivative)."""
    out, *found = prim.vjp_fwd(operands_of(prim, nonzeros), *operands_of(prim, primals))
    reached = tree_leaves(jax.tree.broadcast(found[1] if len(found) > 1 else True, out))
    return flat_results(prim, out), _residuals(found), reached


def pulled_by(prim, nonzeros: Sequence[bool], residuals: tuple, cotangents: Sequence) -> tuple[list, Any]:
    """An object's own backward pass: (flat cotangents of the operands, Zero where they are zero; logs)."""

    def pull(accums):
        return prim.vjp_bwd(*residuals, tree_unflatten(prim.out_tree, cotangents), *accums)

    return _accumulated(prim, nonzeros, pull)


def transposed_by(prim, primals: Sequence, linear: Sequence[bool], cotangents: Sequence) -> list:
    """An object's own transpose with respect to the operands that are marked."""

    def transpose(accums):
        mixed = [a if on else p for a, p, on in zip(tree_leaves(accums), primals, linear, strict=True)]
        return prim.transpose(tree_unflatten(prim.out_tree, cotangents), *operands_of(prim, mixed))

    return _accumulated(prim, linear, transpose)[0]


def _accumulated(prim, nonzeros: Sequence[bool], run: Callable) -> tuple[list, Any]:
    """The sums that a method leaves in accumulators, one for each operand: (cotangents, what it returns).

    That of an operand without derivative takes nothing: a method may see this, and spare the work.
    """
    avals = [getattr(a, "inner_aval", a).to_ct_aval() for a in prim.in_avals_flat]
    accums = [(ValAccum if on else NullAccum)(a) for a, on in zip(avals, nonzeros, strict=True)]
    logs = run(operands_of(prim, accums))
    return [a.freeze() if on else Zero(a.aval) for a, on in zip(accums, nonzeros, strict=True)], logs


def gives(prim, *names: str) -> bool:
    """True if the class of an object has methods of its own under these names, none that JAX derives from others."""
    return all(_is_own(type(unmapped(prim)), name) for name in names)


def _is_own(kind: type, name: str) -> bool:
    method = getattr(kind, name, None)
    return method is not getattr(HiPrim, name, None) and method not in _DERIVED


def _derived() -> tuple:
    """The methods by which ``jax.experimental.hijax`` derives one way of differentiation from another."""
    from jax.experimental import hijax

    found: list = []
    for name in ("jvp_from_lin", "linearize_from_jvp", "vjp_from_jvp", "vjp_from_lin"):
        given = getattr(hijax, name, ())
        found += given if isinstance(given, tuple) else [given]
    return tuple(found)


_DERIVED = _derived()


# -- what objects stand for ---------------------------------------------------------------------------------


def stands_for(prim) -> Callable | None:
    """The function of flat operands, made of other equations, that an object stands for; None if it is kept."""
    rewrite = next((f for kind, f, _ in _REWRITES if isinstance(unmapped(prim), kind)), None)
    if rewrite is None:
        return None
    return lambda *args: _mapped(prim, rewrite, args) if unmapped(prim) is not prim else rewrite(prim, args)


def stand_in(equation):
    """The primitive that an equation of a jaxpr has once its object is replaced by what it stands for."""
    if equation.primitive is not call_hi_primitive_p:
        return equation.primitive
    prim = unmapped(equation.params["_prim"])
    return next((p for kind, _, p in _REWRITES if isinstance(prim, kind)), HiPrimitive(type(prim)))


def object_parts(params: dict) -> Iterator[Any]:
    """The values that the parameters of an equation hold, those of its object included."""
    for value in params.values():
        if isinstance(value, HiPrim):
            yield from object_parts(value.params)
        else:
            yield getattr(value, "jaxpr", value) if isinstance(value, jax.stages.Traced) else value


def _mapped(prim, rewrite, args) -> list:
    """A batched object stands for the batched function."""
    inner = prim.prim

    def one(*operands):
        flat = tree_leaves(operands)
        outs = _mapped(inner, rewrite, flat) if unmapped(inner) is not inner else rewrite(inner, flat)
        return tree_unflatten(inner.out_tree, outs)

    fun = jax.vmap(one, in_axes=prim.in_dims, out_axes=prim.out_dim, **prim._vmap_params)
    return flat_results(prim, fun(*operands_of(prim, args)))


def _wrapped(fun, args, name: str):
    return lu.wrap_init(fun, debug_info=api_util.debug_info(name, fun, tuple(args), {}))


def _value(prim, args):
    return _wrapped(lambda *xs: flat_results(prim, prim.expand(*operands_of(prim, xs))), args, prim.traced.fun_name)


def _inside(x):
    """A zero as the methods of objects want it."""
    return Zero(x.aval) if isinstance(x, SymbolicZero) else x


def _outside(x, aval):
    """A zero as ``custom_jvp_call`` and ``custom_vjp_call`` want it."""
    return SymbolicZero(aval) if x is None or isinstance(x, (Zero, SymbolicZero)) else x


def _custom_jvp(prim, args) -> list:
    def rule(*values):
        n = len(values) // 2
        primals, tangents = values[:n], list(map(_inside, values[n:]))
        outs, ts = prim.jvp(operands_of(prim, primals), operands_of(prim, tangents))
        avals = [a.to_tangent_aval() for a in prim.out_avals_flat]
        return [*flat_results(prim, outs), *map(_outside, flat_results(prim, ts), avals)]

    subfuns = _value(prim, args), _wrapped(rule, (*args, *args), prim.traced.fun_name)
    return custom_jvp_call_p.bind(*args, subfuns=subfuns, symbolic_zeros=prim.symbolic_zeros)


def _custom_vjp(prim, args) -> list:
    trees: list = []  # of the residuals, once the forward pass has run
    active: list = []  # which operands have a derivative

    def fwd(*pairs):
        outs, residuals, _ = vjp_of(prim, pairs[1::2], pairs[::2])
        leaves, tree = tree_flatten(residuals)
        trees[:], active[:] = [tree], pairs[1::2]
        return [*leaves, *outs]

    def bwd(*values):
        n = trees[0].num_leaves
        cts, logs = pulled_by(prim, active, tree_unflatten(trees[0], values[:n]), list(map(_inside, values[n:])))
        found = [ad_util.instantiate(ct) for ct in cts]
        return (found, logs) if hasattr(HiPrim, "vjp_bwd_retval_logs") else found  # a pair since jax 0.11

    def out_trees():
        return prim.out_tree, trees[0], [None] * trees[0].num_leaves

    name = prim.traced.fun_name
    subfuns = _value(prim, args), _wrapped(fwd, args, name), _wrapped(bwd, args, name)
    return custom_vjp_call_p.bind(*args, subfuns=subfuns, out_trees=out_trees, symbolic_zeros=prim.symbolic_zeros)


def _checkpointed(prim, args) -> list:
    prevent_cse = getattr(prim, "prevent_cse", True)  # a parameter since jax 0.11
    return remat_p.bind(
        *args, jaxpr=_opened(prim.jaxpr), prevent_cse=prevent_cse, differentiated=False, policy=prim.policy
    )


def _opened(closed):
    """The body of a checkpointed call as its equation holds it."""
    return getattr(closed, "jaxpr", closed)


def _name(prim, args) -> list:
    return [name_p.bind(x, name=prim.name) for x in args]


def _forward_pass(prim, args) -> list:
    return flat_results(prim, prim.expand(*operands_of(prim, args)))


def _custom_remat(prim, args) -> list:
    """Outside of checkpointed calls the pieces of a ``jax.custom_remat`` one after the other."""
    _, again = prim.remat(SimpleNamespace(policy=None), *args)
    return again(*args)


_REWRITES: tuple = tuple(
    (contact(name), rewrite, primitive)
    for name, rewrite, primitive in (
        ("CustomJVPTraced", _custom_jvp, custom_jvp_call_p),
        ("CustomVJPTraced", _custom_vjp, custom_vjp_call_p),
        ("RematTraced", _checkpointed, remat_p),
        ("CheckpointName", _name, name_p),
        ("OptRemat", _forward_pass, None),
        ("CustomRemat", _custom_remat, custom_vjp_call_p),
    )
    if contact(name) is not None
)


# -- implicit functions -------------------------------------------------------------------------------------


def root_tangents(prim, push: Callable, primals: Sequence, outs: Sequence, tangents: Sequence) -> list:
    """The tangents of the root of a ``custom_root``; ``push(fun, xs, ts)`` are the tangents of a function."""
    if unmapped(prim) is not prim:
        return _mapped_root(prim, push, primals, outs, tangents)
    solving, guess, equation, _ = (t.num_leaves for t in prim.in_tree.children())
    start = solving + guess
    consts_tree, tangent_tree = prim.in_tree.children()[2:]
    root_tree = prim.out_tree.children()[0] if prim.has_aux else prim.out_tree
    root = tree_unflatten(root_tree, outs[: root_tree.num_leaves])

    def fun(*consts):
        return tree_leaves(prim.f(tree_unflatten(consts_tree, consts), root))

    moves = tangents[start : start + equation]
    if all(t is None for t in moves):
        return [None] * root_tree.num_leaves
    rhs = tree_unflatten(root_tree, push(fun, primals[start : start + equation], moves))
    solution = prim.tangent_solve(tree_unflatten(tangent_tree, primals[start + equation :]), root, rhs)
    return [lax.neg(x) for x in tree_leaves(solution)]


def _mapped_root(prim, push, primals, outs, tangents) -> list:
    """Of a batch of roots."""
    dims, out_dims = prim.in_tree.flatten_up_to(prim.in_dims), prim.out_tree.flatten_up_to(prim.out_dim)
    given = [t is not None for t in tangents]

    def one(xs, ys, ts):
        it = iter(ts)
        full = [next(it) if on else None for on in given]
        return root_tangents(prim.prim, push, xs, ys, full)

    axes = list(dims), list(out_dims), [d for d, on in zip(dims, given, strict=True) if on]
    moving = [t for t in tangents if t is not None]
    root = unmapped(prim)
    n = root.out_tree.children()[0].num_leaves if root.has_aux else root.out_tree.num_leaves
    mapped = jax.vmap(one, in_axes=axes, out_axes=list(out_dims[:n]), **prim._vmap_params)
    return mapped(list(primals), list(outs), moving)


def root_map(prim, linearised: Callable, operands: Sequence) -> list:
    """The linearised equation of a ``custom_root``: ``linearised(fun, transposed, xs, vs)`` of flat values."""

    def apply(inner, flat):
        consts, x, v = operands_of(inner, flat)
        tree = jax.tree.structure(x)
        fun = lambda *xs: tree_leaves(inner.f(consts, tree_unflatten(tree, xs)))
        return linearised(fun, inner.transposed, tree_leaves(x), tree_leaves(v))

    return apply(prim, operands) if unmapped(prim) is prim else _mapped(prim, apply, operands)
