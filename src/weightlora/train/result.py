"""The outcome of a run: one typed record, written and read here and nowhere else."""

import json
import os
import types
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from ..errors import DataError
from ..files import write_text
from ..run import RESULT

FORMAT = 2
HELD_OUT_LOSS = "held_out_loss"
UNITS = ("fraction", "percent", "none")
LARGEST = 1e100
"""Numbers beyond it are damage, and their squares would be infinite."""
PARTS: dict[str, dict[str, Any]] = {
    "plan": {"rows": dict[str, int], "learning_rate": float},
    "evidence": {"step_seconds_before": float | None, "step_seconds_after": float | None},
}
"""What tables read of the fields that may hold anything."""
HARDLY = 0.95
"""The share of a guess's loss from which a run has hardly learned. In our benchmarks with two classes of equal size,
runs below an accuracy of 0.6 have at least 0.99 of it, and runs above 0.65 at most 0.93."""
OVERFITS = 0.8
"""The share of a guess's loss below which the training loss shows that a run learned: it overfits if its held-out loss
is that of a guess. In our benchmarks, runs below an accuracy of 0.6 train at 0.98 of it or more. A run that overfits,
with an accuracy of 0.82 and 0.93 of a guess's held-out loss, trains at 0.54."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a run was and what came of it.

    Attributes:
        task: Name of the task.
        method: Key of the method registry.
        label: Name of the row in a table. It is the method, unless a comparison has several rows of one method.
        seed: Seed of the run.
        settings: Everything that defines the run, as plain values.
        metric: Name of the metric that is compared.
        metric_units: Metric -> `"fraction"` (1 is perfect), `"percent"` (100 is perfect) or `"none"`.
        metrics: Split -> metric -> value. Each split has `held_out_loss`, the loss of the task without any penalty
            that a method adds. The first split is the one that is compared.
        train_loss: Mean training loss; of a run that was resumed, since then.
        steps: Optimizer steps.
        names: Modules that had a LoRA adapter at the start, in the order of the model. None for other methods.
        sizes: Number of parameters of each of these adapters.
        kept: Modules that have a LoRA adapter at the end.
        adapters_before, adapters_after: Number of adapted modules.
        adapter_parameters_before, adapter_parameters_after: Trainable parameters without the task head.
        trainable_parameters_before, trainable_parameters_after: All trainable parameters.
        optimizer_state_bytes_before, optimizer_state_bytes_after: Size of the optimizer state after the first step and
            at the end.
        peak_process_bytes: Largest resident memory of the process.
        peak_gpu_bytes: Largest memory that torch allocated on the GPU. None without a GPU.
        wall_seconds: Time of loading, training and evaluation.
        versions: Package -> version.
        machine: Description of the hardware.
        commit: Commit of the code, if git tracks it.
        plan: What was planned before the model loaded (`weightlora.train.plan.Plan`).
        evidence: What a study recorded while training.
        classes: Names of the classes of the head, class 0 first. An adapter has no config that names them.
        guess_losses: Split -> the loss of the best guess that reads no text. None where no labels give one.
        format: Version of this layout.
    """

    task: str
    method: str
    label: str
    seed: int
    settings: dict[str, Any]
    metric: str
    metric_units: dict[str, str]
    metrics: dict[str, dict[str, float]]
    train_loss: float | None
    steps: int
    names: list[str] | None
    sizes: list[int] | None
    kept: list[str] | None
    adapters_before: int
    adapters_after: int
    adapter_parameters_before: int
    adapter_parameters_after: int
    trainable_parameters_before: int | None
    trainable_parameters_after: int | None
    optimizer_state_bytes_before: int | None
    optimizer_state_bytes_after: int | None
    peak_process_bytes: int | None
    peak_gpu_bytes: int | None
    wall_seconds: float
    versions: dict[str, str]
    machine: dict[str, Any]
    commit: str | None
    plan: dict[str, Any] | None
    evidence: dict[str, Any] | None = None
    classes: list[str] | None = None
    guess_losses: dict[str, float] | None = None
    format: int = FORMAT

    @property
    def split(self) -> str:
        """Name of the split that is compared."""
        return next(iter(self.metrics))

    @property
    def held_out_loss(self) -> float:
        """Loss on the split that is compared."""
        return self.metrics[self.split][HELD_OUT_LOSS]

    @property
    def value(self) -> float:
        """Main metric on the split that is compared."""
        return self.metrics[self.split][self.metric]

    @property
    def guess_loss(self) -> float | None:
        """Loss of the best guess that reads no text, on the split that is compared. None where none is known."""
        return (self.guess_losses or {}).get(self.split)

    @property
    def hardly_learned(self) -> bool:
        """Whether the held-out loss is at least 95 % of that guess's, and the run does not merely overfit."""
        guess = self.guess_loss or 0.0  # 0 where all rows are of one class, too
        overfits = self.train_loss is not None and self.train_loss < OVERFITS * guess
        return guess > 0 and self.held_out_loss >= HARDLY * guess and not overfits


HINTS = get_type_hints(Result)


def write_result(path: str | os.PathLike[str], result: Result) -> Path:
    """Write a result whole or not at all, one field per line.

    Raises:
        ValueError: A value is NaN or infinite.
    """
    lines = [f"{json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in asdict(result).items()]
    return write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")


def read_result(path: str | os.PathLike[str]) -> Result:
    """Read a result that `write_result` wrote.

    Args:
        path: The file, or the run directory that contains it.

    Raises:
        DataError: The file is missing, is not JSON, or a field is missing, unknown or of the wrong type.
    """
    file = Path(path) / RESULT if Path(path).is_dir() else Path(path)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror}): give the result of a finished run.") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} is not JSON ({error}): delete it and repeat the run.") from error
    return parse_result(content, file)


def parse_result(content: Any, place: str | os.PathLike[str]) -> Result:
    """Check the content of a result file.

    Args:
        content: What JSON gave.
        place: Named in errors.

    Raises:
        DataError: A field is missing, unknown or of the wrong type, or the format is not the current one.
    """
    if not isinstance(content, Mapping):
        raise DataError(f"{place} is not a JSON object, as a result is: repeat the run.")
    if content.get("format") != FORMAT:
        raise DataError(
            f"{place} has format {content.get('format')!r}, and this version reads format {FORMAT}: repeat the run."
        )
    known = {field.name for field in fields(Result)}
    if unknown := sorted(content.keys() - known):
        raise DataError(f"{place} has the field {unknown[0]!r}, which a result does not have: delete it.")
    if missing := sorted(known - {"evidence", "classes", "guess_losses"} - content.keys()):
        raise DataError(f"{place} has no field {missing[0]!r}: repeat the run.")
    for name, value in content.items():
        if not fits(value, HINTS[name]):
            raise DataError(f"{place} has {name}={value!r}, which must be {_describe(HINTS[name])}: repeat the run.")
    for name, kinds in PARTS.items():
        held = content.get(name) or {}
        for part in kinds.keys() & held.keys():
            if not fits(held[part], kinds[part]):
                raise DataError(
                    f"{place} has {part}={held[part]!r} in its {name}, which must be {_describe(kinds[part])}: repeat "
                    "the run."
                )
    result = Result(**content)
    _check_metrics(result, place)
    return result


def _check_metrics(result: Result, place: str | os.PathLike[str]) -> None:
    for split, values in result.metrics.items():
        if HELD_OUT_LOSS not in values:
            raise DataError(f"{place} has no {HELD_OUT_LOSS} for the split {split!r}: repeat the run.")
    if not result.metrics or result.metric not in result.metrics[result.split]:
        raise DataError(f"{place} has no value for its main metric {result.metric!r}: repeat the run.")
    for name, unit in result.metric_units.items():
        if unit not in UNITS:
            raise DataError(f"{place} has the unit {unit!r} for {name}: use one of {', '.join(UNITS)}.")


def fits(value: Any, kind: Any) -> bool:
    """Whether a value of JSON is of a type, such as `dict[str, list[int]]`. `true` and NaN are no numbers."""
    if kind is Any:
        return True
    if get_origin(kind) in (types.UnionType, Union):
        return any(fits(value, one) for one in get_args(kind))
    if get_origin(kind) is list:
        return isinstance(value, list) and all(fits(item, get_args(kind)[0]) for item in value)
    if get_origin(kind) is dict:
        return isinstance(value, dict) and all(fits(item, get_args(kind)[1]) for item in value.values())
    if isinstance(value, int | float) and (isinstance(value, bool) or not abs(value) <= LARGEST):
        return False
    return isinstance(value, int | float) if kind is float else isinstance(value, kind)


def _describe(kind: Any) -> str:
    text = kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind)
    return f"{text} (numbers up to {LARGEST:g})" if "float" in text or "int" in text else text
