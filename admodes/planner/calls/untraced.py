"""Jacobians of functions that are no one program: they decide on the values of their arguments in Python.

There is nothing to plan then but the direction, by the textbook rule; the function is run on the values.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from jax.tree_util import tree_leaves, tree_unflatten

from admodes.planner.calls.request import Call
from admodes.transforms.forward import jacfwd
from admodes.transforms.reverse import jacrev


def choose_mode(n_inputs: int, n_outputs: int) -> str:
    """The textbook rule: ``"forward"`` if there are no more inputs than outputs, else ``"reverse"``.

    It compares n passes with m and knows nothing of sparsity, waists or memory: :func:`admodes.plan` does.

    Raises:
      ValueError: a negative number.

    >>> import admodes
    >>> admodes.choose_mode(3, 1000), admodes.choose_mode(1000, 1)
    ('forward', 'reverse')

    Reference: Griewank and Walther, *Evaluating Derivatives*, 2nd ed., sections 3.1 and 3.2.
    """
    if n_inputs < 0 or n_outputs < 0:
        raise ValueError(f"numbers of inputs and outputs cannot be negative, got {n_inputs} and {n_outputs}")
    return "forward" if n_inputs <= n_outputs else "reverse"


def untraced(call: Call, value: bool) -> Callable:
    """A function that makes (outputs or None, Jacobian, aux) of the leaves of a call of this kind."""
    n = call.in_tree.num_leaves
    n_inputs = sum(math.prod(a.shape) for a in call.domain)

    def run(leaves):
        def fun(example):
            return call.outputs(call.flat(*tree_leaves(example), *leaves[n:]))

        example = tree_unflatten(call.in_tree, leaves[:n])
        outputs, aux = fun(example)
        n_outputs = sum(np.size(y) for y in tree_leaves(outputs))
        if choose_mode(n_inputs, n_outputs) == "forward" and not call.request.allow_int:
            transform = jacfwd(fun, 0, True, call.request.holomorphic)
        else:
            transform = jacrev(fun, 0, True, call.request.holomorphic, call.request.allow_int)
        jacobian, aux = transform(example)
        return (outputs if value else None), jacobian, aux

    return run
