"""The study of memory: the bytes of a training step by number of adapters and rank."""

import copy
import gc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import send_to_device
from peft import LoraConfig, PeftModel, get_peft_model

from weightlora.adapters import find_adapters
from weightlora.adapters.surgery import disconnect_
from weightlora.compare.tables import escape_markdown, markdown_table
from weightlora.errors import ConfigError
from weightlora.measure import (
    model_bytes,
    optimizer_state_bytes,
    peak_allocated_bytes,
    saved_activation_bytes,
    trainable_parameters,
)

from .subject import Subject

ORDERS = {
    "top": "those nearest the output, where backward stops at the lowest adapter",
    "bottom": "those nearest the input, where backward goes through the whole model",
}
"""Which adapters are counted first: those with the shortest backward pass, or those with the longest."""


@dataclass(frozen=True)
class Case:
    """One measurement. `names` are the adapted modules; `orders` are the orders in which it is a point."""

    names: tuple[str, ...]
    rank: int
    orders: tuple[str, ...]


def plan_cases(
    names: Sequence[str], counts: Sequence[int] | None, ranks: Sequence[int], orders: Sequence[str]
) -> list[Case]:
    """Every set to measure, once. The set without adapters and the set of all are the same in every order.

    Args:
        names: All adapters in model order.
        counts: Numbers of adapters. If None: 0, 1, and n / 8, n / 4, n / 2 and n, rounded.
        ranks: Ranks of the adapters of a set.
        orders: Keys of `ORDERS`.

    Raises:
        ConfigError: If a count is larger than the number of adapters.
    """
    n = len(names)
    if counts is None:
        counts = [0, 1, *(round(n / part) for part in (8, 4, 2, 1))]
    if max(counts) > n:
        raise ConfigError(f"a count of {max(counts)} is more than the model's {n} LoRA adapters: give {n} or fewer.")
    wanted: dict[tuple[tuple[str, ...], int], list[str]] = {}
    for order in orders:
        for count in sorted(set(counts)):
            chosen = tuple(names[n - count :] if order == "top" else names[:count])
            for rank in sorted(set(ranks)):
                wanted.setdefault((chosen, rank), []).append(order)
    return [Case(chosen, rank, tuple(found)) for (chosen, rank), found in wanted.items()]


def adapter_names(subject: Subject) -> list[str]:
    """All adapters that the model may have, in model order."""
    return [adapter.name for adapter in find_adapters(_lora(subject, rank=1))]


def _lora(subject: Subject, rank: int) -> PeftModel:
    """LoRA on all modules of a copy of the model."""
    return get_peft_model(copy.deepcopy(subject.model), LoraConfig(r=rank, lora_alpha=rank, **subject.target))


def measure_case(
    subject: Subject, case: Case, batch: Mapping[str, Any], device: torch.device, seed: int = 0
) -> dict[str, Any]:
    """Bytes of one AdamW step, after a first step that created the optimizer state.

    `peak_bytes` is the model, the optimizer state, and the most that the allocator gave out on top of them in the
    forward pass, the backward pass or the update. `saved_activation_bytes` is what forward saves for backward.
    """
    gc.collect()  # the model of the previous case has reference cycles
    torch.manual_seed(seed)
    model = _lora(subject, case.rank)
    disconnect_(model, [adapter for adapter in find_adapters(model) if adapter.name not in case.names])
    model.to(device).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-3) if trained else None
    batch = send_to_device(dict(batch), device)
    gradients = 0

    def step(batch: Mapping[str, Any]) -> None:
        nonlocal gradients
        loss = model(**batch).loss
        if optimizer is not None:  # without adapters and without a head, nothing trains
            loss.backward()
            gradients = sum(parameter.grad.nbytes for parameter in trained if parameter.grad is not None)
            optimizer.step()
            optimizer.zero_grad()

    step({key: value[:1] if torch.is_tensor(value) else value for key, value in batch.items()})  # creates the state
    state = 0 if optimizer is None else optimizer_state_bytes(optimizer)
    resident = model_bytes(model) + state
    return {
        "adapters": len(case.names),
        "rank": case.rank,
        "orders": list(case.orders),
        "adapter_parameters": sum(a.size for a in find_adapters(model, "default", check=False)),
        "trainable_parameters": trainable_parameters(model),
        "model_bytes": model_bytes(model),
        "gradient_bytes": gradients,
        "optimizer_state_bytes": state,
        "saved_activation_bytes": saved_activation_bytes(model, batch),
        "peak_bytes": resident + peak_allocated_bytes(lambda: step(batch), device),
    }


def select(study: Mapping[str, Any], order: str, **wanted: int) -> list[dict[str, Any]]:
    """The measurements of one order, by number of adapters and rank. `wanted` limits them."""
    found = [case for case in study["cases"] if order in case["orders"]]
    found = [case for case in found if all(case[key] == value for key, value in wanted.items())]
    return sorted(found, key=lambda case: (case["adapters"], case["rank"]))


def middle_rank(study: Mapping[str, Any]) -> int:
    """The middle rank, or the lower of the two, for tables with one rank."""
    ranks = sorted(study["settings"]["ranks"])
    return ranks[(len(ranks) - 1) // 2]


def render_memory_markdown(study: Mapping[str, Any]) -> str:
    """A table of the peaks of each order, what the peaks consist of, and what a parameter costs.

    Args:
        study: The content of `memory.json`.
    """
    settings = study["settings"]
    ranks, rank = sorted(settings["ranks"]), middle_rank(study)
    allocator = "torch's CPU allocator" if study["device"] == "cpu" else f"CUDA's allocator on {study['device']}"
    parts = [
        f"{escape_markdown(study['model'])}; {settings['batch_size']} x {settings['max_length']} tokens, AdamW. "
        f"Peak memory of a training step in MB, as {allocator} reports it, with weights and optimizer state."
    ]
    for order in settings["orders"]:
        counts = sorted({case["adapters"] for case in select(study, order)})
        peaks = [[_mb(case["peak_bytes"]) for case in select(study, order, adapters=count)] for count in counts]
        rows = [[str(count), *row] for count, row in zip(counts, peaks, strict=True)]
        parts += [f"Adapters: {ORDERS[order]}.", markdown_table([order, *(f"rank {rank}" for rank in ranks)], rows)]
    most = max(case["adapters"] for case in study["cases"])
    shown = [case for case in study["cases"] if case["rank"] == rank or case["adapters"] == most]
    shown.sort(key=lambda case: (case["adapters"], case["rank"]))
    header = ["adapters", "rank", "their parameters", "gradients", "optimizer state", "kept for backward", "peak"]
    parts += ["The parts of the peak, in MB:", markdown_table(header, map(_row, shown))]
    if costs := list(_costs(study)):
        parts += ["What more adapters and a higher rank cost:", "\n".join(costs)]
    return "\n\n".join(parts) + "\n"


def _row(case: Mapping[str, Any]) -> list[str]:
    where = f" ({case['orders'][0]})" if len(case["orders"]) == 1 else ""
    figures = [case[f"{name}_bytes"] for name in ("gradient", "optimizer_state", "saved_activation", "peak")]
    return [f"{case['adapters']}{where}", str(case["rank"]), f"{case['adapter_parameters']:,}", *map(_mb, figures)]


def _costs(study: Mapping[str, Any]) -> Iterator[str]:
    """What more adapters cost, in each order, and what a higher rank costs."""
    rank = middle_rank(study)
    for order in study["settings"]["orders"]:
        some = [case for case in select(study, order, rank=rank) if case["adapters"]]
        if len(some) > 1:
            few, many = some[0], some[-1]
            what = f"from {few['adapters']} to {many['adapters']} adapters ({order}) at rank {rank}"
            yield f"- {what}: {_difference(few, many)}"
    order = study["settings"]["orders"][-1]
    most = max(case["adapters"] for case in study["cases"])
    low, *_, high = 2 * select(study, order, adapters=most)
    if most and low["rank"] < high["rank"]:
        yield f"- from rank {low['rank']} to rank {high['rank']} with {most} adapters: {_difference(low, high)}"


def _difference(low: Mapping[str, Any], high: Mapping[str, Any]) -> str:
    taken, parameters = (high[key] - low[key] for key in ("peak_bytes", "adapter_parameters"))
    return f"{taken / 1e6:+,.1f} MB for {parameters:,} more parameters, {taken / parameters:,.0f} bytes each"


def _mb(value: float) -> str:
    return f"{value / 1e6:,.1f}"
