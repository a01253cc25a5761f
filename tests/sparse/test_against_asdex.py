"""Patterns and colors beside those of asdex: never larger, and never smaller than the true pattern."""

import warnings

import jax
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from admodes import problems
from admodes.compare.bench.suite import without_asdex
from admodes.sparse import coloring, hessian_sparsity, sparsity
from tests.sparse.test_detect import FUNCTIONS

if why := without_asdex():
    pytest.skip(why, allow_module_level=True)

import asdex

SIZES = {
    "lorenz_long": {"steps": 20},
    "brusselator": {"n": 5},
    "bratu": {"n": 5},
    "heat": {"n": 5},
    "minimal_surface": {"n": 4},
}


def of_vectors(fun, args):
    """The function of all its first argument's numbers, to a vector of all results'."""
    x, unravel = ravel_pytree(args[0])
    return (lambda x: ravel_pytree(fun(unravel(x), *args[1:]))[0]), x


def problem(name):
    return of_vectors(*problems.get(name).make(np.float64, **SIZES.get(name, {})))


def entries(pattern):
    return set(zip(np.asarray(pattern.rows).tolist(), np.asarray(pattern.cols).tolist(), strict=True))


def asked(what, fun, x):
    """What asdex finds; where it asks to report that it knows no answer there is nothing to compare with."""
    try:
        return what(fun, x)
    except (NotImplementedError, ValueError) as unknown:
        if "reporting this" not in str(unknown):
            raise
        pytest.skip(f"asdex: {unknown}".splitlines()[0])


def check(fun, x):
    theirs = asked(asdex.jacobian_sparsity, fun, x)
    pattern = sparsity(fun, x)
    true = {tuple(map(int, entry)) for entry in np.argwhere(np.asarray(jax.jit(jax.jacfwd(fun))(x)) != 0)}
    assert true <= entries(pattern)
    extra = entries(pattern) - entries(theirs)
    assert not extra, f"{len(extra)} entries that asdex knows to be zero: {sorted(extra)[:10]}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", asdex.DenseColoringWarning)
        colors = asdex.jacobian_coloring_from_sparsity(theirs).num_colors
    assert min(coloring(pattern, kind, budget=0.1).number for kind in ("column", "row")) <= colors


@pytest.mark.parametrize("name", problems.names())
def test_jacobians_of_problems(name):
    check(*problem(name))


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if not name.startswith("custom")])  # it looks past these
def test_jacobians_of_small_functions(name):
    x = np.random.default_rng(1).normal(size=6)
    check(*of_vectors(FUNCTIONS[name][0], (x,)))


@pytest.mark.parametrize("name", [p.name for p in problems.all() if p.outputs == 1 and p.field != "machine learning"])
def test_hessians_of_problems(name):
    fun, x = problem(name)
    scalar = lambda x: fun(x)[0]
    theirs = asked(asdex.hessian_sparsity, scalar, x)
    pattern = hessian_sparsity(scalar, x)
    assert entries(pattern) <= entries(theirs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", asdex.DenseColoringWarning)
        colors = asdex.hessian_coloring_from_sparsity(theirs).num_colors
    assert coloring(pattern, "symmetric", budget=0.1).number <= colors
