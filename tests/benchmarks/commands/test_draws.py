"""`python -m benchmarks draws`: the sets that probes choose with other draws of A."""

import json

import pytest
from benchmarks.__main__ import main


@pytest.mark.slow
def test_the_sets_are_stored_and_their_overlap_is_printed(tmp_path, capsys, minilm_is_tiny):
    path, task = tmp_path / "draws.json", tmp_path / "rotten-tomatoes-all"
    task.mkdir()
    (task / "task.json").write_text(json.dumps({"max_length": 16, "train_examples": 32, "test_examples": 2}))
    (task / "lora.json").write_text("{}")
    options = ["--root", str(tmp_path), "--tasks", "rotten-tomatoes-all", "--seeds", "0,1", "--rows", "1,32"]
    options += ["--batches", "1", "--batch_sizes", "16"]
    assert main(["draws", *options, "--output", str(path)]) == 0
    study = json.loads(path.read_text())
    assert study["settings"] == {"seeds": [0, 1]} and study["versions"]["peft"]
    cases = [(case["shared"], case["rows"], case["batch_size"], case["batches"]) for case in study["cases"]]
    assert cases == [(True, 1, 16, 1), (False, 1, 16, 1), (False, 32, 16, 1)]
    for case in study["cases"]:
        first, second = map(set, case["chosen"])
        assert len(first) == len(second) == 3 and case["overlap"] == len(first & second) / len(first | second)
    printed = capsys.readouterr().out
    assert "the same for all" in printed and "32 rows" in printed


def test_no_task_of_that_name_is_one_sentence(capsys):
    assert main(["draws", "--tasks", "nothing"]) == 2
    assert "task 'nothing' is unknown" in capsys.readouterr().err
