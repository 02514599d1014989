"""`python -m benchmarks speed`: figures as a file and a table, or the summary as JSON."""

import json
from dataclasses import replace

import pytest
from benchmarks.__main__ import main
from benchmarks.commands.speed import GPU_RESULTS
from benchmarks.speed import measure, models
from benchmarks.speed.models import BATCHES, Subject
from models import batch, tiny_bert


@pytest.fixture
def tiny(monkeypatch):
    target = {"target_modules": r".*encoder.*(query|key|value|dense)", "task_type": "SEQ_CLS"}
    subject = Subject(tiny_bert(), [batch(step) for step in range(BATCHES)], 3, target)
    monkeypatch.setattr(models, "MODELS", {"tiny": lambda: subject})
    monkeypatch.setattr(models, "GPU_MODELS", {"large": replace(subject, rivals=False).to})


def test_the_figures_are_written_and_shown(tiny, tmp_path, capsys):
    path = tmp_path / "speed.json"
    assert main(["speed", "--rounds", "2", "--device", "cpu", "--output", str(path)]) == 0
    study = json.loads(path.read_text())
    assert study["models"]["tiny"]["variants"]["limit"]["adapters"] == 3 and study["machine"]["device"] == "cpu"
    shown = capsys.readouterr().out
    assert "tiny: 3 of 12 adapters are kept, 8 x " in shown and "LoRA on the same modules" in shown


def test_json_is_one_object_and_nothing_is_written(tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["speed", "--rounds", "2", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert list(printed) == ["device", "models"] and list(tmp_path.iterdir()) == []
    assert list(printed["models"]["tiny"]) == [
        "before_over_lora",
        "after_over_limit",
        "after_over_lora",
        "activations_after_over_limit",
        "peak_selecting_over_kept",
        "peak_probing_over_kept",
        "disconnect_in_steps",
        "own_overhead",
    ]


def test_what_a_gpu_is_for_is_measured_wherever_one_says_so(tiny, tmp_path, capsys, monkeypatch):
    """Waits are found as if there were one."""
    found = {"forward": [], "backward": [], "optimizer": ["guard.py:1"], "selector": []}
    monkeypatch.setattr(measure, "find_waits", lambda variant, batch: found)
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert main(["speed", "--gpu", "--rounds", "2", "--device", "cpu"]) == 0
    study = json.loads((tmp_path / GPU_RESULTS).read_text())
    assert study["models"]["large"]["variants"]["after"]["host_waits"] == found
    assert study["models"]["large"]["how"]["dtype"] == "float32"
    shown = capsys.readouterr().out
    assert "the host waits in" in shown and "1 guard.py:1" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--models", "GPT"], "--models 'GPT' is unknown: choose from tiny."),
        (["--rounds", "1"], "--rounds 1 gives no quartiles: give at least 2."),
        (["--gpu"], "--gpu needs CUDA, which is not here: leave it out, or try it slowly with --device cpu."),
        (["--device", "tpu"], "--device tpu is not here: give cpu, or leave it out."),
    ],
)
def test_bad_arguments_are_said_before_anything_loads(tiny, capsys, monkeypatch, arguments, message):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["speed", *arguments]) == 2
    assert message in capsys.readouterr().err
