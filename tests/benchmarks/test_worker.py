"""Real runs in processes of their own: resumed, reproduced, with evidence, and bad input in one sentence."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict

import pytest
from benchmarks import worker
from benchmarks.experiments import plan
from benchmarks.worker import run_experiment

from weightlora.errors import ConfigError
from weightlora.train.result import read_result

SETTINGS = {
    "steps": 3,
    "select_steps": 2,
    "batch_size": 4,
    "max_length": 8,
    "rank": 2,
    "warmup_steps": 0,
    "keep": 3,
    "train_examples": 12,
    "validation_examples": 4,
    "test_examples": 8,
}
VOLATILE = {"wall_seconds", "peak_process_bytes", "commit"}


@pytest.fixture
def root(tmp_path, minilm_is_tiny):
    """Two short experiments on MiniLM, which is tiny in this process."""
    (tmp_path / "rotten-tomatoes").mkdir()
    (tmp_path / "rotten-tomatoes" / "task.json").write_text(json.dumps({**SETTINGS, "seeds": 1}))
    (tmp_path / "rotten-tomatoes" / "lora-observed.json").write_text(
        json.dumps({"method": "lora", "evidence": [1, 3]})
    )
    (tmp_path / "rotten-tomatoes" / "default.json").write_text(json.dumps({"method": "weightlora"}))
    return tmp_path


def execute(monkeypatch, run):
    arguments = ["--experiment", json.dumps(run.experiment), "--seed", str(run.seed), "--output", str(run.output)]
    monkeypatch.setattr("sys.argv", ["worker", *arguments])
    return worker.main()


def same(result):
    return {name: value for name, value in asdict(result).items() if name not in VOLATILE}


@pytest.mark.slow
def test_a_probe_is_timed_and_a_run_without_one_has_no_times(root):
    (root / "rotten-tomatoes" / "probe.json").write_text(json.dumps({"method": "probe"}))
    runs = {run.experiment["label"]: run for run in plan(root, None, None, None)}
    found = run_experiment(runs["probe"].experiment, 0).evidence
    assert found.keys() == {"selection_seconds", "train_seconds"}
    assert 0 < found["selection_seconds"] < found["train_seconds"]
    assert run_experiment(runs["default"].experiment, 0).evidence is None


@pytest.mark.slow
def test_a_run_is_a_function_of_its_settings_and_seed(root, monkeypatch):
    chosen, observed = plan(root, None, None, None)
    for run in (chosen, observed):
        assert execute(monkeypatch, run) == 0
        assert run.is_done()
    result = read_result(chosen.output)
    assert (result.label, result.method, result.seed) == ("default", "weightlora", 0)
    assert result.settings == chosen.experiment and list(result.metrics) == ["test"]
    assert (result.adapters_before, result.adapters_after, len(result.kept)) == (12, 3, 3)
    assert result.adapter_parameters_before < result.trainable_parameters_before, "the head"
    again = run_experiment(chosen.experiment, 0)
    assert same(again) == same(result)

    evidence = read_result(observed.output).evidence
    assert sorted(evidence) == ["1", "2", "3"] and "leave_one_out" in evidence["2"]
    assert len(evidence["3"]["credit"]) == 12
    watched, plain = read_result(observed.output), run_experiment({**observed.experiment, "label": "lora"}, 0)
    assert watched.metrics == plain.metrics
    spoiled = chosen.output
    spoiled.write_text(spoiled.read_text()[:100])
    assert chosen.set_aside() and not chosen.is_done()


@pytest.mark.slow
def test_an_experiment_in_bfloat16_is_one(root):
    (run, _) = plan(root, None, None, None)
    losses = [run_experiment({**run.experiment, "bf16": bf16}, 0).held_out_loss for bf16 in (False, True)]
    assert losses[0] != losses[1] and losses[0] == pytest.approx(losses[1], rel=0.02)


def test_a_killed_benchmark_leaves_nothing_that_counts(root):
    arguments = [sys.executable, "-m", "benchmarks", "run", "--root", str(root), "--jobs", "1"]
    process = subprocess.Popen(arguments, start_new_session=True, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()  # it has begun
    time.sleep(1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not any(run.is_done() for run in plan(root, None, None, None))
    assert list(root.glob("*/results/*/*.json")) == []


def test_errors_of_settings_are_one_line(root, monkeypatch, capsys):
    (run, _) = plan(root, None, None, None)
    run.experiment["method"] = "lorra"
    assert execute(monkeypatch, run) == 2
    error = capsys.readouterr().err
    assert "'lorra' is not known" in error and error.count("\n") == 1
    with pytest.raises(ConfigError, match="task 'sst' is unknown: choose one of rotten-tomatoes"):
        run_experiment({**run.experiment, "task": "sst"}, 0)
