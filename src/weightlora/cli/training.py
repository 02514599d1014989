"""One run of the quickstart: MiniLM-L6 with LoRA under `transformers.Trainer`, with or without a selection."""

import contextlib
import os
import statistics
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from rich.console import Console
from sklearn.metrics import accuracy_score
from transformers import (
    AutoTokenizer,
    DataCollatorWithPadding,
    EvalPrediction,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    logging,
)
from transformers.trainer_callback import PrinterCallback

from .. import WeightLora, WeightLoraCallback, WeightLoraConfig
from ..adapters import find_adapters
from ..measure import optimizer_state_bytes, saved_activation_bytes, trainable_parameters
from ..train.demo import ENCODER_LINEAR_COUNT, minilm_path
from .progress import progress_callback

BATCH_SIZE = 32
MAX_TOKENS = 64


@dataclass(frozen=True)
class Data:
    """Tokenized sentences, what pads them, and one fixed batch to measure with."""

    train: list[dict[str, Any]]
    test: list[dict[str, Any]]
    collate: DataCollatorWithPadding
    batch: dict[str, torch.Tensor]


@dataclass(frozen=True)
class Settings:
    """What a run of the quickstart is made of."""

    output_dir: str
    steps: int
    rank: int
    learning_rate: float
    seed: int


@dataclass
class Cost:
    """What a model costs at one moment of a run, and the seconds of the steps around it."""

    adapters: int
    adapter_parameters: int
    trainable_parameters: int
    optimizer_state_bytes: int
    saved_activation_bytes: int
    step_seconds: list[float] = field(default_factory=list)

    @property
    def median_step_seconds(self) -> float:
        return statistics.median(self.step_seconds)


@dataclass(frozen=True)
class Run:
    """A finished run. `selecting` is None for plain LoRA; `busy` says that other programs disturbed the step times."""

    selector: WeightLora | None
    selecting: Cost | None
    trained: Cost
    accuracy: float
    loss: float
    test_sentences: int
    busy: bool


class StepTimes(TrainerCallback):
    """Seconds of each optimizer step (forward, backward, update, selection), and the cost before anything is gone.

    Belongs behind the `WeightLoraCallback` in the list, so that the selection is inside the time.
    """

    def __init__(self, batch: dict[str, torch.Tensor]) -> None:
        self.seconds: list[float] = []
        self.at_start: Cost | None = None
        self.busy = False
        self._batch = batch

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._start = _now()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.at_start is None:  # the first step: the optimizer has its state, and no adapter has gone
            self.at_start = cost_of(kwargs["model"], kwargs["optimizer"], self._batch)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.seconds.append(_now() - self._start)
        self.busy |= machine_is_busy()


def load_data() -> Data:
    """Rotten Tomatoes for MiniLM: its training and its test sentences, of at most 64 tokens.

    Raises:
        ValueError: A package with the model or the data is missing.
    """
    tokenizer = AutoTokenizer.from_pretrained(minilm_path())
    task = load_task("rotten_tomatoes")
    train, test = (task.tokenize(task.splits[split], tokenizer, MAX_TOKENS) for split in ("train", "test"))
    test.sort(key=lambda row: len(row["input_ids"]))  # less padding in evaluation, where the order changes nothing
    collate = DataCollatorWithPadding(tokenizer)
    return Data(train, test, collate, dict(collate(train[:BATCH_SIZE])))


def train(settings: Settings, config: WeightLoraConfig | None, data: Data, console: Console, title: str) -> Run:
    """Train from the pretrained model on and evaluate on the test sentences; without a config, plain LoRA.

    Runs of one seed start from the same head and adapters and see the same batches.
    """
    model = minilm_lora(settings.seed, settings.rank)
    selection = None if config is None else WeightLoraCallback(config)

    def state() -> tuple[str, int]:
        selector = selection and selection.selector
        return ("train", ENCODER_LINEAR_COUNT) if not selector else (selector.phase, len(selector.kept))

    times, progress = StepTimes(data.batch), progress_callback(console, title, state)
    trainer = Trainer(
        model=model,
        args=_arguments(settings),
        train_dataset=data.train,
        eval_dataset=data.test,
        data_collator=data.collate,
        compute_metrics=_accuracy,
        callbacks=[callback for callback in (selection, times, progress) if callback is not None],
    )
    trainer.remove_callback(PrinterCallback)
    try:
        trainer.train()
    finally:
        progress.close()
    with console.status(f"{title}: evaluating on {len(data.test):,} sentences"):
        metrics = trainer.evaluate()
    selector = None if selection is None else selection.selector
    selecting = None if selector is None else times.at_start
    trained = cost_of(model, trainer.optimizer, data.batch)
    _share_out(times.seconds, selector, selecting, trained)
    accuracy, loss = metrics["eval_accuracy"], metrics["eval_loss"]
    return Run(selector, selecting, trained, accuracy, loss, len(data.test), times.busy)


def cost_of(model: torch.nn.Module, optimizer: Any, batch: dict[str, torch.Tensor]) -> Cost:
    """The cost of a model that trains, measured on the given batch; no step times yet."""
    adapters = find_adapters(model)
    return Cost(
        adapters=len(adapters),
        adapter_parameters=sum(adapter.size for adapter in adapters),
        trainable_parameters=trainable_parameters(model),
        optimizer_state_bytes=optimizer_state_bytes(optimizer),
        saved_activation_bytes=saved_activation_bytes(model, batch),
    )


def _share_out(seconds: list[float], selector: WeightLora | None, selecting: Cost | None, trained: Cost) -> None:
    """Step times before and after the disconnect. The first step does not count: it was measured in, and warms up."""
    last = 1 if selector is None else selector.config.select_steps
    if selecting is not None:
        selecting.step_seconds = seconds[1:last]
    trained.step_seconds = seconds[last:]


def _accuracy(result: EvalPrediction) -> dict[str, float]:
    return {"accuracy": float(accuracy_score(result.label_ids, np.argmax(result.predictions, axis=-1)))}


def _arguments(settings: Settings) -> TrainingArguments:
    return TrainingArguments(
        output_dir=settings.output_dir,
        max_steps=settings.steps,
        per_device_train_batch_size=BATCH_SIZE,
        per_device_eval_batch_size=4 * BATCH_SIZE,
        learning_rate=settings.learning_rate,
        warmup_steps=settings.steps // 20,
        seed=settings.seed,
        label_names=["labels"],
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
    )


def machine_is_busy() -> bool:
    """Whether clearly more wants to run than there are CPUs; False where the system does not tell, or a GPU trains."""
    if torch.cuda.is_available() or not hasattr(os, "getloadavg"):
        return False
    return os.getloadavg()[0] > 1.25 * (os.cpu_count() or 1)


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """No reports, bars and deprecations of the libraries in between; how loud they are is restored afterwards."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
