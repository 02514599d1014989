"""Several runs side by side."""

from dataclasses import replace
from pathlib import Path

import pytest
from run_directories import write_run

from weightlora.report import read_runs
from weightlora.report.comparison import compare_runs
from weightlora.report.costs import Cost


def test_two_runs(tmp_path: Path):
    result = {"metrics": {"test": {"accuracy": 0.75}}}
    one = write_run(tmp_path / "one", layers=3, steps=10, keep=6, result=result)
    two = write_run(tmp_path / "two", layers=3, steps=12, keep=6, seed=1)
    runs = read_runs([one, two])
    kept = [{module.name for module in run.modules if module.kept} for run in runs]
    values = compare_runs(runs, ["run0", "run1"])
    cells = [cell for row in values["map"]["rows"] for cell in row["cells"]]
    both, either = kept[0] & kept[1], kept[0] | kept[1]
    assert 0 < len(both) < len(either)
    assert [cell["mark"] for cell in cells].count("2") == len(both)
    assert [cell["mark"] for cell in cells].count("1") == len(either - both)
    only = next(cell["text"] for cell in cells if cell["mark"] == "1")
    assert "Kept in 1 of 2 runs: " in only
    assert values["lead"].startswith(f"Of 21 modules, {len(both)} are kept in all 2 runs, and {len(either)} in")
    assert values["header"][:3] == ["run", "rule", "adapters"] and values["header"][-1] == "test accuracy"
    assert [(line["name"], line["cells"][-1]["text"]) for line in values["lines"]] == [("one", "0.75"), ("two", "")]
    assert values["lines"][0]["cells"][0] == {"value": "credit", "text": "credit"}  # the table is sorted by the value
    assert ("select_steps", ["10", "12"]) in values["differences"]
    assert "keep" not in dict(values["differences"])
    assert [chart["title"] for chart in values["charts"]] == ["Training loss"]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({}, []),
        ({"rank": 16}, [("rank", ["8", "16"])]),
        ({"rank": 16, "name": "layers.0.experts.gate_up_proj"}, []),  # PEFT's rank for two projections
        ({"scaling": 2.0}, [("scaling", ["4", "2"])]),
    ],
)
def test_settings_of_peft_that_differ_are_shown(tmp_path: Path, change, found):
    one, two = read_runs([write_run(tmp_path / name, layers=1, steps=4, keep=1) for name in ("one", "two")])
    lora = {**two.selection.lora, "r": 16, "lora_alpha": 64}  # of the largest adapter that was kept
    modules = tuple(replace(module, **change) for module in two.selection.kept)
    other = replace(two, selection=replace(two.selection, modules=modules, lora=lora, fused_rank=2))
    assert compare_runs([one, other], ["a", "b"])["differences"] == found
    rs = replace(two, selection=replace(two.selection, lora={**lora, "use_rslora": True}))
    assert compare_runs([one, rs], ["a", "b"])["differences"] == [("use_rslora", ["False", "True"])]


def test_a_run_without_a_choice_is_named(tmp_path: Path):
    one = write_run(tmp_path / "one", layers=1, steps=10, keep=2)
    two = write_run(tmp_path / "two", layers=1, steps=10, keep=2, final=False)
    assert compare_runs(read_runs([one, two]), ["a", "b"])["lead"] == (
        "Of 7 modules, 2 are kept in all 2 runs, and 7 in at least one of them. two has not decided yet: the modules "
        "that are trained count as kept."
    )


def test_a_cost_of_before_the_choice_says_so(tmp_path: Path):
    runs = read_runs([write_run(tmp_path / name, layers=2, steps=4, keep=2) for name in ("one", "two")])
    known, cut = (replace(run, costs=[Cost("file", "bytes", 4e6, 1e6 if run is runs[0] else None)]) for run in runs)
    cells = [line["cells"][1] for line in compare_runs([known, cut], ["a", "b"])["lines"]]
    assert cells == [{"value": "1000000.0", "text": "1.0 MB"}, {"value": "4000000.0", "text": "4.0 MB before"}]


def test_runs_of_other_models(tmp_path: Path):
    one = write_run(tmp_path / "one", layers=2, steps=4, keep=2)
    two = write_run(tmp_path / "two", layers=1, steps=4, keep=2, name="encoder.{}.{}")
    values = compare_runs(read_runs([one, two]), ["a", "b"])
    cells = [cell for row in values["map"]["rows"] for cell in row["cells"] if cell is not None]
    assert len(cells) == 21 and not any(cell["classes"] for cell in cells)
