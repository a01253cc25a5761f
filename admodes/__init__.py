"""admodes: derivatives in forward, reverse and mixed mode on JAX, and what each of them costs."""

from importlib import import_module as _import_module
from pathlib import Path as _Path

from admodes import errors, rules
from admodes.compare import compare
from admodes.draw import draw
from admodes.explain import explain
from admodes.modes.forward import jacfwd, jvp, linearize
from admodes.modes.reverse import grad, jacrev, value_and_grad, vjp
from admodes.modes.second_order import hvp
from admodes.program import jax_compat as _jc

for _layer in (
    "program",
    "linear",
    "rules",
    "modes",
    "sparse",
    "planner",
    "nonsmooth",
    "stand_in.py",
):  # source lines in errors are the user's, not ours
    _jc.exclude_from_sources(str(_Path(__file__).parent / _layer))

_LATE = {
    "as_jax": "admodes.stand_in",
    "block_jacobian": "admodes.planner.parts",
    "checkpoint": "admodes.modes.checkpoint",
    "choose_mode": "admodes.planner.untraced",
    "coloring": "admodes.sparse",
    "diagonal": "admodes.planner.parts",
    "directional": "admodes.nonsmooth",
    "doctor": "admodes.nonsmooth",
    "hessian": "admodes.planner.jacobian",
    "hessian_sparsity": "admodes.sparse",
    "jacobian": "admodes.planner.jacobian",
    "laplacian": "admodes.planner.parts",
    "load_plan": "admodes.planner.plan",
    "memory_profile": "admodes.modes.profile",
    "plan": "admodes.planner.plan",
    "sparsity": "admodes.sparse",
    "subgradient": "admodes.nonsmooth",
    "subjacobian": "admodes.nonsmooth",
    "value_and_jacobian": "admodes.planner.jacobian",
    "verify": "admodes.compare.verify",
}


def __getattr__(name: str):
    """What few programs need is imported on first use, so that ``import admodes`` stays quick."""
    if name == "problems":
        return _import_module("admodes.problems")
    if name in _LATE:
        return getattr(_import_module(_LATE[name]), name)
    raise AttributeError(f"module 'admodes' has no attribute '{name}'")


__version__ = "0.1.0"

__all__ = [
    "as_jax",
    "block_jacobian",
    "checkpoint",
    "choose_mode",
    "coloring",
    "compare",
    "diagonal",
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
    "value_and_grad",
    "value_and_jacobian",
    "verify",
    "vjp",
]
