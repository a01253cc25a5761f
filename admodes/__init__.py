"""admodes: derivatives in forward, reverse and mixed mode on JAX, and what each of them costs."""

import typing as _typing
from importlib import import_module as _import_module
from pathlib import Path as _Path

from admodes import checkpointing, errors, rules, subprograms  # noqa: F401 (these fill the table)
from admodes.compare import compare
from admodes.draw import draw
from admodes.explain import explain
from admodes.linear.maps import LinearMap
from admodes.program import jax_compat as _jc
from admodes.transforms.forward import jacfwd, jvp, linearize
from admodes.transforms.reverse import grad, jacrev, value_and_grad, vjp
from admodes.transforms.second_order import hvp

for _layer in (
    "program",
    "compilers",
    "linear",
    "rules",
    "subprograms",
    "checkpointing",
    "modes",
    "nonsmooth",
    "memory",
    "series",
    "transforms",
    "diagnosis",
    "sparse",
    "planner",
    "stand_in.py",
):  # source lines in errors are the user's, not ours
    _jc.exclude_from_sources(str(_Path(__file__).parent / _layer))

if _typing.TYPE_CHECKING:  # what is imported on first use, for tools that read and do not run: the names of _LATE
    from admodes import problems
    from admodes.advisor.advice import advise
    from admodes.compare.verify import verify
    from admodes.diagnosis import doctor
    from admodes.memory.checkpoint import checkpoint
    from admodes.memory.profile import memory_profile
    from admodes.planner.calls.diagonals import block_jacobian, diagonal, laplacian
    from admodes.planner.calls.hessian import hessian, value_and_hessian, value_grad_and_hessian
    from admodes.planner.calls.jacobian import jacobian, value_and_jacobian
    from admodes.planner.calls.operators import (
        biharmonic,
        derivative_tensor,
        differential_operator,
        value_grad_laplacian,
    )
    from admodes.planner.calls.plan import load_plan, plan
    from admodes.planner.calls.untraced import choose_mode
    from admodes.series.calls import derivative, jet, taylor
    from admodes.sparse import coloring, hessian_sparsity, sparsity
    from admodes.stand_in import as_jax
    from admodes.transforms.subgradient import directional, subgradient, subjacobian

_LATE = {
    "advise": "admodes.advisor.advice",
    "as_jax": "admodes.stand_in",
    "biharmonic": "admodes.planner.calls.operators",
    "block_jacobian": "admodes.planner.calls.diagonals",
    "checkpoint": "admodes.memory.checkpoint",
    "choose_mode": "admodes.planner.calls.untraced",
    "coloring": "admodes.sparse",
    "derivative": "admodes.series.calls",
    "derivative_tensor": "admodes.planner.calls.operators",
    "diagonal": "admodes.planner.calls.diagonals",
    "differential_operator": "admodes.planner.calls.operators",
    "directional": "admodes.transforms.subgradient",
    "doctor": "admodes.diagnosis",
    "hessian": "admodes.planner.calls.hessian",
    "hessian_sparsity": "admodes.sparse",
    "jacobian": "admodes.planner.calls.jacobian",
    "jet": "admodes.series.calls",
    "laplacian": "admodes.planner.calls.diagonals",
    "load_plan": "admodes.planner.calls.plan",
    "memory_profile": "admodes.memory.profile",
    "plan": "admodes.planner.calls.plan",
    "sparsity": "admodes.sparse",
    "subgradient": "admodes.transforms.subgradient",
    "subjacobian": "admodes.transforms.subgradient",
    "taylor": "admodes.series.calls",
    "value_and_hessian": "admodes.planner.calls.hessian",
    "value_grad_laplacian": "admodes.planner.calls.operators",
    "value_and_jacobian": "admodes.planner.calls.jacobian",
    "value_grad_and_hessian": "admodes.planner.calls.hessian",
    "verify": "admodes.compare.verify",
}


if not _typing.TYPE_CHECKING:  # a type checker would take any name for one that it finds

    def __getattr__(name: str):
        """The names that few programs need are imported on first use, so that ``import admodes`` stays quick."""
        if name == "problems":
            return _import_module("admodes.problems")
        if name in _LATE:
            return getattr(_import_module(_LATE[name]), name)
        raise AttributeError(f"module 'admodes' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


__version__ = "0.1.0"

__all__ = [
    "LinearMap",
    "advise",
    "as_jax",
    "biharmonic",
    "block_jacobian",
    "checkpoint",
    "choose_mode",
    "coloring",
    "compare",
    "derivative",
    "derivative_tensor",
    "diagonal",
    "differential_operator",
    "directional",
    "doctor",
    "draw",
    "errors",
    "explain",
    "grad",
    "hessian",
    "hessian_sparsity",
    "hvp",
    "jacfwd",
    "jacobian",
    "jacrev",
    "jet",
    "jvp",
    "laplacian",
    "linearize",
    "load_plan",
    "memory_profile",
    "plan",
    "problems",
    "rules",
    "sparsity",
    "subgradient",
    "subjacobian",
    "taylor",
    "value_and_grad",
    "value_and_hessian",
    "value_and_jacobian",
    "value_grad_and_hessian",
    "value_grad_laplacian",
    "verify",
    "vjp",
]
