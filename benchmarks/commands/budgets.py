"""`python -m benchmarks budgets`: whether budgets of step time and memory are kept, and how good predictions are."""

import argparse
from pathlib import Path
from typing import Any

from weightlora.errors import ConfigError
from weightlora.files import read_json, write_json

from .options import add_option, names, positive

RESULTS = Path("benchmarks/results/budgets.json")
MODELS = "MiniLM-L6,SmolLM2-135M"


def add_parser(subparsers: Any) -> None:
    """Add the command to the parser."""
    parser = subparsers.add_parser(
        "budgets",
        help="measure budgets of step time and memory: asked, predicted and measured",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add_option(parser, "models", type=names, default=MODELS, help="models, separated by commas")
    add_option(parser, "rounds", type=positive, default=9, help="timed steps of each model")
    add_option(parser, "output", type=Path, default=RESULTS, help="where to write the figures")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns 0.

    Raises:
        ConfigError: A model is unknown.
    """
    import torch
    from rich.console import Console

    from weightlora.cli.quiet import quiet_libraries
    from weightlora.train.environment import machine, versions

    from ..speed.models import MODELS as SUBJECTS
    from ..studies.budgets import measure_budgets, render_budgets_markdown

    for name in args.models:
        if name not in SUBJECTS:
            raise ConfigError(f"model {name!r} is unknown: choose one of {', '.join(SUBJECTS)}.")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    study: dict[str, Any] = {"format": 1, "study": "budgets", "models": {}}
    if args.output.is_file():  # models that are not measured now keep their figures
        study["models"] = read_json(args.output)["models"]
    for name in args.models:
        with quiet_libraries():
            figures = measure_budgets(SUBJECTS[name]().to(device), args.rounds)
        study["models"][name] = {
            **figures,
            "rounds": args.rounds,
            "versions": versions(),
            "machine": machine(device),
        }
        write_json(args.output, study)
    Console(highlight=False).print(render_budgets_markdown(study))
    return 0
