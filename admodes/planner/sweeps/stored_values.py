r"""Stored values: a compiler that fuses would compute them over and over, and they are faster kept in memory.

A fused kernel computes each entry of its result from the entries that it needs of what is fused into it. Behind an
operation that moves entries (a slice, a padding, a transposition), these are others for each of its uses: the second
of two stencils evaluates three entries of the first, a Runge-Kutta step of four stages 3⁴ of its start. So evaluations
grow exponentially with the depth of a program. And what is the same for all seeds of a sweep is evaluated for each.

Walking backward, a value is evaluated wherever its users are, and anew behind operations that move. Once it is
evaluated more than ``OFTEN`` times it is a candidate; forward, candidates are stored that take longer to evaluate.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Container, Sequence

from admodes.planner.cost.work import FUNCTIONS, bytes_of, entries
from admodes.program.dependence import dependent
from admodes.program.ir import Const, Equation, Program
from admodes.program.traits import traits

# Evaluations of an entry, at least, of a value that is stored. Chosen: 1 is a value that is computed once anyway. At
# 6 a value that is evaluated five times over would be left so.
OFTEN = 1.5
# Operations that are saved, at least; fewer take as long as starting another kernel, or calling it in a loop. Chosen.
# Four times off wins or loses about a kernel.
MANY, MANY_IN_LOOP = 16_000, 1000
# Places in a kernel that are told apart. Chosen, so that planning stays linear; beyond, they count as one place.
SITES = 64
# operations for an entry, by class of cost; others: 1
COST = {**{kind: 16.0 * times for kind, times in FUNCTIONS.items()}, "free": 0.0, "moving": 0.0}
# Bytes of a value that is read from a cache. Chosen: 4 MiB. If the cache is smaller, stored values are dearer than is
# reckoned.
CACHED = 2**22
# Operations in the time of reading an entry, each time, in place of what it is computed from. Chosen. Four times more
# stores transcendental functions only; four times less stores sums.
READ = 4.0
PRICES, PRICES_IN_LOOP = (2.0, 24.0), (10.0, 24.0)  # and of storing one, that is cached or is not
MOVING = frozenset({"moving", "padding", "joining"})
SPREADING = frozenset({"moving", "free"})  # an entry that is read goes to as many as there are more of the results
KERNELS = frozenset({"reducing", "solving", "scattering", "gathering", "contracting", "loop", "branches"})


def is_kernel(equation: Equation) -> bool:
    """True if what an equation computes is in memory anyway."""
    return _kind(equation) in KERNELS or len(equation.outputs) != 1


def recomputed(
    program: Program,
    seeds: Sequence[int] = (),
    count: int = 1,
    often: float = 1.0,
    unread: int = 0,
    in_loop: bool = False,
) -> frozenset[int]:
    """The slots of a program, or of the body of a loop, to be stored.

    Values that depend on the inputs ``seeds`` are computed ``count`` times at once, and outputs are evaluated so
    ``often``, but for the first ``unread`` of them, which nobody asks for.
    """
    many, prices = (MANY_IN_LOOP, PRICES_IN_LOOP) if in_loop else (MANY, PRICES)
    varying = dependent(program, seeds)
    kept = _in_memory(program, unread)
    found = _evaluations(program, kept, varying, count, often, unread)
    costs: defaultdict = defaultdict(float)
    chosen = set()
    for e in program.equations:
        if is_kernel(e) or not kept.isdisjoint(e.outputs):
            continue
        (slot,) = e.outputs
        aval, copies = program.avals[slot], count if slot in varying else 1
        cost = COST.get(_kind(e), 1.0) + sum(costs[x] for x in e.slots)
        saved = found.get(slot, 1.0) * (cost - READ) - cost
        price = prices[bytes_of(aval) * copies > CACHED]
        if saved > price and saved * entries(aval) * copies > many and bytes_of(aval):
            chosen.add(slot)
        else:
            costs[slot] = cost
    return frozenset(chosen)


def _in_memory(program: Program, unread: int) -> set[int]:
    """Transcendental functions that some kernel reads as an array: XLA computes them once."""
    arrays = {x for x in program.outputs[unread:] if not isinstance(x, Const)}
    kept: set[int] = set()
    for e in reversed(program.equations):
        if _kind(e) in FUNCTIONS and not arrays.isdisjoint(e.outputs):
            kept.update(e.outputs)
        if _kind(e) in KERNELS - {"gathering"}:
            arrays.update(e.slots)
    return kept


def _evaluations(
    program: Program, kept: Container[int], varying: Container[int], count: int, often: float, unread: int
) -> dict[int, float]:
    """The number of times that each entry of a value is evaluated, of those that may be stored."""
    fresh = itertools.count()
    places: defaultdict = defaultdict(dict)  # of each slot: where in kernels it is evaluated, and how often
    for slot in program.outputs[unread:]:
        if not isinstance(slot, Const):
            places[slot][next(fresh)] = often
    moved: dict = {}
    found = {}
    for e in reversed(program.equations):
        here = {place: times for slot in e.outputs for place, times in places.pop(slot, {}).items()}
        kind, total = _kind(e), sum(here.values())
        if is_kernel(e) or any(slot in kept for slot in e.outputs):
            here = {next(fresh): 1.0}
        elif total >= OFTEN and COST.get(kind, 1.0):
            found[e.outputs[0]] = total
            here = {next(fresh): 1.0}
        elif len(here) > SITES:
            here = {next(fresh): total}
        varies = any(slot in varying for slot in e.outputs)
        where = str(e.params) if kind in MOVING | SPREADING else ""
        for k, x in enumerate(e.inputs):
            if isinstance(x, Const) or not (read := entries(program.avals[x])):
                continue
            repeated = count if varies and x not in varying else 1.0
            if kind in SPREADING and not is_kernel(e):
                repeated *= entries(program.avals[e.outputs[0]]) / read
            for place, times in here.items():
                if kind in MOVING or repeated != 1:
                    place = moved.setdefault((place, e.primitive.name, k, where), next(fresh))
                places[x][place] = times * repeated
    return found


def _kind(equation: Equation) -> str:
    return traits(equation.primitive).cost or "elementwise"
