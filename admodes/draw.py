"""The computational graph of a function, as text, DOT or SVG.

Vertices are values (arrays), an edge leads from an operand to the result that is computed from it.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from typing import Any

from admodes.errors import AdmodesError
from admodes.program.ir import Const, Program
from admodes.program.text import Names, leaf_names, type_text
from admodes.program.trace import trace

FORMATS = ("text", "dot", "svg")
DEEPEST = 20  # levels of indentation


def draw(fun: Callable[..., Any], *args: Any, format: str = "text") -> str:
    """The computational graph of ``fun`` at arguments of these shapes and dtypes.

    Args:
      fun: a function of pytrees of arrays.
      format: ``"text"`` lists the vertices in the order of evaluation, each indented by the length of the longest
        path that leads to it (up to 20) and followed by the vertices that read it; ``"dot"`` is Graphviz's language;
        ``"svg"`` is an image and needs the program ``dot`` of Graphviz.

    Raises:
      ValueError: an unknown format.
      AdmodesError: SVG without Graphviz.

    >>> import jax.numpy as jnp
    >>> from admodes.draw import draw
    >>> print(draw(lambda a, b: jnp.sin(a) + a * b, jnp.float32(0.5), jnp.float32(2.0)))
    <lambda>: 2 inputs, 3 operations, 1 output
    x1 = input a      float32  -> v1, v2
    x2 = input b      float32  -> v2
      v1 = sin(x1)    float32  -> v3
      v2 = x1 * x2    float32  -> v3
        v3 = v1 + v2  float32  -> y1
          y1 = v3     float32
    """
    if format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(map(repr, FORMATS))}, got {format!r}.")
    program = trace(fun, *args)
    title, vertices = getattr(fun, "__name__", type(fun).__name__), _vertices(program, leaf_names(fun, args))
    if format == "text":
        return _text(title, vertices)
    dot = _dot(title, vertices)
    return dot if format == "dot" else _svg(dot)


def _vertices(program: Program, paths) -> list[tuple[str, str, str, list[str]]]:
    """(name, formula, type, operands) of each vertex in the order of evaluation."""
    names = Names(program)

    def kind(slot) -> str:
        return type_text(program.avals[slot])

    def operands(values) -> list[str]:
        return list(dict.fromkeys(names(x) for x in values if not isinstance(x, Const)))

    vertices: list = [(names(s), f"input {path}", kind(s), []) for s, path in zip(program.inputs, paths, strict=True)]
    vertices += [(names(s), "constant", kind(s), []) for s, _ in names.constants]
    for equation in names.equations:
        for k, slot in enumerate(equation.outputs):
            if slot in names:
                vertices.append((names(slot), names.formula(equation, k), kind(slot), operands(equation.inputs)))
    for k, (slot, aval) in enumerate(zip(program.outputs, program.out_avals, strict=True), start=1):
        vertices.append((f"y{k}", names(slot), type_text(aval), operands([slot])))
    return vertices


def _text(title: str, vertices) -> str:
    depth: dict[str, int] = {}
    readers: dict[str, list[str]] = {name: [] for name, *_ in vertices}
    for name, _, _, operands in vertices:
        depth[name] = 1 + max((depth[x] for x in operands), default=-1)
        for x in operands:
            readers[x].append(name)
    left = [f"{'  ' * min(depth[name], DEEPEST)}{name} = {formula}" for name, formula, _, _ in vertices]
    widths = max(map(len, left), default=0), max((len(kind) for _, _, kind, _ in vertices), default=0)
    lines = [
        f"{text.ljust(widths[0])}  {kind.ljust(widths[1])}{'  -> ' if readers[name] else ''}{', '.join(readers[name])}"
        for text, (name, _, kind, _) in zip(left, vertices, strict=True)
    ]
    counts = [
        _plural(sum(name[0] == letter for name, *_ in vertices), noun)
        for letter, noun in (("x", "input"), ("v", "operation"), ("y", "output"))
    ]
    return "\n".join([f"{title}: {', '.join(counts)}", *(line.rstrip() for line in lines)])


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _dot(title: str, vertices) -> str:
    shapes = {"x": "box", "c": "box", "v": "ellipse", "y": "doubleoctagon"}
    lines = [f"digraph {_quoted(title)} {{", "  rankdir=LR;", '  node [fontname="Helvetica"];']
    for name, formula, kind, _ in vertices:
        label = f"{name} = {formula}\n{kind}"
        lines.append(f"  {name} [shape={shapes[name[0]]}, label={_quoted(label)}];")
    lines += [f"  {x} -> {name};" for name, _, _, operands in vertices for x in operands]
    for letter, rank in (("x", "source"), ("y", "sink")):
        members = "; ".join(name for name, *_ in vertices if name[0] == letter)
        if members:
            lines.append(f"  {{ rank={rank}; {members}; }}")
    return "\n".join([*lines, "}"])


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _svg(dot: str) -> str:
    program = shutil.which("dot")
    if program is None:
        raise AdmodesError(
            "format='svg' needs the program `dot` of Graphviz, which was not found. Install it (`apt-get install "
            "graphviz`, `brew install graphviz`), or use format='dot' and paste the result into an online viewer, "
            "or format='text'."
        )
    done = subprocess.run([program, "-Tsvg"], input=dot, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise AdmodesError(f"`{program} -Tsvg` failed: {done.stderr.strip()}")
    return done.stdout
