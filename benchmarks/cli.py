"""`weightlora bench`: run the quality experiments, tune their learning rates, and summarize what is there."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path("benchmarks/quality")
OWN_ROOT = Path("runs/bench")
# Settings of a user's own comparison: option -> (type, default, what it is). Ours stand in their files.
OWN: dict[str, tuple[Any, Any, str]] = {
    "text-column": (str, "text", "key of the text in --data"),
    "label-column": (str, "label", "key of the label in --data"),
    "steps": (int, 300, "optimizer steps a run"),
    "batch-size": (int, 16, "texts a step"),
    "max-length": (int, 128, "tokens a text"),
    "learning-rate": (float, 1e-3, "for every method"),
    "rank": (int, 8, "rank of LoRA"),
    "keep": (float, 0.25, "fraction of the adapters to keep"),
}


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("bench", help="compare methods over seeds")
    commands = parser.add_subparsers(dest="bench_command", required=True, metavar="COMMAND")

    run_parser = commands.add_parser("run", help="run what is not there yet")
    tune_parser = commands.add_parser("tune", help="choose each method's learning rate on the validation split")
    summarize_parser = commands.add_parser("summarize", help="tables and pictures of the results")
    for command in (run_parser, tune_parser, summarize_parser):
        command.add_argument("--root", type=Path, help=f"folder of the experiments ({ROOT}; {OWN_ROOT} with --data)")
        command.add_argument("--tasks", type=_names, help="only these, comma-separated")
    for command in (run_parser, tune_parser):
        command.add_argument("--methods", type=_names, help="only these, comma-separated")
        command.add_argument("--jobs", type=_positive, help="runs at a time (one per core; with --data on a GPU, one)")
    run_parser.add_argument("--seeds", type=_positive, help="seeds 0 to N - 1 (as each experiment says)")
    sweep = run_parser.add_argument_group("a sweep over recipes")
    sweep.add_argument("--sweep", type=Path, help="a file that lists recipes, methods and seeds")
    sweep.add_argument("--with", dest="overrides", type=_setting, action="append", metavar="KEY=VALUE", default=[])
    own = run_parser.add_argument_group("a comparison of your own")
    own.add_argument("--model", help="directory or hub id of a model for sequence classification")
    own.add_argument("--data", type=Path, help="JSON Lines with a text and a label a line")
    for option, (kind, default, what) in OWN.items():
        own.add_argument(f"--{option}", type=kind, help=f"{what} ({default})")
    run_parser.set_defaults(run=run)
    tune_parser.add_argument("--grid", type=_rates, default=[5e-4, 1e-3, 2e-3], help="learning rates (5e-4,1e-3,2e-3)")
    tune_parser.add_argument("--seeds", type=_positive, default=1, help="runs a rate, of which the mean counts (1)")
    tune_parser.set_defaults(run=tune)
    summarize_parser.add_argument("--json", action="store_true", help="print one JSON object, and nothing else")
    summarize_parser.add_argument("--output-dir", type=Path, help="where tables and pictures go (the root)")
    summarize_parser.set_defaults(run=summarize)


def run(args: argparse.Namespace) -> int:
    from .experiments import plan
    from .runner import usable_cores

    if args.sweep is not None:
        return _run_sweep(args)
    given = {name: value for name in OWN if (value := getattr(args, name.replace("-", "_"))) is not None}
    if args.data is None:
        if args.model is not None or given:
            name = "model" if args.model is not None else next(iter(given))
            raise ValueError(f"--{name} belongs to a comparison of your own: give --data, a JSON Lines file, as well.")
        return _execute(plan(args.root or ROOT, args.tasks, args.methods, args.seeds), args.jobs or usable_cores())
    return _run_own(args, given)


def _run_sweep(args: argparse.Namespace) -> int:
    import torch

    from .runner import usable_cores
    from .sweep import plan_sweep

    root = args.root or Path("runs") / args.sweep.resolve().parent.name
    runs = plan_sweep(args.sweep, root, dict(args.overrides), args.tasks, args.methods, args.seeds)
    return _execute(runs, args.jobs or (1 if torch.cuda.is_available() else usable_cores()))


def _run_own(args: argparse.Namespace, given: dict[str, Any]) -> int:
    if args.model is None:
        raise ValueError(f"--data {args.data} needs --model: a directory or a hub id.")
    import torch

    from .experiments import plan
    from .own import write_comparison
    from .runner import usable_cores

    settings = {name.replace("-", "_"): given.get(name, default) for name, (_, default, _) in OWN.items()}
    settings |= {"alpha": 4 * settings["rank"], "select_steps": max(2, settings["steps"] // 5)}
    settings["warmup_steps"] = settings["steps"] // 16
    root, methods = args.root or OWN_ROOT, args.methods or ["lora", "random", "weightlora"]
    task = write_comparison(root, args.model, args.data, methods, settings)
    jobs = args.jobs or (1 if torch.cuda.is_available() else usable_cores())
    status = _execute(plan(root, [task], methods, args.seeds or 3), jobs)
    args.root, args.tasks, args.json, args.output_dir = root, [task], False, None
    return status or summarize(args)


def tune(args: argparse.Namespace) -> int:
    from .experiments import labels_in, tasks_in
    from .runner import usable_cores
    from .tuning import plan_tuning, settle_tuning

    root, status = args.root or ROOT, 0
    for task in args.tasks or tasks_in(root):
        labels = args.methods or labels_in(root, task)
        runs = plan_tuning(root, task, labels, args.grid, args.seeds)
        status = _execute(runs, args.jobs or usable_cores()) or status
        whole = [label for label in labels if all(r.is_done() for r in runs if r.experiment["label"] == label)]
        for label, rate in settle_tuning(root, task, whole).items():
            print(f"{task}/{label}: learning rate {rate:g}")
    return status


def summarize(args: argparse.Namespace) -> int:
    from rich.console import Console

    from .layout import write_layout
    from .studies.pages import write_studies
    from .summary import print_tables, read_summary, write_summary

    root = args.root or ROOT
    summary, remarks = read_summary(root, args.tasks)
    if args.json:
        print(json.dumps(summary))
    else:
        write_summary(root, args.output_dir or root)  # of all tasks, whichever are printed
        write_studies(root, args.output_dir or root)
        write_layout(root, args.output_dir or root)
        print_tables(summary, Console(width=None if sys.stdout.isatty() else 160))
    for remark in remarks:
        print(remark, file=sys.stderr)
    return 0


def _execute(runs: list[Any], jobs: int) -> int:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from .runner import execute, expected_seconds, kind, pending

    left, aside = pending(runs)
    seconds: dict[str, list[float]] = {}
    for done in runs:
        if done not in left:
            seconds.setdefault(kind(done), []).append(json.loads(done.output.read_text())["wall_seconds"])
    terminal = sys.stdout.isatty()
    print(f"{len(runs)} runs, {len(runs) - len(left)} of them done, {jobs} at a time")
    if aside:
        print(f"{aside} files set aside as *.aside: cut short, or of other settings or another version")
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[eta]}"), TextColumn("{task.description}"))
    with Progress(*columns, disable=not terminal) as progress:
        bar = progress.add_task("", total=len(runs), completed=len(runs) - len(left), eta="")

        def report(run: Any, took: float | None, error: str | None) -> None:
            left.remove(run)
            if took is not None:
                seconds.setdefault(kind(run), []).append(took)
            eta = f"{expected_seconds(left, seconds) / jobs / 60:.0f} min left"
            name = f"{kind(run)} seed {run.seed}"
            progress.update(bar, advance=1, eta=eta, description=name)
            if error or not terminal:
                line = f"{name}: {error or f'{took:.0f} s'}, {eta}"
                progress.console.print(line, markup=False, highlight=False, soft_wrap=True)

        failures = execute(list(left), jobs, report)
    return 1 if failures else 0


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not at least 1")
    return value


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _setting(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is no KEY=VALUE")
    return name, value


def _rates(text: str) -> list[float]:
    return [float(value) for value in _names(text)]
