"""Calls of everything public, for type checkers: the types that they see are those that come.

pyright reads this file in its strict mode, mypy in its own, both against the installed package; a test runs it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, assert_type

import jax
import jax.numpy as jnp

import admodes
from admodes.compare import Comparison, Row
from admodes.compare.verify import Verification
from admodes.diagnosis.report import Report
from admodes.explain import Explanation
from admodes.linear.algebra import LinearMap
from admodes.linear.pattern import SparsityPattern
from admodes.memory.profile import MemoryProfile
from admodes.modes.pullback import Pullback
from admodes.planner.calls.plan import Plan
from admodes.planner.choice.candidates import Candidate
from admodes.problems import Problem
from admodes.sparse import Coloring
from admodes.transforms.forward import Pushforward


def neighbours(x: jax.Array) -> jax.Array:
    return x[1:] * x[:-1]


def energy(x: jax.Array) -> jax.Array:
    return jnp.sum(x**2)


def with_aux(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return energy(x), x


def modes(x: jax.Array) -> None:
    assert_type(admodes.jvp(neighbours, (x,), (x,)), tuple[Any, Any])
    assert_type(admodes.jvp(with_aux, [x], [x], has_aux=True), tuple[Any, ...])
    y, push = admodes.linearize(neighbours, x)
    assert_type(y, Any)
    assert_type(push, Pushforward)
    assert_type(push(x), Any)
    assert_type(admodes.linearize(with_aux, x, has_aux=True), tuple[Any, Pushforward, Any])
    y, pullback = admodes.vjp(neighbours, x)
    assert_type(pullback, Pullback)
    assert_type(pullback(y), Any)
    assert_type(admodes.vjp(with_aux, x, has_aux=True), tuple[Any, Pullback, Any])
    assert_type(admodes.grad(energy), Callable[..., Any])
    assert_type(admodes.value_and_grad(energy, argnums=(0,))(x), tuple[Any, Any])
    assert_type(admodes.jacfwd(neighbours)(x), Any)
    assert_type(admodes.jacrev(neighbours)(x), Any)
    assert_type(admodes.hvp(energy, x, x), Any)
    assert_type(admodes.checkpoint(energy, "sqrt")(x), jax.Array)


def composed(x: jax.Array) -> None:
    linear = admodes.linearize(neighbours, x)[1].map
    assert_type(linear, LinearMap)
    assert_type(admodes.vjp(neighbours, x)[1].map, admodes.LinearMap)
    assert_type(linear.T, LinearMap)
    assert_type(linear.T @ linear, LinearMap)
    assert_type(2.0 * linear + linear - linear, LinearMap)
    assert_type(-linear, LinearMap)
    assert_type(linear @ x, Any)
    assert_type(linear.materialise(), jax.Array)
    assert_type(linear.shape, tuple[int, int])
    assert_type(linear.types, str)


def planned(x: jax.Array, folder: Path) -> None:
    assert_type(admodes.jacobian(neighbours, format="bcoo"), Callable[..., Any])
    assert_type(admodes.value_and_jacobian(neighbours, memory_limit="200MiB")(x), tuple[Any, Any])
    assert_type(admodes.hessian(energy, objective="flops", chunk_size=2), Callable[..., Any])
    assert_type(admodes.value_grad_and_hessian(energy, triangle="lower", format="bcoo")(x), tuple[Any, Any, Any])
    assert_type(admodes.value_and_hessian(energy)(x), tuple[Any, Any])
    plan = admodes.plan(neighbours, x, format="bcoo")
    assert_type(plan, Plan)
    assert_type(plan.best, Candidate)
    assert_type(plan.candidates, tuple[Candidate, ...])
    assert_type(plan.best.seconds, float)
    assert_type(plan.pattern, SparsityPattern | None)
    assert_type(plan.why, str)
    assert_type(plan.jacobian(x), Any)
    plan.save(folder / "plan.npz")
    assert_type(admodes.load_plan(folder / "plan.npz", neighbours), Plan)
    assert_type(admodes.choose_mode(3, 4), str)
    assert_type(admodes.diagonal(jnp.sin)(x), Any)
    assert_type(admodes.laplacian(energy)(x), Any)
    assert_type(admodes.block_jacobian(jnp.sin)(x), Any)


def of_higher_order(x: jax.Array) -> None:
    assert_type(admodes.jet(jnp.sin, (x,), ([x, x],)), tuple[Any, Any])
    assert_type(admodes.taylor(jnp.sin, x, x, 3), list[Any])
    assert_type(admodes.derivative(jnp.sin, 2)(0.5), Any)
    assert_type(admodes.value_grad_laplacian(energy), Callable[..., Any])
    assert_type(admodes.biharmonic(energy)(x), Any)
    assert_type(admodes.differential_operator({(2, 0): 1.0})(energy)(x), Any)
    assert_type(admodes.derivative_tensor(energy, 3)(x), Any)


def sparse(x: jax.Array) -> None:
    pattern = admodes.sparsity(neighbours, x)
    assert_type(pattern, SparsityPattern)
    assert_type(pattern.shape, tuple[int, int])
    assert_type(pattern.nnz, int)
    assert_type(admodes.hessian_sparsity(energy, x), SparsityPattern)
    coloring = admodes.coloring(pattern, "row", order="natural")
    assert_type(coloring, Coloring)
    assert_type(coloring.number, int)


def kinks(x: jax.Array) -> None:
    assert_type(admodes.subgradient(energy, direction=x)(x), Any)
    assert_type(admodes.subjacobian(neighbours)(x), Any)
    assert_type(admodes.directional(neighbours, x, x), Any)
    report = admodes.doctor(energy, x)
    assert_type(report, Report)
    assert_type(report.healthy, bool)
    assert_type(report.to_dict(), dict[str, Any])


def seen(x: jax.Array) -> None:
    comparison = admodes.compare(energy, x, repeat=1)
    assert_type(comparison, Comparison)
    assert_type(comparison["forward"], Row)
    assert_type(comparison["forward"].run_s, float)
    assert_type(admodes.verify(neighbours, x), Verification)
    assert_type(bool(admodes.verify(neighbours, x)), bool)
    assert_type(admodes.explain(energy, x), Explanation)
    assert_type(admodes.draw(energy, x), str)
    profile = admodes.memory_profile(energy, x)
    assert_type(profile, MemoryProfile)
    assert_type(profile.bytes, int)


def collected() -> None:
    problem = admodes.problems.get("roe_flux")
    assert_type(problem, Problem)
    assert_type(problem.make(), tuple[Callable[..., Any], tuple[Any, ...]])
    assert_type(admodes.problems.names(), list[str])
    assert_type(admodes.problems.all(), list[Problem])
    modules: tuple[ModuleType, ...] = admodes.rules, admodes.errors
    assert all(module.__doc__ for module in modules)
    assert_type(admodes.rules.supported(), dict[str, str])
    caught: type[Exception] = admodes.errors.UnsupportedPrimitiveError
    assert issubclass(caught, admodes.errors.AdmodesError)


def in_place_of_jax(x: jax.Array) -> None:
    @admodes.as_jax(nan_safe=True)
    def value(x: jax.Array) -> jax.Array:
        return energy(x)

    assert_type(value(x), jax.Array)
    with admodes.as_jax():
        assert_type(value(x), jax.Array)
    with admodes.advise() as advice:
        value(x)
    assert_type(advice.report(width=100), str)


def misspelt() -> None:
    _ = admodes.jacobain  # type: ignore[attr-defined]
