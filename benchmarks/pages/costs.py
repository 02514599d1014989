"""The tables of what selecting saves: the quickstart's, the costs of a step, and the README's table."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from weightlora.compare.statistics import excludes_zero, interval, paired
from weightlora.wording import counted

from ..decision import SECOND
from ..speed.variants import LABELS
from .runs import losses_of, pool
from .tables import megabytes, table

RESULTS = Path(__file__).parents[1] / "results"
TASKS = {
    "rotten-tomatoes": "Rotten Tomatoes",
    "imdb": "IMDb",
    "vader-tweets": "VADER tweets",
    "smollm2-sentiment": "SmolLM2 sentiment",
    "smollm2-imdb-lm": "SmolLM2 language modelling",
}
NEW_TASKS = {
    "rotten-tomatoes-all": "Rotten Tomatoes",
    "vader-tweets-all": "VADER tweets",
    "film-reviews": "film reviews",
    "spam": "spam",
    "supersenses": "supersenses",
    "imdb-all": "IMDb",
    "film-reviews-long": "film reviews, 1,200 steps",
    "rotten-tomatoes-all-long": "Rotten Tomatoes, 1,200 steps",
    "smollm2-sentiment-float32": "SmolLM2 sentiment",
    "smollm2-imdb-lm-float32": "SmolLM2 language modelling",
}
"""The tasks on which the default is decided. The first five come first."""
COMPARED = {
    "lora": "LoRA on all modules",
    "probe": "chosen by the default",
    "random-like-probe": "random, same sizes",
    "peft-default": "PEFT's default list",
    "lora-equal": "rank 2 on all modules",
}


def stored(name: str) -> Any:
    """A result file of one measurement."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def costs() -> str:
    """What the default's choice saves."""
    return table(_costs(("lora", "probe")))


def savings() -> str:
    """What the default's choice saves, and the quality that goes with it."""
    rows = _costs(tuple(COMPARED))
    for task, seeds in SECOND.seeds.items():
        losses = {label: losses_of(task, label) for label in COMPARED}
        cells = [_loss(found, losses["probe"]) if len(found) == seeds else "" for found in losses.values()]
        rows.append([f"loss, {NEW_TASKS[task]} ({seeds} seeds)", *cells])
    return table(rows)


def _costs(labels: Sequence[str]) -> list[list[str]]:
    """A header, and a row for each cost. Only LoRA on all modules and the default have a measured step."""
    variants = stored("speed")["models"]["MiniLM-L6"]["variants"]
    measured = {"lora": variants["lora"], "probe": variants["after"]}
    runs = [list(pool()[next(iter(NEW_TASKS)), label].values()) for label in labels]

    def cost(title: str, key: str, form: Callable[[Any], str]) -> list[str]:
        return [title, *(form(measured[label][key]) if label in measured else "" for label in labels)]

    return [
        ["", *(COMPARED[label] for label in labels)],
        ["adapters", *(f"{fmean(run.adapters_after for run in several):.0f}" for several in runs)],
        [
            "adapter parameters",
            *(f"{fmean(run.adapter_parameters_after for run in several):,.0f}" for several in runs),
        ],
        cost("optimizer state", "optimizer_state_bytes", megabytes),
        cost("activations for backward", "saved_activation_bytes", megabytes),
        cost("step time", "over_lora", lambda value: f"{value:.2f}"),
    ]


def _loss(losses: Mapping[int, float], reference: Mapping[int, float]) -> str:
    """Mean, half-width of the 95 % interval, and where a significant difference from a reference lies."""
    found, difference = interval(list(losses.values())), paired(losses, reference)
    clear = difference is not None and excludes_zero(difference)
    mark = "" if difference is None or not clear else " ▲" if difference["mean"] > 0 else " ▼"
    return f"{found['mean']:.3f} ± {found['ci']:.3f}{mark}"


def _interval(values: Sequence[float]) -> str:
    """Mean, half-width of the 95 % interval, and number of seeds."""
    found = interval(values)
    return f"{found['mean']:.3f} ± {found['ci']:.3f} ({len(values)})"


def metrics() -> str:
    """The tasks' own metrics for the four main methods."""
    labels = {
        "lora": "LoRA on all",
        "random": "random quarter",
        "weightlora": "`weightlora`",
        "weightlora-plus": "WeightLoRA+",
    }
    rows = [["task", "metric", *labels.values()]]
    for task, name in TASKS.items():
        runs = {label: list(pool()[task, label].values()) for label in labels}
        cells = [_interval([run.value for run in several]) for several in runs.values()]
        rows.append([name, runs["lora"][0].metric, *cells])
    return table(rows, left=2)


def quickstart() -> str:
    """The numbers of `weightlora quickstart --compare`."""
    result = stored("quickstart")
    figures, plan = result["evidence"], result["plan"]

    def row(title: str, key: str, form: Callable[[Any], str]) -> list[str]:
        return [title, *(form(figures["columns"][name][key]) for name in ("all", "kept"))]

    rows = [
        ["", "LoRA on all modules", "chosen"],
        row("adapters", "adapters", str),
        row("their parameters", "adapter_parameters", lambda value: f"{value:,}"),
        row("optimizer state", "optimizer_state_bytes", megabytes),
        row("activations kept for backward", "saved_activation_bytes", megabytes),
        row("step time", "step_time_ratio", lambda value: f"{value:.2f}"),
        row("held-out accuracy", "test_accuracy", lambda value: f"{value:.3f}"),
        row("held-out loss", "test_loss", lambda value: f"{value:.3f}"),
    ]
    note = (
        f"MiniLM-L6, evaluated on {figures['test_sentences']:,} held-out sentences of Rotten Tomatoes after "
        f"{plan['steps']} steps of 32 sentences. This is one run with one seed: it shows that the command works, "
        "not how good the method is. Step time: forward and backward on one batch of these sentences, in turns. The "
        "[table of costs](choosing.md#what-it-costs-and-saves) has larger batches, and an adapter on the pooler, too."
    )
    return f"{table(rows)}\n\n{note}"


def speed() -> str:
    """Costs of a step, measured in turns in one process: every variant on MiniLM, and what all models come to."""
    figures = stored("speed")
    model = figures["models"]["MiniLM-L6"]
    batch, keep = " x ".join(map(str, model["batch"])), f"{model['keep']} of {model['adapters']}"
    machine: Mapping[str, Any] = figures["machine"]
    threads = counted(machine["threads"], "thread")
    note = (
        f"MiniLM-L6, {batch} tokens, rank 8, {keep} adapters kept, {threads} of a processor with "
        f"{machine['capability']}. Step time is relative to LoRA on all modules: median and quartiles of "
        f"{model['rounds']} rounds. The backward pass stops at the lowest adapter, so the savings depend on where the "
        "kept adapters are: MiniLM and SmolLM2 keep what the default kept in a run on Rotten Tomatoes and in one of "
        "language modelling (seed 0). The Llamas have random weights, and keep what a few steps chose."
    )
    return "\n\n".join([steps_of(model, ("forward", "backward", "optimizer")), note, summaries(figures["models"])])


def steps_of(model: Mapping[str, Any], parts: Sequence[str], digits: int = 0) -> str:
    """What a step of each variant takes and keeps on one model; `digits` are the decimals of a millisecond."""
    sized = ("activations for backward", "optimizer state", "peak", "file")
    rows = [["", "adapters", "step time", *(f"{part}, ms" for part in parts), *sized, "load"]]
    for key, variant in model["variants"].items():
        low, high = variant["over_lora_quartiles"]
        sizes = ("saved_activation_bytes", "optimizer_state_bytes", "peak_bytes", "file_bytes")
        rows.append(
            [
                LABELS[key],
                "" if variant["adapters"] is None else str(variant["adapters"]),
                f"{variant['over_lora']:.2f} ({low:.2f} to {high:.2f})",
                *(f"{variant['parts'][part] * 1000:,.{digits}f}" for part in parts),
                *("" if variant[size] is None else megabytes(variant[size]) for size in sizes),
                "" if variant["load_seconds"] is None else f"{variant['load_seconds']:.2f} s",
            ]
        )
    return table(rows)


def summaries(models: Mapping[str, Any]) -> str:
    """What the figures of each model come to."""
    names = {
        "before_over_lora": "step while selecting / LoRA on all",
        "after_over_lora": "step after the choice / LoRA on all",
        "after_over_limit": "step after the choice / LoRA on the same modules",
        "activations_after_over_limit": "activations after the choice / LoRA on the same modules",
        "peak_selecting_over_kept": "peak while selecting in low memory / after the choice",
        "peak_probing_over_kept": "peak of the probe / after the choice",
        "disconnect_in_steps": "disconnect and expansion, in steps",
        "own_overhead": "the selector's share of a step while selecting",
    }
    rows = [["", *(f"{name} ({one['adapters']} adapters)" for name, one in models.items())]]
    return table(
        rows + [[title, *(f"{one['summary'][key]:.3f}" for one in models.values())] for key, title in names.items()]
    )


def sparing() -> str:
    """Ways to a step with less memory, on each model: a choice, and two that train all modules."""
    ways = {"halves": "half batches", "recomputed": "gradient checkpointing", "after": "after the choice"}
    figures = {"peak_bytes": "peak", "over_lora": "step time"}
    rows = [["model", "batch", *(f"{title}: {way}" for title in figures.values() for way in ways.values())]]
    for name, model in stored("speed")["models"].items():
        base, batch = model["variants"]["lora"], " x ".join(map(str, model["batch"]))
        ratios = (model["variants"][way][figure] / base[figure] for figure in figures for way in ways)
        rows.append([name, batch, *(f"{ratio:.2f}" for ratio in ratios)])
    return table(rows, left=2)


def memory_of_methods() -> str:
    """What methods keep in memory during a step, and how long it takes: for the page of questions."""
    variants = stored("speed")["models"]["MiniLM-L6"]["variants"]
    rows = [["MiniLM-L6", "activations for backward", "optimizer state", "step time"]]
    for key in ("full", "lora", "dora", "adalora", "after", "top"):
        one = variants[key]
        sizes = (megabytes(one[size]) for size in ("saved_activation_bytes", "optimizer_state_bytes"))
        rows.append([LABELS[key], *sizes, f"{one['over_lora']:.2f}"])
    return table(rows)
