"""The problem collection: real functions from many fields, which tests, demos, benchmarks and the CLI all draw from."""

from admodes.problems import (  # noqa: F401  (imported for their entries)
    control,
    dynamics,
    finance,
    fluids,
    layers,
    lecture,
    minpack,
    networks,
    power,
    robotics,
    statistics,
)
from admodes.problems.registry import Problem, all, get, names

__all__ = ["Problem", "all", "get", "names"]
