"""Results as if they had run, for the tests of what reads them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from weightlora import __version__
from weightlora.train.result import HELD_OUT_LOSS, Result, write_result

NAMES = [f"encoder.layer.{layer}.{part}" for layer in range(3) for part in ("query", "dense")]
VERSIONS = {"weightlora": __version__, "torch": "2.8.0", "peft": "0.21.0", "transformers": "5.0.0"}


def result(label: str = "random", seed: int = 0, loss: float = 0.5, **changes: Any) -> Result:
    """A result of a small task. `accuracy` and `after` (adapter parameters at the end) are shorthands."""
    accuracy, after = changes.pop("accuracy", 0.75), changes.pop("after", 100)
    made = Result(
        task="tiny",
        method=label,
        label=label,
        seed=seed,
        settings={"label": label, "method": label, "learning_rate": 1e-3, "steps": 300, "keep": 2},
        metric="accuracy",
        metric_units={HELD_OUT_LOSS: "none", "accuracy": "fraction"},
        metrics={"test": {HELD_OUT_LOSS: loss, "accuracy": accuracy}},
        train_loss=None,
        steps=300,
        names=None,
        sizes=None,
        kept=None,
        adapters_before=4,
        adapters_after=1,
        adapter_parameters_before=400,
        adapter_parameters_after=after,
        trainable_parameters_before=None,
        trainable_parameters_after=None,
        optimizer_state_bytes_before=None,
        optimizer_state_bytes_after=None,
        peak_process_bytes=None,
        peak_gpu_bytes=None,
        wall_seconds=1.0,
        versions=VERSIONS,
        machine={},
        commit=None,
        plan=None,
    )
    return replace(made, **changes)


def store(root: Path, made: Result) -> Path:
    """Write a result where it belongs."""
    return write_result(root / made.task / "results" / made.label / f"seed-{made.seed}.json", made)
