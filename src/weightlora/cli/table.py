"""The quickstart's table: what training costs with all adapters and with those that were kept, and what it gives."""

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import torch
from accelerate.utils import send_to_device
from rich import filesize
from rich.console import Console
from rich.table import Table
from torch import nn
from transformers import TrainerCallback

from ..adapters import find_adapters
from ..costs.seconds import timed
from ..layout import layers_and_types
from ..measure import optimizer_state_bytes, saved_activation_bytes, trainable_parameters
from ..train.result import Result

ROUNDS = 5
"""Rounds of timed steps that count; one more comes before them."""

ROWS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "adapters": ("LoRA adapters", "{:d}".format),
    "adapter_parameters": ("their parameters", "{:,}".format),
    "trainable_parameters": ("trainable, with the head", "{:,}".format),
    "optimizer_state_bytes": ("optimizer state", filesize.decimal),
    "saved_activation_bytes": ("activations for backward", filesize.decimal),
    "step_time_ratio": ("step time", "{:.2f}".format),
    "test_accuracy": ("test accuracy", "{:.3f}".format),
    "test_loss": ("test loss", "{:.3f}".format),
}

WRITTEN = {
    "adapter/": "the trained adapter; PeftModel.from_pretrained reads it",
    "selection.json": "every adapter, its score, and whether it is kept",
    "selection.png": "the same as a picture",
    "history.jsonl": "the scores after each step of the selection",
    "log.jsonl": "the loss and the time of a step, as training went on",
    "result.json": "the result, with the figures of the table",
}


class CostCallback(TrainerCallback):
    """Keeps the model of a training, and measures at its end what training it costs then.

    Args:
        batch: A batch to measure activations with.
    """

    def __init__(self, batch: Mapping[str, Any]) -> None:
        self.model: nn.Module
        self.costs: dict[str, int]
        self._batch = batch

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.model = kwargs["model"]
        adapters = find_adapters(self.model)
        self.costs = {
            "adapters": len(adapters),
            "adapter_parameters": sum(adapter.size for adapter in adapters),
            "trainable_parameters": trainable_parameters(self.model),
            "optimizer_state_bytes": optimizer_state_bytes(kwargs["optimizer"]),
            "saved_activation_bytes": saved_activation_bytes(self.model, self._batch),
        }


def time_in_turns(models: Sequence[nn.Module], batch: Mapping[str, Any]) -> list[list[float]]:
    """Seconds of a forward and a backward pass of each model, by round. In a round, all models take their turn.

    Args:
        models: They train, on one device. Their gradients are dropped.
        batch: What all of them read.
    """
    device = next(models[0].parameters()).device
    inputs = send_to_device(dict(batch), device)

    def seconds(model: nn.Module) -> float:
        found = timed(lambda: model.train()(**inputs).loss.backward(), device)
        model.zero_grad()
        return found

    return [[seconds(model) for model in models] for _ in range(1 + ROUNDS)][1:]


def machine_is_busy() -> bool:
    """Whether clearly more processes want to run than there are CPUs.

    False with a GPU, and on systems that do not report their load.
    """
    if torch.cuda.is_available() or not hasattr(os, "getloadavg"):
        return False
    return os.getloadavg()[0] > 1.25 * (os.cpu_count() or 1)


def collect_figures(
    costs: Sequence[dict[str, int]], results: Sequence[Result | None], seconds: Sequence[Sequence[float]]
) -> dict[str, Any]:
    """Every figure of the table: a column for LoRA on all modules, and one for the kept adapters.

    Args:
        costs: What training costs.
        results: What training gave; None where LoRA on all modules was not trained.
        seconds: Of a step with each, by round. The ratio is the median of those of the rounds.
    """
    columns = {}
    for place, (name, cost, result) in enumerate(zip(("all", "kept"), costs, results, strict=True)):
        columns[name] = {
            **cost,
            "step_seconds": median(row[place] for row in seconds),
            "step_time_ratio": median(row[place] / row[0] for row in seconds),
            "test_accuracy": None if result is None else result.value,
            "test_loss": None if result is None else result.held_out_loss,
        }
    return {"columns": columns}


def show(console: Console, result: Result, output_dir: str) -> None:
    """Print the table, the names of the kept adapters, and what was written."""
    figures = result.evidence or {}
    console.print()
    console.print(_table(figures["columns"]))
    console.print("Step time: forward and backward on one batch, in turns, relative to all adapters.", style="dim")
    layers = [layer for layer, _, _ in layers_and_types(result.kept or ()) if layer is not None]
    if layers:
        console.print(
            f"The backward pass runs down to the lowest kept adapter, in layer {min(layers)}: the higher it lies, the "
            "faster a step. keep_step_time=0.75 chooses with that in mind.",
            style="dim",
        )
    if figures["busy"]:
        console.print("Other programs used the CPU during the run: these step times are not reliable.", style="yellow")
    console.print(f"Test: {figures['test_sentences']:,} sentences that were not trained on.", style="dim")
    console.print("\nKept:")
    for name in result.kept or ():
        console.print(f"  {name}", soft_wrap=True)
    console.print(f"\nIn {output_dir}:", soft_wrap=True)
    for name, what in WRITTEN.items():
        console.print(f"  {name:<15} {what}")
    command = f"weightlora show {shlex.quote(output_dir)} --output page.html"
    console.print(f"\nAll of it on one page: {command}", soft_wrap=True)


def _table(columns: dict[str, dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    table.add_column("")
    for title in ("all 36", "kept", "change"):
        table.add_column(title, justify="right")
    for key, (label, form) in ROWS.items():
        whole, kept = columns["all"][key], columns["kept"][key]
        change = "" if whole is None else f"{kept / whole - 1:+.0%}"
        table.add_row(label, "" if whole is None else form(whole), form(kept), change)
    return table
