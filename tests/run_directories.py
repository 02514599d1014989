"""Run directories made without training: a choice by credit under its bound on parameters, with scores and a log."""

import json
import math
import random
from pathlib import Path
from typing import Any

from weightlora import WeightLoraConfig
from weightlora.budget import top_k_within

TYPES = {
    "self_attn.q_proj": 6144,
    "self_attn.k_proj": 6144,
    "self_attn.v_proj": 6144,
    "self_attn.o_proj": 6144,
    "mlp.gate_proj": 15360,
    "mlp.up_proj": 15360,
    "mlp.down_proj": 15360,
}


def write_run(
    directory: Path,
    layers: int = 4,
    steps: int = 20,
    keep: int = 7,
    train_steps: int = 100,
    seed: int = 0,
    final: bool = True,
    name: str = "model.layers.{}.{}",
    result: dict[str, Any] | None = None,
) -> Path:
    """Write `selection.json`, `history.jsonl` and `log.jsonl`; returns the directory."""
    import torch

    draw = random.Random(seed)
    names = [name.format(layer, kind) for layer in range(layers) for kind in TYPES]
    sizes = [size for _ in range(layers) for size in TYPES.values()]
    speed = [
        draw.random() ** 2 * size / 15360 * (1 + layer / layers)
        for layer, size in zip([layer for layer in range(layers) for _ in TYPES], sizes, strict=True)
    ]
    scores = [0.0] * len(names)
    history: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        scores = [
            score + rate * (0.3 + 1.4 * draw.random()) / steps for score, rate in zip(scores, speed, strict=True)
        ]
        history.append(
            {"step": step, "phase": "select", "active": len(names), "score": [round(score, 9) for score in scores]}
        )
    bound = sum(sizes) * keep // len(names)
    mask = top_k_within(torch.tensor(scores, dtype=torch.float64), keep, sizes, bound).tolist()
    kept = [name for name, chosen in zip(names, mask, strict=True) if chosen]
    if final:
        history.append({"step": steps, "kept": kept, "ranks": dict.fromkeys(kept, 8)})
    adapters = [
        {
            "name": name,
            "kind": "module",
            "kept": chosen or not final,
            "score": round(score, 9) if final else 0.0,
            "omega": float(chosen or not final),
            "rank": 8 if chosen or not final else None,
            "scaling": 4.0 if chosen or not final else None,
            "parameters": size,
        }
        for name, chosen, score, size in zip(names, mask, scores, sizes, strict=True)
    ]
    selection = {
        "format": 1,
        "adapter_name": "default",
        "model": "tiny/llama",
        "lora": {"r": 8, "lora_alpha": 32, "use_rslora": False, "task_type": "CAUSAL_LM"},
        "unambiguous": True,
        "config": vars(WeightLoraConfig(keep=keep, select_steps=steps)),
        "phase": "train" if final else "select",
        "step": steps if final else 0,
        "adapters": adapters,
        "trainable_parameters": {
            "before": sum(sizes),
            "after": sum(s for s, chosen in zip(sizes, mask, strict=True) if chosen or not final),
        },
        "versions": {"weightlora": "0.1.0", "peft": "0.21.2", "torch": "2.13.0"},
    }
    total = steps + train_steps if final else steps
    log = [
        {
            "step": step,
            "loss": 0.4 + 0.3 * math.exp(-3 * step / max(total, 1)) + draw.gauss(0, 0.01),
            "learning_rate": 1e-3 * (1 - step / (total + 1)),
            "seconds_per_step": (0.2 if step <= steps else 0.14) + draw.random() * 0.01,
        }
        for step in range(5, total + 1, 5)
    ]
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "selection.json").write_text(json.dumps(selection))
    (directory / "history.jsonl").write_text("".join(f"{json.dumps(entry)}\n" for entry in history))
    (directory / "log.jsonl").write_text("".join(f"{json.dumps(entry)}\n" for entry in log))
    if result is not None:
        (directory / "result.json").write_text(json.dumps(result))
    return directory
