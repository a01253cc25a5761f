"""Nonsmooth functions: values just beside a point, where every branch is decided."""
