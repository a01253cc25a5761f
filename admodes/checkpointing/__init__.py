"""Checkpointing: schedules, and loops and calls that are walked back in bounded memory."""

from admodes.checkpointing import bounded_scan, remat, while_loops  # noqa: F401
