"""Programs in words: a name for every value, a formula for every equation."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

import numpy as np
from jax.tree_util import keystr, tree_flatten_with_path

from admodes.program import jax_compat as jc
from admodes.program.evaluate import live_equations
from admodes.program.ir import Const, Equation, Program
from admodes.program.traits import traits

SHOWN = ("axes", "axis", "dimension", "permutation", "new_dtype", "start_indices", "limit_indices", "shape", "length")


class Names:
    """Names for the values of a program: x1, x2 ... the inputs, c1 ... the constants, v1, v2 ... the results.

    ``equations`` are the equations that the outputs need; results that nothing reads have no name.
    """

    def __init__(self, program: Program):
        self.equations = live_equations(program)
        read = {x for e in self.equations for x in e.slots}
        read |= {x for x in program.outputs if not isinstance(x, Const)}
        self.constants = [(slot, value) for slot, value in program.constants if slot in read]
        self._of: dict[int, str] = {}
        for letter, slots in (
            ("x", program.inputs),
            ("c", [slot for slot, _ in self.constants]),
            ("v", [slot for e in self.equations for slot in e.outputs if slot in read]),
        ):
            self._of.update((slot, f"{letter}{k}") for k, slot in enumerate(slots, start=1))

    def __contains__(self, slot) -> bool:
        return slot in self._of

    def __call__(self, operand) -> str:
        return value_text(operand.value) if isinstance(operand, Const) else self._of[operand]

    def formula(self, equation: Equation, index: int = 0) -> str:
        """Result number ``index`` of an equation in terms of its operands, such as ``v1 * x2`` or ``sin(v3)``."""
        operands = [self(x) for x in equation.inputs]
        params, written = equation.params, traits(equation.primitive).text
        if isinstance(written, str):
            left, right = operands if len(operands) == 2 else ("", operands[0])
            return f"{left} {written} {right}" if left else f"{written}{right}"
        text = written(operands, **params) if written else None
        if text is not None:
            return text
        shown = [f"{key}={_param(params[key])}" for key in SHOWN if params.get(key) is not None]
        call = f"{called_name(equation)}({', '.join(operands + shown)})"
        return f"{call}[{index}]" if len(equation.outputs) > 1 else call


def called_name(equation: Equation) -> str:
    """The primitive's name; with the user's function for custom derivatives."""
    function = getattr(getattr(equation.params.get("call_jaxpr"), "jaxpr", None), "debug_info", None)
    name = getattr(function, "func_name", None)
    return f"{equation.primitive.name}:{name}" if name else equation.primitive.name


def _param(value) -> str:
    return str(np.dtype(value)) if isinstance(value, (type, np.dtype)) else str(value).replace(" ", "")


def value_text(value, digits: int = 6, entries: int = 4) -> str:
    """A number, a short array in full, or the type and norm of a long one.

    >>> import numpy as np
    >>> value_text(np.float32(0.5)), value_text(np.arange(3.0)), value_text(np.ones((3, 4)))
    ('0.5', '[0, 1, 2]', 'float64[3,4] with norm 3.4641')
    """
    if not jc.is_array(value):
        return jc.typeof(value).str_short()
    array = np.asarray(value)
    if array.ndim == 0:
        return _number(array[()], digits)
    if array.ndim == 1 and array.size <= entries:
        return "[" + ", ".join(_number(x, digits) for x in array) + "]"
    return f"{type_text(array)} with norm {_number(norm(array), digits)}"


def _number(x, digits: int) -> str:
    if isinstance(x, (complex, np.complexfloating)):
        return f"{complex(x):.{digits}g}"
    inexact = np.issubdtype(np.result_type(x), np.inexact) or not isinstance(x, (bool, int, np.bool_, np.integer))
    return f"{float(x):.{digits}g}" if inexact else str(x)


def norm(array: np.ndarray) -> float:
    """The Euclidean norm of all entries, in double precision."""
    wide = complex if np.iscomplexobj(array) else float
    return float(np.linalg.norm(np.asarray(array).astype(wide).ravel()))


def type_text(value) -> str:
    """The type of a value, such as ``float32[3,4]``; ``float32`` for a scalar."""
    shape = f"[{','.join(map(str, value.shape))}]" if value.shape else ""
    return f"{value.dtype}{shape}"


def leaf_names(fun: Callable, args: Sequence) -> list[str]:
    """For each flat input of ``fun(*args)`` where it is found, such as ``left[0]`` or ``params['w']``."""
    try:
        parameters = list(inspect.signature(fun).parameters.values())
    except (TypeError, ValueError):  # builtins and some callables have no signature
        parameters = []
    single = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    names = []
    for i, arg in enumerate(args):
        base = single[i] if i < len(single) else f"args[{i}]"
        names += [base + keystr(path) for path, _ in tree_flatten_with_path(arg)[0]]
    return names
