"""The transforms with JAX's signatures: jvp, vjp, grad, jacfwd, jacrev, hvp; and those at kinks."""
