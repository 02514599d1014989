"""What is read from a run directory, at every moment of a run, and what is refused."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest
from run_directories import write_run

from weightlora import WeightLoraConfig
from weightlora.errors import DataError
from weightlora.report import gather, read_run, read_runs

ROOT = Path(__file__).parents[2]


def test_a_finished_run(tmp_path: Path):
    run = read_run(write_run(tmp_path / "first", layers=3, steps=10, keep=6))
    assert (run.name, run.step, run.steps, run.kept, len(run.modules)) == ("first", 10, 10, 6, 21)
    assert (len(run.rows), run.columns, run.decisions) == (7, ["0", "1", "2"], [10])
    assert {(module.row, module.column) for module in run.modules} == {(r, c) for r in range(7) for c in range(3)}
    assert any(module.bounded for module in run.modules)
    assert sorted(module.place for module in run.modules) == list(range(1, 22))
    assert run.settings["keep"] == (6, True) and run.settings["rounds"] == (1, False)
    assert [step for step, _ in run.losses()["training"]] == list(range(5, 111, 5))
    assert run.snippets.keys() and "model.layers" in run.snippets["json"]


def test_the_frontier_is_in_parts_of_all_scores(tmp_path: Path):
    """With a number of adapters to keep, the best set of the frontier is not all of them."""
    directory = write_run(tmp_path / "first", layers=3, steps=10, keep=6)
    values = json.loads((directory / "selection.json").read_text())
    for row in values["adapters"]:
        row["score"] = 1.0
    frontier = [{"budget": 5.0, "cost": 4.0, "kept": 6, "score": 6.0}]
    costs = {"resource": "step_time", "budget": 5.0, "predicted": 4.0, "whole": 10.0, "score": 6.0}
    (directory / "selection.json").write_text(json.dumps(values | {"costs": {**costs, "frontier": frontier}}))
    found = read_run(directory).frontier()
    assert found["points"] == [(0.4, 6 / 21, 6)] and found["chosen"] == (0.4, 6 / 21)


def test_only_settings_that_differ_from_a_default_run_are_marked():
    for config, marked in (
        (WeightLoraConfig(), []),
        (WeightLoraConfig(keep_parameters=0.5, seed=3), ["keep_parameters", "seed"]),
        (WeightLoraConfig(selection="credit"), ["selection"]),
        (WeightLoraConfig(selection="credit", keep=9), ["keep", "selection"]),
    ):
        settings = gather._settings(SimpleNamespace(config=asdict(config)))
        assert [name for name, (_, differs) in settings.items() if differs] == marked


def test_the_data_is_json_and_whole(tmp_path: Path):
    run = read_run(write_run(tmp_path / "first", layers=3, steps=10, keep=6))
    data = json.loads(json.dumps(run.to_dict(), allow_nan=False))
    assert data["target_modules"] == [module.name for module in run.modules if module.kept]
    assert len(data["history"]["scores"]) == 10 and data["history"]["decisions"][0]["step"] == 10
    assert data["config"]["keep"] == 6 and data["rule"] == "credit" and data["final"] is True


def test_a_run_that_goes_on_has_the_scores_of_its_last_step(tmp_path: Path):
    directory = write_run(tmp_path, layers=2, steps=10, final=False)
    history = (directory / "history.jsonl").read_text().splitlines()
    (directory / "history.jsonl").write_text("\n".join([*history[:4], history[4][:50]]))
    run = read_run(directory)
    assert (run.final, run.step, run.kept, run.snippets, run.decisions) == (False, 4, 14, {}, [])
    assert [module.score for module in run.modules] == json.loads(history[3])["score"]
    assert {module.why for module in run.modules} == {"The choice is not made yet."}


def test_the_stored_run_of_the_quickstart():
    run = read_run(ROOT / "benchmarks" / "results" / "quickstart")
    assert (run.kept, len(run.modules), run.decisions, run.losses()) == (6, 36, [], {})


def test_the_metrics_of_an_earlier_run_are_not_those_of_a_new_choice(tmp_path: Path):
    directory = write_run(tmp_path / "first", layers=3, steps=10, keep=6)
    kept = [module.name for module in read_run(directory).modules if module.kept]
    for names, outcome in ((kept, {"test": {"accuracy": 0.5}}), (kept[1:], {})):
        (directory / "result.json").write_text(json.dumps({"kept": names, "metrics": {"test": {"accuracy": 0.5}}}))
        assert read_run(directory).outcome == outcome


def test_two_runs_of_one_name_are_named_by_their_paths(tmp_path: Path):
    paths = [write_run(tmp_path / name / "seed-0", layers=1, steps=3, keep=2) for name in ("a", "b")]
    other = shutil.copytree(paths[0], tmp_path / "c")
    assert [run.name for run in read_runs([*paths, other])] == [str(paths[0]), str(paths[1]), "c"]
    with pytest.raises(DataError, match="is given twice"):
        read_runs([paths[0], paths[0] / ".." / "seed-0"])


def test_what_is_no_run_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match="does not exist: give the directory of a run"):
        read_run(tmp_path / "missing")


def test_a_run_without_a_step_is_refused(tmp_path: Path):
    (write_run(tmp_path, layers=1, steps=3, keep=2, final=False) / "history.jsonl").write_text("")
    with pytest.raises(DataError, match="has no step of the selection yet"):
        read_run(tmp_path)
