"""What the quickstart prints at the end: the table, the kept adapters, and what was written."""

import shlex
from collections.abc import Callable
from typing import Any

from rich import filesize
from rich.console import Console
from rich.table import Table

from ..layout import layers_and_types
from ..train.result import Result

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
