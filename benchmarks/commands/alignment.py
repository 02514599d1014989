"""`python -m benchmarks alignment`: trace(G^T B A) of every adapter, and whether those kept have more of it."""

import argparse
import math
from pathlib import Path
from typing import Any

from weightlora.errors import ConfigError

from .options import add_option, number, positive
from .progress import progress_bar
from .study import add_study, check_arguments, finish, load

SETTINGS = ("rank", "learning_rate", "select_steps", "keep", "batches", "batch_size", "seed")


def add_parser(subparsers: Any) -> None:
    """Add the command to the parser."""
    defaults = argparse.ArgumentDefaultsHelpFormatter
    parser = subparsers.add_parser(
        "alignment",
        help="measure trace(G^T B A) of every adapter, and compare with what was kept",
        formatter_class=defaults,
    )
    add_option(parser, "rank", type=positive, default=8, help="LoRA rank")
    add_option(parser, "select_steps", type=positive, default=60, help="training steps before the measurement")
    add_option(parser, "learning_rate", type=float, default=1e-3, help="constant learning rate of AdamW")
    add_option(parser, "keep", type=number, default=0.25, help="adapters to keep: a number or a fraction")
    add_option(parser, "run", dest="run_dir", type=Path, help="compare with what this earlier run kept instead")
    add_option(parser, "batches", type=positive, default=64, help="batches to measure on")
    add_study(parser, "alignment", run)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns 0.

    Raises:
        ConfigError: An argument breaks a rule, a file is in the way, or the earlier run is of another model.
    """
    check_arguments(args)
    for name in ("select_steps", "batches"):
        if getattr(args, name) < 2:
            raise ConfigError(f"--{name} {getattr(args, name)} is too small: give at least 2.")
    if not (math.isfinite(args.learning_rate) and args.learning_rate > 0):
        raise ConfigError(f"--learning_rate {args.learning_rate} is not positive and finite: give such a number.")
    from weightlora import WeightLoraConfig
    from weightlora.drawing.picture import score_label
    from weightlora.selection.reading import read_values

    from ..figures.alignment import draw_alignment
    from ..studies.alignment import AlignmentSettings, render_alignment_markdown, study_alignment

    WeightLoraConfig(keep=args.keep)
    choice = None if args.run_dir is None else read_values(args.run_dir)
    rule = "credit" if choice is None else choice.get("config", {}).get("selection")
    chosen_by = score_label(rule) + ("" if choice is None else " in an earlier run")
    device, subject, study = load(args, rows=(args.select_steps + args.batches) * args.batch_size)
    settings = {name: getattr(args, name) for name in SETTINGS}
    with progress_bar(args.select_steps + args.batches) as advance:
        found = study_alignment(subject, AlignmentSettings(**settings), device, choice, advance)
    study["settings"] |= settings
    return finish(args, study | {"chosen_by": chosen_by} | found, render_alignment_markdown, draw_alignment)
