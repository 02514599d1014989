"""Comparisons end to end, with runs in this process."""

import json
from pathlib import Path

import pytest

from weightlora.cli import main
from weightlora.compare import worker
from weightlora.compare.comparison import read_comparison
from weightlora.compare.session import carry_out
from weightlora.compare.spec import make_comparison
from weightlora.compare.summary import read_summary, write_summary
from weightlora.errors import TrainingError
from weightlora.train.result import read_result

METHODS = ["lora", "random", "weightlora"]
VOLATILE = {"wall_seconds", "peak_process_bytes", "evidence"}


class Watcher:
    def __init__(self):
        self.begun, self.moved, self.steps, self.ended = None, [], [], []

    def begin(self, done, total):
        self.begun = (done, total)

    def aside(self, paths):
        self.moved += paths

    def step(self, run, step, steps):
        self.steps.append((run.name, step, steps))

    def end(self, run, seconds, error):
        self.ended.append((run.name, error))


def content(path):
    return {key: value for key, value in json.loads(path.read_text()).items() if key not in VOLATILE}


def test_classification_with_rates_resumes_and_reproduces(tmp_path, films, in_process):
    comparison = make_comparison(tmp_path / "out", METHODS, 2, [1e-3, 1e-2], films)
    comparison.claim()
    watcher = Watcher()
    assert carry_out(comparison, 1, watcher) == []
    assert watcher.begun == (0, 12) and len(in_process) == 12 and in_process[0] == "lora at 0.001"
    assert [name for name, _ in watcher.ended[6:]] == [f"{m} seed {s}" for s in (0, 1) for m in METHODS]
    assert ("lora at 0.001", 4, 4) in watcher.steps

    summary = read_summary(comparison)
    written = write_summary(summary, comparison.directory)
    assert [path.name for path in written] == ["comparison.json", "comparison.md", "comparison.png"]
    assert json.loads(written[0].read_text()) == summary
    assert (summary["task"], summary["steps"], summary["split"]) == ("text-classification", 4, "test")
    assert summary["rows"] == {"train": 84, "validation": 12, "test": 24}
    rows = summary["methods"]
    assert {name: (row["adapters_after"], row["adapters_before"]) for name, row in rows.items()} == {
        "lora": (13, 13),
        "random": (3, 13),
        "weightlora": (3, 13),
    }
    for method, losses in summary["tuning"].items():
        assert rows[method]["learning_rate"] == float(min(losses, key=losses.get))
    assert rows["weightlora"]["step_seconds_before"] is None and rows["weightlora"]["step_seconds_after"] > 0
    assert rows["random"]["vs_random"] is None and rows["random"]["vs_lora"]["ci"] is not None

    paths = sorted((tmp_path / "out").glob("*/*/*.json"))
    before = {path: content(path) for path in paths}
    gone, cut, tuned = paths[0], paths[3], tmp_path / "out" / "tuning" / "random" / "lr-0.01.json"
    gone.unlink()
    tuned.unlink()
    cut.write_text(cut.read_text()[:200])
    del in_process[:]
    watcher = Watcher()
    assert carry_out(comparison, 1, watcher) == []
    assert sorted(in_process) == ["lora seed 0", "random at 0.01", "random seed 1"]
    assert watcher.moved == [cut.with_name("seed-1.json.aside")] and watcher.begun[1] == 12
    assert {path: content(path) for path in paths} == before, "a run is a function of its settings and its seed"
    assert carry_out(comparison, 1, Watcher()) == [] and len(in_process) == 3, "nothing is run again"


def test_a_causal_lm_with_one_rate_and_one_seed(tmp_path, stories, in_process):
    comparison = make_comparison(tmp_path / "out", ["random", "weightlora"], 1, [1e-3], stories)
    comparison.claim()
    assert carry_out(comparison, 1, Watcher()) == []
    assert in_process == ["random seed 0", "weightlora seed 0"]
    summary = read_summary(comparison)
    assert summary["methods"]["random"]["metric"]["name"] == "perplexity"
    assert summary["methods"]["weightlora"]["vs_random"]["ci"] is None
    (finding,) = summary["findings"]
    assert finding.endswith("there is no interval, because one seed says nothing about the spread between seeds.")
    assert any("Give --seeds 3 or more" in note for note in summary["notes"])
    assert any("no comparison with lora: add it to --methods" in note for note in summary["notes"])
    assert any("All methods ran at the learning rate 0.001" in note for note in summary["notes"])


def test_at_one_seed_all_methods_see_the_same_order_and_head(tmp_path, films, in_process):
    """At a rate of almost 0 nothing is learned: what remains is the head and the order of the batches."""
    comparison = make_comparison(tmp_path / "out", METHODS, 2, [1e-12], films)
    comparison.claim()
    carry_out(comparison, 1, Watcher())
    found = [read_result(path) for path in sorted((tmp_path / "out" / "results").glob("*/*.json"))]
    for seed in (0, 1):
        alike = {(round(r.train_loss, 6), round(r.held_out_loss, 6)) for r in found if r.seed == seed}
        assert len(alike) == 1
    assert len({round(result.held_out_loss, 6) for result in found}) == 2, "seeds differ"


def test_a_run_that_fails_leaves_the_others(tmp_path, films, in_process, monkeypatch):
    fit = worker.execute_run

    def diverge(run):
        if run.method == "lora":
            raise TrainingError("the loss diverged: give a lower rate.")
        return fit(run)

    monkeypatch.setattr(worker, "execute_run", diverge)
    comparison = make_comparison(tmp_path / "out", ["last-layers", "lora"], 1, [1e-3], films)
    comparison.claim()
    ((run, error),) = carry_out(comparison, 1, Watcher())
    assert (run.name, error) == ("lora seed 0", "the loss diverged: give a lower rate.")
    assert list(read_summary(comparison)["methods"]) == ["last-layers"]
    note = "lora has no result at seed 0: run the same command again, with lora in --methods and --seeds 1."
    assert note in read_summary(comparison)["notes"]


def test_where_all_runs_fail_there_is_no_summary(tmp_path, films, in_process, monkeypatch, capsys):
    def diverge(run):
        raise TrainingError("the loss diverged: give a lower rate.")

    monkeypatch.setattr(worker, "execute_run", diverge)
    given = [*films, "--methods", "lora", "--seeds", "1", "--learning_rates", "1e-3"]
    assert main(["compare", *given, "--output_dir", str(tmp_path / "out")]) == 1, "a run failed, and the input is good"
    said = capsys.readouterr().err
    assert "failed: lora seed 0: the loss diverged" in said and said.endswith("because no run has a result\n")
    assert "run the comparison first" not in said


def test_a_second_command_adds_to_the_summary(tmp_path, films, in_process, capsys):
    given = ["compare", *films, "--output_dir", str(tmp_path / "out"), "--learning_rates", "1e-3", "--json"]
    assert main([*given, "--methods", "lora,random", "--seeds", "2"]) == 0
    capsys.readouterr()
    assert main([*given, "--methods", "peft-default", "--seeds", "1"]) == 0
    summary = json.loads(capsys.readouterr().out)
    rows, losses = summary["methods"], summary["losses"]
    assert in_process[4:] == ["peft-default seed 0"] and set(rows) == {"lora", "random", "peft-default"}
    assert rows["peft-default"]["vs_lora"] is not None and rows["peft-default"]["vs_peft_default"] is None
    assert rows["lora"]["vs_peft_default"]["mean"] == losses["lora"]["0"] - losses["peft-default"]["0"]
    assert "with peft-default in --methods and --seeds 2." in summary["notes"][0]


def test_two_commands_that_begin_at_once_lose_no_method(tmp_path, films, in_process, monkeypatch, capsys):
    given = [*films, "--output_dir", str(tmp_path / "out"), "--learning_rates", "1e-3", "--seeds", "1"]
    run = worker.execute_run

    def begin_another(own):
        content = json.loads((path := tmp_path / "out" / "settings.json").read_text())
        content["methods"]["top"] = content["methods"].pop("lora")
        path.write_text(json.dumps(content))
        return run(own)

    monkeypatch.setattr(worker, "execute_run", begin_another)
    assert main(["compare", *given, "--methods", "lora", "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)["methods"]) == ["lora"]
    assert read_comparison(tmp_path / "out").methods == ["top", "lora"]


def test_a_comparison_that_still_chooses_rates_goes_on(tmp_path, films, in_process, monkeypatch):
    run = worker.execute_run

    def stop_at_the_fourth(own):
        if len(in_process) == 4:
            raise KeyboardInterrupt
        return run(own)

    monkeypatch.setattr(worker, "execute_run", stop_at_the_fourth)
    comparison = make_comparison(tmp_path / "out", METHODS, 1, None, films)
    comparison.claim()
    with pytest.raises(KeyboardInterrupt):
        carry_out(comparison, 1, Watcher())
    with pytest.raises(ValueError, match="has results of the choice of learning rates alone: run the same comparison"):
        read_summary(comparison)


def test_a_comparison_without_results_has_no_summary(tmp_path, films):
    with pytest.raises(ValueError, match="has no results yet: run the comparison first"):
        read_summary(make_comparison(Path(tmp_path), METHODS, 1, None, films))
