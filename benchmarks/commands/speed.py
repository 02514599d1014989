"""`python -m benchmarks speed`: what a step costs with LoRA, while selecting, and after the choice."""

import argparse
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from weightlora.errors import ConfigError
from weightlora.files import write_json

from .options import add_option, names, positive
from .progress import progress_bar

RESULTS = Path("benchmarks/results/speed.json")
GPU_RESULTS = RESULTS.with_name("speed-gpu.json")
ROUNDS = 15


def add_parser(subparsers: Any) -> None:
    """Add the command to the parser."""
    parser = subparsers.add_parser("speed", help="time a step with LoRA, while selecting, and after the choice")
    add_option(
        parser,
        "gpu",
        action="store_true",
        help=f"a model of 1 B parameters, eight ways, into {GPU_RESULTS} (needs CUDA)",
    )
    add_option(parser, "models", type=names, help="only these models, separated by commas (default: all)")
    add_option(
        parser, "rounds", type=positive, default=ROUNDS, help=f"timed steps of each variant (default: {ROUNDS})"
    )
    add_option(parser, "device", default="auto", help="cpu or cuda (default: cuda where there is one)")
    add_option(
        parser, "output", type=Path, help=f"where to write the figures (default: {RESULTS}; with --json nowhere)"
    )
    add_option(parser, "json", action="store_true", help="measure what the summary needs, and print it as JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns 0.

    Raises:
        ConfigError: A model or the device is unknown. Nothing was measured then.
    """
    import torch

    from weightlora.train.environment import machine, versions

    from ..speed.measure import measure_model, summarize
    from ..speed.models import GPU_MODELS, MODELS
    from ..speed.variants import LABELS, NEEDED, SPARING

    catalogue = list(GPU_MODELS if args.gpu else MODELS)
    chosen = args.models or catalogue
    if unknown := [name for name in chosen if name not in catalogue]:
        raise ConfigError(f"--models {unknown[0]!r} is unknown: choose from {', '.join(catalogue)}.")
    if args.rounds < 2:
        raise ConfigError(f"--rounds {args.rounds} gives no quartiles: give at least 2.")
    if args.device not in ("auto", "cpu", "cuda") or (args.device == "cuda" and not torch.cuda.is_available()):
        raise ConfigError(f"--device {args.device} is not here: give cpu, or leave it out.")
    if args.gpu and args.device == "auto" and not torch.cuda.is_available():
        raise ConfigError("--gpu needs CUDA, which is not here: leave it out, or try it slowly with --device cpu.")
    cuda = torch.cuda.is_available() and args.device != "cpu"
    device = torch.device("cuda" if cuda else "cpu")
    models: dict[str, Any] = {}
    with progress_bar(len(chosen) * args.rounds) as advance, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where no whole run has chosen, the evidence is thin
        for name in chosen:
            subject = GPU_MODELS[name](device) if args.gpu else MODELS[name]().to(device)
            wanted = NEEDED if args.json else tuple(LABELS) if subject.rivals else (*NEEDED, *SPARING)
            figures = measure_model(subject, wanted, args.rounds, advance)
            models[name] = figures | {"summary": summarize(figures)}
    found = machine(device)
    if args.json:
        print(json.dumps({"device": found["device"], "models": {n: one["summary"] for n, one in models.items()}}))
    else:
        show(models)
    if args.output or not args.json:
        content = {"format": 2, "study": "speed", "models": models, "versions": versions(), "machine": found}
        write_json(args.output or (GPU_RESULTS if args.gpu else RESULTS), content)
    return 0


def show(models: Mapping[str, Any]) -> None:
    """Print a table for each model, where the host waits for a GPU, and what the figures of all come to."""
    from ..pages.costs import steps_of, summaries
    from ..speed.variants import PARTS

    for name, figures in models.items():
        rows, tokens = figures["batch"]
        print(f"{name}: {figures['keep']} of {figures['adapters']} adapters are kept, {rows} x {tokens} tokens\n")
        print(steps_of(figures, PARTS, digits=1), _waits(figures["variants"]), sep="\n\n")
    print(summaries(models))


def _waits(variants: Mapping[str, Any]) -> str:
    """How often, and where, the host waits for the device in a step; empty where there is no GPU."""
    from weightlora.compare.tables import markdown_table

    from ..speed.variants import LABELS
    from ..speed.waits import WAITED

    rows = [
        [LABELS[key], *(" ".join([str(len(waits[part])), *waits[part]]) for part in WAITED)]
        for key, row in variants.items()
        if (waits := row["host_waits"])
    ]
    return markdown_table(["the host waits in", *WAITED], rows) + "\n" if rows else ""
