"""The commands, as functions. Each imports what it needs when it runs, so that `admodes --help` is quick."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from textwrap import fill
from typing import Any

from admodes.cli.output import (
    choice,
    chosen_names,
    columns,
    execute,
    fail,
    opened,
    opened_binary,
    opened_figure,
    output,
    precision,
    progress_line,
)


def list_problems(options: argparse.Namespace) -> None:
    from admodes import problems
    from admodes.text_tables import table

    known = problems.all()
    rows = [[p.name, f"{p.inputs} -> {p.outputs}", p.field, p.summary] for p in known]
    data = [
        {"name": p.name, "inputs": p.inputs, "outputs": p.outputs, "field": p.field, "summary": p.summary}
        for p in known
    ]
    with output(options) as write:
        write(data, table("", ["problem", "inputs -> outputs", "field", "what it is"], rows, left=4, spare=["field"]))


def compare_modes(options: argparse.Namespace) -> None:
    from admodes import problems
    from admodes.compare.comparison import STRATEGIES, compare, comparison_table, conclusion, find_strategy
    from admodes.compare.measure import keep_memory
    from admodes.compare.planned import chosen, strategies

    if not options.function and not options.all:
        raise SystemExit(fail("compare needs a FUNCTION, or --all for every problem", 2))
    modes = options.modes and [choice(find_strategy, mode) for mode in options.modes]
    if options.plot and not options.function:
        raise SystemExit(fail("--plot is for one FUNCTION", 2))
    names = [options.function] if options.function else [problem.name for problem in problems.all()]
    keep_memory()
    results = []
    with precision(options):
        found_by_name = {name: find_function(options, name) for name in names}
        with output(options) as write, opened_figure(options.plot) as figure:
            for k, (name, make) in enumerate(found_by_name.items(), start=1):
                progress_line(f"comparing {name} ({k} of {len(names)}) ...")
                function, args, argnums = make()
                planned = strategies if options.all else chosen
                mixed = [] if modes or not options.function else planned(function, args, argnums)
                found = compare(
                    function,
                    *args,
                    argnums=argnums,
                    modes=[*(modes or STRATEGIES), *mixed],
                    repeat=options.repeat,
                    fallback=options.fallback,
                )
                results.append(replace(found, function=name))
            data = [result.to_dict() for result in results]
            said = [fill(conclusion(result), columns(options)) for result in results]
            parts = [part for k, result in enumerate(results) for part in (comparison_table(result), said[k], "")]
            if options.function and options.all:
                parts.append(results[0].curve())
            elif options.function:
                parts += [
                    f"Why: admodes plan {options.function}",
                    f"All ways: admodes compare {options.function} --all",
                ]
            write(data[0] if options.function else data, *parts)
            if figure is not None:
                results[0].plot(figure, format=Path(options.plot).suffix[1:])


def plan_jacobian(options: argparse.Namespace) -> None:
    from admodes.planner.calls.plan import plan

    with precision(options):
        make = find_function(options)
        with output(options) as write, opened_binary(options.save):
            function, args, argnums = make()
            found = choice(
                lambda limit: plan(
                    function,
                    *args,
                    argnums=argnums,
                    objective=options.objective,
                    memory_limit=limit,
                    format=options.format,
                    measure=options.measure or None,
                    hessian=options.hessian,
                ),
                options.memory_limit,
            )
            if options.save:
                found.save(options.save)
            write(found.to_dict(), found.report(columns(options)), *([found.draw()] if options.draw else []))


def diagnose(options: argparse.Namespace) -> int:
    from admodes.diagnosis import doctor

    with precision(options):
        make = find_function(options)
        with output(options) as write:
            function, args, _ = make()
            report = doctor(function, *args)
            write(report.to_dict(), str(report))
    return 0 if report.healthy else 1


def find_function(options: argparse.Namespace, name: str | None = None) -> Callable[[], tuple[Callable, tuple, Any]]:
    """Resolves the name (the options', if none is given) and gives what makes the function, its arguments, and the
    numbers of those that are differentiated."""
    from admodes import problems
    from admodes.compare.arguments import load_function, parse_arguments

    name = name or options.function
    argnums = options.argnums and (options.argnums[0] if len(options.argnums) == 1 else tuple(options.argnums))
    if ":" in name:
        fun = load_function(name)
        args = tuple(in_dtype(arg, options.dtype) for arg in parse_arguments(options.arg))
        return lambda: (fun, args, 0 if argnums is None else argnums)
    if "." in name:
        like = f"{name}:FUNCTION" if name.endswith(".py") else ":".join(name.rsplit(".", 1))
        raise SystemExit(fail(f"'{name}' is no problem, and a function is written with a colon: {like}", 2))
    problem = problems.get(name)
    if options.arg:
        raise SystemExit(fail(f"--arg is for functions of your own; the problem {name} has its own arguments", 2))
    return lambda: (*problem.make(options.dtype), problem.argnums if argnums is None else argnums)


def in_dtype(tree: Any, dtype: str) -> Any:
    """The 64-bit floats of an argument in the precision that was asked for."""
    import jax
    import numpy as np

    def cast(x):
        return x.astype(dtype) if isinstance(x, (np.ndarray, jax.Array)) and x.dtype == np.float64 else x

    return jax.tree_util.tree_map(cast, tree)


def calibrate_machine(options: argparse.Namespace) -> None:
    from dataclasses import asdict

    from admodes.planner.cost import cache_folder
    from admodes.planner.cost.machine import as_rows, calibrate
    from admodes.text_tables import table

    with output(options) as write:
        found = calibrate(progress_line)
        write(asdict(found), table("", ["a unit of", "takes"], as_rows(found)), f"kept in {cache_folder.file()}")


def run_program(options: argparse.Namespace) -> int:
    from admodes.advisor import advise
    from admodes.stand_in import as_jax

    if not options.module and not options.program:
        raise SystemExit(fail("run needs a SCRIPT, or -m MODULE", 2))
    if options.module is None and not Path(options.program[0]).is_file():
        raise SystemExit(fail(f"there is no file '{options.program[0]}'", 2))
    if options.apply:
        with as_jax():
            return execute(options.module, options.program)
    with output(options) as write:
        with advise(progress=progress_line) as advice:
            status = execute(options.module, options.program)
        write(advice.to_dict(), advice.report(columns(options)))
    return status


def explain_derivative(options: argparse.Namespace) -> None:
    from admodes.explain import explain

    with precision(options):
        make = find_function(options)
        with output(options) as write:
            function, args, _ = make()
            explanation = replace(explain(function, *args, mode=options.mode), function=options.function)
            write(explanation.to_dict(), str(explanation))


def draw_graph(options: argparse.Namespace) -> None:
    from admodes.draw import draw

    with precision(options):
        make = find_function(options)
        with opened(options.output) as file:
            function, args, _ = make()
            file.write(draw(function, *args, format=options.format) + "\n")


def list_rules(options: argparse.Namespace) -> None:
    from admodes import rules
    from admodes.text_tables import table

    supported = rules.supported()
    rows = [[name, kind] for name, kind in supported.items()]
    with output(options) as write:
        write(supported, table("", ["primitive", "rule"], rows, left=2), f"{len(rows)} primitives")


def run_demos(options: argparse.Namespace) -> int:
    from admodes.compare.demos import demos, gallery
    from admodes.text_tables import show, table

    found = demos()
    if options.list:
        show(table("", ["demo", "what it shows"], [[demo.name, demo.summary] for demo in found.values()], left=2))
        return 0
    size = ["--full"] if options.full else ["--smoke"] if options.smoke else []
    arguments = [*size, "--seed", str(options.seed)]
    if options.memory_limit is not None and options.demo != "train":
        raise SystemExit(fail("--memory-limit is for the demo train", 2))
    if options.memory_limit is not None:
        arguments += ["--memory-limit", options.memory_limit]
    if options.all:
        statuses = gallery(found, Path(options.out), arguments, progress_line)
        progress_line(f"wrote {Path(options.out) / 'index.html'}")
        return max(statuses.values())
    (name,) = chosen_names([options.demo], found, "demo")
    return found[name].run([*arguments, "--out", options.out])


def bench_modes_suite(options: argparse.Namespace) -> None:
    from admodes.compare.bench.modes import MODES, bench_modes
    from admodes.compare.bench.workloads import WORKLOADS

    workloads = chosen_names(options.workloads, WORKLOADS, "workload")
    modes = chosen_names(options.modes, MODES, "mode")
    with output(options) as write:
        result = bench_modes(workloads, modes, rounds=options.repeat, builds=options.builds, progress=progress_line)
        write(result.to_dict(), *result.tables())


def bench_jacobians_suite(options: argparse.Namespace) -> None:
    from admodes.compare.bench.jacobians import SUBJECTS, bench_jacobians

    subjects = chosen_names(options.problems, SUBJECTS, "problem")
    with output(options) as write, precision(options):
        result = bench_jacobians(
            subjects,
            format=options.format,
            dtype=options.dtype,
            rounds=options.repeat,
            builds=options.builds,
            progress=progress_line,
        )
        write(result.to_dict(), *result.tables())


def bench_costs_suite(options: argparse.Namespace) -> None:
    from admodes.compare.bench.costs import bench_costs
    from admodes.compare.bench.jacobians import SUBJECTS

    subjects = chosen_names(options.problems, SUBJECTS, "problem")
    with output(options) as write, precision(options):
        result = bench_costs(subjects, dtype=options.dtype, rounds=options.repeat, progress=progress_line)
        write(result.to_dict(), *result.tables())


def bench_regret_suite(options: argparse.Namespace) -> None:
    from admodes.compare.bench.regret import KINDS, bench_regret

    kinds = chosen_names(options.kinds, KINDS, "kind")
    with output(options) as write, precision(options):
        result = bench_regret(
            kinds, count=options.count, seed=options.seed, rounds=options.repeat, progress=progress_line
        )
        write(result.to_dict(), *result.tables())


def bench_sparsity_suite(options: argparse.Namespace) -> None:
    from admodes.compare.bench.sparsity import SUBJECTS, bench_sparsity

    subjects = chosen_names(options.problems, SUBJECTS, "problem")
    with output(options) as write:
        result = bench_sparsity(subjects, progress=progress_line)
        write(result.to_dict(), *result.tables())


def bench_checkpointing_suite(options: argparse.Namespace) -> None:
    from admodes.compare.bench.checkpointing import PARTS, bench_checkpointing

    parts = chosen_names(options.parts, PARTS, "part")
    with output(options) as write:
        result = bench_checkpointing(parts, rounds=options.repeat, progress=progress_line)
        write(result.to_dict(), *result.tables())


def bench_workarounds_suite(options: argparse.Namespace) -> None:
    from admodes.compare.bench.workarounds import EXAMPLES, bench_workarounds

    names = chosen_names(options.workarounds, EXAMPLES, "workaround")
    with output(options) as write:
        result = bench_workarounds(names, rounds=options.repeat, progress=progress_line)
        write(result.to_dict(), *result.tables())


def bench_higher_suite(options: argparse.Namespace) -> None:
    from admodes.compare.bench.higher import CASES, bench_higher

    names = chosen_names(options.cases, CASES, "case")
    with output(options) as write:
        result = bench_higher(names, repeat=options.repeat, progress=progress_line)
        write(result.to_dict(), *result.tables())


def bench_accuracy_suite(options: argparse.Namespace) -> None:
    from admodes.compare.bench.accuracy import FORMATS, AccuracyBenchmark, bench_accuracy, without_mpmath

    formats = chosen_names(options.formats, FORMATS, "format")
    if why := without_mpmath():
        with output(options) as write:
            write(AccuracyBenchmark(()).to_dict(), f"skipped: {why}")
        return
    import mpmath

    from admodes.compare.bench.exact import functions

    names = chosen_names(options.functions, functions(mpmath), "function")
    with output(options) as write:
        result = bench_accuracy(names, formats=formats, progress=progress_line)
        write(result.to_dict(), *result.tables())
