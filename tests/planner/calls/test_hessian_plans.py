"""Plans of Hessians, and what is given of a matrix: its pattern, a coloring, that a triangle is enough."""

from __future__ import annotations

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import admodes
from admodes.errors import PatternError, PlanningError, StalePlanError
from admodes.linear.pattern import SparsityPattern

X = np.linspace(0.1, 1, 9)


def f(x):
    return jnp.sum(jnp.sin(x[1:] * x[:-1]) ** 2) + jnp.sum(x**3)


H = np.asarray(jax.hessian(f)(X))
PATTERN = admodes.hessian_sparsity(f, X)
FULL = SparsityPattern.dense(9, 9)


def test_a_plan_of_a_hessian():
    plan = admodes.plan(f, X, hessian=True, format="bcoo")
    np.testing.assert_allclose(plan.hessian(X).todense(), H, rtol=1e-12, atol=1e-14)
    assert "compressed Hessian" in [c.name for c in plan.candidates]
    assert plan.pattern.equals(PATTERN)
    assert str(plan).startswith("Hessian, 9 x 9, 25 nonzeros")
    assert admodes.plan(f, X, hessian=True, coloring=admodes.coloring(PATTERN, "symmetric")).draw()
    with pytest.raises(PlanningError, match="is of a Jacobian"):
        admodes.plan(jnp.sin, X).hessian(X)


@pytest.mark.parametrize("options", [{}, {"pattern": FULL}, {"triangle": "lower"}, {"coloring": "symmetric"}])
def test_it_is_saved_and_loaded(tmp_path, options):
    if "coloring" in options:
        options = {"coloring": admodes.coloring(PATTERN, "symmetric")}
    plan = admodes.plan(f, X, hessian=True, format="bcoo", **options)
    plan.save(tmp_path / "one.npz")
    once = admodes.load_plan(tmp_path / "one.npz", f)
    once.save(tmp_path / "two.npz")
    for loaded in (once, admodes.load_plan(tmp_path / "two.npz", f, X)):
        assert (loaded.best.name, loaded.best.method.detail) == (plan.best.name, plan.best.method.detail)
        found, wanted = loaded.hessian(X), plan.hessian(X)
        np.testing.assert_array_equal(found.indices, wanted.indices)
        np.testing.assert_allclose(found.data, wanted.data, rtol=1e-14)
    with pytest.raises(StalePlanError):
        admodes.load_plan(tmp_path / "one.npz", lambda x: f(x) + x[0] * x[8])


def test_a_plan_of_a_jacobian_with_a_pattern_is_loaded(tmp_path):
    plan = admodes.plan(jnp.sin, X, pattern=FULL, format="bcoo")
    plan.save(tmp_path / "plan.npz")
    loaded = admodes.load_plan(tmp_path / "plan.npz", jnp.sin)
    assert loaded.jacobian(X).nse == plan.jacobian(X).nse == 81
    np.testing.assert_allclose(loaded.jacobian(X).todense(), np.diag(np.cos(X)), rtol=1e-14)


@pytest.mark.parametrize("form", ["dense", "bcoo", "scipy"])
def test_given_patterns_and_colorings(form):
    dense = lambda matrix: np.asarray(matrix.todense() if form != "dense" else matrix)
    for options in ({"pattern": PATTERN}, {"pattern": FULL}, {"coloring": admodes.coloring(PATTERN, "symmetric")}):
        np.testing.assert_allclose(dense(admodes.hessian(f, format=form, **options)(X)), H, rtol=1e-10, atol=1e-13)
    sine = admodes.jacobian(jnp.sin, format=form, coloring=admodes.coloring(FULL, "row"))(X)
    np.testing.assert_allclose(dense(sine), np.diag(np.cos(X)), rtol=1e-14)
    assert getattr(sine, "nse", getattr(sine, "nnz", 81)) == 81


def test_a_coloring_that_is_given_is_the_way():
    column = admodes.coloring(PATTERN, "column")
    plan = admodes.plan(f, X, hessian=True, coloring=column)
    assert [c.method.coloring for c in plan.candidates] == [column]


@pytest.mark.parametrize("form", ["bcoo", "scipy"])
def test_the_lower_triangle(form):
    found = admodes.hessian(f, format=form, triangle="lower")(X)
    np.testing.assert_allclose(found.todense(), np.tril(H), rtol=1e-10, atol=1e-13)
    assert getattr(found, "nse", getattr(found, "nnz", None)) == (PATTERN.nnz + 9) // 2
    full = admodes.hessian(f, format=form)(X)  # of the same function, kept beside it
    np.testing.assert_allclose(full.todense(), H, rtol=1e-10, atol=1e-13)
    wide = admodes.hessian(f, format=form, triangle="lower", pattern=FULL)(X)
    assert getattr(wide, "nse", getattr(wide, "nnz", None)) == 45
    np.testing.assert_allclose(wide.todense(), np.tril(H), rtol=1e-10, atol=1e-13)


def test_what_does_not_fit():
    with pytest.raises(ValueError, match="formats 'bcoo' and 'scipy', not for 'dense'"):
        admodes.hessian(f, triangle="lower")
    with pytest.raises(ValueError, match="must be 'lower'"):
        admodes.hessian(f, format="bcoo", triangle="upper")
    with pytest.raises(ValueError, match="is for Hessians"):
        admodes.plan(jnp.sin, X, format="bcoo", triangle="lower")
    with pytest.raises(ValueError, match="symmetric coloring is for Hessians"):
        admodes.jacobian(jnp.sin, coloring=admodes.coloring(PATTERN, "symmetric"))(X)
    with pytest.raises(PatternError, match="does not cover the Jacobian"):
        admodes.hessian(f, pattern=admodes.sparsity(jnp.sin, X))(X)
    with pytest.raises(PatternError, match="does not cover the one that was given"):
        admodes.hessian(f, pattern=FULL, coloring=admodes.coloring(PATTERN, "column"))(X)
    with pytest.raises(TypeError, match=r"what admodes\.coloring returns"):
        admodes.hessian(f, coloring=PATTERN)
    with pytest.raises(TypeError, match="must be a SparsityPattern"):
        admodes.hessian(f, pattern=np.eye(9))


def test_value_gradient_and_hessian():
    value, gradient, found = admodes.value_grad_and_hessian(f)(X)
    np.testing.assert_allclose(value, f(X), rtol=1e-14)
    np.testing.assert_allclose(gradient, jax.grad(f)(X), rtol=1e-12)
    np.testing.assert_allclose(found, H, rtol=1e-10, atol=1e-13)
    lagrangian = lambda x, multipliers: (f(x) + multipliers @ x[:2] ** 2, {"norm": jnp.sum(x**2)})
    multipliers = np.array([2.0, 3.0])
    (value, aux), gradient, found = admodes.value_grad_and_hessian(
        lagrangian, has_aux=True, format="scipy", triangle="lower", pattern=PATTERN
    )(X, multipliers)
    np.testing.assert_allclose(value, lagrangian(X, multipliers)[0], rtol=1e-14)
    np.testing.assert_allclose(aux["norm"], X @ X, rtol=1e-14)
    np.testing.assert_allclose(gradient, jax.grad(lagrangian, has_aux=True)(X, multipliers)[0], rtol=1e-12)
    np.testing.assert_allclose(found.todense(), np.tril(H + np.diag([4.0, 6.0] + [0] * 7)), rtol=1e-10, atol=1e-13)
    value, found = jax.jit(admodes.value_and_hessian(f))(X)
    np.testing.assert_allclose(value, f(X), rtol=1e-14)
    np.testing.assert_allclose(found, H, rtol=1e-10, atol=1e-13)


def test_the_command_line(tmp_path):
    command = "from admodes.cli import main; raise SystemExit(main())"
    arguments = ["plan", "jax.numpy:prod", "--arg", "normal(5)", "--hessian", "--format", "bcoo"]
    done = subprocess.run([sys.executable, "-c", command, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Hessian, 5 x 5, 20 nonzeros" in done.stdout or "Hessian, 5 x 5, 25 nonzeros" in done.stdout
