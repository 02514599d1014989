"""The study of the frozen prefix: epochs with and without its cache, side by side, and a run that is killed."""

import copy
import multiprocessing
import os
import signal
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from weightlora.compare.tables import markdown_table
from weightlora.prefix import PrefixCache

KEPT = (
    "layer.3.output.dense",
    "layer.4.attention.self.value",
    "layer.4.intermediate.dense",
    "layer.5.attention.output.dense",
    "layer.5.output.dense",
)
"""A choice of five modules in the upper half of MiniLM's six blocks."""


@dataclass(frozen=True)
class Task:
    """A model that is ready to train, and its data.

    Attributes:
        model: With adapters.
        rows: Token ids of each example.
        labels: Classes.
        batch_size: Examples of a step.
        rate: The learning rate.
    """

    model: nn.Module
    rows: list[list[int]]
    labels: list[int]
    batch_size: int = 32
    rate: float = 1e-3

    def epoch(self, number: int) -> Iterator[dict[str, Tensor]]:
        """The batches of an epoch, padded to their longest row, in an order of its own."""
        order = torch.randperm(len(self.rows), generator=torch.Generator().manual_seed(number)).tolist()
        for start in range(0, len(order), self.batch_size):
            chosen = order[start : start + self.batch_size]
            length = max(len(self.rows[place]) for place in chosen)
            ids = torch.tensor([self.rows[place] + [0] * (length - len(self.rows[place])) for place in chosen])
            labels = torch.tensor([self.labels[place] for place in chosen])
            yield {"input_ids": ids, "attention_mask": (ids != 0).long(), "labels": labels}


@dataclass
class Run:
    """One of the trainings that go side by side. Its dropout has random numbers of its own."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    random: Tensor
    losses: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    def train(self, batches: Iterator[dict[str, Tensor]], after: Callable[[], None] = lambda: None) -> None:
        """Train for an epoch, and note its losses and its time."""
        torch.set_rng_state(self.random)
        wall, processor = time.perf_counter(), time.process_time()
        for batch in batches:
            loss = self.model(**batch).loss
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.losses.append(loss.item())
            after()
        self.wall.append(time.perf_counter() - wall)
        self.processor.append(time.process_time() - processor)
        self.random = torch.get_rng_state()


def load_minilm(texts: int) -> Task:
    """MiniLM with LoRA on `KEPT`, and the first sentences of Rotten Tomatoes."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from weightlora.train.demo import load_reviews, minilm_path

    found = load_reviews("rotten_tomatoes")["train"][:texts]
    tokenizer = AutoTokenizer.from_pretrained(minilm_path())
    rows = tokenizer([row["text"] for row in found], truncation=True, max_length=64)["input_ids"]
    torch.manual_seed(0)
    base = AutoModelForSequenceClassification.from_pretrained(minilm_path())
    lora = LoraConfig(r=8, lora_alpha=32, target_modules=list(KEPT), task_type="SEQ_CLS")
    return Task(get_peft_model(base, lora), rows, [row["label"] for row in found])


def measure_epochs(task: Task, first: int, epochs: int, directory: Path) -> dict[str, Any]:
    """Train three copies of the model epoch by epoch in turns: as usual, without dropout below the cut, and cached.

    The last two compute the same: their losses are compared.

    Args:
        task: Its model stays as it is.
        first: The lowest block with an adapter.
        epochs: Of each copy.
        directory: For the cache.
    """
    usual, plain, cached = (_run_of(task) for _ in range(3))
    _drop_dropout_(plain.model, first)
    with PrefixCache(cached.model, directory, prefix_dropout="off") as cache:
        for number in range(epochs):
            for run in (usual, plain, cached):
                run.train(task.epoch(number))
        kept, counts = cache.nbytes, (cache.fills, cache.reads)
        found = cache.first
    if found != first:
        raise ValueError(f"the model is cut at block {found}, not {first}")
    runs = {"usual": usual, "without_dropout_below": plain, "cached": cached}
    return {
        "wall_seconds": {name: [round(value, 4) for value in run.wall] for name, run in runs.items()},
        "processor_seconds": {name: [round(value, 4) for value in run.processor] for name, run in runs.items()},
        "bytes": kept,
        "tokens": sum(map(len, task.rows)),
        "fills": counts[0],
        "reads": counts[1],
        "steps": len(cached.losses),
        "largest_loss_difference": max(abs(a - b) for a, b in zip(plain.losses, cached.losses, strict=True)),
        "final_losses": {name: run.losses[-1] for name, run in runs.items()},
    }


def ratios(figures: dict[str, Any], clock: str, to: str) -> list[float]:
    """Time of each epoch with the cache over the time of the same epoch of another run.

    Args:
        figures: From `measure_epochs`.
        clock: `"wall"` or `"processor"`.
        to: `"usual"` or `"without_dropout_below"`.
    """
    times = figures[f"{clock}_seconds"]
    return [cached / other for cached, other in zip(times["cached"], times[to], strict=True)]


def render_prefix_markdown(study: dict[str, Any]) -> str:
    """The figures as a table and sentences.

    Args:
        study: The content of `prefix.json`.
    """
    settings, figures, killed = study["settings"], study["epochs"], study["killed"]
    rows = []
    for title, clock in (("processor time", "processor"), ("elapsed time", "wall")):
        for name, to in (("without dropout there", "without_dropout_below"), ("as usual, with dropout", "usual")):
            first, *later = ratios(figures, clock, to)
            low, middle, high = statistics.quantiles(later, n=4)
            rows.append([f"{title}, {name}", f"{first:.2f}", f"{middle:.2f} ({low:.2f} to {high:.2f})"])
    after = killed["first_epoch_after"]
    device = f"{study['machine']['device']} ({study['machine']['capability']}, one thread of a shared machine)"
    return "\n\n".join(
        [
            f"{settings['model']}, {settings['texts']} sentences of Rotten Tomatoes, {settings['epochs']} epochs of "
            f"{figures['steps'] // settings['epochs']} steps, five adapters in blocks {settings['first_block']} to "
            f"{settings['blocks'] - 1} of {settings['blocks']}, float32, {device}. Time of an epoch with the cache "
            "over the same epoch without it:",
            markdown_table(["against training", "first epoch", "later epochs: median (quartiles)"], rows),
            f"The cache has {figures['bytes'] / 1e6:.1f} MB for {figures['tokens']:,} tokens. Losses are those of "
            f"the run without dropout there, to within {figures['largest_loss_difference']:.1e}. A run that was "
            f"killed after {killed['killed_after_steps']} steps and started again read {after['reads']} steps of its "
            f"first epoch, computed the other {after['fills']}, and had the same losses to within "
            f"{killed['largest_loss_difference']:.1e}. One step of each epoch is computed to compare.",
        ]
    )


def kill_and_go_on(load: Callable[[], Task], epochs: int, kill_after: int, directory: Path) -> dict[str, Any]:
    """Train with a cache in a process that kills itself, and train again from the start with the same directory.

    Args:
        load: Makes the task; a function of a module, for the other process.
        epochs: Of the second training.
        kill_after: Steps of the first one.
        directory: For the cache.
    """
    process = multiprocessing.get_context("spawn").Process(target=_train_and_die, args=(load, kill_after, directory))
    process.start()
    process.join()
    task = load()
    run, reference = _run_of(task), _run_of(task)
    with PrefixCache(run.model, directory, prefix_dropout="off") as cache:
        there = cache.nbytes
        run.train(task.epoch(0))
        first = {"fills": cache.fills, "reads": cache.reads}
        for number in range(1, epochs):
            run.train(task.epoch(number))
    _drop_dropout_(reference.model, cache.first)
    for number in range(epochs):
        reference.train(task.epoch(number))
    return {
        "killed_after_steps": kill_after,
        "exit_code": process.exitcode,
        "bytes_found": there,
        "first_epoch_after": first,
        "largest_loss_difference": max(abs(a - b) for a, b in zip(run.losses, reference.losses, strict=True)),
    }


def _train_and_die(load: Callable[[], Task], kill_after: int, directory: Path) -> None:
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    task = load()
    run = _run_of(task)

    def die() -> None:
        if len(run.losses) == kill_after:
            os.kill(os.getpid(), signal.SIGKILL)

    with PrefixCache(run.model, directory, prefix_dropout="off"):
        for number in range(1 + kill_after):
            run.train(task.epoch(number), die)


def _run_of(task: Task) -> Run:
    model = copy.deepcopy(task.model).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    torch.manual_seed(0)
    return Run(model, torch.optim.AdamW(trained, lr=task.rate), torch.get_rng_state())


def _drop_dropout_(model: Any, first: int) -> None:
    """Set the dropout below a block of a BERT to 0."""
    bert = model.get_base_model().bert
    for part in (bert.embeddings, *bert.encoder.layer[:first]):
        for module in part.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
