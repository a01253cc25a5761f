"""Takes part in a run of several processes: address of the coordinator, how many, and which one this is."""

import sys

import jax

RANK = int(sys.argv[3])
jax.distributed.initialize(sys.argv[1], int(sys.argv[2]), RANK)
jax.config.update("jax_enable_x64", True)
