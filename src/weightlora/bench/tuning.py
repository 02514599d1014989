"""Learning rates: a grid for every method, judged on the validation split at a seed that no result uses."""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from .experiments import Run, resolve
from .summary import escape_markdown, markdown_table

__all__ = ["plan_tuning", "render_tuning_markdown", "settle_tuning"]

NEAR = 0.01
TEXT = (
    "Loss on the validation split, on which no result is reported, after training at each learning rate. Every method "
    "has the same grid and one run a rate; its results ran at the lowest rate whose loss is within "
    f"{NEAR} of the best, in the last column. Seeds differ by as much, and a rate too high fails at some of them."
)


def plan_tuning(root: Path, task: str, labels: list[str], grid: list[float], seed: int = 1000) -> list[Run]:
    """A learning-rate grid for every label, judged on the validation split, at a seed that no result uses.

    Each run is as long as those that it chooses the rate for: shorter ones prefer rates at which whole runs diverge.
    """
    runs = []
    for label in labels:
        for rate in grid:
            experiment = resolve(root, task, label)
            experiment |= {"learning_rate": rate, "evaluate_on": "validation"}
            del experiment["seeds"]
            runs.append(Run(experiment, seed, root / task / "tuning" / label / f"lr-{rate:g}.json"))
    return runs


def settle_tuning(root: Path, task: str, labels: list[str], runs: list[Run]) -> dict[str, float]:
    """Write the learning rate that validation prefers into each label's file; returns label -> rate."""
    chosen = {}
    for label in labels:
        done = [json.loads(run.output.read_text()) for run in runs if run.experiment["label"] == label]
        best = preferred({result["experiment"]["learning_rate"]: result["loss"] for result in done})
        path = root / task / f"{label}.json"
        own = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps({**own, "learning_rate": best}, indent=1) + "\n", encoding="utf-8")
        chosen[label] = best
    return chosen


def preferred(losses: Mapping[float, float]) -> float:
    """The lowest rate whose loss is near the best.

    Args:
        losses: Rate -> validation loss.
    """
    return min(rate for rate, loss in losses.items() if loss <= min(losses.values()) + NEAR)


def render_tuning_markdown(root: str | os.PathLike[str]) -> str:
    """A table a task: a row a method, a column a learning rate; empty without any."""
    parts = []
    for folder in sorted(Path(root).glob("*/tuning")):
        losses: dict[str, dict[float, float]] = {}
        for path in sorted(folder.glob("*/lr-*.json")):
            result = json.loads(path.read_text(encoding="utf-8"))
            losses.setdefault(path.parent.name, {})[result["experiment"]["learning_rate"]] = result["loss"]
            seed, steps = result["seed"], result["experiment"]["steps"]
        if not losses:
            continue
        rates = sorted({rate for of_method in losses.values() for rate in of_method})
        rows = []
        for method, of_method in losses.items():
            cells = [f"{of_method[rate]:.4f}" if rate in of_method else "" for rate in rates]
            rows.append([method, *cells, f"{preferred(of_method):g}"])
        header = ["method", *(f"{rate:g}" for rate in rates), "chosen"]
        parts += [
            f"## {escape_markdown(folder.parent.name)}: {steps} steps, seed {seed}",
            markdown_table(header, rows),
        ]
    return "\n\n".join(["# Learning rates", TEXT, *parts]) + "\n" if parts else ""
