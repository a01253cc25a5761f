"""The command ``admodes``: the problems, the modes side by side, the benchmark, the rule table."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any, TextIO

EXAMPLES = """\
examples:
  admodes list                                 the problems, with their dimensions
  admodes compare roe_flux                     forward and reverse mode side by side
  admodes compare robot_arm --dtype float64 --json -
  admodes compare --all --json all.json        every problem
  admodes plan brusselator                     the cheapest way to its Jacobian, and why
  admodes doctor jax.numpy:linalg.norm --arg "zeros(3)"
  admodes explain lecture_graph                values and adjoints, line by line
  admodes draw lecture_graph --format dot      the computational graph, for Graphviz
  admodes bench modes                          derivatives of admodes as ratios to JAX's
  admodes bench jacobians                      planned Jacobians beside JAX's and asdex's
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status (2 for a wrong command, 1 for work that failed)."""
    options = _parser().parse_args(argv)
    from admodes.errors import AdmodesError, UnknownProblemError

    try:
        status = options.run(options)
        sys.stdout.flush()
    except UnknownProblemError as error:
        return _fail(error, 2)
    except (AdmodesError, OSError) as error:
        if isinstance(error, BrokenPipeError):  # the reader of our output has seen enough (`admodes list | head`)
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        return _fail(error, 1)
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    return status or 0


def _fail(error: object, status: int) -> int:
    print(f"admodes: error: {error}", file=sys.stderr)
    return status


# -- arguments ---------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    from admodes import __version__

    parser = argparse.ArgumentParser(
        "admodes",
        description="Forward, reverse and mixed mode derivatives on JAX, and what each of them costs.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"admodes {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def command(
        name: str, run: Callable | None, summary: str, example: str, within=commands
    ) -> argparse.ArgumentParser:
        sub = within.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            epilog=f"example: {example}",
        )
        sub.set_defaults(run=run)
        return sub

    sub = command("list", _list, "the problems, with their dimensions and one line each", "admodes list")
    _add_json(sub)

    sub = command(
        "compare", _compare, "the modes side by side on a problem, checked against JAX", "admodes compare roe_flux"
    )
    sub.add_argument("problem", nargs="?", metavar="PROBLEM", help="a name from `admodes list`")
    sub.add_argument(
        "--all", action="store_true", help="every way that the planner knows; without PROBLEM: every problem"
    )
    sub.add_argument("--modes", nargs="+", metavar="MODE", help="only these modes (default: all)")
    sub.add_argument("--repeat", type=_positive, default=10, metavar="N", help="run time samples (default: 10)")
    sub.add_argument("--fallback", choices=["jax"], help="borrow JAX's rule where a primitive has none")
    _add_dtype(sub)
    _add_json(sub)

    sub = command(
        "plan",
        _plan,
        "the cheapest way to a Jacobian, what the others would cost, and why",
        'admodes plan jax.numpy:cumsum --arg "normal(1000)"',
    )
    sub.add_argument("function", metavar="FUNCTION", help="a problem from `admodes list`, or package.module:function")
    sub.add_argument(
        "--arg", action="append", default=[], metavar="EXPR", help='an argument of the function, e.g. "normal(1000)"'
    )
    sub.add_argument(
        "--argnums", type=int, nargs="+", metavar="K", help="which arguments to differentiate (default: 0)"
    )
    sub.add_argument("--objective", choices=["time", "flops", "memory", "multiplications"], default="time")
    sub.add_argument("--memory-limit", metavar="BYTES", help="temporary memory to keep within, e.g. 200MiB")
    sub.add_argument("--format", choices=["dense", "bcoo", "compressed"], default="dense", help="of the Jacobian")
    sub.add_argument("--measure", action="store_true", help="time the best three candidates")
    sub.add_argument("--draw", action="store_true", help="also draw the cuts or the colored pattern")
    sub.add_argument("--save", type=_path, metavar="FILE", help="write the plan to FILE (.npz)")
    _add_dtype(sub)
    _add_json(sub)

    sub = command(
        "calibrate", _calibrate, "measure what a unit of work takes on this machine (seconds)", "admodes calibrate"
    )
    _add_json(sub)

    sub = command(
        "doctor",
        _doctor,
        "where a NaN or inf is born, in values and derivatives, and which kinks the arguments sit on "
        "(status 1: not healthy)",
        'admodes doctor jax.numpy:linalg.norm --arg "zeros(3)"',
    )
    sub.add_argument("function", metavar="FUNCTION", help="a problem from `admodes list`, or package.module:function")
    sub.add_argument(
        "--arg", action="append", default=[], metavar="EXPR", help='an argument of the function, e.g. "zeros(3)"'
    )
    sub.set_defaults(argnums=None)
    _add_dtype(sub)
    _add_json(sub)

    sub = command("explain", _explain, "the evaluation trace of a derivative", "admodes explain lecture_graph")
    sub.add_argument("problem", metavar="PROBLEM", help="a name from `admodes list`")
    sub.add_argument("--mode", choices=["reverse", "forward"], default="reverse", help="default: reverse")
    _add_dtype(sub)
    _add_json(sub)

    sub = command("draw", _draw, "the computational graph of a problem", "admodes draw lecture_graph --format dot")
    sub.add_argument("problem", metavar="PROBLEM", help="a name from `admodes list`")
    sub.add_argument("--format", choices=["text", "dot", "svg"], default="text", help="default: text")
    sub.add_argument("--output", type=_path, metavar="FILE", help="write to FILE instead of the terminal")
    _add_dtype(sub)

    sub = command("rules", _rules, "the primitives that have a derivative rule", "admodes rules")
    _add_json(sub)

    sub = command("bench", None, "benchmarks: all in one run, samples interleaved, ratios", "admodes bench jacobians")
    suites = sub.add_subparsers(title="benchmarks", metavar="SUITE", required=True)
    sub = command(
        *("modes", _bench_modes, "jvp, vjp, grad and hvp of seven programs as ratios to JAX's", "admodes bench modes"),
        within=suites,
    )
    sub.add_argument("--workloads", nargs="+", metavar="NAME", help="only these programs")
    sub.add_argument("--modes", nargs="+", metavar="MODE", help="only these of jvp, vjp, grad, hvp")
    sub.add_argument("--repeat", type=_positive, default=30, metavar="N", help="run time samples (default: 30)")
    sub.add_argument("--builds", type=_positive, default=3, metavar="N", help="compile time samples (default: 3)")
    _add_json(sub)
    sub = command(
        "jacobians",
        _bench_jacobians,
        "planned Jacobians beside jax.jacfwd, jax.jacrev and asdex: run time, memory, first call, errors",
        "admodes bench jacobians --problems arrowhead hourglass",
        within=suites,
    )
    sub.add_argument("--problems", nargs="+", metavar="NAME", help="only these problems")
    sub.add_argument("--format", choices=["dense", "bcoo"], help="of all Jacobians (default: what suits each)")
    sub.add_argument("--repeat", type=_positive, default=10, metavar="N", help="run time samples (default: 10)")
    sub.add_argument("--builds", type=_positive, default=2, metavar="N", help="samples of first calls (default: 2)")
    _add_dtype(sub, "float64")
    _add_json(sub)
    sub = command(
        "sparsity",
        _bench_sparsity,
        "detection and coloring of large patterns beside asdex: time, memory, colors",
        "admodes bench sparsity --problems line",
        within=suites,
    )
    sub.add_argument("--problems", nargs="+", metavar="NAME", help="only these problems")
    _add_json(sub)
    return parser


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--json", type=_path, metavar="FILE", help="also write JSON to FILE; '-' prints JSON and nothing else"
    )


def _add_dtype(parser: argparse.ArgumentParser, default: str = "float32") -> None:
    parser.add_argument("--dtype", choices=["float32", "float64"], default=default, help=f"default: {default}")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a positive integer, got {text!r}")
    return int(text)


def _path(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("must name a file, got an empty string")
    return text


# -- commands ----------------------------------------------------------------------------------------


def _list(options: argparse.Namespace) -> None:
    from admodes import problems
    from admodes.compare.report import table

    known = problems.all()
    rows = [[p.name, f"{p.inputs} -> {p.outputs}", p.field, p.summary] for p in known]
    data = [
        {"name": p.name, "inputs": p.inputs, "outputs": p.outputs, "field": p.field, "summary": p.summary}
        for p in known
    ]
    with _output(options) as write:
        write(data, table("", ["problem", "inputs -> outputs", "field", "what it is"], rows, left=4))


def _compare(options: argparse.Namespace) -> None:
    from admodes import problems
    from admodes.compare.comparison import STRATEGIES, compare, find_strategy
    from admodes.compare.planned import strategies
    from admodes.compare.report import comparison_table

    if not options.problem and not options.all:
        raise SystemExit(_fail("compare needs a PROBLEM, or --all for every problem", 2))
    chosen = [problems.get(options.problem)] if options.problem else problems.all()
    modes = options.modes and [_choice(find_strategy, mode) for mode in options.modes]
    results = []
    with _output(options) as write, _precision(options):
        for k, problem in enumerate(chosen, start=1):
            _progress(f"comparing {problem.name} ({k} of {len(chosen)}) ...")
            function, args = problem.make(options.dtype)
            planned = strategies(function, args, problem.argnums) if options.problem and options.all else []
            found = compare(
                function,
                *args,
                argnums=problem.argnums,
                modes=[*(modes or STRATEGIES), *planned],
                repeat=options.repeat,
                fallback=options.fallback,
            )
            results.append(replace(found, function=problem.name))
        data = [result.to_dict() for result in results]
        write(data[0] if options.problem else data, *map(comparison_table, results))


def _plan(options: argparse.Namespace) -> None:
    from admodes.planner.plan import plan

    with _precision(options):
        function, args, argnums = _function(options)
        with _output(options) as write:
            found = _choice(
                lambda limit: plan(
                    function,
                    *args,
                    argnums=argnums,
                    objective=options.objective,
                    memory_limit=limit,
                    format=options.format,
                    measure=options.measure,
                ),
                options.memory_limit,
            )
            if options.save:
                found.save(options.save)
            write(found.to_dict(), str(found), *([found.draw()] if options.draw else []))


def _doctor(options: argparse.Namespace) -> int:
    from admodes.nonsmooth import doctor

    with _precision(options):
        function, args, _ = _function(options)
        with _output(options) as write:
            report = doctor(function, *args)
            write(report.to_dict(), str(report))
    return 0 if report.healthy else 1


def _function(options: argparse.Namespace) -> tuple[Callable, tuple, Any]:
    """The function that is named, its arguments, and which of them are differentiated."""
    from admodes import problems
    from admodes.compare.arguments import load_function, parse_arguments

    chosen = options.argnums and (options.argnums[0] if len(options.argnums) == 1 else tuple(options.argnums))
    if ":" in options.function:
        fun, args = load_function(options.function), parse_arguments(options.arg)
        return fun, tuple(_in_dtype(arg, options.dtype) for arg in args), 0 if chosen is None else chosen
    if options.arg:
        raise SystemExit(_fail("--arg is for package.module:function; a problem has its own arguments", 2))
    problem = problems.get(options.function)
    return *problem.make(options.dtype), problem.argnums if chosen is None else chosen


def _in_dtype(tree: Any, dtype: str) -> Any:
    """The 64-bit floats of an argument in the precision that was asked for."""
    import jax
    import numpy as np

    def cast(x):
        return x.astype(dtype) if isinstance(x, (np.ndarray, jax.Array)) and x.dtype == np.float64 else x

    return jax.tree_util.tree_map(cast, tree)


def _calibrate(options: argparse.Namespace) -> None:
    from dataclasses import asdict

    from admodes.planner.machine import as_rows, cache_directory, calibrate
    from admodes.tables import table

    with _output(options) as write:
        found = calibrate(_progress)
        write(asdict(found), table("", ["a unit of", "takes"], as_rows(found)), f"kept in {cache_directory()}")


def _explain(options: argparse.Namespace) -> None:
    from admodes import problems
    from admodes.explain import explain

    problem = problems.get(options.problem)
    with _output(options) as write, _precision(options):
        function, args = problem.make(options.dtype)
        explanation = replace(explain(function, *args, mode=options.mode), function=problem.name)
        write(explanation.to_dict(), str(explanation))


def _draw(options: argparse.Namespace) -> None:
    from admodes import problems
    from admodes.draw import draw

    problem = problems.get(options.problem)
    with _open(options.output) as file, _precision(options):
        function, args = problem.make(options.dtype)
        file.write(draw(function, *args, format=options.format) + "\n")


def _rules(options: argparse.Namespace) -> None:
    from admodes import rules
    from admodes.compare.report import table

    supported = rules.supported()
    rows = [[name, kind] for name, kind in supported.items()]
    with _output(options) as write:
        write(supported, table("", ["primitive", "rule"], rows, left=2), f"{len(rows)} primitives")


def _bench_modes(options: argparse.Namespace) -> None:
    from admodes.compare.bench_modes import MODES, bench_modes
    from admodes.compare.workloads import WORKLOADS

    workloads = _chosen(options.workloads, WORKLOADS, "workload")
    modes = _chosen(options.modes, MODES, "mode")
    with _output(options) as write:
        result = bench_modes(workloads, modes, rounds=options.repeat, builds=options.builds, progress=_progress)
        write(result.to_dict(), *result.tables())


def _bench_jacobians(options: argparse.Namespace) -> None:
    from admodes.compare.bench_jacobians import SUBJECTS, bench_jacobians

    subjects = _chosen(options.problems, SUBJECTS, "problem")
    with _output(options) as write, _precision(options):
        result = bench_jacobians(
            subjects,
            format=options.format,
            dtype=options.dtype,
            rounds=options.repeat,
            builds=options.builds,
            progress=_progress,
        )
        write(result.to_dict(), *result.tables())


def _bench_sparsity(options: argparse.Namespace) -> None:
    from admodes.compare.bench_sparsity import SUBJECTS, bench_sparsity

    subjects = _chosen(options.problems, SUBJECTS, "problem")
    with _output(options) as write:
        result = bench_sparsity(subjects, progress=_progress)
        write(result.to_dict(), *result.tables())


# -- input and output --------------------------------------------------------------------------------


def _chosen(names: Sequence[str] | None, known: Collection[str], noun: str) -> list[str]:
    """The names, or all that are known; one that is not ends the command."""
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise SystemExit(_fail(f"unknown {noun} {unknown[0]!r}; there are {', '.join(known)}", 2))
    return list(names or known)


def _choice(find: Callable[[str], Any], name: str) -> Any:
    """``find(name)``; a name that is not known ends the command as argparse's own errors do."""
    try:
        return find(name)
    except ValueError as error:
        raise SystemExit(_fail(error, 2)) from None


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _precision(options: argparse.Namespace) -> AbstractContextManager:
    import jax

    return jax.enable_x64(True) if options.dtype == "float64" else nullcontext()


def _open(path: str | None) -> AbstractContextManager[TextIO]:
    """The file to write to, opened before the work; standard output for None. A path that is wrong ends the command."""
    try:
        return open(path, "w", encoding="utf-8") if path else nullcontext(sys.stdout)
    except OSError as error:
        raise SystemExit(_fail(error, 2)) from None


@contextmanager
def _output(options: argparse.Namespace) -> Iterator[Callable]:
    """Gives ``write(data, *tables)``. Names must have been resolved: the JSON file is opened (and emptied) at once."""
    from admodes.compare.comparison import finite
    from admodes.compare.report import show

    target = options.json
    with _open(None if target == "-" else target) as file:

        def write(data: Any, *parts: Any) -> None:
            if target != "-":
                show(*parts)
            if target:
                json.dump(finite(data), file, indent=2)
                file.write("\n")

        yield write
