"""Train a prepared run with a Trainer, evaluate it, and write its directory."""

import json
import math
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from peft import PeftModel, prepare_model_for_kbit_training
from torch import nn
from transformers import Seq2SeqTrainer, Trainer, TrainerCallback, set_seed
from transformers.trainer_callback import PrinterCallback

from .. import PrefixCacheCallback, WeightLoraCallback, WeightLoraTrainerMixin
from ..adapters import find_adapters
from ..directories import replacing_directory
from ..errors import DataError, TrainingError
from ..files import is_of_writing
from ..measure import optimizer_state_bytes, trainable_parameters
from ..run import ADAPTER, RESULT
from ..trainers.resuming import StaysFinished
from .checks import amount_of
from .environment import commit, machine, peak_gpu_bytes, peak_process_bytes, versions
from .loading import load_model
from .methods import Prepared
from .plan import Job
from .result import HELD_OUT_LOSS, Result, write_result
from .resuming import MODEL, SETTINGS, alone_in, begin_settings, check_unfinished, checkpoint_of
from .targets import setting_for

HEAD_NAMES = {"classifier", "score", "qa_outputs", "classification_head"}
"""Top-level modules with the task head, where full fine-tuning trains the bare model."""


class _EvaluatesAll:
    """Makes a Trainer evaluate all rows in their order, however it samples those that it trains on.

    Transformers evaluates by length if it trains by length, and drops the last batch if it drops it in training.
    """

    def get_eval_dataloader(self: Any, eval_dataset: Any = None) -> Any:
        usual = {"dataloader_drop_last": False, "train_sampling_strategy": "random"}
        before = {name: getattr(self.args, name) for name in usual}
        vars(self.args).update(usual)
        try:
            return super().get_eval_dataloader(eval_dataset)  # type: ignore[misc]
        finally:
            vars(self.args).update(before)


class _AtStart(TrainerCallback):
    """Notes the size of the optimizer's state after the first step, before adapters are removed."""

    def __init__(self) -> None:
        self.optimizer_bytes: int | None = None

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.optimizer_bytes is None and state.global_step == 0:
            self.optimizer_bytes = optimizer_state_bytes(kwargs["optimizer"])


Callbacks = Sequence[TrainerCallback] | Callable[[Prepared], Sequence[TrainerCallback]]


def fit(job: Job, callbacks: Callbacks = (), write: bool = True, prints: bool = True) -> Result:
    """Train, evaluate every split, and write the run directory.

    A finished run is not overwritten. A run that stopped continues with `resume_from_checkpoint`.

    Args:
        job: From `prepare`.
        callbacks: More callbacks for the Trainer, or a function that makes them from what the method prepared. They
            run after the callbacks of the method.
        write: Write `result.json` and `adapter/` to the output directory. The callback of a selection writes
            `selection.json` and `history.jsonl` there in any case.
        prints: Let the Trainer print what it logs, where it logs and shows no bar.

    Raises:
        DataError: The output directory has the result of a finished run, or checkpoints that are not continued, or
            another process trains there.
        TrainingError: The loss diverged.
        WeightLoraError: A setting does not fit the model.
    """
    arguments: Any = job.recipe.training
    if not write:
        return _fit(job, callbacks, prints)[0]
    output, resumed, first = Path(arguments.output_dir), arguments.resume_from_checkpoint, arguments.process_index == 0
    with alone_in(output) if first else nullcontext():
        check_unfinished(output, resumed is not None)
        if first:
            begin_settings(job.recipe.given, output, resumed)
        result, trainer = _fit(job, callbacks, prints)
        if trainer.is_world_process_zero():
            _write(trainer, output, result)
    return result


def _fit(job: Job, callbacks: Callbacks, prints: bool) -> tuple[Result, Any]:
    """The result, and the trainer with the model."""
    recipe, work, arguments = job.recipe, job.work, job.recipe.training
    began = time.perf_counter()
    set_seed(arguments.seed)
    prepared = load_prepared(job)
    candidates = prepared.candidates or _adapter_sizes(prepared.model)
    adapters = _adapter_parameters(prepared.model)
    if prepared.candidates is not None:  # some were removed already
        adapters = sum(prepared.candidates.values())
    before, start = trainable_parameters(prepared.model), _AtStart()
    set_seed(arguments.seed)  # dropout starts the same, however many random numbers were used
    more = callbacks(prepared) if callable(callbacks) else callbacks
    trainer = make_trainer(job, prepared.model, (*prepared.callbacks, *_caching(job), start, *more), prints)
    outcome = trainer.train(_checkpoint(job, prepared, trainer))
    metrics = {split: _evaluate(trainer, job, split) for split in work.evaluation}
    _check_finite(metrics, arguments.learning_rate)
    kept = _adapter_sizes(prepared.model)
    result = Result(
        task=str(recipe.data.task),
        method=recipe.method.method,
        label=recipe.method.method,
        seed=arguments.seed,
        settings=recipe.given,
        metric=work.metric,
        metric_units={name: work.units.get(name, "none") for name in next(iter(metrics.values()))},
        metrics=metrics,
        train_loss=outcome.training_loss,
        steps=outcome.global_step,
        names=None if candidates is None else list(candidates),
        sizes=None if candidates is None else list(candidates.values()),
        kept=None if kept is None else list(kept),
        adapters_before=job.plan.adapters if candidates is None else len(candidates),
        adapters_after=job.plan.adapters if kept is None else len(kept),
        adapter_parameters_before=adapters,
        adapter_parameters_after=_adapter_parameters(prepared.model),
        trainable_parameters_before=before,
        trainable_parameters_after=trainable_parameters(trainer.model),
        optimizer_state_bytes_before=start.optimizer_bytes,
        optimizer_state_bytes_after=optimizer_state_bytes(trainer.optimizer),
        peak_process_bytes=peak_process_bytes(),
        peak_gpu_bytes=peak_gpu_bytes(),
        wall_seconds=round(time.perf_counter() - began, 2),
        versions=versions(),
        machine=machine(arguments.device),
        commit=commit(),
        plan=json.loads(json.dumps(asdict(job.plan))),
        classes=[*work.config["id2label"].values()] if "id2label" in work.config else None,
        guess_losses={split: work.guess_losses[split] for split in metrics} if work.guess_losses else None,
    )
    return result, trainer


def load_prepared(job: Job) -> Prepared:
    """The model with its weights, prepared by the method."""
    recipe, arguments = job.recipe, job.recipe.training
    method = job.methods[recipe.method.method]
    model, fresh = load_model(job.work, job.config, recipe)
    if recipe.model.load_in_4bit:
        model = prepare_model_for_kbit_training(model, arguments.gradient_checkpointing)
    elif method.reads_weights:  # it runs the model before the Trainer moves it
        model.to(arguments.device)
    prepared = method.prepare(setting_for(recipe, job.work, model, method, fresh))
    for parameter in prepared.model.parameters():
        if parameter.requires_grad:  # PEFT casts its adapters, but not a head that was loaded in 16 bits
            parameter.data = parameter.data.float()
    return prepared


def _caching(job: Job) -> tuple[TrainerCallback, ...]:
    """The cache of the frozen prefix, if the recipe asks for one."""
    method = job.recipe.method
    if not method.cache_prefix:
        return ()
    most = None if method.max_cache_bytes is None else amount_of(method.max_cache_bytes)
    return (PrefixCacheCallback(max_bytes=most, prefix_dropout=method.prefix_dropout),)


def _adapter_parameters(model: nn.Module) -> int:
    """Trainable parameters without the task head, which every method trains."""
    return sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and "modules_to_save" not in name and name.split(".")[0] not in HEAD_NAMES
    )


def _adapter_sizes(model: nn.Module) -> dict[str, int] | None:
    """LoRA adapter -> its parameters, in the order of the model. None if the model has no LoRA adapters."""
    try:
        return {adapter.name: adapter.size for adapter in find_adapters(model, check=False)}
    except ValueError:
        return None


def _checkpoint(job: Job, prepared: Prepared, trainer: Any) -> str | bool | None:
    """What `Trainer.train` takes: `True` means the last whole checkpoint, which a trainer with a selection finds."""
    arguments: Any = job.recipe.training
    given: str | None = arguments.resume_from_checkpoint
    if prepared.selection is not None:
        return True if given is not None and given.lower() == "true" else given
    sharded = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
    return checkpoint_of(given, Path(str(arguments.output_dir)), prepared.model, sharded)


def make_trainer(job: Job, model: nn.Module, callbacks: tuple[TrainerCallback, ...], prints: bool = True) -> Any:
    """The Trainer of a run: of the kind that its work and its callbacks need. `prints` is that of `fit`."""
    work, arguments = job.work, job.recipe.training
    collate: Any = work.collate
    kind: type[Trainer] = Trainer
    if work.forced is not None:  # it generates
        kind = Seq2SeqTrainer
        arguments.predict_with_generate = True
        arguments.generation_max_length = arguments.generation_max_length or job.recipe.data.max_target_length
        if arguments.label_smoothing_factor:  # the model gets no labels then, and would decode its own input
            collate = replace(collate, model=model)
    arguments.label_names = list(work.label_names)
    arguments.remove_unused_columns = False  # the rows have no columns that the model does not take
    arguments.dataloader_pin_memory &= arguments.device.type != "cpu"
    first = next(iter(work.evaluation))
    selects = any(isinstance(callback, WeightLoraCallback) for callback in callbacks)
    parts = (_EvaluatesAll, WeightLoraTrainerMixin, kind) if selects else (_EvaluatesAll, kind)
    trainer: Any = type(kind.__name__, parts, {})(
        model=model,
        args=arguments,
        train_dataset=work.train,
        eval_dataset=work.evaluation[first],
        data_collator=collate,
        compute_metrics=work.metrics[first],
        preprocess_logits_for_metrics=work.preprocess,
        processing_class=job.tokenizer,
        callbacks=list(callbacks),
    )
    if not selects:
        trainer.add_callback(StaysFinished(trainer))
    if not prints or arguments.logging_strategy == "no":
        trainer.remove_callback(PrinterCallback)  # it prints the figures of the training as a dict
    return trainer


def _evaluate(trainer: Any, job: Job, split: str) -> dict[str, float]:
    work, rows = job.work, job.work.evaluation[split]
    trainer.compute_metrics = work.metrics[split]
    found = trainer.evaluate(rows, metric_key_prefix=split)
    if work.forced is not None:
        trainer.args.predict_with_generate = False
        trainer.preprocess_logits_for_metrics, trainer.compute_metrics = work.forced
        found |= trainer.evaluate(rows, metric_key_prefix=split)
        trainer.args.predict_with_generate, trainer.preprocess_logits_for_metrics = True, work.preprocess
    values = {name.removeprefix(f"{split}_"): value for name, value in found.items()}
    return {name: float(values[name]) for name in (HELD_OUT_LOSS, *work.reported) if name in values}


def _check_finite(metrics: dict[str, dict[str, float]], rate: float) -> None:
    for split, values in metrics.items():
        for name, value in values.items():
            if not math.isfinite(value):
                raise TrainingError(
                    f"the loss diverged at the learning rate {rate:g}, and {name} is {value} on {split}: give a lower "
                    "rate."
                )


def _write(trainer: Any, output: Path, result: Result) -> None:
    """Write the adapter (the model after full fine-tuning), and the result last.

    Raises:
        DataError: There is no room.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    folder = output / (ADAPTER if isinstance(model, PeftModel) else MODEL)
    try:
        with replacing_directory(folder) as staging:
            model.save_pretrained(staging)  # trainer.save_model() would add the arguments, pickled
            trainer.processing_class.save_pretrained(staging)
        write_result(output / RESULT, result)
    except Exception as error:
        if not is_of_writing(error):
            raise
        free = shutil.disk_usage(output).free / 1e6
        again = "continue with resume_from_checkpoint" if trainer.args.save_strategy != "no" else "train again"
        raise DataError(
            f"{folder} cannot be written ({error}; {free:.1f} MB are free): "
            f"make it writable with enough room, and {again}."
        ) from error
    (output / SETTINGS).unlink(missing_ok=True)  # the result has them
