"""The doctor: where NaNs are born, which kinks a point sits on, and the usual cures."""

from admodes.diagnosis.doctor import doctor

__all__ = ["doctor"]
