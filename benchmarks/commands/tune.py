"""`python -m benchmarks tune`: choose the learning rate of each method on the validation split."""

import argparse

from .options import ROOT, add_experiments, add_option, add_running, positive, rates


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the command to the parser."""
    parser = subparsers.add_parser("tune", help="choose the learning rate of each method on the validation split")
    add_experiments(parser)
    add_running(parser)
    add_option(parser, "grid", type=rates, default=[5e-4, 1e-3, 2e-3], help="learning rates (default: 5e-4,1e-3,2e-3)")
    add_option(parser, "seeds", type=positive, default=1, help="runs per rate, of which the mean counts (default: 1)")
    parser.set_defaults(run=tune)


def tune(args: argparse.Namespace) -> int:
    """Run the command; returns 1 if a run failed, else 0."""
    from weightlora.compare.runner import usable_cores

    from ..experiments import labels_in, tasks_in
    from ..tuning import plan_tuning, settle_tuning
    from .progress import execute_with_progress

    root, status = args.root or ROOT, 0
    for task in args.tasks or tasks_in(root):
        labels = args.methods or labels_in(root, task)
        runs = plan_tuning(root, task, labels, args.grid, args.seeds)
        status = execute_with_progress(runs, args.jobs or usable_cores()) or status
        whole = [label for label in labels if all(r.is_done() for r in runs if r.experiment["label"] == label)]
        for label, rate in settle_tuning(root, task, whole).items():
            print(f"{task}/{label}: learning rate {rate:g}")
        for label in (label for label in labels if label not in whole):
            print(f"{task}/{label}: runs failed, so its learning rate stays as it is")
    return status
