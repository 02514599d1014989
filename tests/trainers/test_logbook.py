"""The log in the run directory."""

import json
from pathlib import Path

import pytest
from runs import build

from weightlora.files import read_lines
from weightlora.trainers.logbook import Logbook


def entries(directory: Path) -> list[dict]:
    return read_lines(directory / "log.jsonl")


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that the logbook reads."""
    seconds = [0.0]
    monkeypatch.setattr("weightlora.trainers.logbook.time.perf_counter", lambda: seconds[0])
    return seconds


def test_time_is_that_of_steps_alone(tmp_path: Path, now: list[float]):
    book = Logbook(tmp_path, 0)
    for step in range(6):
        book.begin_step(step)
        now[0] += 2
        if step == 3:
            book.interrupt()
            now[0] += 100
    book.write(6, {"loss": 0.5})
    book.write(6, {"eval_loss": 0.25})
    found = [{name: value for name, value in entry.items() if name != "gpu_bytes"} for entry in entries(tmp_path)]
    assert found == [{"step": 6, "loss": 0.5, "seconds_per_step": 2.0}, {"step": 6, "eval_loss": 0.25}]


def test_an_evaluation_is_logged_before_callbacks_are_told_of_it(tmp_path: Path, now: list[float]):
    book = Logbook(tmp_path, 0)
    for step in range(4):
        book.begin_step(step)
        now[0] += 2
        if step == 1:
            now[0] += 100
            book.write(2, {"eval_loss": 0.25, "eval_runtime": 100.0})
            book.interrupt()
    book.write(4, {"loss": 0.5})
    assert [entry.get("seconds_per_step") for entry in entries(tmp_path)] == [None, 2.0]


def test_only_finite_numbers_are_kept(tmp_path: Path):
    logs = {"loss": float("nan"), "note": "text", "flag": True, "step": 99, "total_flos": 1.0, "epoch": 0.5}
    Logbook(tmp_path, 0).write(3, logs)
    [entry] = entries(tmp_path)
    assert (entry["step"], entry["epoch"]) == (3, 0.5) and not entry.keys() & {"loss", "note", "flag", "total_flos"}


def test_a_new_run_starts_a_new_log_and_a_resumed_one_goes_on(tmp_path: Path):
    first = Logbook(tmp_path, 0)
    for step in (1, 2, 3):
        first.write(step, {"loss": step})
    Logbook(tmp_path, 2)
    assert [entry["step"] for entry in entries(tmp_path)] == [1, 2]
    Logbook(tmp_path, 0)
    assert entries(tmp_path) == []


def test_without_a_directory_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Logbook(None, 0).write(1, {"loss": 1.0})
    assert list(tmp_path.iterdir()) == []


def test_a_trainer_keeps_its_log(tmp_path: Path):
    trainer = build(tmp_path, {"keep": 3, "select_steps": 4}, eval_strategy="steps", eval_steps=4)
    trainer.train()
    found = entries(tmp_path)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert [entry["loss"] for entry in found if "loss" in entry] == losses and len(losses) == 8
    assert [entry["step"] for entry in found if "eval_loss" in entry] == [4, 8]
    assert [entry["weightlora/active_adapters"] for entry in found if "loss" in entry] == [12] * 3 + [3] * 5
    timed = [entry["step"] for entry in found if "seconds_per_step" in entry]
    assert timed == [1, 2, 3, 5, 6, 7, 8], "the step of the decision has more to do than a step"
    assert json.loads((tmp_path / "selection.json").read_text())["phase"] == "train"


def test_a_resumed_training_has_each_step_once(tmp_path: Path):
    settings = {"keep": 3, "select_steps": 2}
    build(tmp_path, settings).train()
    build(tmp_path, settings).train(resume_from_checkpoint=str(tmp_path / "checkpoint-5"))
    assert [entry["step"] for entry in entries(tmp_path) if "loss" in entry] == list(range(1, 9))
