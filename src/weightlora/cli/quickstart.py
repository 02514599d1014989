"""`weightlora quickstart`: choose 9 of the 36 adapters of a small real model, and show what that saves."""

import argparse
import json
import math
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import WeightLora, WeightLoraConfig, __version__, save_run
from ..run import check_empty
from ..train.demo import ENCODER_LINEAR_COUNT

if TYPE_CHECKING:
    from .training import Cost, Run

RESULTS_FORMAT = 1


def add_parser(subparsers: Any) -> None:
    """Add the command to the `weightlora` parser."""
    parser = subparsers.add_parser(
        "quickstart",
        help="train, choose and compare on a small real model, without a network",
        description="Trains MiniLM-L6 with LoRA on Rotten Tomatoes, keeps the best adapters, and writes the adapter, "
        "the choice with its picture, and the figures to the output directory.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.set_defaults(run=run)
    parser.add_argument("--output-dir", default="runs/quickstart", help="where to write; must be empty or new")
    parser.add_argument("--overwrite", action="store_true", help="replace what is in the output directory")
    parser.add_argument("--compare", action="store_true", help="also train LoRA on all 36 modules, for comparison")
    parser.add_argument("--keep", type=_number, default=9, help="adapters to keep: a number, or a fraction of 36")
    parser.add_argument("--steps", type=int, default=150, help="optimizer steps, of 32 sentences each")
    parser.add_argument("--select-steps", type=int, help="steps before the choice; a fifth of --steps if not given")
    parser.add_argument("--rank", type=int, default=8, help="LoRA rank")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="of AdamW, with linear decay")
    parser.add_argument("--seed", type=int, default=0, help="of the head, the adapters and the order of the data")
    parser.add_argument("--selection", default="credit", help="how to choose: credit, stoiht or random")


def run(args: argparse.Namespace) -> int:
    """Run the command; returns 0.

    Raises:
        ValueError: An argument breaks a rule, or the output directory may not be written to. Nothing was done then.
    """
    config = check_arguments(args)
    from rich.console import Console

    from .summary import show
    from .training import Settings, load_data, quiet_libraries, train

    console = Console(highlight=False)
    settings = Settings(args.output_dir, args.steps, args.rank, args.learning_rate, args.seed)
    with quiet_libraries():
        data = load_data()
        kept = config.number_to_keep(ENCODER_LINEAR_COUNT)
        console.print(f"MiniLM-L6 on Rotten Tomatoes, LoRA of rank {args.rank} on {ENCODER_LINEAR_COUNT} modules.")
        console.print(
            f"WeightLoRA keeps {kept} of them, chosen in the first {config.select_steps} of {args.steps} steps.\n"
        )
        weightlora = train(settings, config, data, console, "WeightLoRA")
        lora = train(settings, None, data, console, "LoRA on all") if args.compare else None
    figures = results(args, weightlora, lora)
    assert weightlora.selector is not None
    write_run(weightlora.selector, args, figures)
    show(console, figures, args.output_dir)
    return 0


def _number(text: str) -> int | float:
    return float(text) if "." in text else int(text)


def check_arguments(args: argparse.Namespace) -> WeightLoraConfig:
    """The settings of the selection, after every check that needs no model.

    Raises:
        ValueError: The first rule that is broken.
    """
    for name, least in (("steps", 3), ("rank", 1), ("seed", 0)):
        value = getattr(args, name)
        if value < least:
            raise ValueError(f"--{name} {value} is too small: give at least {least}.")
    if args.seed >= 2**32:
        raise ValueError(f"--seed {args.seed} is too large: numpy takes seeds below 2**32.")
    if not (math.isfinite(args.learning_rate) and args.learning_rate > 0):
        raise ValueError(f"--learning-rate {args.learning_rate} is no step size: give a positive number.")
    select_steps = max(2, args.steps // 5) if args.select_steps is None else args.select_steps
    if not 2 <= select_steps < args.steps:
        raise ValueError(
            f"--select-steps {select_steps} does not fit --steps {args.steps}: the choice takes 2 steps or more, and "
            "the kept adapters need a step after it."
        )
    config = WeightLoraConfig(keep=args.keep, select_steps=select_steps, selection=args.selection, seed=args.seed)
    config.number_to_keep(ENCODER_LINEAR_COUNT)
    check_empty(Path(args.output_dir), args.overwrite)
    check_writable(Path(args.output_dir))
    return config


def check_writable(directory: Path) -> None:
    """Raise a `ValueError` if the directory, or the nearest one above it that exists, may not be written to."""
    there = next(path for path in (directory.absolute(), *directory.absolute().parents) if path.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        raise ValueError(f"{directory} cannot be made: {there} is no directory that may be written to.")


def write_run(selector: WeightLora, args: argparse.Namespace, figures: dict[str, Any]) -> Path:
    """The run directory: what `save_run` writes, the picture, and `results.json`."""
    from ..report import draw_selection

    directory = save_run(selector, args.output_dir, args.overwrite)
    draw_selection(directory)
    unfinished = directory / f".results.json.{os.getpid()}"
    unfinished.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    os.replace(unfinished, directory / "results.json")
    return directory


def results(args: argparse.Namespace, weightlora: "Run", lora: "Run | None") -> dict[str, Any]:
    """Every figure of the table as plain values. Seconds are medians over steps; ratios are to the selection phase."""
    import peft
    import torch
    import transformers

    assert weightlora.selector is not None and weightlora.selecting is not None
    base = weightlora.selecting.median_step_seconds
    names = ("keep", "steps", "rank", "learning_rate", "seed", "selection")
    columns = {
        "selecting": _column(weightlora.selecting, base),
        "after": _column(weightlora.trained, base, weightlora),
    }
    if lora is not None:
        columns["lora"] = _column(lora.trained, base, lora)
    return {
        "format": RESULTS_FORMAT,
        "model": "all-MiniLM-L6-v2",
        "task": "rotten_tomatoes",
        "test_sentences": weightlora.test_sentences,
        "busy": weightlora.busy or (lora is not None and lora.busy),
        "settings": {name: getattr(args, name) for name in names}
        | {"select_steps": weightlora.selector.config.select_steps},
        "columns": columns,
        "kept": weightlora.selector.kept,
        "environment": {
            "weightlora": __version__,
            "torch": torch.__version__,
            "peft": peft.__version__,
            "transformers": transformers.__version__,
            "python": platform.python_version(),
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
            "threads": torch.get_num_threads(),
        },
    }


def _column(cost: "Cost", base: float, run: "Run | None" = None) -> dict[str, Any]:
    return {
        "adapters": cost.adapters,
        "adapter_parameters": cost.adapter_parameters,
        "trainable_parameters": cost.trainable_parameters,
        "optimizer_state_bytes": cost.optimizer_state_bytes,
        "saved_activation_bytes": cost.saved_activation_bytes,
        "step_seconds": cost.median_step_seconds,
        "step_time_ratio": cost.median_step_seconds / base,
        "test_accuracy": None if run is None else run.accuracy,
        "test_loss": None if run is None else run.loss,
    }
