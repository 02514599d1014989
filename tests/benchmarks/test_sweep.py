import json
import re
import shutil
from pathlib import Path

import pytest
from benchmarks.__main__ import main
from benchmarks.pages.layout import render_layout
from benchmarks.results import load_results
from benchmarks.sweep import plan_sweep
from benchmarks.worker import main as run_one
from recipe_list import ROOT

from weightlora.errors import ConfigError
from weightlora.train.result import RESULT

SWEEPS = sorted(ROOT.glob("recipes/*/sweep.yaml"))


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.parent.name)
def test_a_sweep_is_the_papers_grid(path: Path, tmp_path: Path):
    runs = plan_sweep(path, tmp_path)
    k = [100] if path.parent.name == "llama-glue" else [1, 5, 10, 20]
    columns = {run.experiment["task"] for run in runs}
    cells = 6 * 4 + 5 * 4 * len(k) + 2
    assert len(runs) == len({run.output for run in runs}) == len(columns) * cells * 3
    assert [run.seed for run in runs[:: len(runs) // 3]][:3] == [18, 52, 1917]
    settings = [run.experiment["settings"] for run in runs if run.experiment["method"] == "weightlora-paper"]
    assert {s["rank"] for s in settings} == {1, 2, 4, 8} and {s["keep"] for s in settings} == set(k)
    part = plan_sweep(path, tmp_path, {"max_steps": 3}, [min(columns)], ["lora"], 1)
    assert {run.experiment["settings"]["max_steps"] for run in part} == {3} and len(part) == 4
    with pytest.raises(ConfigError, match=r"rank varies in the grid of .*sweep\.yaml"):
        plan_sweep(path, tmp_path, {"rank": 3})


@pytest.mark.parametrize("path", sorted(ROOT.glob("benchmarks/paper/*/sweep.yaml")), ids=lambda path: path.parent.name)
def test_a_stand_in_is_a_sweep_over_the_papers_recipes(path: Path, tmp_path: Path):
    runs = plan_sweep(path, tmp_path)
    assert {run.seed for run in runs} == {18, 52, 1917}
    assert {run.experiment["method"] for run in runs} >= {"lora", "random", "weightlora", "weightlora-paper"}
    for run in runs:
        settings = run.experiment["settings"]
        assert settings["model"].startswith("runs/paper/") and settings["dataset"].startswith("runs/paper/")


def test_a_sweep_runs_resumes_and_becomes_a_table(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    sweep, root = tmp_path / "sweep.yaml", tmp_path / "runs"
    glue = ROOT / "recipes" / "deberta-glue"
    small = {"model": str(world / "deberta"), "dataset": str(world / "glue"), "use_cpu": True, "keep": 3}
    small |= {"max_steps": 3, "gradient_accumulation_steps": 1, "max_length": 64, "warmup_steps": 0, "save_steps": 2}
    small |= {"save_total_limit": 5}
    content = {
        "columns": {"entailment": {"config": str(glue / "mnli.yaml")}},
        "grid": [{"method": ["lora", "weightlora"], "rank": [2]}],
        "seeds": [18, 52],
        "with": {**small, "save_strategy": "steps"},
    }
    sweep.write_text(json.dumps(content))  # JSON is YAML
    runs = plan_sweep(sweep, root)
    assert len(runs) == 4
    for run in runs:
        arguments = ["--experiment", json.dumps(run.experiment), "--seed", str(run.seed), "--output", str(run.output)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", ["experiment", *arguments])
            assert run_one() == 0
        assert run.is_done()
    assert main(["run", "--sweep", str(sweep), "--root", str(root)]) == 0  # in this process: nothing to do
    assert "4 runs, 4 of them done" in capsys.readouterr().out
    results, aside = load_results(root)
    assert len(results) == 4 and aside == []
    table = render_layout(results)
    rows = [
        [cell.strip() for cell in line.strip("| ").split("|")] for line in table.splitlines() if line.startswith("|")
    ]
    assert rows[0] == ["method", "seeds", "trainable", "entailment (accuracy / accuracy, mismatched)"]
    assert [row[:2] for row in rows[2:]] == [["lora-r2", "2"], ["weightlora-r2", "2"]]
    assert all(re.fullmatch(r"-?\d+\.\d\d ± \d+\.\d\d / \d+\.\d\d ± \d+\.\d\d", row[3]) for row in rows[2:])
    first = runs[0]
    resumed_from = first.output.with_suffix("") / "checkpoint-2"
    assert resumed_from.is_dir() and (first.output.with_suffix("") / "adapter").is_dir()
    assert main(["summarize", "--root", str(root)]) == 0
    written = (root / "table.md").read_text()
    assert written.startswith(f"# runs\n\n{table}\n\nWhat ran: {world / 'deberta'} on {world / 'glue'}, cpu.")
    # a run that was cut short goes on from its checkpoint; one of other settings does not
    before = json.loads(first.output.read_text())
    first.output.unlink()
    (first.output.with_suffix("") / RESULT).unlink()
    shutil.rmtree(first.output.with_suffix("") / "checkpoint-3")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "sys.argv",
            ["x", "--experiment", json.dumps(first.experiment), "--seed", "18", "--output", str(first.output)],
        )
        stamp = resumed_from.stat().st_mtime_ns
        assert run_one() == 0
    assert resumed_from.stat().st_mtime_ns == stamp
    assert json.loads(first.output.read_text())["metrics"] == before["metrics"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("columns: {a: {config: b.yaml}}", "other keys than columns, grid, seeds and with"),
        ("{columns: {a: {config: b.yaml}}, grid: [{method: lora}], seeds: [1]}", "b.yaml is not a file"),
        ("{columns: {a: {config: b.yaml}}, grid: [{method: lora, rnk: 1}], seeds: [1]}", "'rnk' is not a setting"),
        ("{columns: {../../x: {config: b.yaml}}, grid: [{method: lora}], seeds: [1]}", "'../../x' cannot be the name"),
        ("{columns: {a/b: {config: b.yaml}}, grid: [{method: lora}], seeds: [1]}", "'a/b' cannot be the name"),
        ("{columns: {a: {config: b.yaml}}, grid: [{method: ../x}], seeds: [1]}", "'../x' cannot be the name"),
        ("{columns: {a: {config: b.yaml}}, grid: [{method: lora, keep: /x}], seeds: [1]}", "'lora-k/x' cannot be the"),
        ("{columns: [a], grid: [{method: lora}], seeds: [1]}", "has columns=['a'], which must be"),
        ("{columns: {a: 5}, grid: [{method: lora}], seeds: [1]}", "has columns={'a': 5}, which must be"),
        ("{columns: {a: {rank: 5}}, grid: [{method: lora}], seeds: [1]}", "has columns="),
        ("{columns: {}, grid: [{method: lora}], seeds: [1]}", "has columns={}, which must be"),
        ("{columns: {a: {config: b.yaml}}, grid: {method: lora}, seeds: [1]}", "has grid="),
        ("{columns: {a: {config: b.yaml}}, grid: [lora], seeds: [1]}", "has grid=['lora'], which must be"),
        ("{columns: {a: {config: b.yaml}}, grid: [{rank: 1}], seeds: [1]}", "has grid=[{'rank': 1}], which must be"),
        ("{columns: {a: {config: b.yaml}}, grid: [{method: 5}], seeds: [1]}", "has grid=[{'method': 5}], which"),
        ("{columns: {a: {config: b.yaml}}, grid: [{method: lora}], seeds: 3}", "has seeds=3, which must be"),
        ("{columns: {a: {config: b.yaml}}, grid: [{method: lora}], seeds: [a]}", "has seeds=['a'], which must be"),
        ("{columns: {a: {config: b.yaml}}, grid: [{method: lora}], seeds: [1, 1]}", "has seeds=[1, 1], which must be"),
        ("{columns: {a: {config: b.yaml}}, grid: [{method: lora}], seeds: [1], with: 5}", "has with=5, which must be"),
        ("{columns: {a: {config: b.yaml}}, grid: [{method: lora}], seeds: [1], with: {3: 4}}", "3 is not a setting"),
        (
            "{columns: {a: {config: b.yaml}}, grid: [{method: [lora, lora]}], seeds: [1]}",
            "have the label lora: take one",
        ),
        ("columns: [", "is not valid YAML"),
        ("- a", "is not a mapping"),
    ],
)
def test_a_wrong_sweep_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture, text: str, message: str):
    (tmp_path / "sweep.yaml").write_text(text)
    (tmp_path / "b.yaml").write_text("rank: 1\n") if "cannot be" in message or "3 is" in message else None
    assert main(["run", "--sweep", str(tmp_path / "sweep.yaml"), "--root", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
