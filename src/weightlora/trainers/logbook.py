"""Keeps what a Trainer logs in the run directory, with the time of a step and the memory of the GPU."""

import os
import time
from collections.abc import Mapping
from typing import Any

import torch

from ..run import RunDirectory
from ..values import is_finite

LEFT_OUT = {"total_flos", "step"}


class Logbook:
    """Appends each log entry of a Trainer to `log.jsonl`.

    A line has `step`, every finite number of the entry (`loss`, `learning_rate`, `epoch`, `eval_loss`, ...), and:

    - `seconds_per_step`: the mean wall time of the steps since the last entry, evaluation, checkpoint or decision.
    - `gpu_bytes`: what torch has allocated on the GPU, if there is one.

    Args:
        directory: The run directory; None keeps no log, as on every process but the first.
        step: Steps that were made before. 0 starts a new log; lines of later steps are dropped.
    """

    def __init__(self, directory: str | os.PathLike[str] | None, step: int) -> None:
        self._run = None if directory is None else RunDirectory(directory)
        self._began: tuple[float, int] | None = None  # time and step since when nothing but steps happened
        if self._run is not None:
            self._run.begin_log(step)

    def begin_step(self, step: int) -> None:
        """A step begins after `step` others."""
        if self._began is None:
            self._began = time.perf_counter(), step

    def interrupt(self) -> None:
        """Something else than a step took time: an evaluation, a checkpoint or a decision."""
        self._began = None

    def write(self, step: int, logs: Mapping[str, Any]) -> None:
        """Append an entry that was logged after `step` steps."""
        if self._run is None:
            return
        entry: dict[str, Any] = {"step": step}
        entry |= {name: value for name, value in logs.items() if name not in LEFT_OUT and is_finite(value)}
        # Transformers logs what an evaluation found before it tells callbacks that there was one.
        timed = not any(name.endswith("_runtime") for name in logs)
        if timed and self._began is not None and step > self._began[1]:
            entry["seconds_per_step"] = (time.perf_counter() - self._began[0]) / (step - self._began[1])
        if torch.cuda.is_available():
            entry["gpu_bytes"] = torch.cuda.memory_allocated()
        self._began = None
        if len(entry) > 1:
            self._run.log(entry)
