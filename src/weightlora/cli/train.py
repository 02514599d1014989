"""`weightlora train`: one training, on any model and data, without a script."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..wording import counted
from . import HelpFormatter

if TYPE_CHECKING:
    from ..train.arguments import Recipe
    from ..train.methods import Methods
    from ..train.plan import Job, Plan
    from ..train.result import Result

DESCRIPTION = """\
Trains one model with the chosen adapters, or with another --method, on any model and data that Transformers and
Datasets can read.
"""
EPILOG = """\
--help_all lists all flags, the other arguments of Transformers included. Each flag may also be written with dashes.
Flags override the settings of --config files.

examples:
  weightlora train --task text-classification --model roberta-base --train_file train.csv --output_dir runs/first
  weightlora train --config recipe.yaml --learning_rate 1e-3 --output_dir runs/second
  weightlora train --modules_from runs/first --rank 16 --config recipe.yaml --output_dir runs/third

exit codes: 0 done; 1 an unexpected error; 2 something in the input is wrong (one sentence says what); 130 interrupted
"""
USAGE = "--task TASK --model MODEL --train_file FILE --output_dir DIR [--FLAG VALUE ...]"
MEASURED = "what fits is measured"
SHOWN_NAMES, SHOWN_CHARACTERS = 8, 40
"""Classes or columns in a plan, and characters of each."""


def add_parser(subparsers: Any) -> None:
    """Add the command to the `weightlora` parser; its arguments are Transformers', which are slow to import."""
    parser = subparsers.add_parser("train", help="train one model, from flags or a file of settings", add_help=False)
    parser.set_defaults(run=run, takes_rest=True)


def run(args: argparse.Namespace, methods: "Methods | None" = None) -> int:
    """Run the command; returns 0.

    Args:
        args: The command line; `args.rest` has the arguments.
        methods: The registry of methods, `METHODS` if None.

    Raises:
        WeightLoraError: Something is wrong with the input. Most of it is found before the model loads.
    """
    from .flags import is_asked, usual_parser

    if is_asked("help_all", args.rest):
        full_parser().print_help()
        return 0
    if is_asked("help", args.rest):
        usual_parser("train", USAGE, description=DESCRIPTION, epilog=EPILOG).print_help()
        return 0
    from rich.console import Console

    from ..train.arguments import parse
    from .quiet import quiet_libraries

    with quiet_libraries():
        return _run(parse(args.rest), Console(highlight=False, markup=False), methods)


def full_parser() -> argparse.ArgumentParser:
    """The parser of all flags, for `--help_all` and for completion."""
    from ..train.arguments import make_parser

    parser = make_parser(prog="weightlora train", usage=f"weightlora train {USAGE}", formatter_class=HelpFormatter)
    parser.add_argument("--config", metavar="FILE", help="YAML file of settings; you can give it several times")
    parser._optionals.title = "training (Transformers' arguments)"
    parser._action_groups.append(parser._action_groups.pop(parser._action_groups.index(parser._optionals)))
    parser.set_defaults(learning_rate="5e-4; 5e-5 for full")  # instead of Transformers'
    return parser


def _run(recipe: "Recipe", console: Any, methods: "Methods | None") -> int:
    from ..errors import ConfigError
    from ..train.checks import check_typed
    from ..train.fitting import fit
    from ..train.methods import METHODS
    from ..train.plan import prepare
    from ..train.resuming import check_unfinished
    from ..train.splitting import warn_of_same_files
    from .progress import show_choice

    if not recipe.given.get("output_dir") and not recipe.method.dry_run:
        raise ConfigError("--output_dir is missing: give a directory, such as runs/NAME.")
    first, arguments = recipe.training.process_index == 0, recipe.training
    if "disable_tqdm" not in recipe.given:  # a line for each log entry where no bar can be drawn
        arguments.disable_tqdm = not sys.stderr.isatty()
    check_typed(recipe, methods or METHODS)
    if not recipe.method.dry_run:  # before the data is read, which may take long
        check_unfinished(Path(str(arguments.output_dir)), arguments.resume_from_checkpoint is not None)
    job = prepare(recipe, methods or METHODS)
    if first:
        show_plan(console, job)
        warn_of_same_files(recipe.data.train_file, recipe.data.validation_file)
    if recipe.method.dry_run:
        show_prices(console, job)
        return 0
    result = fit(job, lambda prepared: show_choice(console, prepared))
    if first:
        show_result(console, result, str(arguments.output_dir))
    return 0


def method_of(recipe: "Recipe") -> str:
    """The method of a run, and where its modules come from."""
    run = recipe.method.modules_from
    return recipe.method.method if run is None else f"{recipe.method.method} on the modules that {run} chose"


def show_plan(console: Any, job: "Job", to_choice: bool = False) -> None:
    """Print what will happen; `to_choice` leaves out what comes after the choice."""
    from ..train.preview import first_row
    from ..wording import are

    plan = job.plan
    rows = ", ".join(f"{name} {count:,}" for name, count in plan.rows.items())
    if plan.split_off:
        rows += " (the data has no validation split: it is a tenth of the training texts, chosen by their hash)"
    lines = {"model": f"{plan.model}, {plan.parameters:,} parameters", "rows": rows}
    if plan.read:
        lines["columns"] = _few(plan.read) + (f"; not read: {_few(plan.unread)}" if plan.unread else "")
    lines |= dict(zip(("first row", "learned"), first_row(job), strict=True)) | lengths_of(plan)
    if names := list(job.work.config.get("id2label", {}).values()):
        lines["classes"] = _few(names)
    lines["method"] = method_of(job.recipe)
    if plan.select_steps != 0 or not to_choice:  # a choice before the first step has no rate
        lines["learning rate"] = f"{plan.learning_rate:g}"
    fit = ", as many as fit are kept" if plan.select_steps is not None else ""
    lines["adapters"] = f"{plan.adapters} found" + (
        fit if plan.keep is None else f", {plan.keep} {are(plan.keep)} kept"
    )
    if to_choice:
        lines["trainable"] = f"{plan.trainable[0]:,} parameters"
        if plan.select_steps:
            lines["steps"] = f"{plan.select_steps:,}, of a training of {plan.steps:,}"
        print_lines(console, lines)
        return
    lines["trainable"], lines["optimizer"] = f"{plan.trainable[0]:,} parameters", _state(plan)
    if plan.keep is not None or plan.select_steps is not None:
        after = plan.trainable[1]
        lines["trainable"] += " before, " + (MEASURED if after is None else f"{at_most(plan)}{after:,} after")
    lines["steps"] = f"{plan.steps:,}"
    if plan.select_steps:
        lines["steps"] += f": {plan.select_steps:,} before the choice, {plan.steps - plan.select_steps:,} after it"
    elif plan.select_steps == 0:
        lines["steps"] += ", after the choice"
    print_lines(console, lines)


def _few(names: Sequence[str]) -> str:
    """Names of classes or columns, which may be many and long."""
    from ..wording import printable, shortened

    more = f" and {len(names) - SHOWN_NAMES:,} more" if len(names) > SHOWN_NAMES else ""
    return ", ".join(shortened(printable(name), SHOWN_CHARACTERS) for name in names[:SHOWN_NAMES]) + more


def lengths_of(plan: "Plan") -> dict[str, str]:
    """What rows and targets are cut to, and how many training rows are that long."""
    lines = {}
    for label, most, full, where in (
        ("tokens", plan.max_tokens, plan.full_rows, "in a row (max_length)"),
        ("targets", plan.max_target, plan.full_targets, "tokens in a target (max_target_length)"),
    ):
        cut = f"; {full:,} of {plan.rows['train']:,} training rows reach that, and longer ones are cut" if full else ""
        if most:
            lines[label] = f"at most {most:,} {where}{cut}"
    return lines


def _state(plan: "Plan") -> str:
    """The size of the optimizer's state. A choice before the first step leaves no state of all adapters."""
    from rich import filesize

    before, after = (None if size is None else filesize.decimal(size) for size in plan.optimizer_bytes)
    if before is None:
        return "not known without a GPU"
    if plan.select_steps == 0:
        return MEASURED if after is None else f"{at_most(plan)}{after}"
    if plan.keep is None and plan.select_steps is None:
        return before
    return f"{before} before, " + (MEASURED if after is None else f"{at_most(plan)}{after} after")


def at_most(plan: "Plan") -> str:
    """What stands before the figures after a choice: they are upper bounds, as the choice is not known yet."""
    return "" if plan.select_steps is None else "at most "


def show_prices(console: Any, job: "Job") -> None:
    """For a choice within a budget of time or memory: measure steps, and print what budgets would buy."""
    from ..costs import frontier
    from ..train.pricing import has_prices, price

    if not has_prices(job):
        return
    costs, names = price(job)
    count = len(names)
    points = frontier(costs, [1.0] * count, job.plan.keep)
    whole = costs.shown(costs.whole) if costs.resource == "memory" else f"{costs.whole:.3g} s"
    console.print(f"a step with all {counted(count, 'adapter')}: {whole}. What a budget buys, if all score alike:")
    for point in points:
        console.print(f"  {costs.shown(point['cost']).split(' of ')[0]:>9}  {counted(point['kept'], 'adapter')}")


def show_result(console: Any, result: "Result", output_dir: str) -> None:
    """Print the metrics, the number of adapters that are left, and where everything was written."""
    lines = {
        split: ", ".join(f"{name} {value:.4f}" for name, value in values.items())
        for split, values in result.metrics.items()
    }
    if result.plan is not None:
        lines["learning rate"] = f"{result.plan['learning_rate']:g}"
    lines["adapters"] = f"{result.adapters_after} of {result.adapters_before}"
    if run := result.settings.get("modules_from"):
        lines["adapters"] = f"{result.adapters_after}, on the modules that {run} chose"
    lines["trainable"] = f"{result.trainable_parameters_after:,} parameters"
    print_lines(console, lines)
    if result.hardly_learned:
        console.print(
            f"The run hardly learned: the best guess that reads no text has a loss of {result.guess_loss:.4f} on "
            f"{result.split}. Try half the learning rate with a longer warmup, or more steps.",
            markup=False,
            soft_wrap=True,
        )
    console.print(f"in {output_dir}", soft_wrap=True)


def print_lines(console: Any, lines: dict[str, str]) -> None:
    """Print labels and texts in two columns."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, text in lines.items():
        table.add_row(name, Text(text))
    console.print(table)
