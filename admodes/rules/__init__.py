"""The rule table, one entry per primitive, by family."""

from admodes.rules import control, custom, elementwise, scan, structural
from admodes.rules.table import register, supported

__all__ = ["register", "supported"]
