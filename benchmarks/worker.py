"""One run in a process of its own: settings and a seed in, one result file out.

At one seed, every method sees the same data order, starts from the same head and is evaluated on the same texts.
"""

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from weightlora.errors import WeightLoraError
from weightlora.train.result import Result, write_result


def run_experiment(experiment: Mapping[str, Any], seed: int) -> Result:
    """Train and evaluate one experiment. Nothing is written.

    Args:
        experiment: Resolved settings, as `experiments.resolve` returns them.
        seed: Seed of the head, the data order, dropout, and whatever the method draws.

    Raises:
        WeightLoraError: A setting does not fit the task, the model or the method.
    """
    from weightlora.train import fit

    from .methods import ALL_METHODS
    from .workloads import job_for

    with tempfile.TemporaryDirectory() as directory:  # the callback writes the history of its selection
        job = job_for(experiment, seed, ALL_METHODS, directory)
        evidence = _evidence(experiment, job)
        with _timed_probe() as seconds:
            result = fit(job, () if evidence is None else (evidence,), write=False)
    records = {} if evidence is None else {str(step): record for step, record in evidence.records.items()}
    return replace(
        result, label=experiment["label"], settings=dict(experiment), evidence={**records, **seconds} or None
    )


@contextlib.contextmanager
def _timed_probe() -> Iterator[dict[str, float]]:
    """Gives the seconds of a probe, and of the whole training with it; nothing where a run has no probe."""
    from transformers import Trainer

    from weightlora import WeightLora

    seconds: dict[str, float] = {}
    look, train = WeightLora.look, Trainer.train

    def timed_look(self: Any, *args: Any, **kwargs: Any) -> None:
        began = time.perf_counter()
        look(self, *args, **kwargs)
        seconds["selection_seconds"] = time.perf_counter() - began

    def timed_train(self: Any, *args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        output = train(self, *args, **kwargs)
        if seconds:
            seconds["train_seconds"] = time.perf_counter() - began
        return output

    WeightLora.look, Trainer.train = timed_look, timed_train  # type: ignore[method-assign]
    try:
        yield seconds
    finally:
        WeightLora.look, Trainer.train = look, train  # type: ignore[method-assign]


def _evidence(experiment: Mapping[str, Any], job: Any) -> Any:
    """What records the evidence that the experiment asks for, or None."""
    from accelerate.utils import send_to_device

    from .evidence import EvidenceCallback

    if "evidence" not in experiment:
        return None
    work, size, device = job.work, experiment["batch_size"], job.recipe.training.device

    def batch() -> dict[str, Any]:
        rows = [work.train[index] for index in range(min(size, len(work.train)))]
        return send_to_device(dict(work.collate(rows)), device)

    leave_out_at = experiment["select_steps"] if experiment.get("leave_one_out", True) else None
    return EvidenceCallback(experiment["evidence"], batch, leave_out_at)


def main() -> int:
    """Run what the command line says; returns 2 after an error that the settings caused, else 0."""
    parser = argparse.ArgumentParser(prog="benchmarks.worker", description="one run of the benchmark")
    parser.add_argument("--experiment", required=True, help="resolved settings, as JSON")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--output", type=Path, required=True, help="file of the result")
    args = parser.parse_args()
    experiment = json.loads(args.experiment)
    try:
        if "settings" in experiment:
            from .sweep import run_recipe

            result = run_recipe(experiment, args.seed, args.output)
        else:
            result = run_experiment(experiment, args.seed)
        write_result(args.output, result)
    except WeightLoraError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
