"""`weightlora bench`: run the quality experiments, tune their learning rates, and summarize what is there."""

import argparse
import json
import os
import sys
from pathlib import Path

ROOT = Path("benchmarks/quality")


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("bench", help="compare methods over seeds")
    commands = parser.add_subparsers(dest="bench_command", required=True, metavar="COMMAND")

    run_parser = commands.add_parser("run", help="run what is not there yet")
    tune_parser = commands.add_parser("tune", help="choose each method's learning rate on the validation split")
    summarize_parser = commands.add_parser("summarize", help="tables and pictures of the results")
    for command in (run_parser, tune_parser, summarize_parser):
        command.add_argument("--root", type=Path, default=ROOT, help="folder of the experiments (%(default)s)")
        command.add_argument("--tasks", type=_names, help="only these, comma-separated")
    for command in (run_parser, tune_parser):
        command.add_argument("--methods", type=_names, help="only these, comma-separated")
        command.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="runs at a time (one per core)")
    run_parser.add_argument("--seeds", type=int, help="seeds 0 to N - 1 (as each experiment says)")
    run_parser.set_defaults(run=run)
    tune_parser.add_argument("--grid", type=_rates, default=[5e-4, 1e-3, 2e-3], help="learning rates (5e-4,1e-3,2e-3)")
    tune_parser.set_defaults(run=tune)
    summarize_parser.add_argument("--json", action="store_true", help="print one JSON object, and nothing else")
    summarize_parser.add_argument("--output-dir", type=Path, help="where tables and pictures go (the root)")
    summarize_parser.set_defaults(run=summarize)


def run(args: argparse.Namespace) -> int:
    from weightlora.bench.experiments import plan

    return _execute(plan(args.root, args.tasks, args.methods, args.seeds), args.jobs)


def tune(args: argparse.Namespace) -> int:
    from weightlora.bench.experiments import labels_in, plan_tuning, settle_tuning, tasks_in

    status = 0
    for task in args.tasks or tasks_in(args.root):
        labels = args.methods or labels_in(args.root, task)
        runs = plan_tuning(args.root, task, labels, args.grid)
        status = _execute(runs, args.jobs) or status
        whole = [label for label in labels if all(r.output.exists() for r in runs if r.experiment["label"] == label)]
        for label, rate in settle_tuning(args.root, task, whole, runs).items():
            print(f"{task}/{label}: learning rate {rate:g}")
    return status


def summarize(args: argparse.Namespace) -> int:
    from rich.console import Console

    from weightlora.bench.summary import load_results, print_tables, write_summary
    from weightlora.bench.summary import summarize as compute

    results, rejected = load_results(args.root)
    if args.tasks:
        results = [result for result in results if result["task"] in args.tasks]
    for path, reason in rejected:
        print(f"not counted: {path} ({reason})", file=sys.stderr)
    summary = compute(results)
    if args.json:
        print(json.dumps(summary))
        return 0
    print_tables(summary, Console())
    write_summary(args.root, args.output_dir or args.root)
    return 0


def _execute(runs, jobs: int) -> int:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from weightlora.bench.runner import execute, expected_seconds, kind, pending

    left = pending(runs)
    seconds: dict[str, list[float]] = {}
    for done in runs:
        if done not in left:
            seconds.setdefault(kind(done), []).append(json.loads(done.output.read_text())["wall_seconds"])
    terminal = sys.stdout.isatty()
    print(f"{len(runs)} runs, {len(runs) - len(left)} of them done, {jobs} at a time")
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[eta]}"), TextColumn("{task.description}"))
    with Progress(*columns, disable=not terminal) as progress:
        bar = progress.add_task("", total=len(runs), completed=len(runs) - len(left), eta="")

        def report(run, took: float | None, error: str | None) -> None:
            left.remove(run)
            if took is not None:
                seconds.setdefault(kind(run), []).append(took)
            eta = f"{expected_seconds(left, seconds) / jobs / 60:.0f} min left"
            name = f"{kind(run)} seed {run.seed}"
            progress.update(bar, advance=1, eta=eta, description=name)
            if error or not terminal:
                progress.console.print(f"{name}: {error or f'{took:.0f} s'}, {eta}", markup=False, highlight=False)

        failures = execute(list(left), jobs, report)
    return 1 if failures else 0


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _rates(text: str) -> list[float]:
    return [float(value) for value in _names(text)]
