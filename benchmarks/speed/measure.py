"""Takes turns, and counts: the figures of one model."""

import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

from weightlora.adapters import find_adapters
from weightlora.measure import (
    optimizer_state_bytes,
    peak_allocated_bytes,
    saved_activation_bytes,
    trainable_parameters,
)

from .models import Subject
from .variants import NEEDED, PARTS, Variant, build, median_ratio, selecting
from .waits import find_waits


def measure_model(
    subject: Subject, wanted: tuple[str, ...], rounds: int, advance: Callable[[], None] = lambda: None
) -> dict[str, Any]:
    """The figures of a model.

    Args:
        subject: The model, on its device.
        wanted: Variants, keys of `LABELS`; `NEEDED` among them.
        rounds: Timed steps of each variant.
        advance: Called after each round.
    """
    if subject.how.compiled:
        with many_compilations():
            return _measure(subject, wanted, rounds, advance)
    return _measure(subject, wanted, rounds, advance)


def many_compilations() -> contextlib.AbstractContextManager[None]:
    """Inside, the forward pass of one class may be compiled for as many models as there are variants, or it fails."""
    import torch._dynamo

    torch.compiler.reset()
    patched: contextlib.AbstractContextManager[None] = torch._dynamo.config.patch(
        cache_size_limit=64, fail_on_cache_limit_hit=True
    )
    return patched


def _measure(subject: Subject, wanted: tuple[str, ...], rounds: int, advance: Callable[[], None]) -> dict[str, Any]:
    variants = build(subject, wanted)
    time_rounds(variants, subject, rounds, advance)
    device = subject.batches[0]["input_ids"].device
    figures = {key: _figures(variant, variants["lora"], subject, device) for key, variant in variants.items()}
    return {
        "adapters": figures["lora"]["adapters"],
        "keep": subject.keep,
        "batch": list(subject.shape),
        "how": asdict(subject.how),
        "rounds": rounds,
        "variants": figures,
        "disconnect_seconds": _disconnect(subject, "none"),
        "expand_seconds": _disconnect(subject, "random"),
        "peak_probing_bytes": _peak_probing(subject, device),
    }


def time_rounds(variants: Mapping[str, Variant], subject: Subject, rounds: int, advance: Callable[[], None]) -> None:
    """Time one step of every variant per round, on one batch. Each round begins with another variant.

    A slow moment of the machine then affects all of them.
    """
    order = list(variants.values())
    for number in range(rounds):
        for place in range(len(order)):
            order[(number + place) % len(order)].step(subject.batches[number % len(subject.batches)])
        advance()


def summarize(figures: Mapping[str, Any]) -> dict[str, float]:
    """What the figures of a model come to.

    Returns:
        `before_over_lora`: step time while selecting by credit / with LoRA on all modules; `after_over_limit`: after
        the choice / with plain LoRA on the same modules; `after_over_lora`; `activations_after_over_limit`: bytes kept
        for backward; `peak_selecting_over_kept`: peak of a step while selecting with `select_memory="low"` / after the
        choice; `peak_probing_over_kept`: the same of the probe; `disconnect_in_steps`: seconds of the disconnect with
        expansion / of a step with LoRA on all modules; `own_overhead`: of a step while selecting, the share of the
        selector and of our hooks on the optimizer.
    """
    variants = figures["variants"]
    lora, credit, low, after, limit = (variants[key] for key in NEEDED)
    own = credit["parts"]["hooks"] + credit["parts"]["selector"]
    return {
        "before_over_lora": credit["over_lora"],
        "after_over_limit": median_ratio(after["steps"], limit["steps"]),
        "after_over_lora": after["over_lora"],
        "activations_after_over_limit": after["saved_activation_bytes"] / limit["saved_activation_bytes"],
        "peak_selecting_over_kept": low["peak_bytes"] / after["peak_bytes"],
        "peak_probing_over_kept": figures["peak_probing_bytes"] / after["peak_bytes"],
        "disconnect_in_steps": figures["expand_seconds"] / statistics.median(lora["steps"]),
        "own_overhead": own / statistics.median(credit["steps"]),
    }


def _figures(variant: Variant, base: Variant, subject: Subject, device: torch.device) -> dict[str, Any]:
    batch = subject.batches[0]
    ratios = [mine / other for mine, other in zip(variant.steps, base.steps, strict=True)]
    return {
        "adapters": len(find_adapters(variant.model)) if variant.key in LORA else None,
        "trainable_parameters": trainable_parameters(variant.model),
        "steps": variant.steps,
        "parts": {part: statistics.median(variant.seconds[part]) for part in PARTS},
        "over_lora": statistics.median(ratios),
        "over_lora_quartiles": statistics.quantiles(ratios, n=4)[::2],
        "saved_activation_bytes": saved_activation_bytes(variant.model, variant.split(batch)[0]),
        "optimizer_state_bytes": optimizer_state_bytes(variant.optimizer),
        "peak_bytes": peak_allocated_bytes(lambda: variant.step(batch, timed=False), device),
        "host_waits": find_waits(variant, batch),
        **_file(variant, subject),
    }


LORA = ("lora", "halves", "recomputed", "credit", "low", "gates", "after", "limit", "top", "dora")


def _file(variant: Variant, subject: Subject) -> dict[str, Any]:
    """Bytes of the adapter's file, and the seconds that plain PEFT takes to load it."""
    if not isinstance(variant.model, PeftModel):
        return {"file_bytes": None, "load_seconds": None}
    base = subject.fresh()
    with tempfile.TemporaryDirectory() as directory:
        variant.model.save_pretrained(directory)
        size = (Path(directory) / "adapter_model.safetensors").stat().st_size
        start = time.perf_counter()
        PeftModel.from_pretrained(base, directory)
        return {"file_bytes": size, "load_seconds": time.perf_counter() - start}


def _disconnect(subject: Subject, expand: str) -> float:
    """Seconds of a decision by credit: surgery, and with `expand` the growth of the chosen adapters."""
    variant = selecting("credit", subject, selection="credit", expand=expand)
    assert variant.selector is not None
    variant.step(subject.batches[0], timed=False)
    wait = torch.cuda.synchronize if subject.batches[0]["input_ids"].is_cuda else lambda: None
    wait()  # for the step, whose kernels may still run
    start = time.perf_counter()
    variant.selector.finish()
    wait()
    return time.perf_counter() - start


def _peak_probing(subject: Subject, device: torch.device) -> int:
    """Peak of `selection="gradient"` while it reads the gradients."""
    variant = selecting("probe", subject, selection="gradient", select_steps=0)
    selector = variant.selector
    assert selector is not None
    return peak_allocated_bytes(lambda: selector.probe(subject.batches), device)
