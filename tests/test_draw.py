"""Computational graphs as text, DOT and SVG."""

import re
import stat

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from admodes import problems
from admodes.draw import draw
from admodes.errors import AdmodesError


def test_text_of_the_lecture_graph():
    f, args = problems.get("lecture_graph").make(np.float32)
    assert draw(f, *args).splitlines() == [
        "f: 2 inputs, 3 operations, 1 output",
        "x1 = input x1     float32  -> v1, v2",
        "x2 = input x2     float32  -> v2",
        "  v1 = sin(x1)    float32  -> v3",
        "  v2 = x1 * x2    float32  -> v3",
        "    v3 = v1 + v2  float32  -> y1",
        "      y1 = v3     float32",
    ]


def test_dot_has_the_vertices_and_edges():
    f, args = problems.get("lecture_graph").make(np.float32)
    dot = draw(f, *args, format="dot")
    edges = re.findall(r"^  (\w+) -> (\w+);$", dot, re.M)
    assert edges == [("x1", "v1"), ("x1", "v2"), ("x2", "v2"), ("v1", "v3"), ("v2", "v3"), ("v3", "y1")]
    assert dot.startswith('digraph "f" {')
    assert dot.endswith("}")
    assert 'v2 [shape=ellipse, label="v2 = x1 * x2\\nfloat32"];' in dot


@pytest.mark.parametrize("name", problems.names())
def test_every_problem_can_be_drawn(name):
    f, args = problems.get(name).make(np.float32)
    dot, text = draw(f, *args, format="dot"), draw(f, *args)
    declared = set(re.findall(r"^  (\w+) \[shape", dot, re.M))
    edges = re.findall(r"^  (\w+) -> (\w+);$", dot, re.M)
    assert {end for edge in edges for end in edge} <= declared
    assert len(declared) == len(text.splitlines()) - 1
    assert len(edges) == len(set(edges))


def test_formulas():
    def f(params, x):
        y = -((params["w"] * 2.0) ** 2) @ x
        return jnp.where(y > 0, y, jnp.transpose(y))[1:, :1].astype(np.float16), jnp.sum(x, axis=0)

    text = draw(f, {"w": np.ones((2, 2), np.float32)}, np.ones((2, 2), np.float32))
    for formula in (
        "input params['w']",
        "x1 * 2",
        "v1 ** 2",
        "-v2",
        "dot_general(v3, x2)",
        "v4 > 0",
        "transpose(v4, permutation=(1,0))",
        "[1:2, 0:1]",
        "new_dtype=float16",
        "reduce_sum(x2, axes=(0,))",
    ):
        assert formula in text, formula


def test_labels_are_escaped_and_results_numbered():
    def f(tree):
        return jax.lax.sort([tree['a"b\\'], -tree['a"b\\']], num_keys=1)

    dot = draw(f, {'a"b\\': np.ones(3)}, format="dot")
    assert r"""label="x1 = input tree['a\"b""" in dot
    assert "sort(x1, v1, dimension=0)[0]" in dot
    assert "sort(x1, v1, dimension=0)[1]" in dot


def test_svg_calls_graphviz(tmp_path, monkeypatch):
    program = tmp_path / "dot"
    program.write_text('#!/bin/sh\necho "<svg>$1 $(head -1)</svg>"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert draw(lambda x: x * x, 1.0, format="svg").strip() == '<svg>-Tsvg digraph "<lambda>" {</svg>'
    program.write_text("#!/bin/sh\ncat > /dev/null\necho no fonts >&2\nexit 3\n")
    with pytest.raises(AdmodesError, match="failed: no fonts"):
        draw(lambda x: x * x, 1.0, format="svg")


def test_bad_formats(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="format must be one of 'text', 'dot', 'svg', got 'png'"):
        draw(jnp.sin, 1.0, format="png")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AdmodesError, match=r"needs the program `dot` of Graphviz.*format='text'"):
        draw(jnp.sin, 1.0, format="svg")
