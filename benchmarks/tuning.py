"""Learning rates: one grid for every method, evaluated on the validation split at seeds that no result uses."""

import itertools
import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import fmean

from weightlora.compare.tables import escape_markdown, markdown_table
from weightlora.files import write_text
from weightlora.train.result import Result, read_result

from .experiments import SEEDS, Run, reads_another, resolve

FIRST_SEED = 1000  # no result uses it or a later one
TEXT = (
    "The loss on the validation split after training at each learning rate. No result is reported on that split. Each "
    "method has three rates or more once the tuning of its task is finished. Most methods share the same three; full "
    "fine-tuning has lower ones, and VeRA, AdaLoRA and plain SGD have higher ones. Some methods have more than three, "
    "mostly because the best of the three was the lowest or the highest; others in that position have no fourth. "
    "Random sets differ between seeds, so some of their rates have several runs (column seeds), whose mean counts. "
    "The last column is the rate with the lowest loss, at which the results ran."
)


def plan_tuning(root: Path, task: str, labels: list[str], grid: list[float], seeds: int = 1) -> list[Run]:
    """The runs of a learning-rate grid for every label, evaluated on the validation split.

    Each run is as long as those that it chooses the rate for, because shorter ones prefer rates at which longer ones
    diverge. No result uses the seeds of these runs.

    A run that reads what another one chose comes after those that read nothing.
    """
    runs = []
    for label, rate, seed in itertools.product(labels, grid, range(FIRST_SEED, FIRST_SEED + seeds)):
        resolved = {name: value for name, value in resolve(root, task, label).items() if name not in SEEDS}
        experiment = resolved | {"learning_rate": rate, "evaluate_on": "validation"}
        name = f"lr-{rate:g}" + ("" if seed == FIRST_SEED else f"-seed-{seed}")
        runs.append(Run(experiment, seed, root / task / "tuning" / label / f"{name}.json"))
    return sorted(runs, key=reads_another)


def settle_tuning(root: Path, task: str, labels: list[str]) -> dict[str, float]:
    """Write the learning rate with the lowest mean loss over stored runs into the file of each label.

    Stored runs of other settings than the label has now do not count: their rates may be outside of the grid.

    Returns:
        Label -> rate.
    """
    chosen = {}
    for label in labels:
        best = preferred(_of_these_settings(root, task, label))
        path = root / task / f"{label}.json"
        own = json.loads(path.read_text(encoding="utf-8"))
        write_text(path, json.dumps({**own, "learning_rate": best}, indent=1) + "\n")
        chosen[label] = best
    return chosen


def _of_these_settings(root: Path, task: str, label: str) -> Iterator[Result]:
    resolved = {name: value for name, value in resolve(root, task, label).items() if name not in SEEDS}
    for path in sorted((root / task / "tuning" / label).glob("lr-*.json")):
        stored = read_result(path)
        tried = {"learning_rate": stored.settings["learning_rate"], "evaluate_on": "validation"}
        if Run(resolved | tried, stored.seed, path).is_done():
            yield stored


def losses_by_rate(results: Iterable[Result]) -> dict[float, float]:
    """Mean validation loss at each learning rate, in ascending order."""
    losses: defaultdict[float, list[float]] = defaultdict(list)
    for result in results:
        losses[result.settings["learning_rate"]].append(result.held_out_loss)
    return {rate: fmean(losses[rate]) for rate in sorted(losses)}


def preferred(results: Iterable[Result]) -> float:
    """The rate with the lowest mean loss."""
    means = losses_by_rate(results)
    return min(means, key=lambda rate: means[rate])


def render_tuning_markdown(root: str | os.PathLike[str]) -> str:
    """One table per task of the main comparison, then of the side comparisons; empty without any tuning.

    A table has one row per label and one column per learning rate.
    """
    root, parts = Path(root), []
    for folder in [*sorted(root.glob("*/tuning")), *sorted(root.glob("*/*/tuning"))]:
        results: defaultdict[str, list[Result]] = defaultdict(list)
        for path in sorted(folder.glob("*/lr-*.json")):
            results[path.parent.name].append(result := read_result(path))
            steps = result.steps
        if not results:
            continue
        rates = sorted({rate for runs in results.values() for rate in losses_by_rate(runs)})
        rows = []
        for method, runs in results.items():
            losses = losses_by_rate(runs)
            cells = [f"{losses[rate]:.4f}" if rate in losses else "" for rate in rates]
            seeds = sorted(set(Counter(run.settings["learning_rate"] for run in runs).values()))
            rows.append([method, " or ".join(map(str, seeds)), *cells, f"{preferred(runs):g}"])
        header = ["method", "seeds", *(f"{rate:g}" for rate in rates), "chosen"]
        parts += [
            f"## {escape_markdown(folder.parent.relative_to(root).as_posix())}: {steps} steps",
            markdown_table(header, rows),
        ]
    return "\n\n".join(["# Learning rates", TEXT, *parts]) + "\n" if parts else ""
