"""What an object says of itself at a prompt: one to five lines of 80 characters, whatever it holds."""

import jax
import jax.numpy as jnp
import pytest

import admodes
from admodes.compare.comparison import FORWARD


def product(x):
    return x[1:] * x[:-1]


def a_function_with_a_very_long_name_that_goes_on_and_on_and_on_and_on_and_on_and_on_until_it_ends(leaves):
    return [jnp.tanh(leaf) @ jnp.ones(3) + jnp.sum(leaves[0]) for leaf in leaves]


def objects_of(fun, x):
    plan = admodes.plan(fun, x)
    comparison = admodes.compare(fun, x, repeat=1)
    scalar = lambda x: sum(jnp.sum(jnp.sqrt(jnp.maximum(y, 0.0))) for y in jax.tree.leaves(fun(x)))
    zeros = jax.tree.map(jnp.zeros_like, x)
    report = admodes.doctor(scalar, zeros)
    verification = admodes.verify(fun, x)
    explanation = admodes.explain(fun, x)
    profile = admodes.memory_profile(scalar, x)
    _, push = admodes.linearize(fun, x)
    _, pullback = admodes.vjp(fun, x)
    return {
        "Plan": plan,
        "Decision": plan.decision,
        **{f"Candidate {c.name}": c for c in plan.candidates},
        "Comparison": comparison,
        **{f"Row {k}": row for k, row in enumerate(comparison.rows)},
        "Strategy": FORWARD,
        "Report": report,
        "Finding": report.reverse,
        **{f"Kink {k}": kink for k, kink in enumerate(report.kinks)},
        "Verification": verification,
        "Explanation": explanation,
        **{f"Row {k} of an explanation": row for k, row in enumerate(explanation.rows)},
        "MemoryProfile": profile,
        "Residual": profile.residuals[0],
        "Pushforward": push,
        "Pullback": pullback,
        "Tape": pullback.tape,
        **{f"map {k}": linear for k, linear in enumerate(pullback.tape.maps)},
        "LinearMap": push.map.T @ push.map,
        "SparsityPattern": admodes.sparsity(fun, x),
        "Coloring": admodes.coloring(admodes.sparsity(fun, x)),
        "CompressedJacobian": admodes.jacobian(fun, format="compressed")(x),
    }


@pytest.mark.parametrize(
    ("fun", "x"),
    [
        (product, jnp.arange(1.0, 7.0)),
        (
            a_function_with_a_very_long_name_that_goes_on_and_on_and_on_and_on_and_on_and_on_until_it_ends,
            [jnp.ones((2, 3))] * 8,
        ),
    ],
    ids=["small", "large"],
)
def test_reprs_fit_a_terminal(fun, x):
    for name, shown in objects_of(fun, x).items():
        lines = repr(shown).splitlines()
        assert 1 <= len(lines) <= 5, name
        assert max(map(len, lines)) <= 80, (name, lines)
        assert lines[0].startswith(type(shown).__name__), name


def test_problems_fit_a_terminal():
    assert all(len(repr(problem)) <= 80 for problem in admodes.problems.all())


def test_what_reprs_say():
    x = jnp.arange(1.0, 7.0)
    plan = admodes.plan(product, x)
    said = repr(plan)
    assert "5 x 6" in said
    assert all(c.name in said for c in plan.candidates[:2])
    assert repr(plan.best).startswith(f"Candidate({plan.best.name}: ")
    assert "predicted" in repr(plan.best)
    comparison = repr(admodes.compare(product, x, repeat=1))
    assert all(mode in comparison for mode in ("product", "5 x 6", "forward", "reverse", "jax.jacfwd"))
    assert "healthy" in repr(admodes.doctor(lambda x: jnp.sum(x**2), x))
    assert "the gradient" in repr(admodes.doctor(lambda x: jnp.sum(jnp.sqrt(x)), jnp.zeros(2)))
    assert repr(admodes.verify(product, x)).endswith("ok)")
