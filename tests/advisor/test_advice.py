"""The advisor: the derivatives that a program takes, by place; figures, findings and the line to write for each."""

import json
import math
import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import admodes
from admodes.advisor import advice as advising
from admodes.cli import main

SCRIPTS = {
    "training": """
import jax, jax.numpy as jnp, optax
def loss(w, x, y):
    return jnp.mean((jnp.tanh(x @ w) - y) ** 2)
w, x, y = jnp.ones(8), jnp.ones((4, 8)), jnp.zeros(4)
optimiser = optax.sgd(0.1)
state = optimiser.init(w)
@jax.jit
def step(w, state):
    value, slope = jax.value_and_grad(loss)(w, x, y)
    change, state = optimiser.update(slope, state)
    return optax.apply_updates(w, change), state
for _ in range(3):
    w, state = step(w, state)
""",
    "gauss_newton": """
from jax import jacfwd
import jax.numpy as jnp
def residuals(x):
    return x[1:] ** 2 - jnp.sin(x[:-1])
x = jnp.linspace(0.1, 1.0, 500)
for _ in range(2):
    x = x - jnp.linalg.lstsq(jacfwd(residuals)(x), residuals(x))[0]
""",
    "newton": """
import jax, jax.numpy as jnp
def energy(x):
    return jnp.sum((x[1:] - x[:-1]) ** 2) + jnp.sum(x**4)
x = jnp.linspace(0.1, 1.0, 50)
x = x - jnp.linalg.solve(jax.hessian(energy)(x), jax.grad(energy)(x))
""",
    "nan": """
import jax, jax.numpy as jnp
def length(x):
    return jnp.sqrt(jnp.sum(x**2))
jax.grad(length)(jnp.zeros(3))
""",
}
EXPECTED = {
    "training": [("jax.value_and_grad(loss)", 1, 1)],
    "gauss_newton": [("jax.jacfwd(residuals)", 2, 0)],
    "newton": [("jax.grad(energy)", 1, 0), ("jax.hessian(energy)", 1, 0)],
    "nan": [("jax.grad(length)", 1, 0)],
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_run_a_script(name, tmp_path, capsys):
    script = tmp_path / f"{name}.py"
    script.write_text(SCRIPTS[name])
    assert main(["run", "--json", str(tmp_path / "rows.json"), str(script)]) == 0
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert sorted((row["derivative"], row["calls"], row["traced"]) for row in rows) == EXPECTED[name]
    assert all(row["place"].startswith(f"{script}:") for row in rows)
    report = capsys.readouterr().out
    for row in rows:
        assert row["place"] in report
        assert row["seconds"] > 0
    if name == "gauss_newton":
        assert rows[0]["way"].startswith("accumulation")
    if name == "nan":
        assert "sqrt at nan.py:4 (length)" in rows[0]["verdict"]
        assert "admodes.subgradient" in rows[0]["verdict"]
    else:
        assert all(row["difference"] < 1e-5 for row in rows)


def test_run_gives_arguments_and_statuses(tmp_path, capsys):
    script = tmp_path / "args.py"
    script.write_text("import sys; print(sys.argv[1:], __name__); sys.exit(3)")
    assert main(["run", str(script), "--steps", "5"]) == 3
    assert capsys.readouterr().out == "['--steps', '5'] __main__\nno derivative was taken with JAX\n"
    script.write_text("raise KeyError('here')")
    assert main(["run", str(script)]) == 1
    assert "KeyError: 'here'" in capsys.readouterr().err
    for command in (["run"], ["run", str(tmp_path / "missing.py")]):
        with pytest.raises(SystemExit) as end:
            main(command)
        assert end.value.code == 2


def test_run_with_our_derivatives(tmp_path, capsys):
    script = tmp_path / "ours.py"
    script.write_text("import jax; print(type(jax.vjp(lambda x: x, 1.0)[1]).__module__)")
    assert main(["run", "--apply", str(script)]) == 0
    assert capsys.readouterr().out == "admodes.modes.pullback\n"


def test_run_a_module(tmp_path, monkeypatch, capsys):
    (tmp_path / "an_advised_module.py").write_text("import jax\nprint(float(jax.grad(lambda x: x * x)(3.0)))")
    monkeypatch.chdir(tmp_path)
    assert main(["run", "-m", "an_advised_module"]) == 0
    assert "an_advised_module.py:2  jax.grad(<lambda>)  (1 call)" in capsys.readouterr().out


def test_results_are_jaxs_own():
    def f(x):
        return jnp.sum(jnp.sin(x))

    x = jnp.arange(3.0)
    before = jax.grad(f)(x), jax.jvp(f, (x,), (x,)), jax.vjp(f, x)[1](1.0), jax.linearize(f, x)[1](x)
    with admodes.advise() as advice:
        inside = jax.grad(f)(x), jax.jvp(f, (x,), (x,)), jax.vjp(f, x)[1](1.0), jax.linearize(f, x)[1](x)
        assert advice.rows == ()
    jax.tree.map(np.testing.assert_array_equal, before, inside)
    assert [row.derivative for row in sorted(advice.rows, key=lambda row: row.derivative)] == [
        f"jax.{name}(f)" for name in ("grad", "jvp", "linearize", "vjp")
    ]
    assert all(row.difference < 1e-12 for row in advice.rows)


def test_nested_derivatives_are_one_place_and_shapes_are_several():
    with admodes.advise() as advice:
        for n in (2, 3):
            jax.grad(lambda x: jnp.sum(jax.grad(lambda y: jnp.sum(y**3))(x)))(jnp.ones(n))
    assert sorted(row.shapes for row in advice.rows) == ["float64[2]", "float64[3]"]


def test_options_has_aux_and_keywords():
    def loss(w, x, scale=1.0):
        return jnp.sum(w * x) * scale, {"steps": 3, "x": x}

    with admodes.advise() as advice:
        jax.grad(loss, 1, has_aux=True)(jnp.ones(3), jnp.arange(3.0), scale=2.0)
    (row,) = advice.rows
    assert row.difference == 0


def test_what_cannot_be_run_alone_is_said():
    @jax.jit
    def outer(a):
        return jax.grad(lambda x: jnp.sum(x * a))(a)

    with admodes.advise() as advice:
        outer(jnp.ones(3))
    (row,) = advice.rows
    assert math.isnan(row.seconds)
    assert "could not be measured alone (it may use values that were traced around it)" in row.verdict


def test_memory_that_runs_out():
    from admodes.advisor.watch import Place

    def loss(x):
        raise MemoryError

    place = Place("f.py", 1, "grad", loss, (), {}, (jnp.ones(3),), {}, calls=1)
    row = advising._row(place)
    assert "does not fit into memory" in row.verdict
    assert row.write == "admodes.grad(loss, memory_limit='1GiB')"


def test_a_faster_way_is_written_out():
    from admodes.advisor.watch import Place

    def f(x, y):
        return x

    place = Place("f.py", 1, "jacrev", f, (1,), {"holomorphic": False}, (), {})
    fast = {"times_faster": 2.0, "difference": 0.0}
    said = advising._verdict(place, fast, jnp.ones(2), (), {})
    assert said["write"] == "admodes.jacobian(f, 1, holomorphic=False)"
    assert said["verdict"] == "2.00 times as fast with admodes."
    assert "Leave it" in advising._verdict(place, fast | {"times_faster": 1.0}, jnp.ones(2), (), {})["verdict"]
    assert "verify" in advising._verdict(place, fast | {"difference": 1.0}, jnp.ones(2), (), {})["verdict"]


def test_other_threads_and_libraries_are_watched_where_they_belong():
    with admodes.advise() as advice:
        thread = threading.Thread(target=lambda: jax.grad(jnp.sin)(1.0))
        thread.start()
        thread.join()
        optax.tree.norm(jnp.ones(3))
    assert advice.rows == ()
    assert str(advice) == "no derivative was taken with JAX"
