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
WIDTH = 140


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
    from ..speed.variants import LABELS, NEEDED

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
            wanted = tuple(LABELS) if subject.rivals and not args.json else NEEDED
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
    """Two tables for each model, times and sizes, and what the figures come to."""
    from rich.console import Console

    console = Console(highlight=False)
    console.width = max(console.width, WIDTH)
    for name, figures in models.items():
        rows, tokens = figures["batch"]
        title = f"{name}: {figures['keep']} of {figures['adapters']} adapters are kept, {rows} x {tokens} tokens"
        console.print(title, style="bold")
        variants = figures["variants"]
        for table in _times(variants), _sizes(variants), _waits(variants), _summary(figures["summary"]):
            if table.row_count:
                console.print(table, "")


def _times(variants: Mapping[str, Any]) -> Any:
    from ..speed.variants import PARTS

    table = _table("", "step / LoRA", "quartiles", *(f"{part}, ms" for part in PARTS))
    for key, row in variants.items():
        low, high = row["over_lora_quartiles"]
        parts = (f"{row['parts'][part] * 1000:.1f}" for part in PARTS)
        table.add_row(_label(key), f"{row['over_lora']:.2f}", f"{low:.2f}-{high:.2f}", *parts)
    return table


def _sizes(variants: Mapping[str, Any]) -> Any:
    from rich import filesize

    table = _table("", "activations", "optimizer state", "peak of a step", "file", "load")
    for key, row in variants.items():
        sizes = ("saved_activation_bytes", "optimizer_state_bytes", "peak_bytes", "file_bytes")
        cells = ("" if row[size] is None else filesize.decimal(row[size]) for size in sizes)
        table.add_row(_label(key), *cells, "" if row["load_seconds"] is None else f"{row['load_seconds']:.2f} s")
    return table


def _waits(variants: Mapping[str, Any]) -> Any:
    """How often, and where, the host waits for the device in a step; without rows where there is no GPU."""
    from ..speed.waits import WAITED

    table = _table("the host waits in", *WAITED)
    for key, row in variants.items():
        if waits := row["host_waits"]:
            table.add_row(_label(key), *(" ".join([str(len(waits[part])), *waits[part]]) for part in WAITED))
    return table


def _summary(summary: Mapping[str, float]) -> Any:
    table = _table("", "")
    for what, value in summary.items():
        table.add_row(what, f"{value:.3f}")
    return table


def _label(key: str) -> str:
    from ..speed.variants import LABELS

    return LABELS[key]


def _table(*titles: str) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold", show_header=any(titles))
    for number, title in enumerate(titles):
        table.add_column(title, justify="right" if number else "left", no_wrap=True)
    return table
