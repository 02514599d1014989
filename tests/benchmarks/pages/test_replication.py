"""The replication: a reference counts once all of its runs are there."""

import pytest
from benchmarks.pages import replication
from stored import result

TASKS = ("first", "second")


def runs(label, rate, *gaps, tasks=TASKS):
    """Runs whose losses are 0.5 at the first seed and more at later ones, plus a gap at each seed."""
    return [
        result(
            label,
            seed,
            0.5 + 0.01 * place + gaps[place % len(gaps)],
            task=task,
            accuracy=0.8 - gaps[0],
            settings={"label": label, "learning_rate": rate},
        )
        for task in tasks
        for place, seed in enumerate(replication.SEEDS)
    ]


@pytest.fixture
def stored(monkeypatch):
    found = [*runs("probe", 0.001, 0.0), *runs("peft-default", 0.002, 0.05, 0.06), *runs("lora", 0.001, 0.0)[:-1]]
    monkeypatch.setattr(replication, "TASKS", TASKS)
    monkeypatch.setattr(replication, "runs_in", {"replication": found}.get)
    return found


def cells(text):
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in text.splitlines()[2:]]


def test_a_reference_counts_once_it_is_complete(stored):
    peft = ["PEFT's default list", "better on 2 of 2 tasks, worse on 0", "better on 2, worse on 0"]
    assert cells(replication.replication()) == [[*peft, "+5.0 points", "2 of 2 tasks"]]
    assert "LoRA on all modules" not in replication.replication_by_task()
    stored.append(runs("lora", 0.001, 0.0)[-1])
    lora = ["LoRA on all modules", "better on 0 of 2 tasks, worse on 0", "better on 0, worse on 0"]
    assert cells(replication.replication())[1] == [*lora, "+0.0 points", "2 of 2 tasks"]
    (first, _) = cells(replication.replication_by_task())
    assert first[:2] == ["first", "0.001"] and first[2].startswith("-0.0540 ± ") and first[-1].startswith("+0.0000")


def test_nothing_is_said_while_the_default_is_not_complete(monkeypatch):
    monkeypatch.setattr(replication, "runs_in", lambda study: [])
    assert replication.replication() == replication.replication_by_task() == "No reference is complete yet."
