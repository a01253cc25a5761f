"""The ways to a Jacobian: products with seeds, accumulation, cuts, networks of arrays, checkpointed reverse mode."""
