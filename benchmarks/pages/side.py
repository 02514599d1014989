"""Pages and pictures of the main comparison, and of the side comparisons: folders of experiments in its root."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from weightlora.files import write_text
from weightlora.train.result import Result

from ..figures.frequency import draw_shares
from ..figures.headroom import draw_headroom
from ..figures.lines import draw_lines
from ..figures.movement import draw_movement
from ..results import load_results
from ..summary import read_summary
from ..tables import render_markdown
from ..tuning import render_tuning_markdown
from . import frontier, gemma3, sizes
from .choices import movements, render_choices_markdown
from .decision import render_decision_markdown
from .headroom import fit_membership, place_methods, render_headroom_markdown
from .kept import keeping, render_kept_markdown, share_of_seeds
from .points import Point
from .ranks import render_ranks_markdown
from .rates import render_rates_markdown
from .tuned import render_tuned_markdown

PRICES = "benchmarks/results/prices.json"
SUBSETS = "random-"
"""Labels of random subsets in the headroom comparison: random-<K>."""
FEWEST_SUBSETS = 10


def side_comparisons_in(root: Path) -> list[Path]:
    """Folders in `root` that contain tasks with results: ablations, for example."""
    return sorted({path.parents[3] for path in root.glob("*/*/results/*/seed-*.json")})


def write_pages(root: Path, directory: Path) -> None:
    """Write the pages about the main comparison, and about every side comparison into a folder of its name.

    `choices.md` says what each rule would choose from the stored evidence, and `movement.png` shows how this evidence
    moves. `kept.md` and the pictures `<task>-kept.png` show what update credit chose. `tuning.md` shows how the
    learning rates were chosen. `decision.md` says which rule is the default, and why. A page without content is not
    written.

    A side comparison has a summary, and some have a page of their own. It compares with runs of the main comparison
    where it has no runs of its own.
    """
    main = load_results(root)[0]
    pages = {"choices": render_choices_markdown(main), "kept": render_kept_markdown(main)}
    pages |= {"tuning": render_tuning_markdown(root), "decision": render_decision_markdown(main)}
    for name, text in pages.items():
        if text:
            write_text(directory / f"{name}.md", text)
    if moved := movements(main):
        draw_movement(moved, directory / "movement.png")
    for task, runs in keeping(main).items():
        draw_shares(task, share_of_seeds(runs), len(runs), directory / f"{task}-kept.png")
    for folder in side_comparisons_in(root):
        out = directory / folder.name
        write_text(out / "summary.md", render_markdown(*read_summary(folder, main=main)[1:]))
        _write_page(folder.name, load_results(folder)[0], main, out)


def _write_page(name: str, side: list[Result], main: list[Result], out: Path) -> None:
    """The page of a side comparison, where it has more than a summary."""
    match name:
        case "headroom":
            write_headroom(side, main, out)
        case "frontier":
            write_frontier(side, main, out)
        case "sizes":
            write_sizes(side, main, out)
        case "ranks":
            write_text(out / "ranks.md", render_ranks_markdown(side, main))
        case "rates":
            write_text(out / "rates.md", render_rates_markdown(side, main))
        case "tuned":
            write_text(out / "tuned.md", render_tuned_markdown(side))
        case "gemma3":
            write_text(out / "gemma3.md", gemma3.render_gemma3_markdown(side))
            if probes := gemma3.probes_of(side):
                place = out / f"{gemma3.TASK}-kept.png"
                draw_shares(gemma3.TASK, share_of_seeds(probes), len(probes), place)


def write_headroom(side: Sequence[Result], main: Sequence[Result], out: Path) -> None:
    """Write `<task>-<label>.md` and `.png` for every label `random-<K>` that has enough subsets.

    The runs of `random` in the main comparison are random subsets, too. Placed among them are the methods of both
    comparisons that have the same K, and LoRA on all modules.
    """
    tasks = {run.task for run in side}
    chance = [run for run in main if run.label == "random" and run.task in tasks]
    subsets = [*side, *(replace(run, label=f"{SUBSETS}{run.settings['keep']}") for run in chance)]
    for task, label in sorted({(run.task, run.label) for run in subsets if run.label.startswith(SUBSETS)}):
        runs = [run for run in subsets if (run.task, run.label) == (task, label)]
        if len(runs) < FEWEST_SUBSETS:
            continue
        others = [run for run in (*main, *side) if run.task == task and _is_comparable(run, runs[0])]
        methods, title, place = place_methods(others, runs), f"{task}, {label}", out / f"{task}-{label}"
        write_text(place.with_suffix(".md"), render_headroom_markdown(title, fit_membership(runs), methods))
        draw_headroom(title, [run.held_out_loss for run in runs], methods, place.with_suffix(".png"))


def write_frontier(side: Iterable[Result], main: Iterable[Result], out: Path, prices: str = PRICES) -> None:
    """Write `frontier.md` and `frontier.png`, loss against step time.

    Args:
        side: Runs within budgets.
        main: The main comparison, which has the plain lists.
        out: Where the files are written.
        prices: The file of prices by which the sets were chosen.
    """
    points = frontier.gather_frontier(side, main, prices)
    write_text(out / "frontier.md", frontier.render_frontier_markdown(points))
    if points:
        lines = {words: [f"{way}-{share}" for share in frontier.SHARES] for way, words in frontier.WAYS.items()}
        panels = {task: _panel(of_task, lines, frontier.PLAIN) for task, of_task in points.items()}
        draw_lines(panels, out / "frontier.png", "step time (LoRA on all = 1)")


def write_sizes(side: Iterable[Result], main: Iterable[Result], out: Path) -> None:
    """Write `sizes.md` and `<task>-sizes.png`, loss against the number of adapters.

    Args:
        side: Runs with K adapters.
        main: The main comparison, which has the plain lists.
        out: Where the files are written.
    """
    points = sizes.gather_sizes(side, main)
    write_text(out / "sizes.md", sizes.render_sizes_markdown(points))
    for task, of_task in points.items():
        plan = sizes.PLANS[task]
        lines = {words: [line.format(count) for count in plan.counts] for line, words in sizes.LINES.items()}
        panels = {task: _panel(of_task, lines, {label: sizes.PLAIN[label] for label in plan.plain})}
        ticks = sorted({*plan.counts, round(of_task[sizes.LORA].x)})
        draw_lines(panels, out / f"{task}-sizes.png", "adapters", ticks)


def _panel(
    points: Mapping[str, Point], lines: Mapping[str, list[str]], plain: Mapping[str, str]
) -> tuple[dict[str, list[Point]], dict[str, Point]]:
    """The lines and the single points of a task, by name."""
    drawn = {words: [points[label] for label in labels] for words, labels in lines.items()}
    return drawn, {words: points[label] for label, words in plain.items()}


def _is_comparable(run: Result, subset: Result) -> bool:
    """Whether a run belongs among the random subsets: LoRA, or a method with the same K."""
    if run.label == "random" or run.label.startswith(SUBSETS):
        return False
    return run.label == "lora" or run.settings["keep"] == subset.settings["keep"]
