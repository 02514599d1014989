"""`weightlora compare`: methods x seeds on your own model and data, with paired differences, a table and a picture."""

import argparse
import sys
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import HelpFormatter, spellings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..compare.comparison import Comparison
    from ..train.plan import Job, Plan

DESCRIPTION = """\
Compares methods over seeds on your own model and data. Finished runs are not repeated: the same command continues
an interrupted comparison, and more --methods or --seeds add to it.
"""
EPILOG = """\
All other arguments are those of `weightlora train` (`weightlora train --help` explains them): --model, --train_file,
--validation_file, --dataset, --max_steps, --keep, --config and so on. Without --task, it is text-classification. A
single data file is split into 70 % train, 10 % validation and 20 % test. With --validation_file, that file is the
test.

examples:
  weightlora compare --model roberta-base --train_file reviews.jsonl --output_dir runs/reviews
  weightlora compare --model roberta-base --train_file reviews.jsonl --methods lora,random,listed,weightlora \\
    --listed query value --output_dir runs/lists
  weightlora compare --output_dir runs/reviews --summarize

exit codes: 0 done; 1 a run failed; 2 something in the input is wrong (one sentence says what); 130
interrupted; 143 terminated. After the last two, the same command goes on where it stopped.
"""


def add_parser(subparsers: Any) -> None:
    """Add the command to the `weightlora` parser."""
    parser = subparsers.add_parser(
        "compare",
        help="compare methods over seeds on your own model and data",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "--methods",
        type=_names,
        nargs="+",
        help="names of `weightlora train --method`, with commas or spaces between (default: lora,random,weightlora)",
    )
    add("--seeds", type=int, help="number N of seeds, which are 0 to N - 1 (default: 3)")
    add(
        *spellings("learning_rates"),
        type=_rates,
        nargs="+",
        help="with commas or spaces between (default: 5e-4,1e-3,2e-3); each method gets the best on the validation "
        "split at seed 0",
    )
    add(*spellings("output_dir"), help="where to write the results and the summary")
    add("--jobs", type=int, help="number of runs in parallel (default: one per core, or one on a GPU)")
    add("--summarize", action="store_true", help="print the summary of --output_dir again, and run nothing")
    add(
        "--json",
        action="store_true",
        help="print one JSON object on stdout (with --dry_run the plans), everything else on stderr",
    )
    parser.set_defaults(run=run, takes_rest=True)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns 0, or 1 if a run failed.

    Raises:
        WeightLoraError: Something is wrong with the input. No run has begun then.
    """
    from ..errors import ConfigError
    from ..extras import require

    if not args.output_dir:
        raise ConfigError("--output_dir is missing: give a directory, such as runs/compare/NAME.")
    args.output_dir = Path(args.output_dir)
    require("datasets", "matplotlib", "rich", "sklearn", requirement="weightlora[compare]")
    if args.summarize:
        return _summarize(args)
    if args.jobs is not None and args.jobs < 1:
        raise ConfigError(f"--jobs {args.jobs} is too small: give at least 1.")
    from .quiet import quiet_libraries

    with quiet_libraries():
        return _compare(args)


def _compare(args: argparse.Namespace) -> int:
    import json
    from dataclasses import asdict

    from rich.console import Console

    from ..compare.comparison import read_comparison
    from ..compare.progress import Watcher
    from ..compare.runner import usable_cores
    from ..compare.session import carry_out
    from ..compare.spec import METHODS_BY_DEFAULT, make_comparison
    from ..errors import DataError
    from ..train import parse
    from ..train.splitting import warn_of_same_files

    methods = METHODS_BY_DEFAULT if args.methods is None else [*chain(*args.methods)]
    rates = None if args.learning_rates is None else [*chain(*args.learning_rates)]
    seeds = 3 if args.seeds is None else args.seeds
    comparison = make_comparison(args.output_dir, methods, seeds, rates, args.rest)
    console = Console(stderr=True, highlight=False)
    plans: dict[str, Plan] = {}
    for method, job in comparison.jobs():
        if not plans:
            _show_data(console, job)
        plans[method] = job.plan
    _show_methods(console, comparison, plans)
    recipe = parse([*args.rest, "--output_dir", str(args.output_dir)])
    warn_of_same_files(recipe.data.train_file, recipe.data.validation_file)
    if recipe.method.dry_run:
        comparison.claim(write=False)
        if args.json:
            print(json.dumps({method: asdict(plan) for method, plan in plans.items()}, allow_nan=False))
        return 0
    comparison.claim()
    jobs = args.jobs or (1 if _on_gpu(comparison) else usable_cores())
    try:
        with Watcher(console, jobs) as watcher:
            failed = carry_out(comparison, jobs, watcher)
    except KeyboardInterrupt:
        console.print("finished runs are kept: the same command goes on from there", markup=False, soft_wrap=True)
        raise
    for failure, error in failed:
        console.print(f"failed: {failure.name}: {error}", markup=False, soft_wrap=True)
    comparison.claim()  # another command that began at the same moment may have written its methods alone
    every = read_comparison(args.output_dir)  # earlier commands may have made runs of other methods and seeds
    try:
        return max(_show(every, args.json), 1 if failed else 0)
    except DataError:
        if not failed:
            raise
        console.print("there is no summary, because no run has a result", markup=False, soft_wrap=True)
        return 1


def _summarize(args: argparse.Namespace) -> int:
    from ..compare.comparison import read_comparison
    from ..errors import ConfigError

    if args.rest or any(value is not None for value in (args.methods, args.seeds, args.learning_rates, args.jobs)):
        raise ConfigError("--summarize reads everything from --output_dir: leave out the other arguments.")
    return _show(read_comparison(args.output_dir), args.json)


def _show(comparison: "Comparison", as_json: bool) -> int:
    """Print the summary, and write it."""
    import json

    from rich.console import Console

    from ..compare.summary import print_summary, read_summary, write_summary

    summary = read_summary(comparison)
    if as_json:
        print(json.dumps(summary, allow_nan=False))
    else:
        print_summary(summary, Console(width=None if sys.stdout.isatty() else 120))
    sys.stdout.flush()  # before an error of the files
    paths = ", ".join(str(path) for path in write_summary(summary, comparison.directory))
    Console(stderr=True).print(f"written: {paths}", markup=False, highlight=False, soft_wrap=True)
    return 0


def _show_data(console: Any, job: "Job") -> None:
    """Print what all methods train on."""
    from ..train.preview import first_row
    from .train import lengths_of

    plan = job.plan
    rows = ", ".join(f"{name} {count:,}" for name, count in plan.rows.items())
    text, learned = first_row(job)
    lines = [f"{plan.model}, {plan.parameters:,} parameters; rows: {rows}; {plan.steps:,} steps a run"]
    lines += [f"first row: {text}", f"learned: {learned}"]
    if plan.full_rows or plan.full_targets:
        lines += [f"{label}: {text}" for label, text in lengths_of(plan).items()]
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


def _show_methods(console: Any, comparison: "Comparison", plans: "Mapping[str, Plan]") -> None:
    """Print what each method adapts, and its rates."""
    from .train import at_most

    lines = []
    for method, plan in plans.items():
        keep = f"{plan.adapters} adapters" if plan.keep is None else f"{plan.keep} of {plan.adapters} adapters"
        if plan.keep is None and plan.select_steps is not None:
            keep = f"as many of {plan.adapters} adapters as fit"
        rates = ", ".join(f"{rate:g}" for rate in comparison.rates[method])
        after = plan.trainable[1]
        trainable = "" if after is None else f"{at_most(plan)}{after:,} trainable parameters, "
        lines.append(f"{method}: {keep}, {trainable}rate {rates}")
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


def _on_gpu(comparison: "Comparison") -> bool:
    import torch

    return torch.cuda.is_available() and not comparison.settings[comparison.methods[0]].get("use_cpu", False)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _rates(text: str) -> list[float]:
    try:
        return [float(value) for value in _names(text)]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} has a part that is not a number: write 5e-4,1e-3,2e-3") from None
