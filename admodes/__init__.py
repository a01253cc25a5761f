"""admodes: derivatives in forward, reverse and mixed mode on JAX, and what each of them costs."""

from pathlib import Path as _Path

from admodes import errors, rules
from admodes.compare import compare
from admodes.draw import draw
from admodes.explain import explain
from admodes.modes.forward import jacfwd, jvp, linearize
from admodes.modes.reverse import grad, jacrev, value_and_grad, vjp
from admodes.modes.second_order import hessian, hvp
from admodes.program import jax_compat as _jc

for _layer in ("program", "linear", "rules", "modes"):  # source lines in errors are the user's, not ours
    _jc.exclude_from_sources(str(_Path(__file__).parent / _layer))

__version__ = "0.1.0"

__all__ = [
    "compare",
    "draw",
    "errors",
    "explain",
    "grad",
    "hessian",
    "hvp",
    "jacfwd",
    "jacrev",
    "jvp",
    "linearize",
    "rules",
    "value_and_grad",
    "vjp",
]
