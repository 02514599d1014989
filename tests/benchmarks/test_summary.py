"""The summary of stored results, as files."""

import json

import pytest
from benchmarks.summary import read_summary, write_summary
from stored import result, store

from weightlora.compare.tables import render_markdown
from weightlora.errors import DataError


def runs(label, losses, **changes):
    return [result(label, seed, loss, **changes) for seed, loss in enumerate(losses)]


def test_a_side_comparison_is_compared_with_the_main_runs_of_what_it_varies_and_of_the_references(tmp_path):
    store(tmp_path, result("plus-2", method="plus"))
    store(tmp_path, result("lora", loss=0.7))
    main = [result(method, task=task) for method in ("random", "lora", "plus", "top") for task in ("tiny", "other")]
    tasks = read_summary(tmp_path, main=main)[0]["tasks"]
    assert {task: sorted(methods) for task, methods in tasks.items()} == {"tiny": ["lora", "plus", "plus-2", "random"]}
    assert tasks["tiny"]["lora"]["loss"]["mean"] == 0.7, "its own run, not the main comparison's"


def test_the_summary_is_written_whole(tmp_path):
    for content in (*runs("a", [0.4, 0.5]), *runs("random", [0.6, 0.7]), result("a", task="other")):
        store(tmp_path / "in", content)
    out = tmp_path / "new" / "out"
    summary, remarks = write_summary(tmp_path / "in", out)
    assert sorted(path.name for path in out.iterdir()) == ["other.png", "summary.json", "summary.md", "tiny.png"]
    assert json.loads((out / "summary.json").read_text("utf-8")) == summary
    assert (out / "summary.md").read_text("utf-8") == render_markdown(summary, remarks)
    assert remarks == []


def test_no_results_is_an_error_that_tells_what_was_set_aside(tmp_path):
    store(tmp_path, result("b", 1)).write_text("{")
    with pytest.raises(DataError, match=r"no results in .*\n.*seed-1\.json: .* is not JSON"):
        write_summary(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
