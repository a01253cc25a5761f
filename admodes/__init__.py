"""admodes: derivatives in forward, reverse and mixed mode on JAX, and what each of them costs."""

import os as _os

from admodes import errors, rules
from admodes.modes.forward import jacfwd, jvp, linearize
from admodes.modes.reverse import grad, jacrev, value_and_grad, vjp
from admodes.modes.second_order import hessian, hvp
from admodes.program.jax_compat import exclude_from_sources as _exclude

for _layer in ("program", "linear", "rules", "modes"):
    _exclude(_os.path.join(_os.path.dirname(__file__), _layer))

__version__ = "0.1.0"

__all__ = [
    "errors",
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
