"""A prepared run, done: trained by a Trainer, evaluated, and written down."""

import json
import os
import platform
import resource
import time
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, prepare_model_for_kbit_training
from torch import nn
from transformers import Seq2SeqTrainer, Trainer, TrainerCallback, set_seed

from .. import WeightLora, WeightLoraCallback, WeightLoraTrainer, WeightLoraTrainerMixin
from ..measure import optimizer_state_bytes, trainable_parameters
from ..run import describe_selection
from .loading import load_model
from .methods import METHODS
from .plan import Job, setting_for

__all__ = ["RESULTS", "WeightLoraSeq2SeqTrainer", "train"]

RESULTS = "results.json"
FORMAT = 1
PACKAGES = ("weightlora", "torch", "peft", "transformers", "accelerate", "datasets")


class WeightLoraSeq2SeqTrainer(WeightLoraTrainerMixin, Seq2SeqTrainer):
    """`transformers.Seq2SeqTrainer` that selects adapters, and resumes in the middle of it."""


class _AtStart(TrainerCallback):
    """Bytes of the optimizer's state after its first step, when no adapter has gone yet."""

    def __init__(self) -> None:
        self.optimizer_bytes: int | None = None

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.optimizer_bytes is None and state.global_step == 0:
            self.optimizer_bytes = optimizer_state_bytes(kwargs["optimizer"])


def train(job: Job, callbacks: tuple[TrainerCallback, ...] = ()) -> dict[str, Any]:
    """Train, evaluate every split, and write `results.json` and the adapter to the output directory.

    A finished run is not overwritten; one that stopped goes on with `resume_from_checkpoint`.

    Returns:
        The content of `results.json`.

    Raises:
        ValueError: The directory holds a finished run, or a setting does not fit the model.
    """
    recipe, work, arguments = job.recipe, job.work, job.recipe.training
    output = Path(str(arguments.output_dir))
    if (output / RESULTS).exists():
        raise ValueError(f"{output} holds the results of a finished run: give another --output_dir, or delete it.")
    began = time.perf_counter()
    set_seed(arguments.seed)
    model = load_model(work, job.config, recipe)
    if recipe.model.load_in_4bit:
        model = prepare_model_for_kbit_training(model, arguments.gradient_checkpointing)
    elif recipe.method.method in {"grad-norm", "kappa", "eva"}:  # they run the model before the Trainer moves it
        model.to(arguments.device)
    prepared = METHODS[recipe.method.method](setting_for(recipe, work, model))
    for parameter in prepared.model.parameters():
        if parameter.requires_grad:  # PEFT sees to its adapters, not to a head that was loaded with 16 bits
            parameter.data = parameter.data.float()
    before, start = trainable_parameters(prepared.model), _AtStart()
    set_seed(arguments.seed)  # whatever the preparation drew, dropout begins alike
    trainer = _trainer(job, prepared.model, (*prepared.callbacks, start, *callbacks))
    outcome = trainer.train(_checkpoint(arguments.resume_from_checkpoint))
    selector = next((c.selector for c in prepared.callbacks if isinstance(c, WeightLoraCallback)), None)
    metrics = {split: _evaluate(trainer, job, split) for split in work.evaluation}
    after = trainable_parameters(trainer.model)
    results = {
        "format": FORMAT,
        "task": recipe.data.task,
        "method": recipe.method.method,
        "seed": arguments.seed,
        "given": recipe.given,
        "plan": asdict(job.plan),
        "metric": {"name": work.metric, "value": next(iter(metrics.values()))[work.metric]},
        "metrics": metrics,
        "train_loss": outcome.training_loss,
        "steps": outcome.global_step,
        "adapters": {"before": job.plan.adapters, "after": _adapters_left(job, selector)},
        "kept": None if selector is None else selector.kept,
        "trainable_parameters": {"before": before, "after": after},
        "optimizer_bytes": {"before": start.optimizer_bytes, "after": optimizer_state_bytes(trainer.optimizer)},
        "peak_memory_bytes": peak_memory(),
        "wall_seconds": round(time.perf_counter() - began, 2),
        "versions": {name: version(name) for name in PACKAGES},
        "machine": {
            "device": torch.cuda.get_device_name() if arguments.device.type == "cuda" else str(arguments.device),
            "threads": torch.get_num_threads(),
            "python": platform.python_version(),
        },
    }
    if trainer.is_world_process_zero():
        _write(trainer, selector, output, results)
    return results


def _adapters_left(job: Job, selector: WeightLora | None) -> int:
    if selector is not None:
        return len(selector.adapters)
    return job.plan.adapters if job.plan.keep is None else job.plan.keep


def _checkpoint(given: str | None) -> str | bool | None:
    """`true` takes the last checkpoint of the output directory."""
    return True if given is not None and given.lower() == "true" else given


def _trainer(job: Job, model: nn.Module, callbacks: tuple[TrainerCallback, ...]) -> Any:
    work, arguments = job.work, job.recipe.training
    selects = any(isinstance(callback, WeightLoraCallback) for callback in callbacks)
    kind: Callable[..., Trainer]
    if work.generates:
        arguments.predict_with_generate = True
        arguments.generation_max_length = arguments.generation_max_length or job.recipe.data.max_target_length
        kind = WeightLoraSeq2SeqTrainer if selects else Seq2SeqTrainer
    else:
        kind = WeightLoraTrainer if selects else Trainer
    arguments.label_names = list(work.label_names)
    arguments.remove_unused_columns = False  # a family gives what its model takes
    arguments.dataloader_pin_memory &= arguments.device.type != "cpu"
    first = next(iter(work.evaluation))
    return kind(
        model=model,
        args=arguments,
        train_dataset=work.train,
        eval_dataset=work.evaluation[first],
        data_collator=work.collate,
        compute_metrics=work.metrics[first],
        preprocess_logits_for_metrics=work.preprocess,
        processing_class=job.tokenizer,
        callbacks=list(callbacks),
    )


def _evaluate(trainer: Any, job: Job, split: str) -> dict[str, float]:
    trainer.compute_metrics = job.work.metrics[split]
    found = trainer.evaluate(job.work.evaluation[split], metric_key_prefix=split)
    values = {name.removeprefix(f"{split}_"): value for name, value in found.items()}
    return {name: float(values[name]) for name in ("loss", *job.work.reported) if name in values}


def peak_memory() -> int:
    """Bytes: of the GPU where there is one, else of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024


def _write(trainer: Any, selector: WeightLora | None, output: Path, results: dict[str, Any]) -> None:
    """The adapter (or with full fine-tuning, the model), the choice, and last of all the results."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    folder = str(output / ("adapter" if isinstance(model, PeftModel) else "model"))
    model.save_pretrained(folder)  # trainer.save_model() would add the arguments, pickled
    trainer.processing_class.save_pretrained(folder)
    if selector is not None:
        _write_whole(output / "selection.json", json.dumps(describe_selection(selector), indent=2))
        _write_whole(output / "history.jsonl", "\n".join(json.dumps(entry) for entry in selector.history))
    _write_whole(output / RESULTS, json.dumps(results, indent=2, allow_nan=False))


def _write_whole(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text + "\n", encoding="utf-8")
    os.replace(partial, path)
