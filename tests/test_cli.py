"""The command line: what it prints where, and how it fails."""

import json
import os
import subprocess
import sys

import pytest

import admodes
from admodes.cli import main
from admodes.planner.ways import checkpointed


def test_list_has_a_line_per_problem(capsys):
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    for problem in admodes.problems.all():
        assert any(line.split()[:1] == [problem.name] for line in out.splitlines())


def test_compare_prints_a_row_per_mode_and_progress_on_stderr(capsys):
    assert main(["compare", "lecture_graph", "--repeat", "1"]) == 0
    out, err = capsys.readouterr()
    names = [line.split()[0] for line in out.splitlines() if line.strip()]
    assert {"lecture_graph:", "forward", "reverse", "jax.jacfwd", "jax.jacrev"} <= set(names)
    assert "lecture_graph" in err


def test_compare_json_on_stdout_is_nothing_but_json(capsys):
    assert main(["compare", "lecture_graph", "--repeat", "1", "--json", "-", "--dtype", "float64"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["function"] == "lecture_graph"
    assert [(row["mode"], row["passes"]) for row in data["rows"]] == [("forward", 2), ("reverse", 1)]
    assert all(row["rel_error"] < 1e-14 for row in data["rows"])


def test_compare_all_writes_a_list(capsys, tmp_path, monkeypatch):
    few = [admodes.problems.get(name) for name in ("lecture_graph", "lecture_softplus")]
    monkeypatch.setattr(admodes.problems, "all", lambda: few)
    target = tmp_path / "all.json"
    assert main(["compare", "--all", "--repeat", "1", "--modes", "reverse", "--json", str(target)]) == 0
    data = json.loads(target.read_text())
    assert [entry["function"] for entry in data] == ["lecture_graph", "lecture_softplus"]
    assert [row["mode"] for row in data[0]["rows"]] == ["reverse"]
    out, err = capsys.readouterr()
    assert "lecture_softplus: 1 input, 1 output" in out
    assert "(2 of 2)" in err


def test_explain_shows_the_adjoint(capsys):
    assert main(["explain", "lecture_softplus"]) == 0
    assert "-5.37883" in capsys.readouterr().out
    assert main(["explain", "lecture_softplus", "--mode", "forward", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["mode"] == "forward"


def test_draw_to_the_terminal_and_to_a_file(capsys, tmp_path):
    assert main(["draw", "lecture_graph"]) == 0
    assert "sin(x1)" in capsys.readouterr().out
    target = tmp_path / "graph.dot"
    assert main(["draw", "lecture_graph", "--format", "dot", "--output", str(target)]) == 0
    assert target.read_text().startswith("digraph")
    assert capsys.readouterr().out == ""


def test_rules_lists_the_table(capsys):
    assert main(["rules"]) == 0
    out = capsys.readouterr().out
    assert f"{len(admodes.rules.supported())} primitives" in out
    assert main(["rules", "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out) == admodes.rules.supported()


def test_bench_modes(capsys):
    command = ["bench", "modes", "--workloads", "linalg", "--modes", "jvp", "--repeat", "1", "--builds", "1"]
    assert main([*command, "--json", "-"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["cases"][0]["mode"] == "jvp"
    assert "linalg jvp" in err


def test_plan_and_the_candidates_side_by_side(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("ADMODES_CACHE", str(tmp_path))
    file = tmp_path / "plan.npz"
    assert main(["plan", "brusselator", "--format", "bcoo", "--draw", "--save", str(file), "--json", "-"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["shape"] == [128, 128]
    assert {"forward", "reverse", "accumulation"} <= {c["name"] for c in data["candidates"]}
    assert file.exists()
    assert main(["plan", "jax.numpy:outer", "--arg", "ones(2)", "--arg", "ones(3)", "--argnums", "0", "1"]) == 0
    assert "Jacobian, 6 x 5" in capsys.readouterr().out
    assert main(["plan", "roe_flx"]) == 2
    assert "roe_flux" in capsys.readouterr().err
    assert main(["compare", "brusselator", "--all", "--repeat", "1", "--json", "-"]) == 0
    modes = {row["mode"] for row in json.loads(capsys.readouterr().out)["rows"]}
    assert {"forward", "reverse", "accumulation", "compressed forward"} <= modes


def test_memory_against_time(capsys, tmp_path, monkeypatch):
    small = admodes.problems.get("lorenz_long").make(steps=500)
    monkeypatch.setattr(checkpointed, "SLOTS", (10,))
    monkeypatch.setattr(admodes.problems.registry.Problem, "make", lambda problem, dtype: small)
    target = tmp_path / "curve.png"
    assert main(["compare", "lorenz_long", "--all", "--repeat", "1", "--plot", str(target)]) == 0
    out = capsys.readouterr().out
    assert "reverse (sqrt)" in out
    assert "reverse (revolve 10)" in out
    assert "time against temporary memory" in out
    assert target.read_bytes().startswith(b"\x89PNG")


def test_a_figure_needs_matplotlib(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.backend_bases", None)
    with pytest.raises(SystemExit) as exit:
        main(["compare", "lecture_graph", "--plot", "x.png"])
    assert exit.value.code == 2
    assert "admodes[docs]" in capsys.readouterr().err


def test_there_is_no_figure_of_a_benchmark(capsys):
    with pytest.raises(SystemExit):
        main(["bench", "modes", "--workloads", "nothing", "--plot", "x.png"])
    assert "unrecognized arguments: --plot" in capsys.readouterr().err


def test_an_unknown_problem_exits_with_2_and_names_close_ones(capsys):
    for command in ("compare", "explain", "draw"):
        assert main([command, "roe_flx"]) == 2
        out, err = capsys.readouterr()
        assert "roe_flux" in err
        assert out == ""


@pytest.mark.parametrize(
    "command",
    [
        ["comparee"],
        ["compare"],
        ["plan", "roe_flux", "--memory-limit", "1 parsec"],
        ["plan", "roe_flux", "--arg", "ones(3)"],
        ["plan", "jax.numpy.cumsum"],
        ["compare", "model.py"],
        ["plan", "no_such_module:f"],
        ["plan", "jax.numpy:cumsumm", "--arg", "ones(3)"],
        ["plan", "jax.numpy:cumsum", "--arg", "twos(3)"],
        ["compare", "roe_flux", "--repeat", "0"],
        ["compare", "roe_flux", "--repeat", "x"],
        ["compare", "roe_flux", "--json", ""],
        ["draw", "roe_flux", "--output", ""],
        ["compare", "roe_flux", "--dtype", "int8"],
        ["compare", "roe_flux", "--modes", "sideways"],
        ["compare", "roe_flux", "--plot", "curve.txt"],
        ["compare", "--all", "--plot", "curve.png"],
        ["explain", "roe_flux", "--mode", "sideways"],
        ["bench", "modes", "--workloads", "nothing"],
        ["bench", "modes", "--modes", "jet"],
        ["bench", "jacobians", "--problems", "nothing"],
        ["bench", "sparsity", "--problems", "nothing"],
        ["bench", "checkpointing", "--parts", "nothing"],
        ["demo", "depth", "--memory-limit", "1MiB"],
        ["demo", "depth", "--memory-limit", ""],
    ],
)
def test_wrong_commands_exit_with_2(command, capsys):
    with pytest.raises(SystemExit) as exit:
        sys.exit(main(command))
    assert exit.value.code == 2
    assert "error" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        ["compare", "lecture_graph", "--json"],
        ["explain", "lecture_graph", "--json"],
        ["draw", "lecture_graph", "--output"],
        ["plan", "jax.numpy:cumsum", "--arg", "ones(3)", "--save"],
        ["bench", "modes", "--json"],
    ],
    ids=lambda command: command[0],
)
def test_a_file_that_cannot_be_written_fails_before_the_work(command, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(admodes.problems.get("lecture_graph").__class__, "make", None)
    with pytest.raises(SystemExit) as exit:
        main([*command, str(tmp_path / "missing" / "x.json")])
    assert exit.value.code == 2
    out, err = capsys.readouterr()
    assert "missing" in err
    assert out == ""


@pytest.mark.parametrize(
    "command",
    [
        ["compare", "nope", "--json"],
        ["compare", "lecture_graph", "--modes", "zzz", "--json"],
        ["explain", "nope", "--json"],
        ["draw", "nope", "--output"],
        ["bench", "modes", "--modes", "zzz", "--json"],
        ["bench", "modes", "--workloads", "zzz", "--json"],
    ],
    ids=" ".join,
)
def test_a_wrong_name_leaves_the_file_alone(command, capsys, tmp_path):
    keep = tmp_path / "keep.json"
    keep.write_text("precious")
    with pytest.raises(SystemExit) as exit:
        sys.exit(main([*command, str(keep)]))
    assert exit.value.code == 2
    assert keep.read_text() == "precious"


def test_a_count_that_is_no_number_is_explained(capsys):
    with pytest.raises(SystemExit):
        main(["compare", "roe_flux", "--repeat", "x"])
    assert "must be a positive integer, got 'x'" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["--help"], ["help"], []], ids=str)
def test_help_shows_examples(command, capsys):
    with pytest.raises(SystemExit) as exit:
        main(command)
    assert exit.value.code == 0
    assert "admodes compare roe_flux" in capsys.readouterr().out


def test_help_of_a_command_and_the_version(capsys):
    with pytest.raises(SystemExit) as exit:
        main(["help", "plan"])
    assert exit.value.code == 0
    assert "--objective" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["version"])
    assert capsys.readouterr().out == f"admodes {admodes.__version__}\n"


def test_an_unknown_command_names_a_close_one(capsys):
    with pytest.raises(SystemExit):
        main(["compre"])
    assert "did you mean 'compare'?" in capsys.readouterr().err


OWN = """
import jax.numpy as jnp

def residuals(x):
    return x[1:] ** 2 - jnp.sin(x[:-1])
"""


@pytest.mark.parametrize("command", [["compare", "--repeat", "1"], ["plan"], ["explain"], ["draw"], ["doctor"]])
def test_a_function_of_ones_own(command, capsys, tmp_path):
    file = tmp_path / "own_model.py"
    file.write_text(OWN)
    assert main([command[0], f"{file}:residuals", "--arg", "normal(4)", *command[1:]]) == 0
    assert {"compare": "4 inputs, 3 outputs", "plan": "3 x 4", "doctor": "healthy"}.get(
        command[0], "sin"
    ) in capsys.readouterr().out


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_tables_fit_the_terminal(columns, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    for command in (["list"], ["compare", "lecture_graph", "--repeat", "1"], ["plan", "brusselator"]):
        assert main(command) == 0
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= columns
        assert main([*command, "--wide"]) == 0
        assert max(map(len, capsys.readouterr().out.splitlines())) > 80


def test_output_in_an_encoding_without_bars():
    command = [sys.executable, "-m", "admodes", "compare", "lecture_graph", "--repeat", "1"]
    env = os.environ | {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    done = subprocess.run(command, env=env, capture_output=True, check=True)
    assert "###" in done.stdout.decode("cp1252")


def test_interruption(monkeypatch, capsys):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr(admodes.problems, "all", interrupt)
    assert main(["list"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_python_dash_m_and_a_reader_that_goes_away():
    """``admodes rules | head -1`` ends quietly: the pipe is closed before the command writes."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        done = subprocess.run(
            [sys.executable, "-m", "admodes", "rules"], stdout=pipe, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 0, done.stderr
    assert b"Error" not in done.stderr


def test_doctor_says_by_its_status_whether_all_is_well(capsys):
    assert main(["doctor", "jax.numpy:tanh", "--arg", "zeros(3)"]) == 0
    assert "tanh: healthy" in capsys.readouterr().out
    assert main(["doctor", "jax.numpy:sqrt", "--arg", "[0.0, 1.0]", "--json", "-"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["healthy"], report["reverse"]["primitive"], report["value"]) == (False, "sqrt", None)
