"""Fills the tables of README.md and of pages in docs from the stored figures, and draws those pages' pictures.

`make quickstart ARGS="--compare --output-dir runs/compare"` makes `results/quickstart.json` (`results.json` there),
`make bench` makes `results/speed.json`, `make bench-quality` what is in `quality/`, and `weightlora study memory` and
`weightlora study alignment` make `results/{memory,alignment}.json` (of the same name in their output directories).
"""

import json
import re
from collections import defaultdict
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.figures.comparison import draw_differences
from benchmarks.figures.studies import draw_alignment, draw_memory
from benchmarks.results import load_results
from benchmarks.studies.alignment import render_alignment_markdown
from benchmarks.studies.memory import render_memory_markdown
from benchmarks.summary import difference, paired, read_summary

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
QUALITY = Path(__file__).parent / "quality"
PAGES = (ROOT / "README.md", ROOT / "docs" / "studies.md", ROOT / "docs" / "choosing.md")
CHANCE = {
    "random": "random sets, at the rate tuned for them",
    "same-rate": "random sets, at update credit's rate",
    "random-late": "random sets, chosen after the same selection phase",
}
HANDFUL = {  # way to choose five of 36: its label on Rotten Tomatoes and on the tweets
    "chance": ("random-5", "random-5-2e-3"),
    "chance, among the MLP's twelve": ("random-mlp-5", "random-mlp-5-2e-3"),
    "update credit, within 5/36 of the parameters": ("credit-60-5", "credit-60-5-2e-3"),
    "update credit, without that bound": ("credit-60-5-unbounded", "credit-60-5-unbounded-2e-3"),
    "the same, chosen and trained in one run": (
        "weightlora-5-unbounded-5e-4-faster-2",
        "weightlora-5-unbounded-5e-4-faster-4",
    ),
    "(LoRA on all 36)": ("lora", "lora"),
}
Runs = defaultdict[str, dict[int, float]]  # task -> seed -> loss


def table(rows: list[list[str]]) -> str:
    head, *body = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([head, "|" + "|".join([" --- "] + [" ---: "] * (len(rows[0]) - 1)) + "|", *body])


def megabytes(value: float) -> str:
    return f"{value / 1e6:.1f} MB"


def quickstart(figures: dict[str, Any]) -> str:
    """The quickstart's own numbers, the other method beside them."""
    columns = [figures["columns"][key] for key in ("selecting", "after", "lora")]

    def row(title: str, key: str, form: Any) -> list[str]:
        return [title, *("" if column[key] is None else form(column[key]) for column in columns)]

    settings = figures["settings"]
    rows = [
        ["", f"selecting, steps 1 to {settings['select_steps']}", "after the choice", "LoRA on all, same steps"],
        row("adapters", "adapters", str),
        row("their parameters", "adapter_parameters", lambda value: f"{value:,}"),
        row("optimizer state", "optimizer_state_bytes", megabytes),
        row("activations kept for backward", "saved_activation_bytes", megabytes),
        row("step time", "step_time_ratio", lambda value: f"{value:.2f}"),
        row("held-out accuracy", "test_accuracy", lambda value: f"{value:.3f}"),
        row("held-out loss", "test_loss", lambda value: f"{value:.3f}"),
    ]
    note = (
        f"MiniLM-L6 on {figures['test_sentences']:,} held-out sentences of Rotten Tomatoes, "
        f"{settings['steps']} steps of 32. One run and one seed show that it works, not how well; and its step times "
        "were taken minutes apart on a shared machine: the table below takes turns."
    )
    return f"{table(rows)}\n\n{note}"


def speed(figures: dict[str, Any]) -> str:
    """Costs of a step, interleaved in one process."""
    rows = [["", "adapters", "optimizer state", "activations for backward", "step time"]]
    for variant in figures["variants"].values():
        low, high = variant["step_time_ratio_quartiles"]
        rows.append(
            [
                variant["label"],
                str(variant["adapters"]),
                megabytes(variant["optimizer_state_bytes"]),
                megabytes(variant["saved_activation_bytes"]),
                f"{variant['step_time_ratio']:.2f} ({low:.2f} to {high:.2f})",
            ]
        )
    settings = figures["settings"]
    note = (
        f"MiniLM-L6, {settings['batch_size']} x {settings['tokens']} tokens, rank {settings['rank']}, "
        f"{figures['environment']['threads']} CPU threads; median and quartiles of {settings['rounds']} rounds, LoRA "
        "on all 36 modules = 1. Backward stops at the lowest adapter that is left, so what is saved depends on where "
        "it is."
    )
    return f"{table(rows)}\n\n{note}"


def quality(summary: dict[str, Any]) -> str:
    """A row a task, a column a method."""

    def interval(loss: dict[str, Any]) -> str:
        return f"{loss['mean']:.3f}" + ("" if loss["ci"] is None else f" ± {loss['ci']:.3f}")

    columns = {
        "lora": "LoRA on all",
        "random": "random quarter",
        "weightlora": "`weightlora`",
        "weightlora-plus": "WeightLoRA+",
    }
    rows = [["held-out loss", *columns.values(), "`weightlora` minus random", "metric: LoRA on all, `weightlora`"]]
    for task, methods in summary["tasks"].items():
        if not {"lora", "weightlora"} <= methods.keys():
            continue
        cells = [interval(methods[name]["loss"]) if name in methods else "" for name in columns]
        metrics = [f"{methods[name]['metric']['mean']:.3f}" for name in ("lora", "weightlora")]
        metric = f"{methods['lora']['metric']['name']} {', '.join(metrics)}"
        rows.append([task, *cells, difference(methods["weightlora"]["vs_random"]), metric])
    note = (
        "± is the half-width of the 95 % t-interval over seeds; the difference is paired by seed, and ▼ marks an "
        "interval that excludes 0. WeightLoRA+ has as many parameters as LoRA on all modules, `weightlora` and "
        "the random sets a quarter of them. Learning rates were tuned for each method, three values or more each, on "
        "a validation split that is reported nowhere. Seeds and all other methods: "
        "[docs/results](docs/results/summary.md)."
    )
    return f"{table(rows)}\n\n{note}"


def of_chance(main: list[dict[str, Any]], ablations: list[dict[str, Any]]) -> dict[str, Runs]:
    """Runs of update credit and of the three kinds of random sets: label -> task -> seed -> loss.

    `same-rate` are random sets from the start at update credit's rate, whichever experiment has them.
    """

    def settings(run: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in run["experiment"].items() if key not in ("label", "learning_rate")}

    found: dict[str, Runs] = {label: defaultdict(dict) for label in ("weightlora", *CHANCE)}
    rates = {run["task"]: run["experiment"]["learning_rate"] for run in main if run["method"] == "weightlora"}
    alike = [settings(run) for run in main if run["method"] == "random"]
    for run in main + ablations:
        if run["method"] in found:
            found[run["method"]][run["task"]][run["seed"]] = run["loss"]
        if settings(run) in alike and run["experiment"]["learning_rate"] == rates.get(run["task"]):
            found["same-rate"][run["task"]][run["seed"]] = run["loss"]
    return found


def chance(runs: dict[str, Runs]) -> str:
    """Update credit minus random sets, a row a task, and at how many of the common seeds it is lower."""
    rows = [["loss of update credit minus that of", *CHANCE.values()]]
    for task, losses in sorted(runs["weightlora"].items()):
        cells = []
        for label in CHANCE:
            found = paired(losses, reference := runs[label][task])
            seeds = len(losses.keys() & reference.keys())
            cells.append("" if found is None else f"{difference(found)} ({found['wins']} of {seeds})")
        rows.append([task, *cells])
    return table(rows)


def draw_chance(runs: dict[str, Runs], path: Path) -> Path:
    """The same differences as a picture."""
    panels = {}
    for task, losses in sorted(runs["weightlora"].items()):
        found = {}
        for label, words in CHANCE.items():
            reference = runs[label][task]
            differences = [losses[seed] - reference[seed] for seed in sorted(losses.keys() & reference.keys())]
            found[words] = (paired(losses, reference) or {}, differences)
        if any(differences for _, differences in found.values()):
            panels[task] = found
    return draw_differences(panels, "held-out loss of update credit minus that of random sets", path)


def handful(runs: list[dict[str, Any]]) -> str:
    """Five of 36, a row a way to choose them, two columns a task; paired by seed, the first five of each."""
    losses: defaultdict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    sizes: defaultdict[str, set[int]] = defaultdict(set)
    tasks = ("rotten-tomatoes", "vader-tweets")
    way_of = {key: way for way, labels in HANDFUL.items() for key in zip(tasks, labels, strict=True)}
    for run in runs:
        if (way := way_of.get((run["task"], run["method"]))) and run["seed"] < 5:
            losses[run["task"], way][run["seed"]] = run["loss"]
            sizes[way].add(run["trainable_parameters"]["after"])
    rows = [["five of 36, chosen by", "their parameters"]]
    for task in tasks:
        rows[0] += [f"{task}: loss", "minus that of chance"]
    for way in HANDFUL:
        rows.append([way, " to ".join(f"{size:,}" for size in sorted({min(sizes[way]), max(sizes[way])}))])
        for task in tasks:
            own = losses[task, way]
            found = None if way == "chance" else paired(own, losses[task, "chance"])
            against_chance = "" if found is None else f"{difference(found)} ({found['wins']} of {len(own)})"
            rows[-1] += [f"{fmean(own.values()):.3f}", against_chance]
    return table(rows)


def figures(name: str) -> Any:
    if name == "handful":
        return [run for study in ("", "ablations", "rivals", "headroom") for run in load_results(QUALITY / study)[0]]
    if name == "quality":
        return read_summary(QUALITY)[0]
    if name == "chance":
        return of_chance(load_results(QUALITY)[0], load_results(QUALITY / "ablations")[0])
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def put(text: str, name: str, content: str) -> str:
    """The page with the content between the markers of that name, if it has them."""
    marked = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    return marked.sub(lambda match: f"{match[1]}{content.strip()}\n{match[2]}", text)


def render(text: str) -> str:
    """A page with the tables put between their markers."""
    for name, draw in TABLES.items():
        if f"<!-- {name} -->" in text:
            text = put(text, name, draw(figures(name)))
    return text


TABLES = {
    "quickstart": quickstart,
    "speed": speed,
    "quality": quality,
    "chance": chance,
    "handful": handful,
    "memory": render_memory_markdown,
    "alignment": render_alignment_markdown,
}
PICTURES: dict[str, Any] = {"memory": draw_memory, "alignment": draw_alignment, "chance": draw_chance}


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(render(page.read_text(encoding="utf-8")), encoding="utf-8")
    for name, draw in PICTURES.items():
        draw(figures(name), ROOT / "docs" / "results" / f"{name}.png")
