"""The study of budgets of time and memory: asked, predicted from a few steps, and measured on plain PEFT models."""

import statistics
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch.optim import AdamW

from weightlora.adapters import find_adapters
from weightlora.compare.tables import markdown_table
from weightlora.costs import best_within, measure
from weightlora.measure import model_bytes, optimizer_state_bytes, peak_allocated_bytes

from ..speed.models import Subject

SHARES = (0.5, 0.6, 0.75)
"""Budgets, as parts of what a step of LoRA on all modules costs."""
RANK, ALPHA = 8, 32


@dataclass
class Training:
    """A PEFT model with some modules adapted, and its optimizer, after a first step."""

    subject: Subject
    names: Any = None

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        target = self.subject.target | ({} if self.names is None else {"target_modules": self.names})
        self.model = get_peft_model(self.subject.fresh(), LoraConfig(r=RANK, lora_alpha=ALPHA, **target))
        self.optimizer = AdamW([p for p in self.model.parameters() if p.requires_grad], lr=1e-4)
        self.step()

    def step(self, passes: int = 1) -> float:
        """Take one step, of one batch or of several (gradient accumulation); returns its seconds."""
        began = time.perf_counter()
        for _ in range(passes):
            self.model(**self.subject.batches[0]).loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return time.perf_counter() - began

    def peak(self, passes: int) -> int:
        """The most bytes that a step has allocated at any moment, with the model and the optimizer's state."""
        device = next(self.model.parameters()).device
        there = model_bytes(self.model) + optimizer_state_bytes(self.optimizer)
        return there + peak_allocated_bytes(partial(self.step, passes), device)


def measure_budgets(subject: Subject, rounds: int) -> dict[str, Any]:
    """For three budgets of each resource: what was asked, what the prediction is, and what the chosen model costs.

    Scores are drawn at random, because it is the price of a set that is put to the test, and not its quality.

    Args:
        subject: The model and its batches.
        rounds: Steps that are timed of each model, in turns with LoRA on all modules.

    Returns:
        Resource -> `measuring_seconds`, `whole_predicted`, `whole_measured` and `budgets`, a list with `asked`,
        `kept`, `predicted` and `measured`. Time is in parts of LoRA on all modules, memory in bytes. Memory is
        measured with two passes a step, and as `one_pass` with one.
    """
    whole = Training(subject)
    adapters = find_adapters(whole.model)
    score = torch.rand(len(adapters), generator=torch.Generator().manual_seed(0))
    found: dict[str, Any] = {}
    for resource in ("step_time", "memory"):
        began = time.perf_counter()
        costs = measure(resource, whole.model, adapters, lambda: whole.model(**subject.batches[0]).loss)
        seconds = time.perf_counter() - began
        unit = costs.whole if resource == "step_time" else 1.0
        rows = []
        for share in SHARES:
            mask = best_within(costs, score, share * costs.whole, None)
            if mask is None:
                rows.append({"asked": share * costs.whole / unit, "kept": 0, "predicted": None, "measured": None})
                continue
            chosen = Training(subject, [a.name for a, kept in zip(adapters, mask.tolist(), strict=True) if kept])
            row: dict[str, Any] = {
                "asked": share * costs.whole / unit,
                "kept": int(mask.sum()),
                "predicted": costs.predict(mask) / unit,
            }
            if resource == "memory":
                row |= {"measured": float(chosen.peak(passes=2)), "one_pass": float(chosen.peak(passes=1))}
            else:
                row["measured"] = _ratio(chosen, whole, rounds)
            rows.append(row)
        found[resource] = {
            "measuring_seconds": seconds,
            "whole_predicted": costs.whole,
            "whole_measured": float(whole.peak(passes=2)) if resource == "memory" else None,
            "budgets": rows,
        }
    return found


def _ratio(one: Training, other: Training, rounds: int) -> float:
    """Median over the rounds of the time of a step of one over that of the other, which follows it."""
    one.step()
    return statistics.median(one.step() / other.step() for _ in range(rounds))


def render_budgets_markdown(study: dict[str, Any]) -> str:
    """The figures as a table."""
    rows = []
    for model, figures in study["models"].items():
        for resource in ("step_time", "memory"):
            for row in figures[resource]["budgets"]:
                asked, predicted, measured = (
                    _amount(resource, row[name]) for name in ("asked", "predicted", "measured")
                )
                errors = [
                    f"{row['predicted'] / cost - 1:+.1%}" if cost else ""
                    for cost in (row["measured"], row.get("one_pass"))
                ]
                what = "step time" if resource == "step_time" else "memory"
                rows.append([f"{model}, {what}", asked, str(row["kept"]), predicted, measured, *errors])
    machines = {name: figures["machine"] for name, figures in study["models"].items()}
    where = [f"{name} on {machine['device']}, threads: {machine['threads']}" for name, machine in machines.items()]
    return f"Rank {RANK}, float32; {'; '.join(where)}.\n\n" + markdown_table(
        ["budget", "asked", "adapters", "predicted", "measured", "error", "error, one pass"], rows
    )


def _amount(resource: str, value: float | None) -> str:
    if value is None:
        return "no room"
    return f"{value:.3f}" if resource == "step_time" else f"{value / 2**20:,.0f} MiB"
