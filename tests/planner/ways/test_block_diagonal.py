"""Waists inside of block diagonal Jacobians: batches of functions with a narrow middle."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import admodes
from admodes.linear.pattern import SparsityPattern
from admodes.planner.calls.request import request
from admodes.planner.choice.candidates import candidate
from admodes.planner.choice.decision import compiled
from admodes.planner.cost.machine import NOMINAL
from admodes.planner.ways.block_diagonal import Arrangement, BlockDiagonal, blocked, blocks_of

RNG = np.random.default_rng(0)
WIDTHS = (24, 16, 2, 20, 28)
WEIGHTS = [RNG.standard_normal((a, b)) / np.sqrt(a) for a, b in itertools.pairwise(WIDTHS)]
BATCH = 6


def net(x):
    for weights in WEIGHTS:
        x = jnp.tanh(x @ weights)
    return x


def example(x):
    """Several leaves in and out, and a value that does not pass the waist."""
    narrow = jnp.tanh(jnp.concatenate([x["a"], x["b"].ravel()]) @ WEIGHTS[0][:, :2])
    return jnp.sin(jnp.outer(narrow, jnp.arange(1.0, 13.0))).sum(0), jnp.exp(narrow[0] * WEIGHTS[2])


LEAVES = {"a": RNG.standard_normal((BATCH, 4)), "b": RNG.standard_normal((BATCH, 5, 4))}
X = RNG.standard_normal((BATCH, WIDTHS[0]))
CASES = {
    "examples": (jax.vmap(net), X),
    "one product": (lambda x: net(x) * 2.0, X),  # without vmap: a product of matrices
    "last axis in": (jax.vmap(net, in_axes=1), X.T),
    "last axis out": (jax.vmap(net, out_axes=1), X),
    "leaves": (jax.vmap(example), LEAVES),
    "two batches": (jax.vmap(jax.vmap(net)), X.reshape(2, 3, -1)),
    "shuffled": (lambda x: net(x[jnp.array([3, 0, 5, 1, 4, 2])])[::-1], X),
    "scan": (jax.vmap(lambda x: jax.lax.scan(lambda c, _: (jnp.sin(c), None), net(x), length=3)[0]), X),
}


def task_of(f, x):
    return request("test", f, 0, False, False).call((x,), {}).task()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.every(2)
def test_batches_are_cut_at_the_waist_of_their_examples(name):
    f, x = CASES[name]
    task = task_of(f, x)
    chain = blocked(task, NOMINAL)
    assert chain.detail.startswith(f"{BATCH} blocks, each 24 -> 2 -> ")
    assert chain.passes <= 4
    chosen = candidate(chain, task, NOMINAL, "dense")
    expected = jax.tree.leaves(jax.jacobian(f)(x))
    outs = [np.size(y) for y in jax.tree.leaves(f(x))]
    per_out = len(expected) // len(outs)
    rows = [
        np.concatenate([np.reshape(e, (m, -1)) for e in expected[k * per_out : (k + 1) * per_out]], 1)
        for k, m in enumerate(outs)
    ]
    expected = np.concatenate(rows)
    leaves = jax.tree.leaves(x)
    dense = compiled(task, chosen, "dense")(leaves)
    entries = compiled(task, chosen, "bcoo")(leaves)
    np.testing.assert_allclose(dense, expected, rtol=1e-11, atol=1e-13)
    np.testing.assert_array_equal(entries, np.asarray(dense)[task.pattern.rows, task.pattern.cols])


def test_a_batch_of_nets_with_a_waist_is_cut():
    """In the race with all others, under jit and vmap, and a plan that is saved and loaded."""
    f, x = jax.vmap(net), X
    wide = lambda x: jnp.tile(f(jnp.tanh(x)), (1, 8))
    plan = admodes.plan(wide, x)
    assert plan.best.name == "cuts", plan
    assert "blocks" in plan.why
    both = jnp.stack([x, 2 * x])
    expected = jax.vmap(jax.jacobian(wide))(both)
    np.testing.assert_allclose(jax.jit(jax.vmap(admodes.jacobian(wide)))(both), expected, rtol=1e-11, atol=1e-13)


def test_the_blocks_alone():
    blocks = jnp.stack([jax.jacobian(net)(x) for x in X])
    np.testing.assert_allclose(admodes.block_jacobian(jax.vmap(net))(X), blocks, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(admodes.block_jacobian(net, chunk_size=3)(X), blocks, rtol=1e-11, atol=1e-13)
    mixed = lambda x: net(x) + x.mean(0)[0]
    np.testing.assert_allclose(
        admodes.block_jacobian(mixed)(X), blocks + jnp.eye(1, WIDTHS[0]) / BATCH, rtol=1e-11, atol=1e-13
    )


@pytest.mark.parametrize("widths", [(40, 3, 40), (3, 40, 2, 40), (40, 2, 40, 3), (40, 3, 40, 2, 40)])
def test_chains_of_wide_and_narrow_parts(widths):
    """Parts that are pushed, pulled and multiplied."""
    rng = np.random.default_rng(1)
    weights = [rng.standard_normal((a, b)) / np.sqrt(a) for a, b in itertools.pairwise(widths)]

    def f(x):
        for w in weights:
            x = jnp.sin(x @ w)
        return x

    x = rng.standard_normal((8, widths[0]))
    task = task_of(f, x)
    found = compiled(task, candidate(blocked(task, NOMINAL), task, NOMINAL, "dense"), "dense")([x])
    np.testing.assert_allclose(found, jax.jacobian(f)(x).reshape(found.shape), rtol=1e-11, atol=1e-13)


def test_what_has_no_blocks_is_not_cut_in_blocks():
    def names(f):
        return [c.method.detail for c in admodes.plan(f, X, format="bcoo").candidates]

    for f in (
        lambda x: net(x - x.mean(0)),  # every example sees all others
        lambda x: net(jnp.concatenate([x[:1], x[:-1]])) + x[:, :1],  # two of them share a block
        lambda x: jax.vmap(net)(x) * jnp.arange(BATCH)[:, None],  # the first block is zero
        lambda x: jnp.concatenate([jnp.ravel(net(x)), x[0]]),  # one block is larger
    ):
        assert not any("blocks" in detail for detail in names(f))


def test_patterns_in_blocks():
    labels = np.array([2, 0, 1, 0, 2, 1])
    full = SparsityPattern.build(*np.nonzero(labels[:, None] == np.repeat(np.arange(3), 2)), (6, 6))
    rows, cols = blocks_of(full)
    np.testing.assert_array_equal(rows[:, None] == cols, full.to_dense())
    assert blocks_of(SparsityPattern.dense(4, 4))[0].tolist() == [0] * 4
    assert blocks_of(SparsityPattern.identity(6)) is None
    assert blocks_of(SparsityPattern.build([0, 0, 1, 1, 2, 2], [0, 1, 1, 2, 2, 0], (3, 3))) is None
    assert blocks_of(SparsityPattern.empty(3, 0)) is None


def test_products_of_blocks_are_those_of_the_matrices():
    """From columns, rows or blocks, with entries in any order."""
    cuts = [Arrangement.of(RNG.permutation(np.repeat(np.arange(3), k))) for k in (2, 4, 5)]
    blocks = [RNG.standard_normal((3, b.size, a.size)) for a, b in itertools.pairwise(cuts)]

    def whole(array, inner, outer):
        matrix = np.zeros((outer.entries.size, inner.entries.size))
        for b in range(3):
            matrix[np.ix_(outer.entries[b], inner.entries[b])] = array[b]
        return matrix

    first, last = (whole(x, *sides) for x, sides in zip(blocks, itertools.pairwise(cuts), strict=True))
    left, right = (
        BlockDiagonal(jnp.asarray(x), "blocks", *sides)
        for x, sides in zip(blocks[::-1], [cuts[1:], cuts[:2]], strict=True)
    )
    again = lambda m, form: BlockDiagonal(getattr(m, form), form, m.inner, m.outer)
    for a in (left, again(left, "columns"), again(left, "rows")):
        for b in (right, again(right, "columns"), again(right, "rows")):
            product = a.times(b)
            np.testing.assert_allclose(whole(product.array, cuts[0], cuts[2]), last @ first)
    for k, column in enumerate(right.columns):
        np.testing.assert_array_equal(column, first[:, cuts[0].numbers == k].sum(1))
    for k, row in enumerate(right.rows):
        np.testing.assert_array_equal(row, first[cuts[1].numbers == k].sum(0))
