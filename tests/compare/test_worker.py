import io
import json
import os
import signal
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from torch import nn

from weightlora.compare import worker
from weightlora.compare.runs import Run, fingerprint
from weightlora.errors import DataError, TrainingError


@pytest.fixture
def run(tmp_path):
    return Run("lora", 0, "test", False, {"learning_rate": 1e-3}, {}, tmp_path / "seed-0.json")


def execute(process, monkeypatch):
    """The exit code of the process, which runs in this one."""
    monkeypatch.setattr("sys.stdin", io.StringIO(process.given))
    return worker.main()


def test_a_run_survives_the_way_to_its_process(run, monkeypatch):
    seen = []
    monkeypatch.setattr(worker, "execute_run", seen.append)
    process = worker.process_of(run)
    assert process.command[-1] == "weightlora.compare.worker" and execute(process, monkeypatch) == 0
    assert seen == [run]


def test_a_process_that_is_told_to_end_cleans_up(run, monkeypatch, tmp_path):
    """The run has a directory of its own for what a Trainer writes."""
    left = []

    def end(run):
        with tempfile.TemporaryDirectory(dir=tmp_path) as directory:
            left.append(Path(directory))
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)

    monkeypatch.setattr(worker, "execute_run", end)
    before = signal.signal(signal.SIGTERM, lambda *_: None)  # so that a failure of this test does not end pytest
    try:
        with pytest.raises(SystemExit) as stop:
            execute(worker.process_of(run), monkeypatch)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert stop.value.code == 128 + signal.SIGTERM and left and not left[0].exists()


def test_an_error_of_ours_is_one_line(run, monkeypatch, capsys):
    def fail(run):
        raise TrainingError("the loss\ndiverged.")

    monkeypatch.setattr(worker, "execute_run", fail)
    assert execute(worker.process_of(run), monkeypatch) == 2
    assert capsys.readouterr().err == "the loss diverged.\n"


def test_a_file_that_changed_meanwhile_is_not_trained_on(run, tmp_path):
    (path := tmp_path / "rows.jsonl").write_text('{"text": "new", "label": 1}')
    changed = replace(run, data={"train_file": "0" * 64}, settings={"task": "regression", "train_file": str(path)})
    with pytest.raises(
        DataError, match=r"rows\.jsonl has changed since the comparison began: put the earlier file back"
    ):
        worker.execute_run(changed)
    assert not run.output.exists()


def test_a_file_that_came_meanwhile_is_not_trained_on(run, tmp_path):
    """Such as one more part of the training set."""
    for number in (1, 2):
        (tmp_path / f"train-0000{number}-of-00002.jsonl").write_text('{"text": "new", "label": 1}')
    (first, _) = sorted(tmp_path.glob("*.jsonl"))
    known = {first.name: fingerprint(first)}
    grown = replace(run, data=known, settings={"task": "regression", "dataset": str(tmp_path)})
    with pytest.raises(DataError, match=r"train-00002-of-00002\.jsonl is new since the comparison began: take it out"):
        worker.execute_run(grown)
    assert not run.output.exists()


@pytest.mark.parametrize("task", ["text-classification", "regression"])
def test_a_run_that_diverges_is_no_result(place, task, tmp_path, capsys, monkeypatch):
    given = {"task": task, "model": place / "deberta", "train_file": tmp_path / "rows.jsonl", "learning_rate": 1e6}
    rows = [{"text": f"film number {i}", "label": i % 2} for i in range(60)]
    given["train_file"].write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {name: str(value) for name, value in given.items()} | {"max_steps": 20, "method": "full"}
    settings |= {"max_length": 16, "per_device_train_batch_size": 4, "use_cpu": True, "logging_strategy": "no"}
    run = Run("full", 0, "test", False, settings, {}, tmp_path / "seed-0.json")
    monkeypatch.setattr(worker, "tell_progress", lambda *steps: None)
    assert execute(worker.process_of(run), monkeypatch) == 2 and not run.output.exists()
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("the loss diverged at the learning rate 1e+06, and ") and said.endswith("a lower rate.")


def test_the_steps_before_and_after_a_removal_are_timed(monkeypatch, capsys):
    now = iter([0, 9, 9, 11, 11, 13, 13, 14, 14, 15])
    monkeypatch.setattr(worker.time, "perf_counter", lambda: next(now))
    progress, model = worker._Progress(), nn.Linear(2, 2)
    for step in range(1, 6):
        model.bias.requires_grad = step < 4
        progress.on_step_begin(None, None, None, model=model)
        progress.on_step_end(None, SimpleNamespace(global_step=step, max_steps=5), None, model=model)
    assert progress.step_seconds() == {"step_seconds_before": 2, "step_seconds_after": 1}
    assert progress.step_seconds(chosen_before=True) == {"step_seconds_before": None, "step_seconds_after": 1}
    assert capsys.readouterr().out.splitlines()[-1] == "step 5/5"
