"""`weightlora quickstart`: select some of the 36 adapters of a small real model, and show what that saves."""

import argparse
import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..directories import replacing_directory
from ..errors import ConfigError, DataError
from ..extras import require
from ..files import check_writable, read_json
from ..values import parse_number
from . import HelpFormatter, spellings

if TYPE_CHECKING:
    from ..config import WeightLoraConfig
    from ..train.result import Result

MODULES = 36
BATCH_SIZE = 32
MAX_TOKENS = 64
DESCRIPTION = """\
Trains MiniLM-L6 with LoRA on Rotten Tomatoes, keeps the best adapters, and writes the adapter, the selection with its
picture, and the result to the output directory.
"""
EPILOG = """\
examples:
  weightlora quickstart
  weightlora quickstart --keep 9 --compare --output_dir runs/nine

exit codes: 0 done; 1 an unexpected error; 2 something in the input is wrong (one sentence says what); 130 interrupted
"""


def add_parser(subparsers: Any) -> None:
    """Add the command to the `weightlora` parser."""
    parser = subparsers.add_parser(
        "quickstart",
        help="select, train and compare on a small real model, without a network",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=run)

    def add(name: str, **settings: Any) -> None:
        parser.add_argument(*spellings(name), **settings)

    add("output_dir", default="runs/quickstart", help="where to write; must be empty or new")
    add("overwrite", action="store_true", help="replace an earlier run in the output directory")
    add("compare", action="store_true", help="also train LoRA on all 36 modules, for comparison")
    add(
        "keep",
        help="adapters to keep: a number, or a fraction of 36 (default: what fits into a quarter of the parameters)",
    )
    add("steps", type=int, default=150, help="optimizer steps, of 32 sentences each")
    add(
        "select_steps",
        type=int,
        help="steps before the choice, for a rule that chooses while training (default: a fifth of --steps)",
    )
    add("rank", type=int, default=8, help="LoRA rank")
    add("learning_rate", type=float, default=1e-3, help="of AdamW, with linear decay")
    add("seed", type=int, default=0, help="of the head, the adapters and the order of the data")
    add("selection", default="auto", help="the rule: auto, gradient, credit, stoiht or random")


def run(args: argparse.Namespace) -> int:
    """Run the command; returns 0.

    Raises:
        WeightLoraError: An argument breaks a rule, or the output directory is not writable. No run has begun then.
    """
    config = check_arguments(args)
    require("datasets", "matplotlib", "rich", "sklearn", requirement="weightlora[demo]")
    from rich.console import Console

    from .quiet import quiet_libraries
    from .table import show

    console = Console(highlight=False, markup=False)
    with quiet_libraries():
        kept = "those that fit into a quarter of the parameters"
        if config.keep is not None:
            kept = f"{config.number_to_keep(MODULES)} of them"
        console.print(f"MiniLM-L6 on Rotten Tomatoes, LoRA of rank {args.rank} on {MODULES} modules.")
        when = f"in the first {config.steps} of {args.steps} steps" if config.steps else "before the first step"
        console.print(f"WeightLoRA keeps {kept}, selected {when}.\n")
        result = train(args, config, console)
    show(console, result, args.output_dir)
    return 0


def check_arguments(args: argparse.Namespace) -> "WeightLoraConfig":
    """The settings of the selection, after every check that needs no model.

    Raises:
        WeightLoraError: The first rule that is broken.
    """
    from ..config import WeightLoraConfig
    from ..rules import RULES
    from ..run import SPARED, TRAINED, check_empty

    for name, least in (("steps", 3), ("rank", 1), ("seed", 0)):
        value = getattr(args, name)
        if value < least:
            raise ConfigError(f"--{name} {value} is too small: give at least {least}.")
    if args.seed >= 2**32:
        raise ConfigError(f"--seed {args.seed} is too large: numpy takes seeds below 2**32.")
    if not (math.isfinite(args.learning_rate) and args.learning_rate > 0):
        raise ConfigError(f"--learning_rate {args.learning_rate} is not a step size: give a positive number.")
    keep = None if args.keep is None else parse_number(args.keep)
    config = WeightLoraConfig(keep=keep, select_steps=args.select_steps, selection=args.selection, seed=args.seed)
    if args.select_steps is None:
        config = config.resolve(args.steps)
    if not RULES[config.selection].probes and not 2 <= config.steps < args.steps:
        raise ConfigError(
            f"--select_steps {config.steps} does not fit --steps {args.steps}: the selection takes at least 2 steps, "
            "and the kept adapters need at least 1 step after it."
        )
    if config.keep is not None:
        config.number_to_keep(MODULES)
    place = Path(args.output_dir)
    spared = TRAINED[:-1] if _is_quickstart(place) else SPARED
    check_empty(place, args.overwrite, remedy="add --overwrite", spared=spared)
    check_writable(place)
    return config


def _is_quickstart(directory: Path) -> bool:
    """Whether a directory has the result of a quickstart, whose figures name the sentences of its test split."""
    from ..run import RESULT

    try:
        result = read_json(directory / RESULT)
    except DataError:
        return False
    evidence = result.get("evidence") if isinstance(result, dict) else None
    return isinstance(evidence, dict) and "test_sentences" in evidence


def train(args: argparse.Namespace, config: "WeightLoraConfig", console: Any) -> "Result":
    """Train with the selection and, if asked for, LoRA on all modules; write the run directory.

    Both runs start from the same head and adapters and see the same batches.

    Returns:
        The result of the run with the selection. Its `evidence` has the figures of the table.
    """
    from ..report import draw_selection
    from ..run import RESULT
    from ..train import fit, prepare
    from ..train.demo import reviews_work
    from ..train.fitting import load_prepared, make_trainer
    from ..train.methods import METHODS
    from ..train.result import write_result
    from .progress import show_progress
    from .table import CostCallback, collect_figures, machine_is_busy, time_in_turns

    with replacing_directory(args.output_dir) as staging:
        job = prepare(recipe_for(args, config, "weightlora", staging), METHODS, reviews_work)
        first = [job.work.train[index] for index in range(BATCH_SIZE)]
        batch = dict(job.work.collate(first))
        kept, whole = CostCallback(batch), CostCallback(batch)
        shown = partial(show_progress, console, "WeightLoRA")
        result = fit(job, lambda prepared: (kept, *shown(prepared)), prints=False)
        plain, lora = prepare(recipe_for(args, config, "lora", staging), METHODS, lambda *_: job.work), None
        if args.compare:
            shown = partial(show_progress, console, "LoRA on all")
            lora = fit(plain, lambda prepared: (whole, *shown(prepared)), write=False, prints=False)
        else:  # one step, so that the optimizer has its state
            plain.recipe.training.max_steps = 1
            make_trainer(plain, load_prepared(plain).model, (whole,), prints=False).train()
        seconds = time_in_turns([whole.model, kept.model], batch)
        figures = collect_figures([whole.costs, kept.costs], [lora, result], seconds)
        figures |= {"busy": machine_is_busy(), "test_sentences": len(job.work.evaluation["test"])}
        settings = {**result.settings, "output_dir": str(args.output_dir)}
        result = replace(result, settings=settings, evidence=figures)
        write_result(staging / RESULT, result)
        draw_selection(staging)
    return result


def recipe_for(args: argparse.Namespace, config: "WeightLoraConfig", method: str, output_dir: Path) -> Any:
    """The quickstart's arguments as a recipe of the training stack."""
    from ..train import parse
    from ..train.arguments import as_arguments
    from ..train.demo import ENCODER_LINEARS, minilm_path

    settings = {
        "task": "rotten-tomatoes",
        "model": minilm_path(),
        "target_modules": [ENCODER_LINEARS],
        "method": method,
        "rank": args.rank,
        "alpha": 32,
        "select_steps": config.select_steps,
        "max_length": MAX_TOKENS,
        "max_steps": args.steps,
        "per_device_train_batch_size": BATCH_SIZE,
        "per_device_eval_batch_size": 4 * BATCH_SIZE,
        "learning_rate": args.learning_rate,
        "warmup_steps": args.steps // 20,
        "seed": args.seed,
        "save_strategy": "no",
        "logging_steps": max(1, args.steps // 50),
        "report_to": "none",
        "disable_tqdm": True,
        "output_dir": output_dir,
    }
    if config.keep is not None:
        settings["keep"] = config.number_to_keep(MODULES)
    if method == "weightlora":
        settings["method_options"] = {"selection": config.selection}
    return parse(as_arguments(settings))
