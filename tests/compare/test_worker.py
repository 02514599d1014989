import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from torch import nn

from weightlora.compare import worker
from weightlora.compare.runs import Run
from weightlora.errors import TrainingError


@pytest.fixture
def run(tmp_path):
    return Run("lora", 0, "test", False, {"learning_rate": 1e-3}, {}, tmp_path / "seed-0.json")


def test_a_run_survives_the_command_line(run, monkeypatch):
    seen = []
    monkeypatch.setattr(worker, "execute_run", seen.append)
    *_, module, content = worker.command_of(run)
    assert module == "weightlora.compare.worker" and worker.main([content]) == 0
    assert seen == [run]


def test_an_error_of_ours_is_one_line(run, monkeypatch, capsys):
    def fail(run):
        raise TrainingError("the loss\ndiverged.")

    monkeypatch.setattr(worker, "execute_run", fail)
    assert worker.main([json.dumps({**vars(run), "output": "x"})]) == 2
    assert capsys.readouterr().err == "the loss diverged.\n"


def test_a_loss_that_is_no_number_is_no_result(run, films, monkeypatch):
    settings = dict(zip([name.lstrip("-") for name in films[:-1:2]], films[1:-1:2], strict=True))
    run = replace(run, settings={**settings, "task": "text-classification", "learning_rate": 1e-3})
    found = SimpleNamespace(split="test", metrics={"test": {"held_out_loss": float("nan")}})
    monkeypatch.setattr("weightlora.train.fit", lambda *args, **kwargs: found, raising=False)
    with pytest.raises(TrainingError, match=r"lora seed 0: the loss diverged at the learning rate 0\.001"):
        worker.execute_run(run)
    assert not run.output.exists()


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
