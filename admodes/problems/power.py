"""Electric power networks."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp

from admodes.problems.registry import problem

# The IEEE 14-bus system, per unit on 100 MVA: from bus, to bus, resistance, reactance, charging, tap ratio
BRANCHES = (
    (1, 2, 0.01938, 0.05917, 0.0528, 1.0),
    (1, 5, 0.05403, 0.22304, 0.0492, 1.0),
    (2, 3, 0.04699, 0.19797, 0.0438, 1.0),
    (2, 4, 0.05811, 0.17632, 0.0340, 1.0),
    (2, 5, 0.05695, 0.17388, 0.0346, 1.0),
    (3, 4, 0.06701, 0.17103, 0.0128, 1.0),
    (4, 5, 0.01335, 0.04211, 0.0, 1.0),
    (4, 7, 0.0, 0.20912, 0.0, 0.978),
    (4, 9, 0.0, 0.55618, 0.0, 0.969),
    (5, 6, 0.0, 0.25202, 0.0, 0.932),
    (6, 11, 0.09498, 0.19890, 0.0, 1.0),
    (6, 12, 0.12291, 0.25581, 0.0, 1.0),
    (6, 13, 0.06615, 0.13027, 0.0, 1.0),
    (7, 8, 0.0, 0.17615, 0.0, 1.0),
    (7, 9, 0.0, 0.11001, 0.0, 1.0),
    (9, 10, 0.03181, 0.08450, 0.0, 1.0),
    (9, 14, 0.12711, 0.27038, 0.0, 1.0),
    (10, 11, 0.08205, 0.19207, 0.0, 1.0),
    (12, 13, 0.22092, 0.19988, 0.0, 1.0),
    (13, 14, 0.17093, 0.34802, 0.0, 1.0),
)
SHUNT = {9: 0.19j}
# generation minus load, MW and MVAr
INJECTION = {
    2: 18.3 - 12.7j,
    3: -94.2 - 19.0j,
    4: -47.8 + 3.9j,
    5: -7.6 - 1.6j,
    6: -11.2 - 7.5j,
    9: -29.5 - 16.6j,
    10: -9.0 - 5.8j,
    11: -3.5 - 1.8j,
    12: -6.1 - 1.6j,
    13: -13.5 - 5.8j,
    14: -14.9 - 5.0j,
}
HELD_VOLTAGE = {1: 1.060, 2: 1.045, 3: 1.010, 6: 1.070, 8: 1.090}  # the slack bus 1 and the generators


def _admittance(n: int, branches: Any, shunts: Any) -> sp.csr_array:
    """The bus admittance matrix Y: branches as π circuits, transformers on the side of the first bus."""
    start, end = (np.array(branches)[:, k].astype(int) - 1 for k in (0, 1))
    resistance, reactance, charging, tap = np.array(branches).T[2:]
    series = 1.0 / (resistance + 1j * reactance)
    own = series + 0.5j * charging
    at = np.array(list(shunts), int) - 1
    entries = [own / tap**2, own, -series / tap, -series / tap, np.array(list(shunts.values()), complex)]
    places = [(start, end, start, end, at), (start, end, end, start, at)]
    rows, cols = map(np.concatenate, places)
    return sp.coo_array((np.concatenate(entries), (rows, cols)), (n, n)).tocsr()


def _balance(dtype, rng, admittance, injected, held_voltage):
    """The mismatch in angles and free voltages, near a flat start, and its arguments; bus 1 is the slack bus."""
    n, entries = admittance.shape[0], admittance.data
    rows, cols = np.repeat(np.arange(n), np.diff(admittance.indptr)), admittance.indices
    free = np.array([bus - 1 for bus in range(1, n + 1) if bus not in held_voltage])
    held = np.array([held_voltage.get(bus, 1.0) for bus in range(1, n + 1)])

    def f(unknowns, held, conductance, susceptance, p_injected, q_injected):
        theta = jnp.concatenate([jnp.zeros(1, unknowns.dtype), unknowns[: n - 1]])
        v = held.at[free].set(unknowns[n - 1 :])
        angle = theta[rows] - theta[cols]
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        weight = v[rows] * v[cols]
        p = jnp.zeros(n, v.dtype).at[rows].add(weight * (conductance * cos + susceptance * sin))
        q = jnp.zeros(n, v.dtype).at[rows].add(weight * (conductance * sin - susceptance * cos))
        return jnp.concatenate([(p - p_injected)[1:], (q - q_injected)[free]])

    start = np.concatenate([rng.uniform(-0.2, 0.0, n - 1), rng.uniform(0.98, 1.04, free.size)])
    data = (held, entries.real, entries.imag, injected.real, injected.imag)
    return f, (start.astype(dtype), *(a.astype(dtype) for a in data))


@problem(
    summary="power balance of the IEEE 14-bus network, sparse", field="electrical engineering", inputs=22, outputs=22
)
def power_flow(dtype, rng):
    r"""Mismatch of active and reactive power at the buses of an alternating-current network.

    Pᵢ = Vᵢ Σₖ Vₖ (Gᵢₖ cos θᵢₖ + Bᵢₖ sin θᵢₖ) and Qᵢ = Vᵢ Σₖ Vₖ (Gᵢₖ sin θᵢₖ − Bᵢₖ cos θᵢₖ), θᵢₖ = θᵢ − θₖ, minus what
    is injected: P at the 13 buses other than the slack bus, Q at the 9 buses whose voltage is free. The unknowns are
    the angles θ of those 13 (radians) and the magnitudes V of those 9. The sums run over the nonzeros of Y = G + iB,
    by gathers and a scatter-add. Newton's method needs this Jacobian at every step.

    Reference: Tinney and Hart, *Power flow solution by Newton's method*, IEEE Trans. Power Apparatus and Systems 86
    (1967) 1449-1460; data of the IEEE 14-bus test case (University of Washington archive).
    """
    injected = np.array([INJECTION.get(bus, 0.0) / 100.0 for bus in range(1, 15)])
    return _balance(dtype, rng, _admittance(14, BRANCHES, SHUNT), injected, HELD_VOLTAGE)


@problem(
    summary="power balance of a random network of any size, sparse",
    field="electrical engineering",
    inputs=52,
    outputs=52,
)
def power_network(dtype, rng, buses=30):
    r"""The mismatch of ``power_flow`` for a random network: a tree of neighbours and half as many lines again.

    Each bus is joined to one of the ten before it, and half of them to a second one: 3 lines meet at a bus, about as
    many as in real grids. The first bus is the slack bus; it and a fifth of the others, the generators, hold their
    voltage.

    Reference: Wang, Scaglione and Thomas, *Generating statistically correct random topologies for testing smart grid
    communication and control networks*, IEEE Trans. Smart Grid 1 (2010) 28-39.
    """
    ends = [*range(2, buses + 1), *(2 + rng.choice(buses - 1, buses // 2, replace=False)).tolist()]
    reactances = rng.uniform(0.05, 0.3, len(ends))
    branches = [
        (end - int(rng.integers(1, min(end, 11))), end, 0.3 * x, x, 0.1 * x, 1.0)
        for end, x in zip(ends, reactances, strict=True)
    ]
    held = {1: 1.0} | {2 + int(k): 1.02 for k in rng.choice(buses - 1, buses // 5, replace=False)}
    injected = 0.1 * rng.normal(size=buses) + 0.03j * rng.normal(size=buses)
    return _balance(dtype, rng, _admittance(buses, branches, {}), injected, held)
