"""The process of one run of a comparison: `python -m weightlora.compare.worker`, with the run as JSON on stdin.

At one seed every method sees the same order of the data and starts from the same head.
"""

import json
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median
from typing import Any

from transformers import TrainerCallback

from ..errors import DataError, WeightLoraError
from ..train.result import Result, write_result
from .runner import Process, python_module, tell_progress, terminable
from .runs import Run, fingerprint

EVERY = 0.5
"""Seconds between two reports of progress."""


def process_of(run: Run) -> Process:
    """The process that executes a run."""
    content = json.dumps({**asdict(run), "output": str(run.output)})
    return Process(run.name, python_module("weightlora.compare.worker"), given=content)


def execute_run(run: Run) -> Result:
    """Train and evaluate, and write the result file.

    Raises:
        WeightLoraError: If a setting does not fit, a data file has changed, or the loss diverged.
    """
    from ..train import fit, parse, prepare
    from ..train.arguments import as_arguments
    from .rows import make_for

    _check_data(run)
    with tempfile.TemporaryDirectory(prefix="weightlora-compare-") as nowhere:
        ours = {"seed": run.seed, "data_seed": run.seed, "output_dir": nowhere}
        ours |= {"disable_tqdm": True, "save_strategy": "no"}
        recipe = parse(as_arguments({**run.settings, **ours}))
        job = prepare(recipe, make=make_for(run.split, run.with_validation))
        progress = _Progress()
        result = fit(job, callbacks=(progress,), write=False)
    result = replace(result, settings=run.record(), evidence=progress.step_seconds(job.plan.select_steps == 0))
    write_result(run.output, result)
    return result


def _check_data(run: Run) -> None:
    """A file may change while earlier runs train."""
    from .spec import data_files

    paths = data_files(run.settings) if run.data else {}
    if new := sorted(paths.keys() - run.data.keys()):
        raise DataError(
            f"{paths[new[0]]} is new since the comparison began: take it out, or compare in another --output_dir."
        )
    for name, content in run.data.items():
        if name not in paths or fingerprint(paths[name]) != content:
            raise DataError(
                f"{paths.get(name, name)} has changed since the comparison began: put the earlier file back, or "
                "compare in another --output_dir."
            )


class _Progress(TrainerCallback):
    """Reports the steps, and measures them: those before and those after adapters were removed."""

    def __init__(self) -> None:
        self._seconds: list[tuple[int, float]] = []
        self._trained, self._began, self._told = 0, 0.0, 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._trained = sum(parameter.requires_grad for parameter in kwargs["model"].parameters())
        self._began = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        now = time.perf_counter()
        self._seconds.append((self._trained, now - self._began))
        if now - self._told >= EVERY or state.global_step == state.max_steps:
            self._told = now
            tell_progress(state.global_step, state.max_steps)

    def step_seconds(self, chosen_before: bool = False) -> dict[str, Any]:
        """Median seconds of a step at the start and at the end, without the first step, which is slower.

        Args:
            chosen_before: The choice precedes the first step, so no step had all adapters: there is no time before.
        """

        def median_like(step: tuple[int, float]) -> float | None:
            like = [seconds for trained, seconds in self._seconds[1:] if trained == step[0]]
            return median(like) if like else None

        before = None if chosen_before else median_like(self._seconds[0])
        return {"step_seconds_before": before, "step_seconds_after": median_like(self._seconds[-1])}


def main() -> int:
    """Execute the run on stdin; returns the exit code."""
    from datasets import disable_progress_bars
    from transformers import logging

    disable_progress_bars()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    content = json.load(sys.stdin)
    try:
        with terminable():  # so that the directory of the run is removed
            execute_run(Run(**{**content, "output": Path(content["output"])}))
    except WeightLoraError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
