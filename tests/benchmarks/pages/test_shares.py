"""Larger shares of the parameters: which runs are paired, and that only complete shares count."""

from pathlib import Path

import pytest
from benchmarks.pages import shares
from benchmarks.pages.reliability import LEARNED
from stored import result

ACCURACY = {"lora": 0.8, "probe": 0.79, "probe-30": 0.796}


def rows(monkeypatch, render, runs):
    monkeypatch.setattr(shares, "TASKS", ("first", "second"))
    monkeypatch.setattr(shares, "runs_in", {"tuned": runs, "shares": []}.get)
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in render().splitlines()[2:]]


@pytest.fixture
def runs():
    return [
        result(label, seed, 1.2 - accuracy + 0.01 * seed, task=task, accuracy=accuracy + 0.01 * seed)
        for task in ("first", "second")
        for label, accuracy in ACCURACY.items()
        for seed in shares.SEEDS
    ]


def test_shares_are_compared_with_the_default_and_with_lora_over_all_tasks(monkeypatch, runs):
    assert rows(monkeypatch, shares.shares, runs) == [
        ["25 %", "", "better on 0 of 2 tasks, worse on 2", "-1.0 points", "0 of 2 tasks"],
        [
            "30 %",
            "better on 2 of 2 tasks, worse on 0",
            "better on 0 of 2 tasks, worse on 2",
            "-0.4 points",
            "2 of 2 tasks",
        ],
    ]


def test_a_share_counts_when_all_its_tasks_are_complete(monkeypatch, runs):
    assert [row[0] for row in rows(monkeypatch, shares.shares, runs[:-1])] == ["25 %"]
    assert [row[:2] for row in rows(monkeypatch, shares.shares_by_task, runs[:-1])] == [
        ["first", "25 %"],
        ["first", "30 %"],
        ["second", "25 %"],
    ]


def test_each_task_has_differences_of_loss_and_metric(monkeypatch, runs):
    default, larger, *_ = rows(monkeypatch, shares.shares_by_task, runs)
    assert default[3] == default[5] == ""
    assert [cell.split()[0] for cell in default[4:7:2]] == ["+0.0100", "-0.0100"]
    assert [cell.split()[0] for cell in larger[3:]] == ["-0.0060", "+0.0040", "+0.0060", "-0.0040"]


def test_the_sentences_have_the_figures_of_the_stored_runs():
    table = [[cell.strip() for cell in row.strip("|").split("|")] for row in shares.shares_by_task().splitlines()[2:]]
    docs = Path(__file__).parents[3] / "docs"
    log, evidence, choosing = (
        " ".join((docs / f"{name}.md").read_text(encoding="utf-8").split()) for name in ("log", "evidence", "choosing")
    )
    spreads = []
    for share, tasks in (("30 %", 3), ("50 %", 2)):
        larger = [row[3] for row in table if row[1] == share]
        lower = sorted(abs(float(cell.split()[0])) for cell in larger if "▼" in cell)
        assert len(larger) == 8 and len(lower) == tasks and not any("▲" in cell for cell in larger)
        spreads.append(f"by {lower[0]:.3f} to {lower[-1]:.3f}")
    assert "than with a quarter on three with 30 %, on two with 50 %, and higher on none" in choosing
    assert f"Rotten Tomatoes, products and editorials, {spreads[0]}. It is significantly higher on none" in log
    assert f"on Rotten Tomatoes and editorials, {spreads[1]}, and higher on none" in log
    assert (
        f"lower than with a quarter on three tasks (30 %, {spreads[0]}) or two (50 %, {spreads[1]}), and higher on "
        "none. The metric is at most 0.5 points lower than LoRA's on four of eight, too." in evidence
    )
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in shares.shares().splitlines()[2:5]]
    assert [row[-1] for row in rows] == ["4 of 8 tasks"] * 3
    assert rows[2][2] == "better on 0 of 8 tasks, worse on 0"


def test_the_sentences_count_the_runs_that_did_not_learn():
    evidence = " ".join((Path(__file__).parents[3] / "docs" / "evidence.md").read_text(encoding="utf-8").split())
    failed = {"probe-30": 0, "probe-50": 0}
    for run in shares.runs_in("shares"):
        failed[run.label] += run.hardly_learned or (run.task == "film-reviews" and run.value < LEARNED)
    words = ("no", "one", "two", "three")
    said = "{} of 40 runs with 30 % and {} of 40 with 50 % did not learn".format(*(words[n] for n in failed.values()))
    assert said in evidence
