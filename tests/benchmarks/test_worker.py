"""Real runs in processes of their own, on a tiny model and a local file: resumed, reproduced, compared."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from benchmarks.__main__ import main
from benchmarks.experiment import run
from benchmarks.experiments import plan
from benchmarks.own import write_comparison
from models import save_classifier

WORDS = ["good", "bad", "fine", "awful", "film", "plot", "actor", "scene", "end", "song"]
FAST = ["--steps", "6", "--batch-size", "4", "--max-length", "8", "--rank", "2"]
VOLATILE = {"wall_seconds", "peak_memory_bytes", "commit"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model directory and a data file."""
    directory = tmp_path_factory.mktemp("own")
    save_classifier(directory / "model", WORDS)
    rows = [
        {"text": f"{WORDS[i % 4]} {WORDS[4 + i // 4 % 6]} {WORDS[4 + i // 24]}", "label": "pos" if i % 2 else "neg"}
        for i in range(120)
    ]
    (directory / "films.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return directory


def command(place, root, *arguments):
    own = ["--model", str(place / "model"), "--data", str(place / "films.jsonl"), "--root", str(root)]
    return ["bench", "run", *own, *FAST, *arguments]


@pytest.mark.slow
def test_a_comparison_of_ones_own_resumes_and_reproduces(place, tmp_path, capsys):
    arguments = command(place, tmp_path, "--methods", "lora,random,weightlora", "--seeds", "2")
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "6 runs, 0 of them done" in printed
    assert "weightlora" in printed and "accuracy" in printed

    paths = sorted(tmp_path.glob("films/results/*/seed-*.json"))
    assert [str(path.relative_to(tmp_path / "films" / "results")) for path in paths] == [
        f"{method}/seed-{seed}.json" for method in ("lora", "random", "weightlora") for seed in (0, 1)
    ]
    results = {path: json.loads(path.read_text()) for path in paths}
    for result in results.values():
        assert result["adapters"]["before"] == 13, "the pooler is linear too"
        assert result["adapters"]["after"] == (13 if result["method"] == "lora" else 3)

    stored, spoiled = paths[5], paths[2]
    stored.unlink()
    spoiled.write_text(spoiled.read_text()[:100])
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "6 runs, 4 of them done" in printed
    assert "1 files set aside" in printed
    for path in (stored, spoiled):
        again = json.loads(path.read_text())
        assert {k: v for k, v in again.items() if k not in VOLATILE} == {
            k: v for k, v in results[path].items() if k not in VOLATILE
        }, "a run is a function of its settings and its seed"


def test_a_killed_benchmark_leaves_nothing_that_counts(place, tmp_path):
    write_comparison(tmp_path, str(place / "model"), place / "films.jsonl", ["lora"], own_settings())
    arguments = [sys.executable, "-m", "benchmarks", "bench", "run", "--root", str(tmp_path), "--jobs", "1"]
    process = subprocess.Popen(arguments, start_new_session=True, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()  # it has begun
    time.sleep(1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    runs = plan(tmp_path, None, None, 1)
    assert not any(planned.is_done() for planned in runs)
    assert list(tmp_path.glob("films/results/*/*.json")) == []


def test_an_experiment_in_bfloat16_is_one(place, tmp_path):
    losses = []
    for bf16 in (False, True):
        settings = {**own_settings(), "steps": 2, "select_steps": 1, "bf16": bf16}
        task = write_comparison(tmp_path / str(bf16), str(place / "model"), place / "films.jsonl", ["lora"], settings)
        (todo,) = plan(tmp_path / str(bf16), [task], None, 1)
        losses.append(run({**todo.experiment, "device": "cpu"}, 0)["loss"])
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def own_settings():
    return {"text_column": "text", "label_column": "label", "steps": 500, "batch_size": 4, "max_length": 8}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "x"], "--model belongs to a comparison of your own: give --data"),
        (["--steps", "3"], "--steps belongs to a comparison of your own"),
        (["--data", "x.jsonl"], "--data x.jsonl needs --model"),
        (["--data", "x.jsonl", "--model", "m"], "x.jsonl is no file"),
        (["--data", "x.jsonl", "--model", "m", "--methods", "lorra"], "method 'lorra' is unknown: choose from lora, "),
        (["--tasks", "sst"], "there are no experiments in benchmarks/quality"),
        (["--jobs", "0"], "0 is not at least 1"),
    ],
)
def test_bad_arguments_are_named_before_anything_runs(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    try:
        code = main(["bench", "run", *arguments])
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_another_comparison_is_not_overwritten(place, tmp_path):
    write_comparison(tmp_path, "m", place / "films.jsonl", ["lora"], own_settings())
    write_comparison(tmp_path, "m", place / "films.jsonl", ["lora", "random"], own_settings())
    with pytest.raises(ValueError, match="another comparison \\(it differs in steps\\)"):
        write_comparison(tmp_path, "m", place / "films.jsonl", ["lora"], {**own_settings(), "steps": 7})


def test_a_model_that_cannot_be_loaded_is_named(place, tmp_path, capsys):
    arguments = command(place, tmp_path, "--methods", "lora", "--seeds", "1")
    arguments[arguments.index("--model") + 1] = str(tmp_path / "nowhere")
    assert main(arguments) == 1
    assert f"the model {tmp_path / 'nowhere'} cannot be loaded" in capsys.readouterr().out
