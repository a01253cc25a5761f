"""Functions and arguments named on a command line: ``package.module:function``, ``file.py:function``, ``normal(1000)``.

Nothing is evaluated: an expression is parsed into Python's syntax tree, of which numbers, lists, tuples, dicts and
the calls below have a meaning.

========================  ==========================================================================
``1.5``, ``-inf``, ``3``  a number, a float (``nan``, ``inf`` and ``pi`` are known; ``int32(3)`` is an integer)
``[1.0, 2.0]``            an array (nested lists: of more dimensions)
``normal(3, 4)``          standard normal entries; likewise ``uniform`` (in [0, 1)), ``zeros``, ``ones``,
                          ``arange`` (0, 1, 2 ... in that shape)
``int32(zeros(3))``       another dtype, by any name that numpy knows
``(x, y)``, ``{'w': x}``  a tuple, a dict of such (a pytree)
========================  ==========================================================================
"""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
import math
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from admodes.errors import ArgumentError
from admodes.text_tables import count

NUMBERS = {"nan": math.nan, "inf": math.inf, "pi": math.pi, "True": True, "False": False}
FILLS: dict[str, Callable] = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "uniform": lambda rng, shape: rng.random(shape),
    "zeros": lambda rng, shape: np.zeros(shape),
    "ones": lambda rng, shape: np.ones(shape),
    "arange": lambda rng, shape: np.arange(math.prod(shape), dtype=float).reshape(shape),
}
DTYPES: tuple[str, ...] = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
DTYPES += ("bfloat16", "float16", "float32", "float64", "complex64", "complex128")
MOST_NAMES = 12  # of a module that an error lists
GRAMMAR = f"numbers, [lists], (tuples), {{dicts}}, {', '.join(FILLS)} with a shape, and dtypes such as int32(...)"


def load_function(name: str) -> Callable:
    """The function that ``package.module:name`` or ``file.py:name`` names; modules are looked for in the working
    directory too, and what a file imports also beside it.

    Raises:
      ArgumentError: there is no such module, file or name, it cannot be imported, or it is not a function.

    >>> load_function("jax.numpy:tanh")(0.0).item()
    0.0
    """
    module_name, colon, path = name.rpartition(":")
    if not (module_name and colon and path):
        raise ArgumentError(f"'{name}' does not name a function: write package.module:function or file.py:function")
    here = os.getcwd()
    if module_name.endswith(".py"):
        found = _module_of(module_name)
    elif module_name.startswith(".") or "/" in module_name:
        raise ArgumentError(f"'{module_name}' is no module; the name of a file ends in .py: file.py:{path}")
    else:
        if here not in sys.path:
            sys.path.insert(0, here)
        try:
            found = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is None or not (module_name + ".").startswith(error.name + "."):
                raise  # the module is there, but something that it imports is not
            raise ArgumentError(f"there is no module '{module_name}' (searched {here} and the Python path)") from None
    for part in path.split("."):
        if not hasattr(found, part):
            known = [n for n in vars(found) if callable(vars(found)[n]) and not n.startswith("_")]
            if len(known) > MOST_NAMES:
                known = difflib.get_close_matches(part, known, cutoff=0.4) or [*known[:MOST_NAMES], "..."]
            raise ArgumentError(f"'{module_name}' has no '{path}', but {', '.join(known) or 'no functions at all'}")
        found = getattr(found, part)
    if not callable(found):
        raise ArgumentError(f"'{name}' is not a function but of type {type(found).__name__}")
    return found


def _module_of(file: str) -> Any:
    """The module in a file, as ``python file.py`` would find it, under a name of its own."""
    place = os.path.abspath(file)
    if not os.path.isfile(place):
        raise ArgumentError(f"there is no file '{file}'")
    if (folder := os.path.dirname(place)) not in sys.path:
        sys.path.insert(0, folder)
    name = os.path.splitext(os.path.basename(place))[0]
    spec = importlib.util.spec_from_file_location(name, place)
    assert spec is not None  # as for every file that ends in .py
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(name, module)
    spec.loader.exec_module(module)
    return module


def parse_argument(text: str, rng: np.random.Generator | None = None) -> Any:
    """The value of one argument expression, a pytree of arrays; random entries come from ``rng`` (by default seed 0).

    Raises:
      ArgumentError: the text is not such an expression.

    >>> parse_argument("[1.0, 2.0]").tolist(), parse_argument("int32(ones(2, 2))").dtype.name
    ([1.0, 2.0], 'int32')
    >>> sorted(parse_argument("{'w': normal(3, 4), 'b': zeros(4)}"))
    ['b', 'w']
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError):
        raise ArgumentError(f"cannot read the argument '{text}': it may hold {GRAMMAR}") from None
    return _Reader(text, np.random.default_rng(0) if rng is None else rng).value(tree)


def parse_arguments(texts: Sequence[str], seed: int = 0) -> tuple:
    """The values of several argument expressions, their random entries independent of each other.

    >>> x, y = parse_arguments(["normal(3)", "normal(3)"])
    >>> bool((x == y).any())
    False
    """
    rng = np.random.default_rng(seed)
    return tuple(parse_argument(text, rng) for text in texts)


class _Reader:
    """Walks the syntax tree of one argument."""

    def __init__(self, text: str, rng: np.random.Generator):
        self.text, self.rng = text, rng

    def fail(self, node: ast.AST, why: str) -> ArgumentError:
        part = ast.get_source_segment(self.text.strip(), node)
        place = f" in the argument '{self.text}'" if part != self.text.strip() else ""
        return ArgumentError(f"'{part}'{place}: {why}")

    def value(self, node: ast.AST, whole: type = float) -> Any:
        """A pytree of arrays; whole numbers become numbers of the type ``whole``."""
        if isinstance(node, ast.Tuple):
            return tuple(self.value(part, whole) for part in node.elts)
        if isinstance(node, ast.Dict):
            return {self.key(k, node): self.value(v, whole) for k, v in zip(node.keys, node.values, strict=True)}
        if isinstance(node, ast.Call):
            return self.call(node)
        return self.array(node, whole)

    def array(self, node: ast.AST, whole: type):
        numbers = self.numbers(node)
        try:
            array = np.array(numbers)
        except ValueError:
            raise self.fail(node, "the rows have different lengths") from None
        return jax.numpy.asarray(array, whole if array.dtype.kind in "iu" else None)

    def numbers(self, node: ast.AST) -> Any:
        if isinstance(node, ast.List):
            return list(map(self.numbers, node.elts))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
            number = self.numbers(node.operand)
            if not isinstance(number, list):
                return -number if isinstance(node.op, ast.USub) else number
        if isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float, complex)):
            return node.value
        if isinstance(node, ast.Name) and node.id in NUMBERS:
            return NUMBERS[node.id]
        raise self.fail(node, f"not understood; an argument may hold {GRAMMAR}")

    def call(self, node: ast.Call):
        name = node.func.id if isinstance(node.func, ast.Name) else None
        if name in FILLS and not node.keywords:
            shape = tuple(self.numbers(d) for d in node.args)
            if not all(type(n) is int and n >= 0 for n in shape):
                raise self.fail(node, f"the dimensions of {name} are whole numbers, as in {name}(3, 4)")
            try:
                return jax.numpy.asarray(FILLS[name](self.rng, shape), dtype=float)
            except (MemoryError, ValueError):
                raise self.fail(node, f"{count(8 * math.prod(shape), 'B')} do not fit into memory") from None
        if name in DTYPES and len(node.args) == 1 and not node.keywords:
            dtype = jax.dtypes.canonicalize_dtype(jax.numpy.dtype(name))
            if dtype != jax.numpy.dtype(name):
                raise self.fail(node, f"{name} needs jax_enable_x64 (on the command line: --dtype float64)")
            return jax.tree_util.tree_map(lambda x: jax.numpy.asarray(x, dtype), self.value(node.args[0], int))
        raise self.fail(node, f"not understood; an argument may hold {GRAMMAR}")

    def key(self, node: ast.AST | None, inside: ast.AST) -> str:
        if not isinstance(node, ast.Constant) or not isinstance(node.value, (str, int)):
            raise self.fail(inside, "the keys of a dict are texts, as in {'w': zeros(3)}")
        return node.value  # type: ignore[return-value]
