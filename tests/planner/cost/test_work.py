"""The cost model's classes of primitives."""

import jax
import jax.numpy as jnp

import admodes
from admodes.planner.cost.work import KIND, work
from admodes.planner.elimination.local_nonzeros import MOVING

WITHOUT_A_RULE = {"hessenberg", "householder_product", "iota", "schur", "tridiagonal"}


def test_the_names_are_those_of_primitives():
    assert set(KIND) | MOVING <= set(admodes.rules.supported()) | WITHOUT_A_RULE


def test_a_place_that_all_seeds_read_is_looked_up_once():
    closed = jax.make_jaxpr(lambda x, i: x[i])(jnp.zeros(10), jnp.zeros(7, int))
    one, many = (work(closed, (True, moving), 100).gathered for moving in (False, True))
    assert (one, many) == (7, 700)
