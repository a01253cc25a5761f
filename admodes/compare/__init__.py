"""Modes side by side: what each costs, whether it agrees with JAX. Only here is JAX's differentiation called."""

from admodes.compare.comparison import Comparison, Row, Strategy, compare

__all__ = ["Comparison", "Row", "Strategy", "compare"]
