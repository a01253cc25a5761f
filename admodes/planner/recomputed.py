r"""What a compiler that fuses would compute over and over, and is faster kept in memory.

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

from admodes.planner.work import KIND, bytes_of, entries
from admodes.program.evaluate import dependent
from admodes.program.ir import Const, Equation, Program

OFTEN = 1.5  # evaluations of an entry, at least, of what is stored
MANY = 4000  # operations that are saved: fewer take as long as storing does
SITES = 64  # places in a kernel that are told apart
COST = {"transcendental": 16.0, "free": 0.0, "moving": 0.0, "padding": 1.0, "joining": 1.0}  # of an entry; others: 1
CACHED = 2**22  # bytes of a value that is read from a cache
PRICES = 2.0, 24.0  # operations in the time of storing and reading an entry that is cached, and one that is not
MOVING = frozenset({"moving", "padding", "joining"})
SPREADING = frozenset({"moving", "free"})  # an entry that is read goes to as many as there are more of the results
KERNELS = frozenset({"reducing", "solving", "scattering", "gathering"})
OPAQUE = frozenset({"dot_general", "conv_general_dilated", "scan", "while", "cond"})


def is_kernel(equation: Equation) -> bool:
    """Whether what an equation computes is in memory anyway."""
    return _kind(equation) in KERNELS or equation.primitive.name in OPAQUE or len(equation.outputs) != 1


def recomputed(program: Program, seeds: Sequence[int] = (), count: int = 1, often: float = 1.0) -> frozenset[int]:
    """The slots of a program to be stored.

    What depends on the inputs ``seeds`` is computed ``count`` times at once, and outputs are evaluated so ``often``.
    """
    varying = dependent(program, seeds)
    found = _evaluations(program, varying, count, often)
    costs: defaultdict = defaultdict(float)
    chosen = set()
    for e in program.equations:
        if is_kernel(e):
            continue
        (slot,) = e.outputs
        aval, copies = program.avals[slot], count if slot in varying else 1
        cost = COST.get(_kind(e), 1.0) + sum(costs[x] for x in _slots(e))
        saved = (found.get(slot, 1.0) - 1) * cost
        price = PRICES[bytes_of(aval) * copies > CACHED]
        if cost > 1 and saved > price and saved * entries(aval) * copies > MANY and bytes_of(aval):
            chosen.add(slot)
        else:
            costs[slot] = cost
    return frozenset(chosen)


def _evaluations(program: Program, varying: Container[int], count: int, often: float) -> dict[int, float]:
    """How often each entry of a value is evaluated, of those that may be stored."""
    fresh = itertools.count()
    places: defaultdict = defaultdict(dict)  # of each slot: where in kernels it is evaluated, and how often
    for slot in program.outputs:
        if not isinstance(slot, Const):
            places[slot][next(fresh)] = often
    moved: dict = {}
    found = {}
    for e in reversed(program.equations):
        here = {place: times for slot in e.outputs for place, times in places.pop(slot, {}).items()}
        kind, total = _kind(e), sum(here.values())
        if is_kernel(e):
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
    """As in :data:`admodes.planner.work.KINDS`, but that selections are elementwise."""
    name = equation.primitive.name
    return "" if name == "select_n" else KIND.get(name, "")


def _slots(equation: Equation) -> list[int]:
    return [x for x in equation.inputs if not isinstance(x, Const)]
