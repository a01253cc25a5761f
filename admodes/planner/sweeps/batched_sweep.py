"""A sweep for many seeds at once, in which some values pass through memory though a compiler would fuse them.

They are what would be computed over and over (:mod:`admodes.planner.sweeps.stored_values`), such as the cosines of a
Jacobian of n outputs, once for each output. And what uses a sum over the seeds' entries would be computed in the kernel
of the sum, which is made for sums and reads all else from memory. A product with a matrix whose result is transposed
would be turned into one of transposed matrices, which is slow on CPUs. And a few rows g are multiplied by a large
matrix faster as W gᵀ than as g Wᵀ, in double precision.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
from jax import lax
from jax.custom_batching import custom_vmap

from admodes.compilers.recompute import stored
from admodes.compilers.workarounds import FEW_ROWS, RIGHT_HAND_SIDES, SMALL_PRODUCTS, STORED_VALUES, TRANSPOSED_COLUMNS
from admodes.planner.sweeps.right_hand_sides import solved_by_products
from admodes.planner.sweeps.small_products import small_products_added_up
from admodes.planner.sweeps.stored_values import is_kernel, recomputed
from admodes.program import jax_compat as jc
from admodes.program.dependence import carried, dependent
from admodes.program.derived import keep
from admodes.program.evaluate import bind, evaluate, run
from admodes.program.ir import Const, Program, from_jaxpr
from admodes.program.traits import traits

# Values that are added up: fewer are computed as fast as they are stored. Chosen. Four times off costs or saves about
# a kernel.
MANY = 4000
# Entries to a sum, at least: longer results are as good as what they come from. Chosen.
FEWER = 4
# Entries of a matrix that a FEW vectors, of LONG entries at least, are multiplied by in the other order. Chosen, as
# FEW and LONG are: the workaround "few rows" has a benchmark (`admodes bench workarounds`). If they are too small,
# the transposition costs more than it saves.
LARGE = 2**14
FEW = range(4, 33)
LONG = 64


def batched(
    program: Program,
    args: Sequence,
    seeds: Sequence,
    n_outputs: int,
    columns: bool = False,
    unread: bool = False,
    as_written: bool = False,
) -> tuple[list, list]:
    """(outputs, results with a leading axis over the seeds) of a program at the same ``args`` for all ``seeds``.

    ``columns``: the results will be transposed; ``unread``: nobody asks for the outputs; ``as_written``: the program is
    left to the compiler as it is. A single seed is no batch: what has no batching rule runs seed by seed.
    """
    seeded = [False] * len(args) + [True] * len(seeds)
    count, first_column = len(seeds[0]) if seeds else 1, n_outputs if columns else None
    sweep = _Sweep(program, seeded, count, first_column, unread=n_outputs if unread else 0)

    def one(*seeds):
        flat = evaluate(program, *args, *seeds) if as_written else sweep([*args, *seeds])
        return flat[:n_outputs], flat[n_outputs:]

    if count == 1:
        outs, results = one(*(lax.squeeze(x, (0,)) for x in seeds))
        return outs, [lax.expand_dims(x, (0,)) for x in results]
    return jax.vmap(one, out_axes=(None, 0))(*seeds)


def evaluate_once(program: Program, args: Sequence, often: float = 1.0, unread: int = 0) -> list:
    """The outputs of a program, to be read so ``often``, but for the first ``unread`` of them.

    Values that would be computed over and over pass memory.
    """
    return _Sweep(program, [False] * len(args), often=often, unread=unread)(args)


@custom_vmap
def _row_times(row, matrix):
    """g Wᵀ; of several rows (W gᵀ)ᵀ, stored between, as XLA would turn it back."""
    return lax.dot_general(row, matrix, (((0,), (1,)), ((), ())))


@_row_times.def_vmap
def _rows_times(count, batched, rows, matrix):
    if batched != [True, False]:  # a batch of Jacobians
        axes = [0 if on else None for on in batched]
        return jax.vmap(_row_times.fun, axes)(rows, matrix), True
    (columns,) = stored([lax.dot_general(matrix, rows, (((1,), (1,)), ((), ())))])
    return lax.transpose(columns, (1, 0)), True


class _Sweep:
    """``varying`` are the slots that depend on seeds, ``near`` those of them that no kernel lies before.

    Outputs from ``first_column`` on will be transposed. Outputs are read so ``often``, the first ``unread`` not at all.
    """

    def __init__(
        self,
        program: Program,
        seeded: Sequence[bool],
        count: int = 1,
        first_column: int | None = None,
        often: float = 1.0,
        unread: int = 0,
        in_loop: bool = False,
    ):
        program = solved_by_products(program, seeded, count) if RIGHT_HAND_SIDES.on else program
        self.program = small_products_added_up(program, seeded, count) if SMALL_PRODUCTS.on else program
        seeds = keep(seeded, self.program.inputs)
        self.varying, self.near = dependent(self.program, seeds), set(seeds)
        results = () if first_column is None else self.program.outputs[first_column:]
        self.columns = {x for x in results if not isinstance(x, Const)}
        self.count = count
        self.recomputed: frozenset[int] = frozenset()
        if STORED_VALUES.on:
            self.recomputed = recomputed(self.program, seeds, count, often, unread, in_loop)

    def __call__(self, args: Sequence) -> list:
        return run(self.program, self.step, args)

    def step(self, equation, operands, params) -> Sequence:
        """Evaluate one equation."""
        if self._is_few_rows_times(equation, operands, params):
            return [_row_times(*operands)]
        if equation.primitive is jc.scan_p:
            params = {**params, "jaxpr": self._body(equation, params)}
        results = bind(equation.primitive, operands, params)
        return stored(results) if self._passes_memory(equation, operands, results) else results

    def _body(self, equation, params):
        """The body of a scan, in which values pass through memory as well."""
        closed = jc.close_jaxpr(params["jaxpr"])
        program = from_jaxpr(closed)
        flags = carried([not isinstance(x, Const) and x in self.varying for x in equation.inputs], params)
        body = _Sweep(program, flags, self.count, in_loop=True)
        return jc.trace_flat(lambda *args: body(args), program.in_avals, "body")

    def _is_few_rows_times(self, equation, operands, params) -> bool:
        """True if a few vectors that depend on seeds meet the last axis of a large matrix that does not."""
        if equation.primitive is not lax.dot_general_p or self.count not in FEW or not FEW_ROWS.on:
            return False
        contracts = params["dimension_numbers"] == (((0,), (1,)), ((), ()))
        if not contracts or operands[0].ndim != 1 or operands[1].ndim != 2 or operands[1].size < LARGE:
            return False
        if operands[0].size < max(LONG, 4 * self.count):
            return False
        dtypes = {np.dtype(params["preferred_element_type"] or np.float64), *(x.dtype for x in operands)}
        if dtypes != {np.dtype(np.float64)} or params["out_sharding"] or params["precision"]:
            return False
        vector, matrix = (x in self.varying for x in equation.inputs)
        return vector and not matrix

    def _passes_memory(self, equation, operands, results) -> bool:
        sources = self.varying.intersection(equation.slots)
        if not self.recomputed.isdisjoint(equation.outputs):
            return True
        if equation.primitive is lax.dot_general_p and not self.columns.isdisjoint(equation.outputs):
            return TRANSPOSED_COLUMNS.on
        if not sources or not sources <= self.near or not STORED_VALUES.on:
            return False
        if not is_kernel(equation):
            self.near.update(equation.outputs)
        size = operands[0].size if traits(equation.primitive).cost == "reducing" else 0
        return (self.count - 1) * size >= MANY and FEWER * results[0].size <= size
