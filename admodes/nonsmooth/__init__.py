"""Derivatives where a function has none: generalised derivatives at kinks, and what is wrong at NaNs."""

from admodes.nonsmooth.doctor import doctor
from admodes.nonsmooth.subgradient import directional, subgradient, subjacobian

__all__ = ["directional", "doctor", "subgradient", "subjacobian"]
