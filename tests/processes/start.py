"""Taking part in a run of several processes."""

import sys

import jax


def take_part() -> int:
    """Join the run that the command line names: address of the coordinator, how many processes, which one this is."""
    address, count, rank = sys.argv[1:]
    jax.distributed.initialize(address, int(count), int(rank))
    jax.config.update("jax_enable_x64", True)
    return int(rank)
