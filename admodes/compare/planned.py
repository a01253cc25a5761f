"""The candidates of a plan as strategies that ``compare`` can set side by side.

So predictions stand beside times, and each candidate is checked, not the chosen one only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from admodes.compare import jax_ad
from admodes.compare.comparison import Strategy
from admodes.planner.calls.jacobian import finished
from admodes.planner.calls.request import request
from admodes.planner.choice.candidates import Candidate
from admodes.planner.choice.decision import Settings, decide
from admodes.planner.task import Task


def strategies(
    fun: Callable, args: tuple, argnums: int | Sequence[int] = 0, holomorphic: bool = False
) -> list[Strategy]:
    """One strategy for each candidate, the fastest first; each is checked against the better of JAX's two modes.

    Where the tape of reverse mode is not small, schedules that keep less of it are among them.

    >>> import jax.numpy as jnp
    >>> from admodes.compare.planned import strategies
    >>> sorted(s.name for s in strategies(lambda x: x[1:] * x[:-1], (jnp.ones(5),)))
    ['accumulation', 'compressed forward', 'compressed reverse']
    """
    task = request("compare", fun, argnums, False, holomorphic).call(args, {}).task()
    found = sorted(decide(task, Settings(objective="memory")).candidates, key=lambda c: c.seconds)
    return _mixed(found, task)


def chosen(fun: Callable, args: tuple, argnums: int | Sequence[int] = 0, holomorphic: bool = False) -> list[Strategy]:
    """The strategy that the planner takes; none where that is forward or reverse mode.

    >>> import jax.numpy as jnp
    >>> from admodes.compare.planned import chosen
    >>> [s.name for s in chosen(lambda x: x[1:] * x[:-1], (jnp.ones(1000),))]
    ['accumulation']
    """
    task = request("compare", fun, argnums, False, holomorphic).call(args, {}).task()
    return _mixed([decide(task, Settings(objective="time")).best], task)


def _mixed(candidates: Sequence[Candidate], task: Task) -> list[Strategy]:
    oracle = jax_ad.jacfwd if task.n <= task.m else jax_ad.jacrev
    return [_strategy(c, oracle) for c in candidates if c.name not in ("forward", "reverse")]


def _strategy(chosen: Candidate, oracle: Callable) -> Strategy:
    def jacobian(fun, argnums=0, holomorphic=False):
        asked = request("compare", fun, argnums, False, holomorphic)

        def run(*args):
            call = asked.call(args, {})
            made = finished(call.task(), chosen, "dense", call, value=False)
            return made.unpack(made.run(call.leaves))[1]

        return run

    return Strategy(chosen.name, jacobian, lambda n, m: chosen.method.passes, oracle)
