"""`weightlora study`: memory against adapters and their rank, and the alignment of adapters with the gradient."""

import argparse
import contextlib
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from weightlora.cli.quickstart import _number, check_writable

from ..cli import OWN, _names, _positive

OUTPUT = Path("runs/study")
ORDERS = ("top", "bottom")


def add_parser(subparsers: Any) -> None:
    """Add the command to the `weightlora` parser."""
    parser = subparsers.add_parser("study", help="memory of adapters, or their alignment with the gradient")
    commands = parser.add_subparsers(dest="study_command", required=True, metavar="STUDY")
    defaults: Any = {"formatter_class": argparse.ArgumentDefaultsHelpFormatter}
    memory = commands.add_parser("memory", help="peak of a training step, by number of adapters and rank", **defaults)
    memory.add_argument("--counts", type=_counts, help="numbers of adapters; 0,1,n/8,n/4,n/2,n if not given")
    memory.add_argument("--ranks", type=_integers(1), default="2,8,32,128", help="LoRA ranks")
    memory.add_argument("--orders", type=_orders, default="top,bottom", help="which adapters a number of them means")
    _add_shared(memory, "memory", run_memory)
    alignment = commands.add_parser("alignment", help="trace(G^T B A) of every adapter, and what was kept", **defaults)
    alignment.add_argument("--rank", type=_positive, default=8, help="LoRA rank")
    alignment.add_argument("--select-steps", type=_positive, default=60, help="training steps before it is measured")
    alignment.add_argument("--learning-rate", type=float, default=1e-3, help="of AdamW, constant")
    alignment.add_argument("--keep", type=_number, default=0.25, help="adapters to keep: a number or a fraction")
    alignment.add_argument("--run", dest="run_dir", type=Path, help="take what was kept from this earlier run instead")
    alignment.add_argument("--batches", type=_positive, default=64, help="batches to measure on")
    _add_shared(alignment, "alignment", run_alignment)


def _add_shared(parser: argparse.ArgumentParser, study: str, run: Callable[[argparse.Namespace], int]) -> None:
    parser.set_defaults(run=run, study=study)
    parser.add_argument("--task", default="rotten-tomatoes", help="model and data of the benchmark")
    parser.add_argument("--model", help="your own, with --data: directory or hub id of a model for classification")
    parser.add_argument("--data", type=Path, help="your own, with --model: JSON Lines with a text and a label a line")
    for name in ("text-column", "label-column"):
        parser.add_argument(f"--{name}", default=OWN[name][1], help=OWN[name][2])
    parser.add_argument("--batch-size", type=_positive, default=16, help="texts a step")
    parser.add_argument("--max-length", type=_positive, default=64, help="tokens a text, all padded to it")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to train")
    parser.add_argument("--seed", type=int, default=0, help="of adapters, dropout and the order of the data")
    parser.add_argument("--output-dir", type=Path, default=OUTPUT / study, help="where to write")
    parser.add_argument("--overwrite", action="store_true", help="replace the files of an earlier study there")


def run_memory(args: argparse.Namespace) -> int:
    """Run `weightlora study memory`; returns 0.

    Raises:
        ValueError: An argument breaks a rule, or a file is in the way. Nothing was written then.
    """
    _check(args)
    from weightlora.cli.training import quiet_libraries

    from ..figures.studies import draw_memory
    from .memory import adapter_names, measure_case, plan_cases, render_memory_markdown

    device, workload, study = _load(args, rows=args.batch_size)
    if len(workload.train) < args.batch_size:
        raise ValueError(f"--batch-size {args.batch_size} is more than the {len(workload.train)} rows for training.")
    with quiet_libraries():
        cases = plan_cases(adapter_names(workload), args.counts, args.ranks, args.orders)
    batch = workload.collate(workload.train[: args.batch_size])
    measured = []
    with _bar(len(cases)) as advance:
        for case in cases:
            measured.append(measure_case(workload, case, batch, device, args.seed))
            advance()
    study["settings"] |= {"ranks": args.ranks, "orders": args.orders}
    return _finish(args, study | {"cases": measured}, render_memory_markdown, draw_memory)


def run_alignment(args: argparse.Namespace) -> int:
    """Run `weightlora study alignment`; returns 0.

    Raises:
        ValueError: As `run_memory`, or the earlier run is of another model.
    """
    _check(args)
    for name in ("select_steps", "batches"):
        if getattr(args, name) < 2:
            raise ValueError(f"--{name.replace('_', '-')} {getattr(args, name)} is too small: give at least 2.")
    if not (math.isfinite(args.learning_rate) and args.learning_rate > 0):
        raise ValueError(f"--learning-rate {args.learning_rate} is no step size: give a positive number.")
    from weightlora import WeightLoraConfig
    from weightlora.report.picture import SCORE_LABELS, read_selection

    from ..figures.studies import draw_alignment
    from .alignment import AlignmentSettings, render_alignment_markdown, study_alignment

    WeightLoraConfig(keep=args.keep)
    choice = None if args.run_dir is None else read_selection(args.run_dir / "selection.json")
    rule = "credit" if choice is None else choice.get("config", {}).get("selection")
    chosen_by = SCORE_LABELS.get(rule, "score") + ("" if choice is None else " in an earlier run")
    device, workload, study = _load(args, rows=(args.select_steps + args.batches) * args.batch_size)
    names = ("rank", "learning_rate", "select_steps", "keep", "batches", "batch_size", "seed")
    settings = {name: getattr(args, name) for name in names}
    with _bar(args.select_steps + args.batches) as advance:
        found = study_alignment(workload, AlignmentSettings(**settings), device, choice, advance)
    study["settings"] |= settings
    return _finish(args, study | {"chosen_by": chosen_by} | found, render_alignment_markdown, draw_alignment)


def _check(args: argparse.Namespace) -> None:
    """What can be known before anything is loaded."""
    if (args.model is None) != (args.data is None):
        there, lacking = ("data", "model") if args.model is None else ("model", "data")
        raise ValueError(f"--{there} {getattr(args, there)} needs --{lacking}: give both, or a --task.")
    if not 0 <= args.seed < 2**32:
        raise ValueError(f"--seed {args.seed} is no seed: give a whole number from 0 to 2**32 - 1.")
    if args.output_dir.exists() and not args.output_dir.is_dir():
        raise ValueError(f"{args.output_dir} is a file: give a directory.")
    if (taken := [path for path in _files(args) if path.exists()]) and not args.overwrite:
        raise ValueError(f"{taken[0]} is there already: give another --output-dir, or --overwrite.")
    check_writable(args.output_dir)


def _files(args: argparse.Namespace) -> list[Path]:
    return [args.output_dir / f"{args.study}.{kind}" for kind in ("json", "md", "png")]


def _load(args: argparse.Namespace, rows: int) -> tuple[Any, Any, dict[str, Any]]:
    """Device, workload, and the part of a study's JSON that is known before it begins."""
    import torch

    from weightlora.cli.training import quiet_libraries
    from weightlora.tasks.catalogue import load_workload

    from ..experiment import environment

    if args.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: torch sees no CUDA device here; give --device cpu.")
    cuda = args.device == "cuda" or (args.device == "auto" and torch.cuda.is_available())
    experiment = {"max_length": args.max_length, "train_examples": rows, "validation_examples": 1, "test_examples": 1}
    if args.data is None:
        experiment["task"] = source = args.task
    else:
        experiment |= {name: getattr(args, name) for name in ("model", "data", "text_column", "label_column")}
        source = f"{Path(args.model).name}, {args.data.stem}"
    with quiet_libraries():
        workload = load_workload(experiment)
    millions = sum(parameter.numel() for parameter in workload.model.parameters()) / 1e6
    study = {
        "format": 1,
        "study": args.study,
        "model": f"{source}: {type(workload.model).__name__} of {millions:.3g} M parameters",
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "settings": {name: getattr(args, name) for name in ("batch_size", "max_length", "seed")},
        **environment(),
    }
    return torch.device("cuda" if cuda else "cpu"), workload, study


@contextlib.contextmanager
def _bar(total: int) -> Iterator[Callable[[], None]]:
    """One bar in a terminal, nothing elsewhere; the function moves it on by one."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

    from weightlora.cli.training import quiet_libraries

    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), "left", TimeRemainingColumn())
    with quiet_libraries(), Progress(*columns, disable=not sys.stdout.isatty(), transient=True) as progress:
        bar = progress.add_task("", total=total)
        yield lambda: progress.advance(bar)


def _finish(
    args: argparse.Namespace,
    study: Mapping[str, Any],
    render: Callable[[Mapping[str, Any]], str],
    draw: Callable[[Mapping[str, Any], Path], Path],
) -> int:
    """Write the three files and print the Markdown."""
    from weightlora.report.figures import write_whole

    from ..experiment import write_result

    result, page, picture = _files(args)
    write_result(result, dict(study))
    text = render(study)
    write_whole(page, partial(Path.write_text, data=text, encoding="utf-8"))
    draw(study, picture)
    print(text)
    print(f"In {args.output_dir}: {', '.join(path.name for path in _files(args))}")
    return 0


def _integers(least: int) -> Callable[[str], list[int]]:
    def parse(text: str) -> list[int]:
        values = sorted({int(part) for part in _names(text)})
        if not values or values[0] < least:
            raise argparse.ArgumentTypeError(f"{text!r} is no list of whole numbers of at least {least}")
        return values

    parse.__name__ = "list of whole numbers"  # what argparse calls it
    return parse


_counts = _integers(0)


def _orders(text: str) -> list[str]:
    orders = list(dict.fromkeys(_names(text)))
    if not orders or set(orders) - set(ORDERS):
        raise argparse.ArgumentTypeError(f"{text!r} is no list of {' and '.join(ORDERS)}")
    return orders
