r"""Fourier transforms: fft, ifft, rfft, irfft. All are linear.

The matrix of fft and ifft is symmetric. That of rfft is the first rows of fft's: its transpose is an irfft, in which
the frequencies that stand for two of fft's (all but 0 and the Nyquist frequency) must count half, and conversely.
"""

from __future__ import annotations

import math

import numpy as np
from jax import lax

from admodes.rules.table import linear


def _multiplicity(frequencies: int, length: int, like):
    """The number of frequencies of fft, of ``length`` in all, that each of the first ones stands for: 1, 2, ..., 2, and
    1 if even."""
    even = 1 - length % 2
    inner = lax.full((frequencies - 1 - even,), 2, like.dtype)
    counts = lax.pad(inner, np.array(1, like.dtype), [(1, even, 0)])
    return lax.expand_dims(counts, range(like.ndim - 1))


def _pull(g, x, *, fft_type, fft_lengths):
    scale, length = math.prod(fft_lengths), fft_lengths[-1]
    if fft_type == lax.FftType.RFFT:
        halves = lax.div(lax.conj(g), _multiplicity(g.shape[-1], length, g))
        y = lax.fft(halves, lax.FftType.IRFFT, fft_lengths)
        return lax.mul(np.array(scale, y.dtype), y)
    if fft_type == lax.FftType.IRFFT:
        y = lax.fft(g, lax.FftType.RFFT, fft_lengths)
        weights = lax.mul(np.array(1 / scale, y.dtype), _multiplicity(y.shape[-1], length, y))
        return lax.conj(lax.mul(weights, y))
    return lax.fft(g, fft_type, fft_lengths)


linear(lax.fft_p, _pull, cost="solving")
