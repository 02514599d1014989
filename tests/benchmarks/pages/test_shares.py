"""Larger shares of the parameters: which runs are paired, and that only complete shares count."""

import pytest
from benchmarks.pages import shares
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
