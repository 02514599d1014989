"""Pages and pictures of the main comparison, and of the side comparisons: folders of experiments in its root."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from weightlora.files import write_text
from weightlora.train.result import Result

from ..experiments import tasks_in
from ..figures.frequency import draw_shares
from ..figures.headroom import draw_headroom
from ..figures.lines import Place, draw_lines
from ..figures.movement import draw_movement
from ..results import load_results
from ..summary import write_summary
from ..tuning import render_tuning_markdown
from . import frontier, sizes
from .choices import movements, render_choices_markdown
from .decision import render_decision_markdown
from .headroom import fit_membership, place_methods, render_headroom_markdown
from .kept import keeping, render_kept_markdown, share_of_seeds
from .points import Point
from .ranks import render_ranks_markdown
from .rates import render_rates_markdown
from .tuned import render_tuned_markdown

__all__ = ["side_comparisons_in", "write_frontier", "write_headroom", "write_pages", "write_sizes"]

HEADROOM, FRONTIER, SIZES, RANKS, RATES, TUNED = "headroom", "frontier", "sizes", "ranks", "rates", "tuned"
PRICES = "benchmarks/results/prices.json"
SUBSETS = "random-"
"""Labels of random subsets in the headroom comparison: random-<K>."""
FEWEST_SUBSETS = 10


def side_comparisons_in(root: str | os.PathLike[str]) -> list[Path]:
    """Folders in `root` that contain tasks with results: ablations, for example."""
    return sorted({path.parents[3] for path in Path(root).glob("*/*/results/*/seed-*.json")})


def write_pages(root: str | os.PathLike[str], out_dir: str | os.PathLike[str]) -> list[Path]:
    """Write the pages about the main comparison, and a summary of every side comparison into its own folder.

    In `out_dir`: `choices.md` says what each rule would choose from the stored evidence, and `movement.png` shows how
    this evidence moves. `kept.md` and the pictures `<task>-kept.png` show what update credit chose. `tuning.md` shows
    how the learning rates were chosen. `decision.md` says which rule is the default, and why. A page without content
    is not written.

    A side comparison compares with runs of the main comparison where it has no runs of its own.

    Returns:
        The pages and pictures in `out_dir`, and the files of the comparisons of headroom, ranks, rates, sizes and step
        time.
    """
    directory, results, written = Path(out_dir), load_results(root)[0], []
    pages = {"choices": render_choices_markdown(results), "kept": render_kept_markdown(results)}
    pages |= {"tuning": render_tuning_markdown(root), "decision": render_decision_markdown(results)}
    for name, text in pages.items():
        if text:
            written.append(write_text(directory / f"{name}.md", text))
    if moved := movements(results):
        written.append(draw_movement(moved, directory / "movement.png"))
    for task, runs in keeping(results).items():
        written.append(draw_shares(task, share_of_seeds(runs), len(runs), directory / f"{task}-kept.png"))
    for side in side_comparisons_in(root):
        write_summary(side, directory / side.name, results)
    written += write_headroom(root, Path(root) / HEADROOM, directory / HEADROOM)
    if text := render_ranks_markdown(load_results(Path(root) / RANKS)[0], results):
        written.append(write_text(directory / RANKS / f"{RANKS}.md", text))
    if text := render_rates_markdown(load_results(Path(root) / RATES)[0], results):
        written.append(write_text(directory / RATES / f"{RATES}.md", text))
    if text := render_tuned_markdown(load_results(Path(root) / TUNED)[0]):
        written.append(write_text(directory / TUNED / f"{TUNED}.md", text))
    written += write_sizes(results, Path(root) / SIZES, directory / SIZES)
    return written + write_frontier(results, Path(root) / FRONTIER, directory / FRONTIER)


def write_headroom(
    root: str | os.PathLike[str], side: str | os.PathLike[str], out_dir: str | os.PathLike[str]
) -> list[Path]:
    """Write `<task>-<label>.md` and `.png` for every label `random-<K>` that has enough subsets.

    The runs of `random` in the main comparison are random subsets, too. Placed among them are the methods of both
    comparisons that have the same K, and LoRA on all modules.
    """
    studied, _ = load_results(side)
    compared, _ = load_results(root)
    tasks = tasks_in(Path(side))
    chance = [run for run in compared if run.label == "random" and run.task in tasks]
    subsets = [*studied, *(replace(run, label=f"{SUBSETS}{run.settings['keep']}") for run in chance)]
    written = []
    for task, label in sorted({(result.task, result.label) for result in subsets}):
        runs = [result for result in subsets if (result.task, result.label) == (task, label)]
        if not label.startswith(SUBSETS) or len(runs) < FEWEST_SUBSETS:
            continue
        others = [run for run in (*compared, *studied) if run.task == task and _is_comparable(run, runs[0])]
        methods = place_methods(others, runs)
        text = render_headroom_markdown(f"{task}, {label}", fit_membership(runs), methods)
        path = write_text(Path(out_dir) / f"{task}-{label}.md", text)
        losses = [run.held_out_loss for run in runs]
        written += [path, draw_headroom(f"{task}, {label}", losses, methods, path.with_suffix(".png"))]
    return written


def write_frontier(
    results: Iterable[Result], side: str | os.PathLike[str], out_dir: str | os.PathLike[str], prices: str = PRICES
) -> list[Path]:
    """Write `frontier.md` and `frontier.png`, loss against step time; nothing where no run within a budget is stored.

    Args:
        results: The main comparison, which has the plain lists.
        side: Folder of the runs within budgets.
        out_dir: Where the files are written.
        prices: The file of prices by which the sets were chosen.
    """
    if not (points := frontier.gather_frontier(load_results(side)[0], results, prices)):
        return []
    directory = Path(out_dir)
    page = write_text(directory / "frontier.md", frontier.render_frontier_markdown(points))
    lines = {words: [f"{way}-{share}" for share in frontier.SHARES] for way, words in frontier.WAYS.items()}
    panels = {task: _panel(of_task, lines, frontier.PLAIN) for task, of_task in points.items()}
    return [page, draw_lines(panels, directory / "frontier.png", "step time (LoRA on all = 1)")]


def write_sizes(
    results: Iterable[Result], side: str | os.PathLike[str], out_dir: str | os.PathLike[str]
) -> list[Path]:
    """Write `sizes.md` and `<task>-sizes.png`, loss against the number of adapters; nothing where no run is stored.

    Args:
        results: The main comparison, which has the plain lists.
        side: Folder of the runs with K adapters.
        out_dir: Where the files are written.
    """
    if not (points := sizes.gather_sizes(load_results(side)[0], results)):
        return []
    directory = Path(out_dir)
    written = [write_text(directory / "sizes.md", sizes.render_sizes_markdown(points))]
    for task, of_task in points.items():
        counts = sizes.PLANS[task].counts
        lines = {words: [line.format(count) for count in counts] for line, words in sizes.LINES.items()}
        panels = {task: _panel(of_task, lines, sizes.PLAIN)}
        ticks = sorted({*counts, round(max(point.x for point in of_task.values()))})
        written.append(draw_lines(panels, directory / f"{task}-sizes.png", "adapters", ticks))
    return written


def _panel(
    points: Mapping[str, Point], lines: Mapping[str, list[str]], plain: Mapping[str, str]
) -> tuple[dict[str, list[Place]], dict[str, Place]]:
    """The lines and the single points of a task, as far as they are stored."""
    losses = {label: point.loss for label, point in points.items()}
    at = {label: Place(points[label].x, loss["mean"] or 0.0, loss["ci"]) for label, loss in losses.items()}
    drawn = {words: [at[label] for label in labels if label in at] for words, labels in lines.items()}
    return drawn, {words: at[label] for label, words in plain.items() if label in at}


def _is_comparable(run: Result, subset: Result) -> bool:
    """Whether a run belongs among the random subsets: LoRA, or a method with the same K."""
    if run.label == "random" or run.label.startswith(SUBSETS):
        return False
    return run.label == "lora" or run.settings["keep"] == subset.settings["keep"]
