"""Ranks in proportion on eight tasks: which references count, and the sentences about the stored runs."""

from pathlib import Path

import pytest
from benchmarks.pages import proportional, replication
from benchmarks.pages.runs import runs_in
from benchmarks.pages.tuned import TASKS as EIGHT
from benchmarks.pages.untuned import failures
from benchmarks.results import by_seed
from stored import NAMES, result

TASKS = ("first", "second")


def runs(label, gap, seeds=replication.SEEDS):
    """Runs whose losses are 0.5 at the first seed and more at later ones, plus a gap that grows with the seeds."""
    return [
        result(
            label,
            seed,
            0.5 + 0.01 * place + gap * (1 + 0.1 * place),
            task=task,
            accuracy=0.8 - gap,
            settings={"label": label, "learning_rate": 0.001},
            names=NAMES,
            kept=NAMES[:2],
        )
        for task in TASKS
        for place, seed in enumerate(seeds)
    ]


@pytest.fixture
def stored(monkeypatch):
    known = [*runs("probe", 0.01), *runs("random-like-probe", 0.05), *runs("lora", -0.01)]
    own = [*runs("proportional-quarter", 0.0), *runs("lora-equal", 0.02, replication.SEEDS[:4])]
    for module in (proportional, replication):
        monkeypatch.setattr(module, "TASKS", TASKS)
    monkeypatch.setattr(replication, "runs_in", {"replication": known, "proportional": own}.get)
    return own


def cells(text):
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in text.splitlines()[2:]]


def test_a_reference_counts_once_all_of_its_runs_are_there(stored):
    better, worse = "better on 2 of 2 tasks, worse on 0", "better on 0 of 2 tasks, worse on 2"
    found = {row[0]: row[1:] for row in cells(proportional.proportional())}
    assert found == {
        "the default": [better, "better on 2, worse on 0", "+1.0 points", "2 of 2 tasks"],
        "random sets of the default's sizes": [better, "better on 2, worse on 0", "+5.0 points", "2 of 2 tasks"],
        "LoRA on all modules": [worse, "better on 0, worse on 2", "-1.0 points", "0 of 2 tasks"],
    }
    stored += runs("lora-equal", 0.02, replication.SEEDS[4:])
    assert "a lower rank on all modules" in {row[0] for row in cells(proportional.proportional())}


def test_a_row_for_each_task_has_losses_then_metrics(stored):
    (first, _) = cells(proportional.proportional_by_task())
    assert first[:2] == ["first", "0.001"]
    assert [cell.split(" ")[0] for cell in first[2:]] == ["-0.0120", "+0.0120", "+0.0100", "-0.0100"]


def test_the_sentences_have_the_figures_of_the_stored_runs():
    log = " ".join((Path(__file__).parents[3] / "docs/log.md").read_text(encoding="utf-8").split())
    runs = by_seed(run for study in ("replication", "proportional") for run in runs_in(study))
    default, chance, peft, lower, lora = (row[1:] for row in cells(proportional.proportional()))
    assert default[:2] == ["better on 2 of 8 tasks, worse on 0", "better on 0, worse on 0"]
    assert chance[0] == peft[0] == "better on 3 of 8 tasks, worse on 0"
    assert lower[0] == "better on 1 of 8 tasks, worse on 0" and "is level on seven tasks. On supersenses" in log
    assert {run.settings["learning_rate"] for run in runs["supersenses", "lora-equal"].values()} == {0.004}
    assert {run.settings["learning_rate"] for run in runs["supersenses", "proportional-quarter"].values()} == {0.002}
    assert "but at half the rate that tuning found for the lower rank there" in log
    assert lora[0] == "better on 1 of 8 tasks, worse on 2" and lora[3] == "6 of 8 tasks"
    assert "is level with that of LoRA on all modules on six of eight tasks**, instead of the default's five" in log
    own = [run for task in EIGHT for _, run in sorted(runs[task, "proportional-quarter"].items())]
    assert len(own) == 40 and failures(own) == 0 and "in proportion learn. They adapt 22 to 31 of the 37" in log
    assert {min(run.adapters_after for run in own), max(run.adapters_after for run in own)} == {22, 31}
    higher = []
    for label in ("random-like-probe", "peft-default", "lora-equal"):
        others = [run for task in EIGHT for _, run in sorted(runs[task, label].items())]
        higher.append(sum(a.held_out_loss < b.held_out_loss for a, b in zip(own, others, strict=True)))
    assert "have the higher loss at {} and {} of 40 seeds".format(*higher) in log
    assert f"The lower rank has the lower loss at {40 - higher[2]} of 40 seeds" in log
    assert failures(others) == 1 and "One of its runs does not learn" in log
