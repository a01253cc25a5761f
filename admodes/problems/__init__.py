"""The problem collection: real functions from many fields, which tests, demos, benchmarks and the CLI all draw from."""

from admodes.problems import dynamics, finance, fluids, lecture, minpack, networks, power, robotics, statistics
from admodes.problems.registry import Problem, all, get, names

__all__ = ["Problem", "all", "get", "names"]

_ = (dynamics, finance, fluids, lecture, minpack, networks, power, robotics, statistics)  # imported for their entries
