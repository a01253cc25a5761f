"""The advisor: the derivatives that a program takes, what they cost there, and what would be faster.

``admodes run script.py`` runs somebody's program unchanged and reports at its end; :func:`advise` does so for a block.
"""

from admodes.advisor.advice import Advice, Row, advise

__all__ = ["Advice", "Row", "advise"]
