"""`python -m benchmarks draws`: the sets that probes choose with other draws of A."""

import json

import pytest
from benchmarks.__main__ import main


@pytest.mark.slow
def test_the_sets_are_stored_and_their_overlap_is_printed(tmp_path, capsys):
    path = tmp_path / "draws.json"
    options = [
        "--tasks",
        "rotten-tomatoes-all",
        "--seeds",
        "0,1",
        "--rows",
        "1,32",
        "--batches",
        "1",
        "--batch_sizes",
        "16",
    ]
    assert main(["draws", *options, "--output", str(path)]) == 0
    study = json.loads(path.read_text())
    assert study["settings"] == {"seeds": [0, 1]} and study["versions"]["peft"]
    cases = [(case["shared"], case["rows"], case["batch_size"], case["batches"]) for case in study["cases"]]
    assert cases == [(True, 1, 16, 1), (False, 1, 16, 1), (False, 32, 16, 1)]
    for case in study["cases"]:
        assert [len(chosen) for chosen in case["chosen"]] == [6, 6]
        # MiniLM's widening layers lead by so much that no draw matters.
        assert {"pooler.dense", "encoder.layer.0.intermediate.dense"} <= {
            name.removeprefix("bert.") for name in case["chosen"][0]
        }
        assert case["overlap"] > 0.7
    printed = capsys.readouterr().out
    assert "the same for all" in printed and "32 rows" in printed


def test_no_task_of_that_name_is_one_sentence(capsys):
    assert main(["draws", "--tasks", "nothing"]) == 2
    assert "task 'nothing' is unknown" in capsys.readouterr().err
