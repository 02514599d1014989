"""`python -m benchmarks memory`: the peak of a training step by number of adapters and rank."""

import argparse
from typing import Any

from weightlora.errors import ConfigError

from .options import add_option, integers, names
from .progress import progress_bar
from .study import add_study, check_arguments, finish, load

ORDERS = ("top", "bottom")


def add_parser(subparsers: Any) -> None:
    """Add the command to the parser."""
    defaults = argparse.ArgumentDefaultsHelpFormatter
    parser = subparsers.add_parser(
        "memory", help="measure the peak of a training step by number of adapters and rank", formatter_class=defaults
    )
    add_option(parser, "counts", type=integers(0), help="numbers of adapters; 0,1,n/8,n/4,n/2,n if not given")
    add_option(parser, "ranks", type=integers(1), default="2,8,32,128", help="LoRA ranks")
    add_option(parser, "orders", type=orders, default="top,bottom", help="from which end adapters are counted")
    add_study(parser, "memory", run)


def run(args: argparse.Namespace) -> int:
    """Run the command; returns 0.

    Raises:
        ConfigError: An argument breaks a rule, or a file is in the way. Nothing was written then.
    """
    check_arguments(args)
    from weightlora.cli.quiet import quiet_libraries

    from ..figures.memory import draw_memory
    from ..studies.memory import adapter_names, measure_case, plan_cases, render_memory_markdown

    device, subject, study = load(args, rows=args.batch_size)
    if len(subject.train) < args.batch_size:
        raise ConfigError(f"--batch_size {args.batch_size} is more than the {len(subject.train)} rows for training.")
    with quiet_libraries():
        cases = plan_cases(adapter_names(subject), args.counts, args.ranks, args.orders)
    batch = subject.collate(subject.train[: args.batch_size])
    measured = []
    with progress_bar(len(cases)) as advance:
        for case in cases:
            measured.append(measure_case(subject, case, batch, device, args.seed))
            advance()
    study["settings"] |= {"ranks": args.ranks, "orders": args.orders}
    return finish(args, study | {"cases": measured}, render_memory_markdown, draw_memory)


def orders(text: str) -> list[str]:
    """Names in `ORDERS`, separated by commas."""
    found = list(dict.fromkeys(names(text)))
    if not found or set(found) - set(ORDERS):
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of {' and '.join(ORDERS)}")
    return found
