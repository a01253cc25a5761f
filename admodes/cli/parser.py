"""The parser of the command line: the commands and their options.

It imports nothing that is slow, so that ``admodes --help`` is quick.
"""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Callable

from admodes.cli import commands as do

EXAMPLES = """\
examples:
  admodes list                                 the problems, with their dimensions
  admodes compare roe_flux                     forward and reverse mode side by side
  admodes compare robot_arm --dtype float64 --json -
  admodes compare --all --json all.json        every problem
  admodes plan brusselator                     the cheapest way to its Jacobian, and why
  admodes compare model.py:residuals --arg "normal(100)"      a function of your own
  admodes doctor jax.numpy:linalg.norm --arg "zeros(3)"
  admodes explain lecture_graph                values and adjoints, line by line
  admodes draw lecture_graph --format dot      the computational graph, for Graphviz
  admodes demo depth                           a story told with measured numbers and a picture
  admodes run train.py                         your program; then what its derivatives cost, and what would be faster
  admodes bench modes                          derivatives of admodes as ratios to JAX's
  admodes bench jacobians                      planned Jacobians beside JAX's and asdex's
"""


class Parser(argparse.ArgumentParser):
    """A parser whose errors about unknown words name the closest known one."""

    def error(self, message: str):
        if found := re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message):
            close = difflib.get_close_matches(found[1], re.findall(r"[\w-]+", found[2]), n=1)
            if close:
                message = f"{message[: found.start()]}invalid choice: '{found[1]}'; did you mean '{close[0]}'?"
        super().error(message)


def make_parser() -> argparse.ArgumentParser:
    from admodes import __version__

    parser = Parser(
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

    sub = command("list", do.list_problems, "the problems, with their dimensions and one line each", "admodes list")
    add_json(sub)

    sub = command(
        "compare",
        do.compare_modes,
        "the modes side by side on a function, checked against JAX",
        "admodes compare roe_flux",
    )
    add_function(sub, optional=True)
    sub.add_argument(
        "--all", action="store_true", help="every way that the planner knows; without FUNCTION: every problem"
    )
    sub.add_argument("--plot", type=file_name, metavar="FILE", help="draw time against memory into FILE (.png, .svg)")
    sub.add_argument("--modes", nargs="+", metavar="MODE", help="only these modes (default: all)")
    sub.add_argument("--repeat", type=positive, default=10, metavar="N", help="run time samples (default: 10)")
    sub.add_argument("--fallback", choices=["jax"], help="borrow JAX's rule where a primitive has none")
    add_dtype(sub)
    add_json(sub)

    sub = command(
        "plan",
        do.plan_jacobian,
        "the cheapest way to a Jacobian, what the others would cost, and why",
        'admodes plan jax.numpy:cumsum --arg "normal(1000)"',
    )
    add_function(sub)
    sub.add_argument("--objective", choices=["time", "flops", "memory", "multiplications"], default="time")
    sub.add_argument("--memory-limit", metavar="BYTES", help="temporary memory to keep within, e.g. 200MiB")
    sub.add_argument("--format", choices=["dense", "bcoo", "compressed"], default="dense", help="of the Jacobian")
    sub.add_argument("--hessian", action="store_true", help="plan the Hessian, not the Jacobian")
    sub.add_argument("--measure", action="store_true", help="time the best three candidates")
    sub.add_argument("--draw", action="store_true", help="also draw the cuts or the colored pattern")
    sub.add_argument("--save", type=file_name, metavar="FILE", help="write the plan to FILE (.npz)")
    add_dtype(sub)
    add_json(sub)

    sub = command(
        "calibrate",
        do.calibrate_machine,
        "measure what a unit of work takes on this machine (seconds)",
        "admodes calibrate",
    )
    add_json(sub)

    sub = command(
        "doctor",
        do.diagnose,
        "where a NaN or inf is born, in values and derivatives, and which kinks the arguments sit on "
        "(status 1: not healthy)",
        'admodes doctor jax.numpy:linalg.norm --arg "zeros(3)"',
    )
    add_function(sub, argnums=False)
    add_dtype(sub)
    add_json(sub)

    sub = command(
        "run",
        do.run_program,
        "a program of yours, unchanged; then what its derivatives cost, and what would be faster",
        "admodes run train.py --steps 100",
    )
    sub.usage = "admodes run [--apply] [--json FILE] [--wide] (SCRIPT | -m MODULE) [ARGS ...]"
    sub.add_argument(
        "--apply", action="store_true", help="run it with the derivatives of admodes throughout; no report"
    )
    add_json(sub)
    sub.add_argument("-m", dest="module", metavar="MODULE", help="a module, as in python -m MODULE")
    sub.add_argument("program", nargs=argparse.REMAINDER, metavar="SCRIPT ARGS", help="a file, and what it is given")

    sub = command(
        "explain", do.explain_derivative, "the evaluation trace of a derivative", "admodes explain lecture_graph"
    )
    add_function(sub, argnums=False)
    sub.add_argument("--mode", choices=["reverse", "forward"], default="reverse", help="default: reverse")
    add_dtype(sub)
    add_json(sub)

    sub = command(
        "draw", do.draw_graph, "the computational graph of a function", "admodes draw lecture_graph --format dot"
    )
    add_function(sub, argnums=False)
    sub.add_argument("--format", choices=["text", "dot", "svg"], default="text", help="default: text")
    sub.add_argument("--output", type=file_name, metavar="FILE", help="write to FILE instead of the terminal")
    add_dtype(sub)

    sub = command("rules", do.list_rules, "the primitives that have a derivative rule", "admodes rules")
    add_json(sub)

    sub = command("demo", do.run_demos, "stories told with measured numbers and a picture", "admodes demo depth")
    which = sub.add_mutually_exclusive_group(required=True)
    which.add_argument("demo", nargs="?", metavar="NAME", help="a name from `admodes demo --list`")
    which.add_argument("--list", action="store_true", help="the demos, with one line each")
    which.add_argument("--all", action="store_true", help="every demo, and a page that shows them (index.html)")
    size = sub.add_mutually_exclusive_group()
    size.add_argument("--full", action="store_true", help="more sizes, more seeds, longer")
    size.add_argument("--smoke", action="store_true", help="tiny sizes: only whether it runs")
    sub.add_argument("--seed", type=int, default=0, metavar="N", help="of splits, weights and noise (default: 0)")
    sub.add_argument(
        "--out", default="demo-results", metavar="DIR", help="for figures and numbers (default: demo-results)"
    )
    sub.add_argument("--memory-limit", metavar="BYTES", help="demo train: that the gradient keeps within, e.g. 50MiB")

    sub = command("bench", None, "benchmarks: all in one run, samples interleaved, ratios", "admodes bench jacobians")
    suites = sub.add_subparsers(title="benchmarks", metavar="SUITE", required=True)
    sub = command(
        *(
            "modes",
            do.bench_modes_suite,
            "jvp, vjp, grad and hvp of seven programs as ratios to JAX's",
            "admodes bench modes",
        ),
        within=suites,
    )
    add_sampling(sub, "workloads", repeat=30)
    sub.add_argument("--modes", nargs="+", metavar="MODE", help="only these of jvp, vjp, grad, hvp")
    sub.add_argument("--builds", type=positive, default=3, metavar="N", help="compile time samples (default: 3)")
    sub = command(
        "jacobians",
        do.bench_jacobians_suite,
        "planned Jacobians beside jax.jacfwd, jax.jacrev and asdex: run time, memory, first call, errors",
        "admodes bench jacobians --problems arrowhead hourglass",
        within=suites,
    )
    add_sampling(sub, "problems", repeat=40)
    sub.add_argument("--format", choices=["dense", "bcoo"], help="of all Jacobians (default: what suits each)")
    sub.add_argument("--builds", type=positive, default=3, metavar="N", help="samples of first calls (default: 3)")
    add_dtype(sub, "float64")
    sub = command(
        "costs",
        do.bench_costs_suite,
        "what the planner predicts for each candidate beside what it takes",
        "admodes bench costs --problems heat collocation",
        within=suites,
    )
    add_sampling(sub, "problems", repeat=10)
    add_dtype(sub, "float64")
    sub = command(
        "regret",
        do.bench_regret_suite,
        "the way that the planner takes beside the fastest of all candidates, over functions that are made up",
        "admodes bench regret --kinds loop solve --count 3",
        within=suites,
    )
    add_sampling(sub, "kinds", repeat=10)
    sub.add_argument("--count", type=positive, default=9, metavar="N", help="functions of each kind (default: 9)")
    sub.add_argument("--seed", type=int, default=0, metavar="N", help="of the functions (default: 0)")
    add_dtype(sub, "float64")
    sub = command(
        "sparsity",
        do.bench_sparsity_suite,
        "detection and coloring of large patterns beside asdex: time, memory, colors",
        "admodes bench sparsity --problems line",
        within=suites,
    )
    add_sampling(sub, "problems")
    sub = command(
        "checkpointing",
        do.bench_checkpointing_suite,
        "gradients in bounded memory beside jax.checkpoint, equinox's loops and full storage: time, memory, steps",
        "admodes bench checkpointing --parts steps nets",
        within=suites,
    )
    add_sampling(sub, "parts", repeat=10)
    sub = command(
        "workarounds",
        do.bench_workarounds_suite,
        "what is written for a compiler, with and without it",
        "admodes bench workarounds --workarounds 'stored values'",
        within=suites,
    )
    add_sampling(sub, "workarounds", repeat=3)
    sub = command(
        "higher",
        do.bench_higher_suite,
        "series along lines and Laplacians beside jet, nested derivatives and formulas by hand",
        "admodes bench higher --cases 'laplacian, 10 inputs'",
        within=suites,
    )
    add_sampling(sub, "cases", repeat=5)
    sub = command(
        "accuracy",
        do.bench_accuracy_suite,
        "first and second derivatives of elementwise functions beside JAX's, against mpmath: errors, lost points",
        "admodes bench accuracy --functions tanh digamma",
        within=suites,
    )
    add_sampling(sub, "functions")
    sub.add_argument("--formats", nargs="+", metavar="NAME", help="only these of float16, bfloat16, float32, float64")
    return parser


def add_function(parser: argparse.ArgumentParser, optional: bool = False, argnums: bool = True) -> None:
    """The function to work on, its arguments, and which of them to differentiate."""
    parser.add_argument(
        "function",
        nargs="?" if optional else None,
        metavar="FUNCTION",
        help="a problem from `admodes list`, package.module:function, or file.py:function",
    )
    parser.add_argument(
        "--arg", action="append", default=[], metavar="EXPR", help='an argument of the function, e.g. "normal(1000)"'
    )
    if argnums:
        help = "which arguments to differentiate (default: 0)"
        parser.add_argument("--argnums", type=int, nargs="+", metavar="K", help=help)
    else:
        parser.set_defaults(argnums=None)


def add_sampling(parser: argparse.ArgumentParser, cases: str, repeat: int | None = None) -> None:
    """The options of every benchmark: which cases, how many samples (None: it has no choice), and the JSON."""
    parser.add_argument(f"--{cases}", nargs="+", metavar="NAME", help=f"only these {cases}")
    if repeat:
        help = f"run time samples (default: {repeat})"
        parser.add_argument("--repeat", type=positive, default=repeat, metavar="N", help=help)
    add_json(parser)


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--json", type=file_name, metavar="FILE", help="also write JSON to FILE; '-' prints JSON and nothing else"
    )
    parser.add_argument("--wide", action="store_true", help="all columns of tables, however wide the terminal is")


def add_dtype(parser: argparse.ArgumentParser, default: str = "float32") -> None:
    parser.add_argument("--dtype", choices=["float32", "float64"], default=default, help=f"default: {default}")


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a positive integer, got {text!r}")
    return int(text)


def file_name(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("must name a file, got an empty string")
    return text
