"""diffrax: each way to differentiate a solve, explicit, implicit and stochastic solvers, events."""

import jax
import jax.numpy as jnp

from tests.clients.derivatives import FIRST, FORWARD, REVERSE, Case, client, every_derivative

dfx = client("diffrax")
optx = client("optimistix")

X = {"y": jnp.array([1.0, 0.5]), "k": jnp.array(0.7)}
TOLERANCES = {"rtol": 1e-4, "atol": 1e-4}


def field(t, y, k):
    return jnp.stack([y[1], -k * jnp.sin(y[0]) - 0.1 * y[1] * t])


def solve(solver, adjoint, *, controller=None, event=None, terms=None, saveat=None, steps=16):
    def solution(x):
        return dfx.diffeqsolve(
            terms or dfx.ODETerm(field),
            solver,
            0.0,
            0.5,
            0.1,
            x["y"],
            x["k"],
            adjoint=adjoint,
            stepsize_controller=controller or dfx.ConstantStepSize(),
            event=event,
            saveat=saveat or dfx.SaveAt(t1=True),
            max_steps=steps,
        ).ys

    return solution


def adaptive():
    return dfx.PIDController(**TOLERANCES)


def noise():
    path = dfx.VirtualBrownianTree(0.0, 0.5, 1e-2, (), jax.random.key(0))
    return dfx.MultiTerm(dfx.ODETerm(field), dfx.ControlTerm(lambda t, y, k: 0.1 * k * y, path))


def crossing():
    root = optx.Newton(1e-10, 1e-10, optx.rms_norm)
    return dfx.Event(lambda t, y, args, **kwargs: y[0] - 1.1, root)


RECURSIVE, DIRECT = dfx.RecursiveCheckpointAdjoint(), dfx.DirectAdjoint()
BACKSOLVE, FORWARDS = dfx.BacksolveAdjoint(), dfx.ForwardMode()
MANY = dfx.SaveAt(ts=jnp.linspace(0.1, 0.5, 3))

CASES = [
    Case("Tsit5-recursive", solve(dfx.Tsit5(), RECURSIVE), X, REVERSE),
    Case("Tsit5-recursive-adaptive", solve(dfx.Tsit5(), RECURSIVE, controller=adaptive(), saveat=MANY), X, REVERSE),
    Case("Tsit5-direct", solve(dfx.Tsit5(), DIRECT, steps=8), X, (*FIRST, "hvp")),
    Case("Tsit5-backsolve", solve(dfx.Tsit5(), BACKSOLVE), X, REVERSE),
    Case("Tsit5-forward", solve(dfx.Tsit5(), FORWARDS, controller=adaptive()), X, FORWARD),
    Case("Kvaerno5-recursive", solve(dfx.Kvaerno5(), RECURSIVE, controller=adaptive()), X, REVERSE, 1e-6),
    Case("Kvaerno5-direct", solve(dfx.Kvaerno5(), DIRECT, controller=adaptive(), steps=8), X, FIRST, 1e-6),
    Case("SDE-recursive", solve(dfx.EulerHeun(), RECURSIVE, terms=noise()), X, REVERSE),
    Case("SDE-direct", solve(dfx.EulerHeun(), DIRECT, terms=noise()), X, FIRST),
    Case("event-recursive", solve(dfx.Tsit5(), RECURSIVE, event=crossing()), X, REVERSE, 1e-6),
    Case("event-direct", solve(dfx.Tsit5(), DIRECT, event=crossing()), X, FIRST, 1e-6),
]


@every_derivative(CASES)
def test_derivatives(case, way):
    way(case)
