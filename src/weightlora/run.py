"""The run directory: the choice, the history as it happens, and at the end the adapter.

Every way of training writes the same layout, and reports and comparisons read it, also while the run goes on:

- `selection.json`: settings, and for each adapter what became of it. Written at the start and at each decision.
- `history.jsonl`: one line per step (`phase`, `score`, with gates `omega`) and per decision (`kept`, `ranks`).
- `log.jsonl`: from a Trainer, one line per log entry (`loss` and the other numbers; see `trainers/logbook.py`).
- `adapter/`: a plain PEFT LoRA checkpoint, from `save_run` and the commands. A Trainer saves its own.
"""

import logging
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from importlib.metadata import version
from itertools import accumulate
from pathlib import Path
from typing import Any

from peft import LoraConfig
from torch import nn

from .adapters import base_model_of, lora_config_of, unwrap_model
from .adapters.outcome import EXPORT, longer_names, misread
from .directories import replacing_directory
from .engines import flat_units, is_first, is_sharded, whole_weights
from .engines.processes import together
from .errors import DataError, ModelError, StateError
from .files import append_lines, read_lines, resolved, write_json, write_text
from .values import is_int
from .wording import shown

logger = logging.getLogger(__name__)

SELECTION, HISTORY, LOG, ADAPTER = "selection.json", "history.jsonl", "log.jsonl", "adapter"
SELECTION_FORMAT = 1
FUSED = ".gate_up_proj"
"""End of the name of a parameter that stands for the gate and up projections of several experts."""
TOKENS = "trainable_token_indices"
"""PEFT's setting of the rows of an embedding that train beside the adapters."""
RESULT = "result.json"
"""What a finished training of `weightlora train` writes."""
TRAINED = ("began_with.json", "_training", "checkpoint-*", RESULT)
"""What a training writes, and no overwriting of a choice deletes. The last is there when the training is done."""
WEIGHTS = ("*.safetensors", "*.bin", "model")
"""What else a training may have left, where nothing was exported."""
SPARED = (*TRAINED, *WEIGHTS, ADAPTER)
"""What no overwriting of a choice alone deletes."""
ALSO = {"use_dora": False, "lora_dropout": 0.0, "bias": "none", "lora_bias": False}
"""Settings of PEFT that are recorded where they are not its default, for a training that follows."""


class RunDirectory:
    """Writes the choice and the history of a selection while it runs.

    Args:
        directory: Created if it is missing. Its other files are left alone.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.path = Path(directory)
        self._before = self.path / f".{HISTORY}.before"

    def begin(self, selector: Any) -> None:
        """Start the files of a new run, or continue those of the run that the selector resumes.

        Lines of steps after the one at which the run resumes are dropped, and so is a last line that was cut short:
        the history has each step once. So are decisions that the state does not know: a training that is stopped in
        the selection phase decides at its end, after its last checkpoint. What a new run finds is set aside until its
        first line, because a state may be loaded until then.
        """
        path, resumes = self.path / HISTORY, bool(selector.step_count) or selector.phase == "train"
        if path.is_file() and path.stat().st_size:
            if not resumes:
                path.replace(self._before)
        elif resumes and self._before.is_file():
            self._before.replace(path)
        self._keep_until(path, selector.step_count, resumes, selector.rounds_over)
        self.describe(selector)

    def begin_log(self, step: int) -> None:
        """Start the log of a new run, or continue it after a step of the training; later lines are dropped."""
        self._keep_until(self.path / LOG, step, step > 0)

    def log(self, entry: dict[str, Any]) -> None:
        """Append one entry of the log; it has a `step`, and numbers that are finite."""
        append_lines(self.path / LOG, [entry])

    def _keep_until(self, path: Path, step: int, resumes: bool, decisions: float = math.inf) -> None:
        """Leave the lines up to a step, and none unless a run resumes; one that has probed resumes at step 0."""
        earlier = list(self._lines(path)) if resumes and path.is_file() else []
        made = accumulate(int("kept" in entry) for entry in earlier)
        kept = [one for one, number in zip(earlier, made, strict=True) if one["step"] <= step and number <= decisions]
        write_text(path, "")
        append_lines(path, kept)

    def _lines(self, path: Path) -> Iterator[dict[str, Any]]:
        for number, entry in enumerate(read_lines(path), start=1):
            step_of(entry, path, number)
            yield entry

    def record(self, selector: Any, entry: dict[str, Any]) -> None:
        """Append one entry of the history; after a decision, write the choice anew."""
        self._before.unlink(missing_ok=True)
        append_lines(self.path / HISTORY, [entry])
        if "kept" in entry:
            self.describe(selector)

    def describe(self, selector: Any) -> None:
        """Write `selection.json`."""
        write_json(self.path / SELECTION, describe_selection(selector))


def save_run(selector: Any, directory: str | os.PathLike[str], overwrite: bool = False) -> Path:
    """Write a finished run: `selection.json`, `history.jsonl`, and `adapter/`, a plain PEFT LoRA checkpoint.

    The directory appears whole or not at all. Of several processes, the first one writes. Under FSDP2, call this in
    all of them.

    Args:
        selector: A `WeightLora` whose choice is final.
        directory: Created; it may exist if it is empty.
        overwrite: Replace an earlier run. A training, and another directory that is not empty, are refused all the
            same.

    Returns:
        The directory.

    Raises:
        StateError: If the choice is not final.
        DataError: If the directory is not empty and `overwrite` is off.
        ModelError: If FSDP1 holds the model.

    Example:
        ```python
        weightlora.save_run(selector, "runs/second")
        ```
    """
    check_selector(selector, "save_run")
    if selector.needs_probe:
        raise StateError("no choice is made yet: call probe(batches) first.")
    if selector.phase != "train":
        raise StateError(
            f"the selection is at step {selector.step_count} of {selector.config.select_steps}: train on, or call "
            "finish() to decide now."
        )
    if flat_units(selector.model):
        raise ModelError("the model is in parts, held by FSDP (version 1): save it with trainer.save_model().")
    target = resolved(directory)
    with together("looking at the directory") if is_sharded(selector.model) else nullcontext():
        if is_first():
            check_empty(target, overwrite, spared=(*TRAINED, *WEIGHTS))
    weights = whole_weights(selector.model, selector.adapter_name)
    if not is_first():
        return target
    history = selector.history if selector.run is None else read_lines(selector.run.path / HISTORY)
    with replacing_directory(target) as staging:
        write_json(staging / SELECTION, describe_selection(selector))
        append_lines(staging / HISTORY, history)
        if selector.run is not None and (selector.run.path / LOG).is_file():
            append_lines(staging / LOG, read_lines(selector.run.path / LOG))
        model: Any = unwrap_model(selector.model)
        model.save_pretrained(str(staging / "peft"), selected_adapters=[selector.adapter_name], state_dict=weights)
        named = staging / "peft" / selector.adapter_name  # PEFT's place for an adapter that is not called "default"
        os.replace(named if named.is_dir() else staging / "peft", staging / ADAPTER)
        shutil.rmtree(staging / "peft", ignore_errors=True)
    if misread(selector.adapters):
        logger.warning(f"{target / ADAPTER}: {EXPORT}")
    return target


def check_selector(selector: Any, taker: str) -> None:
    """Raise a `StateError` for anything else than a `WeightLora`, such as a callback."""
    if not hasattr(selector, "step_count"):
        raise StateError(
            f"{taker} takes a WeightLora, and got {shown(selector)}: a callback has it as .selector once training "
            "began."
        )


def describe_selection(selector: Any) -> dict[str, Any]:
    """The content of `selection.json`: settings, and for every adapter in model order what became of it."""
    scalings = {adapter.name: adapter.scaling for adapter in selector.adapters}
    lora = lora_config_of(selector.model, selector.adapter_name)
    costs = None
    if selector.limit is not None and selector.phase == "train":
        costs = selector.limit.describe([name in scalings for name in selector.names], list(selector.scores.values()))
    return {
        "format": SELECTION_FORMAT,
        "adapter_name": selector.adapter_name,
        "model": _base_model(selector.model, lora),
        **({} if (kind := _model_type(selector.model)) is None else {"model_type": kind}),
        "lora": {
            "r": lora.r,
            "lora_alpha": lora.lora_alpha,
            "use_rslora": lora.use_rslora,
            **{name: value for name, usual in ALSO.items() if (value := getattr(lora, name)) != usual},
            **({TOKENS: lora.trainable_token_indices} if lora.trainable_token_indices else {}),
            "task_type": None if lora.task_type is None else str(getattr(lora.task_type, "value", lora.task_type)),
            "modules_to_save": list(dict.fromkeys(lora.modules_to_save or ())),  # PEFT may list its heads twice
        },
        "unambiguous": not longer_names(selector.model, [n for n in selector.names if selector.kinds[n] == "module"]),
        "config": asdict(selector.config),
        "phase": selector.phase,
        "step": selector.step_count,
        "adapters": [{**row, "scaling": scalings.get(row["name"])} for row in selector.summary()],
        "trainable_parameters": {
            "before": sum(selector.sizes.values()),
            "after": sum(adapter.size for adapter in selector.adapters),
        },
        "versions": {name: version(name) for name in ("weightlora", "peft", "torch", "transformers", "accelerate")},
        **({"fused_experts": True} if _has_fused_experts(selector.model) else {}),
        **({"fused_rank": times} if (times := _fused_rank(selector)) > 1 else {}),
        **({} if costs is None else {"costs": costs}),
    }


def _fused_rank(selector: Any) -> int:
    """How many times the rank of the other adapters those on fused experts had when the run began; 1 if they differ.

    PEFT makes `gate_up_proj` of two targets of earlier models, and doubles its rank and `lora_alpha`.
    """
    fused = {name for name, kind in selector.kinds.items() if kind == "parameter" and name.endswith(FUSED)}
    ranks: dict[str, int] = selector.start_ranks
    mine, others = ({ranks[name] for name in part} for part in (fused, ranks.keys() - fused))
    times = {one / other for one in mine for other in others}
    return int(*times) if len(times) == 1 and all(map(float.is_integer, times)) else 1


def _has_fused_experts(model: nn.Module) -> bool:
    """Whether it has parameters that stand for the gate and up projections of several experts."""
    return any(name.endswith(FUSED) for name, _ in base_model_of(model).named_parameters())


def _base_model(model: nn.Module, lora: LoraConfig) -> str | None:
    """Name or path of the model under the adapters, if it came from somewhere."""
    config = getattr(base_model_of(model), "config", None)
    return lora.base_model_name_or_path or getattr(config, "_name_or_path", None) or None


def _model_type(model: nn.Module) -> str | None:
    """The type of the model, as Transformers calls it."""
    kind = getattr(getattr(base_model_of(model), "config", None), "model_type", None)
    return kind if isinstance(kind, str) and kind else None


def step_of(entry: dict[str, Any], path: Path, number: int) -> int:
    """The step of an entry of the history or the log.

    Raises:
        DataError: If it has none.
    """
    step = entry.get("step")
    if not is_int(step):
        raise DataError(f"{path}, line {number} has no step: delete that line.")
    return step


def check_empty(
    directory: Path,
    overwrite: bool,
    record: str = SELECTION,
    what: str = "run",
    remedy: str = "pass overwrite=True",
    spared: Sequence[str] = SPARED,
) -> None:
    """Raise a `DataError` if the directory may not be written to: it is a file, or it is not empty.

    Args:
        directory: What will be written.
        overwrite: Whether an earlier one may be replaced.
        record: The file by which an earlier one is known.
        what: What an earlier one is called.
        remedy: How to replace it.
        spared: Files that are never replaced, as patterns.
    """
    if directory.exists() and not directory.is_dir():
        raise DataError(f"{directory} is a file: give a directory.")
    if not directory.is_dir() or not any(directory.iterdir()):
        return
    if not overwrite:
        raise DataError(f"{directory} is not empty: give another directory, or {remedy}.")
    if not (directory / record).is_file():
        raise DataError(f"{directory} holds no earlier {what} (no {record}), so it is not overwritten: give another.")
    if found := next((found for name in spared for found in directory.glob(name)), None):
        raise DataError(f"{directory} holds a training ({found.name}), so it is not overwritten: give another.")
