"""Studies beside the main comparison: folders of experiments in the root, each with its own tables and pictures."""

import os
from functools import partial
from pathlib import Path
from typing import Any

from weightlora.report.figures import write_whole

from ..experiments import tasks_in
from ..figures.comparison import draw_headroom
from ..figures.frequency import draw_shares
from ..figures.movement import draw_movement
from ..results import load_results
from ..summary import write_summary
from ..tuning import render_tuning_markdown
from .choices import movements, render_choices_markdown
from .headroom import fit_membership, place_methods, render_headroom_markdown
from .kept import keeping, render_kept_markdown, share_of_seeds

__all__ = ["studies_in", "write_headroom", "write_studies"]

HEADROOM = "headroom"
SUBSETS = "random-"  # labels of the headroom study: random-<K>
FEWEST_SUBSETS = 10


def studies_in(root: str | os.PathLike[str]) -> list[Path]:
    """Folders in `root` that hold tasks with results of their own."""
    return sorted({path.parents[3] for path in Path(root).glob("*/*/results/*/seed-*.json")})


def write_studies(root: str | os.PathLike[str], out_dir: str | os.PathLike[str]) -> list[Path]:
    """Writes a summary of every study into its folder under `out_dir`, of the headroom study also what it is about.

    What a study compares with is read from the main comparison, where it has no runs of its own.

    In `out_dir`, `choices.md` says what each rule would choose from the evidence of the main comparison and
    `movement.png` how that evidence moves, `kept.md` and a picture `<task>-kept.png` a task what the default
    chose, and `tuning.md` how its learning rates were chosen; none of them where there is nothing to say.

    Returns:
        The pages and pictures in `out_dir`, and the files of the headroom study.
    """
    Path(out_dir).mkdir(parents=True, exist_ok=True)
    results, written = load_results(root)[0], []
    pages = {"choices": render_choices_markdown(results), "kept": render_kept_markdown(results)}
    pages["tuning"] = render_tuning_markdown(root)
    for name, text in pages.items():
        write: Any = partial(Path.write_text, data=text, encoding="utf-8")
        if text:
            written.append(write_whole(Path(out_dir) / f"{name}.md", write))
    if moved := movements(results):
        written.append(draw_movement(moved, Path(out_dir) / "movement.png"))
    for task, runs in keeping(results).items():
        written.append(draw_shares(task, share_of_seeds(runs), len(runs), Path(out_dir) / f"{task}-kept.png"))
    for study in studies_in(root):
        write_summary(study, Path(out_dir) / study.name, results)
    return written + write_headroom(root, Path(root) / HEADROOM, Path(out_dir) / HEADROOM)


def write_headroom(
    root: str | os.PathLike[str], study: str | os.PathLike[str], out_dir: str | os.PathLike[str]
) -> list[Path]:
    """Writes `<task>-<label>.md` and `.png` for every label `random-<K>` with enough subsets, of the study's tasks.

    The runs of `random` in the main comparison are random subsets, too. Placed among them are the methods of the task,
    in the main comparison and in the study, that were given the same K, and LoRA on all modules.
    """
    studied, _ = load_results(study)
    compared, _ = load_results(root)
    tasks = tasks_in(Path(study))
    chance = [run for run in compared if run["method"] == "random" and run["task"] in tasks]
    subsets = [*studied, *({**run, "method": f"{SUBSETS}{run['experiment']['keep']}"} for run in chance)]
    written = []
    for task, label in sorted({(result["task"], result["method"]) for result in subsets}):
        runs = [result for result in subsets if (result["task"], result["method"]) == (task, label)]
        if not label.startswith(SUBSETS) or len(runs) < FEWEST_SUBSETS:
            continue
        losses = [run["loss"] for run in runs]
        others = [
            run
            for run in (*compared, *studied)
            if run["task"] == task and run["method"] != "random" and not run["method"].startswith(SUBSETS)
            if run["method"] == "lora" or run["experiment"]["keep"] == runs[0]["experiment"]["keep"]
        ]
        methods = place_methods(others, runs)
        text: Any = render_headroom_markdown(f"{task}, {label}", fit_membership(runs), methods)
        path = Path(out_dir) / f"{task}-{label}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        written.append(write_whole(path, partial(Path.write_text, data=text, encoding="utf-8")))
        written.append(draw_headroom(f"{task}, {label}", losses, methods, path.with_suffix(".png")))
    return written
