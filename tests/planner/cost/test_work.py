"""The cost model's classes of primitives."""

import jax
import jax.experimental.sparse  # its rules are loaded with it
import jax.numpy as jnp
import pytest
from jax import lax

from admodes.planner.cost.machine import NOMINAL
from admodes.planner.cost.work import FUNCTIONS, work
from admodes.program.traits import traits
from admodes.rules.table import entries

CLASSES = {
    *FUNCTIONS,
    *("free", "arithmetic", "elementwise", "selecting", "moving", "padding", "joining", "gathering", "scattering"),
    *("reducing", "contracting", "solving", "calling", "branches", "loop"),
}


@pytest.mark.parametrize("primitive", entries(), ids=lambda p: p.name)
def test_every_entry_of_the_table_has_a_cost(primitive):
    assert traits(primitive).cost in CLASSES


def seconds(fun, *args):
    closed = jax.make_jaxpr(fun)(*args)
    return NOMINAL.seconds(work(closed, (False,) * len(args), 1))


def test_what_iterates_costs_more_than_a_series_and_that_more_than_a_function():
    x = jnp.linspace(0.5, 2.0, 1000)
    cheap, function, series, iterated = (
        seconds(f, x) for f in (lax.neg, lax.exp, lambda x: lax.zeta(x, x), lambda x: lax.igamma(x, x))
    )
    assert cheap < function < series / 10
    assert 5 * series < iterated
    assert 1e-4 < iterated < 1e-2  # measured: 0.2 ms in 32 bits, 0.5 to 4 in 64


def test_a_product_of_ragged_groups_counts_what_each_row_meets():
    def product(x, w, sizes):
        return lax.ragged_dot(x, w, sizes)

    closed = jax.make_jaxpr(product)(jnp.ones((6, 4)), jnp.ones((2, 4, 5)), jnp.array([2, 4]))
    assert work(closed, (True, False, False), 3).products == 3 * 6 * 4 * 5


def test_a_reduction_by_a_function_reads_all_entries():
    closed = jax.make_jaxpr(lambda x: lax.reduce(x, 0.0, lambda a, b: a + b + a * b, (0,)))(jnp.ones((50, 2)))
    assert work(closed, (True,), 4).elements >= 400


def test_a_place_that_all_seeds_read_is_looked_up_once():
    closed = jax.make_jaxpr(lambda x, i: x[i])(jnp.zeros(10), jnp.zeros(7, int))
    one, many = (work(closed, (True, moving), 100).gathered for moving in (False, True))
    assert (one, many) == (7, 700)
