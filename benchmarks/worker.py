"""One run of the quality benchmark: an experiment (data) and a seed in, one result file out, in a process of its own.

At one seed every method sees the same data order, starts from the same head and is evaluated on the same texts.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

VERSIONS = ("weightlora", "torch", "peft", "transformers")


def run(experiment: dict[str, Any], seed: int) -> dict[str, Any]:
    """Train and evaluate; returns the content of a result file.

    Args:
        experiment: Resolved settings, as `experiments.resolve` returns them.
        seed: Of the head, the data order, dropout, and whatever the method draws.

    Raises:
        ValueError: If a setting does not fit the task, the model or the method.
    """
    from transformers import Trainer, TrainingArguments, set_seed

    from weightlora import WeightLoraConfig
    from weightlora.tasks.catalogue import load_workload
    from weightlora.train.methods import METHODS, Setting, count_adapters

    from .evidence import EvidenceCallback
    from .methods import RIVALS
    from .results import RESULT_FORMAT

    began = time.perf_counter()
    set_seed(seed)
    workload = load_workload(experiment)
    arguments = TrainingArguments(
        output_dir=tempfile.gettempdir(),  # nothing is saved
        max_steps=experiment["steps"],
        per_device_train_batch_size=experiment["batch_size"],
        per_device_eval_batch_size=experiment["batch_size"] * 2,
        learning_rate=experiment["learning_rate"],
        optim=experiment.get("optimizer", "adamw_torch_fused"),
        lr_scheduler_type="linear",
        warmup_steps=experiment["warmup_steps"],
        weight_decay=experiment["weight_decay"],
        seed=seed,
        data_seed=seed,
        save_strategy="no",
        report_to="none",
        logging_strategy="no",
        disable_tqdm=True,
        use_cpu=experiment.get("device", "cpu") == "cpu",
        bf16=experiment.get("bf16", False),
    )

    def batches() -> Any:
        rows = workload.train[: 8 * experiment["batch_size"]]
        for start in range(0, len(rows), experiment["batch_size"]):
            yield dict(workload.collate(rows[start : start + experiment["batch_size"]]))

    setting = Setting(
        model=workload.model,
        target=workload.target,
        rank=experiment["rank"],
        alpha=experiment["alpha"],
        dropout=experiment["dropout"],
        keep=experiment["keep"],
        select_steps=experiment["select_steps"],
        steps=experiment["steps"],
        seed=seed,
        batches=batches,
        options=experiment["options"],
    )
    if isinstance(setting.keep, float):  # a fraction
        budget = WeightLoraConfig(keep=setting.keep)
        setting = replace(setting, keep=budget.number_to_keep(count_adapters(setting)))
    prepared = (METHODS | RIVALS)[experiment["method"]](setting)
    candidates, before = _adapter_sizes(prepared.model), _adapter_parameters(prepared.model)
    if prepared.candidates is not None:  # some were removed already
        candidates, before = prepared.candidates, sum(prepared.candidates.values())
    leave_out_at = experiment["select_steps"] if experiment.get("leave_one_out", True) else None
    evidence = EvidenceCallback(experiment.get("evidence", ()), lambda: next(batches()), leave_out_at)
    set_seed(seed)  # whatever the preparation drew, dropout begins alike
    trainer = Trainer(
        model=prepared.model,
        args=arguments,
        train_dataset=workload.train,
        data_collator=workload.collate,
        compute_metrics=workload.metrics,
        preprocess_logits_for_metrics=workload.preprocess,
        callbacks=[*prepared.callbacks, *([evidence] if "evidence" in experiment else [])],
    )
    trainer.train()
    rows: Any = workload.validation if experiment["evaluate_on"] == "validation" else workload.test
    evaluated = trainer.evaluate(rows)
    metrics = {key.removeprefix("eval_"): value for key, value in evaluated.items()}
    kept = _adapter_sizes(prepared.model)
    return {
        "format": RESULT_FORMAT,
        "task": experiment["task"],
        "method": experiment["label"],
        "seed": seed,
        "experiment": experiment,
        "loss": metrics["held_out_loss"],
        "metric": {"name": workload.metric, "value": metrics[workload.metric]},
        "metrics": {key: metrics[key] for key in sorted(metrics) if key in workload.reported},
        "trainable_parameters": {"before": before, "after": _adapter_parameters(prepared.model)},
        "adapters": {"before": len(candidates or []), "after": len(kept or [])},
        "names": None if candidates is None else list(candidates),
        "sizes": None if candidates is None else list(candidates.values()),
        "kept": None if kept is None else list(kept),
        "wall_seconds": round(time.perf_counter() - began, 2),
        "peak_memory_bytes": _peak_memory(),
        **environment(),
        **({"evidence": evidence.records} if "evidence" in experiment else {}),
    }


def environment() -> dict[str, Any]:
    """What a result was made with: versions, commit and machine."""
    import torch

    return {
        "versions": {name: version(name) for name in VERSIONS},
        "commit": _commit(),
        "machine": {
            "processor": platform.machine(),
            "capability": torch.backends.cpu.get_cpu_capability(),
            "threads": torch.get_num_threads(),
            "system": platform.system(),
            "python": platform.python_version(),
        },
    }


def _adapter_parameters(model: Any) -> int:
    """Trainable parameters without the task head, which every method trains."""
    return sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and "modules_to_save" not in name and not name.startswith("classifier.")
    )


def _adapter_sizes(model: Any) -> dict[str, int] | None:
    """Parameters of each LoRA adapter, in the model's order."""
    from weightlora.adapters import find_adapters

    try:
        return {adapter.name: adapter.size for adapter in find_adapters(model, check=False)}
    except ValueError:  # another PEFT method, or none
        return None


def _peak_memory() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024


def _commit() -> str | None:
    """The commit of the code that runs, where it is a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short=12", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


def write_result(path: Path, result: dict[str, Any]) -> None:
    """Write atomically, a line a key: a killed run leaves no half file under the name of a whole one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    lines = [f"{json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in result.items()]
    partial.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    os.replace(partial, path)


def main() -> int:
    parser = argparse.ArgumentParser(description="one run of the quality benchmark")
    parser.add_argument("--experiment", required=True, help="resolved settings, as JSON")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    try:
        experiment = json.loads(args.experiment)
        if "settings" in experiment:  # of a sweep over recipes
            from .sweep import run_recipe

            result = run_recipe(experiment, args.seed, args.output)
        else:
            result = run(experiment, args.seed)
        write_result(args.output, result)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
