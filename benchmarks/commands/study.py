"""What the two side studies share: options, checks, loading, and the three files that they write."""

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from weightlora.errors import ConfigError
from weightlora.files import check_writable, write_text

from .options import add_option, positive

OUTPUT = Path("runs/study")


def add_study(parser: argparse.ArgumentParser, study: str, run: Callable[[argparse.Namespace], int]) -> None:
    """Add the options that both studies have, and the function that runs the study."""
    parser.set_defaults(run=run, study=study)
    add_option(parser, "task", default="rotten-tomatoes", help="model and data of the benchmark")
    add_option(parser, "model", help="your own, with --data: directory or hub id of a model for classification")
    add_option(parser, "data", type=Path, help="your own, with --model: JSON Lines, one text and label per line")
    add_option(parser, "text_column", default="text", help="key of the text in --data")
    add_option(parser, "label_column", default="label", help="key of the label in --data")
    add_option(parser, "batch_size", type=positive, default=16, help="texts per step")
    add_option(parser, "max_length", type=positive, default=64, help="tokens per text; all texts are padded to it")
    add_option(parser, "device", choices=("auto", "cpu", "cuda"), default="auto", help="where to train")
    add_option(parser, "seed", type=int, default=0, help="seed of adapters, dropout and data order")
    add_option(parser, "output_dir", type=Path, default=OUTPUT / study, help="where to write")
    parser.add_argument("--overwrite", action="store_true", help="replace the files of an earlier study there")


def check_arguments(args: argparse.Namespace) -> None:
    """Check what can be known before anything is loaded.

    Raises:
        ConfigError: An argument breaks a rule, or a file is in the way.
    """
    if (args.model is None) != (args.data is None):
        there, lacking = ("data", "model") if args.model is None else ("model", "data")
        raise ConfigError(f"--{there} {getattr(args, there)} needs --{lacking}: give both, or a --task.")
    if not 0 <= args.seed < 2**32:
        raise ConfigError(f"--seed {args.seed} is out of range: give a whole number from 0 to 2**32 - 1.")
    if args.output_dir.exists() and not args.output_dir.is_dir():
        raise ConfigError(f"{args.output_dir} is a file: give a directory.")
    if (taken := [path for path in files_of(args) if path.exists()]) and not args.overwrite:
        raise ConfigError(f"{taken[0]} exists already: give another --output_dir, or --overwrite.")
    check_writable(args.output_dir)


def files_of(args: argparse.Namespace) -> list[Path]:
    """The files that the study writes: JSON, Markdown, picture."""
    return [args.output_dir / f"{args.study}.{kind}" for kind in ("json", "md", "png")]


def load(args: argparse.Namespace, rows: int) -> tuple[Any, Any, dict[str, Any]]:
    """Device, subject, and the part of a study's JSON that is known before it begins."""
    import torch
    from transformers import set_seed

    from weightlora.cli.quiet import quiet_libraries
    from weightlora.train.environment import commit, machine, versions

    from ..studies.subject import load_subject

    if args.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda is not possible: torch sees no CUDA device. Give --device cpu.")
    cuda = args.device == "cuda" or (args.device == "auto" and torch.cuda.is_available())
    device = torch.device("cuda" if cuda else "cpu")
    source = args.task if args.data is None else f"{Path(args.model).name}, {args.data.stem}"
    with quiet_libraries():
        job = _job(args, rows)
        set_seed(args.seed)
        subject = load_subject(job)
    millions = sum(parameter.numel() for parameter in subject.model.parameters()) / 1e6
    study = {
        "format": 1,
        "study": args.study,
        "model": f"{source}: {type(subject.model).__name__} of {millions:.3g} M parameters",
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "settings": {name: getattr(args, name) for name in ("batch_size", "max_length", "seed")},
        "versions": versions(),
        "commit": commit(),
        "machine": machine(device),
    }
    return device, subject, study


def _job(args: argparse.Namespace, rows: int) -> Any:
    """A run of LoRA on the task, or on the user's own model and data."""
    import datasets

    from weightlora.train import parse, prepare
    from weightlora.train.methods import METHODS

    from ..experiments import DEFAULTS
    from ..workloads import job_for

    if args.data is None:
        own = {"task": args.task, "method": "lora", "label": "lora", "max_length": args.max_length}
        examples = {"train_examples": rows, "validation_examples": 1, "test_examples": 1}
        return job_for({**DEFAULTS, **own, **examples, "batch_size": args.batch_size}, args.seed, METHODS, str(OUTPUT))
    datasets.disable_progress_bars()
    options = {
        "task": "text-classification",
        "model": args.model,
        "train_file": args.data,
        "validation_file": args.data,
        "columns": json.dumps({"text": args.text_column, "label": args.label_column}),
        "train_examples": rows,
        "eval_examples": 1,
        "max_length": args.max_length,
        "pad_to_max_length": True,
        "method": "lora",
        "output_dir": OUTPUT,
        "use_cpu": True,
    }
    return prepare(parse([part for name, value in options.items() for part in (f"--{name}", str(value))]))


def finish(
    args: argparse.Namespace,
    study: Mapping[str, Any],
    render: Callable[[Mapping[str, Any]], str],
    draw: Callable[[Mapping[str, Any], Path], Path],
) -> int:
    """Write the three files and print the Markdown."""
    result, page, picture = files_of(args)
    lines = [f"{json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in study.items()]
    write_text(result, "{\n" + ",\n".join(lines) + "\n}\n")
    write_text(page, text := render(study))
    draw(study, picture)
    print(text)
    print(f"In {args.output_dir}: {', '.join(path.name for path in files_of(args))}")
    return 0
