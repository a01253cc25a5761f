"""The command ``admodes``: problems, comparisons, plans, diagnoses, demos, benchmarks."""

from admodes.cli.main import main

__all__ = ["main"]
