"""`weightlora select`: which modules of a model to adapt on your data, as text for any trainer."""

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..values import check_known
from . import spellings

if TYPE_CHECKING:
    from ..selection.record import Selection
    from ..train.arguments import Recipe

DESCRIPTION = """\
Finds out which modules should get a LoRA adapter for your data: before any training or, with --select_steps, in its
first steps. Prints the snippet to paste into your trainer on stdout, and everything else on stderr. No checkpoint is
written, and the base model is not changed.
"""

EPILOG = """\
All other flags of `weightlora train` work, too: `weightlora train --help_all` lists them. Each flag may also be
written with dashes. Flags override the settings of --config files.

examples:
  weightlora select --model roberta-base --train_file reviews.jsonl --task text-classification --keep_parameters 0.25
  weightlora select --model ./llama --train_file texts.jsonl --task causal-lm --keep 40 --format axolotl > lora.yaml
  weightlora select --model ./llama --train_file texts.jsonl --task causal-lm --select_steps 200 --group qkv
  weightlora select --model ./bert --dataset ./data --task cola --seeds 3 --format json --output_dir runs/chosen
  weightlora train --modules_from runs/chosen --rank 16 ...

exit codes: 0 done; 1 an unexpected error; 2 something in the input is wrong (one sentence says what); 130 interrupted
"""

USAGE = "--task TASK --model MODEL --train_file FILE [--FLAG VALUE ...]"
FORMAT_NAMES = "peft, trl, axolotl, llamafactory, swift, unsloth, torchtune, mlx, regex, json"
RULE_NAMES = "credit, gradient, stoiht, random"
GROUP_NAMES = "none, qkv, mlp, layer"
METHOD_NAMES = "weightlora, weightlora-plus, weightlora-paper, weightlora-paper-plus or random"
"""The names in the registries, which take seconds to import."""

OF_TRAINING = (
    *("modules_from", "listed", "cache_prefix", "prefix_dropout", "max_cache_bytes", "output_dir", "logging_steps"),
    *("eval_strategy", "per_device_eval_batch_size", "save_strategy", "save_steps", "save_total_limit"),
    "resume_from_checkpoint",
)
"""Arguments that say nothing about a choice, and are not in the help."""

OF_CHOICE = {
    "method": METHOD_NAMES,
    "keep": "how many adapters to keep: a number, or a fraction of all (default if no budget is set: as many as fit "
    "into a quarter of the parameters)",
    "learning_rate": "the highest learning rate (default: 5e-4)",
}
"""What arguments mean to the methods that make a choice."""


def add_parser(subparsers: Any) -> None:
    """Add the command to the `weightlora` parser; its arguments are Transformers', too, which are slow to import."""
    parser = subparsers.add_parser("select", help="choose the modules to adapt, for any trainer", add_help=False)
    parser.set_defaults(run=run, takes_rest=True)


def own_parser(**settings: Any) -> argparse.ArgumentParser:
    """The parser of the flags that `weightlora train` does not have."""
    from ..train.settings import SentenceParser

    parser = SentenceParser(allow_abbrev=False, add_help=False, **settings)
    group = parser.add_argument_group("selection")

    def add(name: str, **more: Any) -> None:
        group.add_argument(*spellings(name), **more)

    add("format", default="peft", metavar="NAME", help=f"what to print: {FORMAT_NAMES}")
    add(
        "selection",
        metavar="RULE",
        help=f"the rule: {RULE_NAMES} (default: gradient; with --select_steps, credit)",
    )
    add("group", default="none", help=f"choose modules together: {GROUP_NAMES}")
    add(
        "seeds",
        type=int,
        default=1,
        metavar="N",
        help="choose with N seeds, and keep the modules with the best mean place",
    )
    add(
        "ranks",
        default="equal",
        metavar="HOW",
        help="equal: one rank for the best modules; proportional: a rank for each module, in proportion to its score",
    )
    add(
        "overwrite",
        action="store_true",
        help="replace an earlier choice in the output directory, unless it has trained weights",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Run the command; returns 0.

    Raises:
        WeightLoraError: Something is wrong with the input. Most of it is found before the model loads.
    """
    from .flags import is_asked

    if is_asked("help", args.rest):
        full_parser().print_help()
        return 0
    from .quiet import quiet_libraries

    own, rest = own_parser().parse_known_args(args.rest)
    with quiet_libraries(), contextlib.redirect_stdout(sys.stderr):  # the Trainer and its callbacks print, too
        text = _run(own, rest)
    sys.stdout.write(text)
    return 0


def full_parser() -> argparse.ArgumentParser:
    """The parser of the flags that people set, for `--help` and for completion."""
    from .flags import usual_parser

    texts = {"description": DESCRIPTION, "epilog": EPILOG}
    parser = usual_parser("select", USAGE, [own_parser()], OF_TRAINING, OF_CHOICE, **texts)
    parser.add_argument(*spellings("output_dir"), metavar="DIR", help="where to write the run (default: nowhere)")
    return parser


def _run(own: argparse.Namespace, rest: Sequence[str]) -> str:
    """The text for stdout; empty after a dry run, and in other processes than the first."""
    from rich.console import Console

    from ..run import check_empty
    from ..selection.combining import Wishes
    from ..selection.formats import FORMATS, notes_beside
    from ..train import parse, prepare
    from ..train.checks import check_typed
    from ..train.choosing import check_begins, check_chooses, choose
    from ..train.methods import METHODS
    from .progress import choice_progress
    from .train import show_plan, show_prices

    console = Console(highlight=False, markup=False, stderr=True)
    check_known("format", own.format, FORMATS)
    recipe = with_selection(parse(rest), own)
    check_begins(recipe)
    output = str(recipe.training.output_dir) if "output_dir" in recipe.given else None
    if output is not None:
        check_empty(Path(output), own.overwrite, remedy="add --overwrite")
    check_typed(recipe, METHODS)
    job = prepare(recipe)
    wishes = Wishes(own.group, own.seeds, own.ranks)
    check_chooses(job, wishes)
    first = recipe.training.process_index == 0
    if first:
        show_plan(console, job, to_choice=True)
    if recipe.method.dry_run:
        show_prices(console, job)
        return ""

    before_training = not job.plan.select_steps  # there is a model to load and a probe to make, and no step to count

    def watch(prepared: Any, seed: int) -> list[Any]:
        title = "selecting" if own.seeds == 1 else f"seed {seed}"
        return [] if before_training else choice_progress(console, title, prepared)

    shown: Any = console.status("choosing modules") if before_training and first else contextlib.nullcontext()
    with shown, _place(output if first else None) as directory:
        selection = choose(job, directory, watch, wishes)
    if not first:
        return ""
    show_selection(console, selection, own.seeds)
    if output is not None:
        console.print(f"in {output}", soft_wrap=True)
    for note in notes_beside(selection, own.format):
        console.print(note, soft_wrap=True)
    return selection.to(own.format)


def with_selection(recipe: "Recipe", own: argparse.Namespace) -> "Recipe":
    """The recipe with what the flags of this command say about the selection."""
    import json

    from ..errors import ConfigError
    from ..rules import RULES
    from ..train.arguments import parse_json

    arguments, training = recipe.method, recipe.training
    options = parse_json("method_options", arguments.method_options)
    if own.selection not in (None, "auto"):
        check_known("selection", own.selection, RULES)
    if own.selection == "random":  # which needs no training
        if "select_steps" in recipe.typed:
            raise ConfigError(
                f"--select_steps {arguments.select_steps} is a setting of rules that choose while training, and "
                "--selection random chooses before the first step: drop it, or set --selection credit."
            )
        arguments.method = "random"
    elif own.selection is not None:
        options["selection"] = own.selection
    arguments.method_options = json.dumps(options) if options else None
    if "logging_strategy" not in recipe.given and "logging_steps" not in recipe.given:
        training.logging_strategy = "no"
    training.disable_tqdm = True  # there is a bar up to the decision
    return recipe


@contextlib.contextmanager
def _place(output: str | None) -> Iterator[Path]:
    """A directory for the run, which appears at its place at the end; without a place it is gone then."""
    from ..directories import replacing_directory

    if output is not None:
        with replacing_directory(output) as staging:
            yield staging
    else:
        with tempfile.TemporaryDirectory(prefix="weightlora-") as directory:
            yield Path(directory)


def show_selection(console: Any, selection: "Selection", seeds: int) -> None:
    """Print the choice, what groups cost, and at how many of the seeds each module was chosen."""
    from rich.table import Table
    from rich.text import Text

    rows = selection.summary()
    console.print(rows.text, markup=False)
    before, after = (selection.trainable_parameters[name] for name in ("before", "after"))
    console.print(f"Adapter parameters: {after:,} of {before:,} ({after / before:.0%}).")
    if (grouping := selection.grouping) is not None:
        alone, completed = grouping["without_groups"], grouping["completed"]
        console.print(
            f"Groups ({grouping['group']}): {grouping['modules']} modules with {grouping['parameters']:,} parameters. "
            f"Without groups: {alone['modules']} modules with {alone['parameters']:,}; with their groups completed, "
            f"these would be {completed['modules']} modules with {completed['parameters']:,}."
        )
    if selection.seeds is None:
        return
    table = Table(box=None, pad_edge=False)
    for column in ("module", "chosen at", "kept"):
        table.add_column(column, justify="left" if column == "module" else "right", overflow="fold")
    for module in selection.modules:
        if module.kept or selection.seeds[module.name]:
            times = f"{selection.seeds[module.name]} of {seeds} seeds"
            table.add_row(Text(module.name), times, "yes" if module.kept else "")
    console.print(table)
