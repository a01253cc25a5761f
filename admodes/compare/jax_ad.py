"""JAX's own differentiation, held from import: what the oracle is, whatever stands in its place in ``jax``.

While :func:`admodes.as_jax` is in force ``jax.jvp`` is ours, and comparing with it would compare us with ourselves.
"""

import jax

jvp = jax.jvp
vjp = jax.vjp
linearize = jax.linearize
grad = jax.grad
value_and_grad = jax.value_and_grad
jacfwd = jax.jacfwd
jacrev = jax.jacrev
jacobian = jax.jacobian
hessian = jax.hessian

NAMES = ("jvp", "vjp", "linearize", "grad", "value_and_grad", "jacfwd", "jacrev", "jacobian", "hessian")
