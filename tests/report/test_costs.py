"""Before and after: what the table takes from which file."""

import json
from pathlib import Path

import pytest
from run_directories import write_run

from weightlora.errors import DataError
from weightlora.report.costs import Cost, Outcome, amount, costs_of, read_outcome
from weightlora.selection import Selection

LOG = [
    {"step": 5, "seconds_per_step": 0.4, "gpu_bytes": 900},
    {"step": 10, "seconds_per_step": 0.2, "gpu_bytes": 300},
    {"step": 15, "seconds_per_step": 0.1, "gpu_bytes": 300},
]
RESULT = {
    "trainable_parameters_before": 500,
    "trainable_parameters_after": 200,
    "optimizer_state_bytes_before": 4000,
    "optimizer_state_bytes_after": 1600,
    "metrics": {"test": {"accuracy": 0.75, "note": "text"}, "odd": 3},
    "versions": {"python": "3.11"},
    "machine": {"device": "cpu"},
    "evidence": {"columns": {"all": {"step_seconds": 0.5}, "kept": {"step_seconds": 0.25}}},
}


def chosen(directory: Path, **settings) -> Selection:
    return Selection.load(write_run(directory, layers=2, steps=10, keep=4, **settings))


def test_from_the_log(tmp_path: Path):
    found = {cost.name: cost for cost in costs_of(chosen(tmp_path), Outcome(), LOG, 10)}
    assert list(found) == ["adapters", "adapter parameters", "GPU memory in use", "step time, median"]
    assert found["adapters"] == Cost("adapters", "count", 14, 4)
    assert (found["step time, median"].before, found["step time, median"].after) == (pytest.approx(0.3), 0.1)
    assert (found["GPU memory in use"].before, found["GPU memory in use"].after) == (900, 300)


def test_from_the_result(tmp_path: Path):
    selection = chosen(tmp_path)
    (tmp_path / "result.json").write_text(json.dumps(RESULT))
    outcome = read_outcome(tmp_path)
    assert outcome.metrics == {"test": {"accuracy": 0.75}}
    assert (outcome.versions, outcome.machine) == ({"python": "3.11"}, {"device": "cpu"})
    found = {cost.name: (cost.before, cost.after) for cost in costs_of(selection, outcome, LOG, 10)}
    assert found["trainable parameters, with the head"] == (500, 200)
    assert found["optimizer state"] == (4000, 1600)
    assert found["step time, median"] == (0.5, 0.25), "measured by the command, step for step"


def test_a_choice_before_the_first_step_has_no_state_of_all_adapters_but_one_that_was_measured(tmp_path: Path):
    selection, measured = chosen(tmp_path), {"all": {"optimizer_state_bytes": 9000}, "kept": {}}
    for evidence, before in ((None, None), ({"columns": measured}, 9000)):
        (tmp_path / "result.json").write_text(json.dumps(RESULT | {"evidence": evidence}))
        found = {cost.name: cost for cost in costs_of(selection, read_outcome(tmp_path), LOG, 0)}
        assert (found["optimizer state"].before, found["optimizer state"].after) == (before, 1600)


def test_before_the_decision_there_is_no_after(tmp_path: Path):
    found = costs_of(chosen(tmp_path, final=False), Outcome(), LOG, 0)
    assert {cost.after for cost in found} == {None}
    assert found[-1].before == pytest.approx(0.2)


def test_a_result_is_of_its_own_choice_alone(tmp_path: Path):
    """A Trainer may choose anew in the directory of an earlier run of the command."""
    final, running = chosen(tmp_path / "final"), chosen(tmp_path / "running", final=False)
    own = [module.name for module in final.kept]
    assert Outcome(values={"kept": own[::-1]}).is_of(final)
    assert not Outcome(values={"kept": own[1:]}).is_of(final)
    assert not Outcome(values={"kept": own}).is_of(running)
    for values in ({}, {"kept": None}, {"kept": 3}):
        assert Outcome(values=values).is_of(final)


def test_a_damaged_or_foreign_result(tmp_path: Path):
    assert read_outcome(tmp_path) == Outcome()
    (tmp_path / "result.json").write_text("[]")
    assert read_outcome(tmp_path) == Outcome()
    (tmp_path / "result.json").write_text('{"metrics": 3, "versions": [], "machine": null}')
    assert read_outcome(tmp_path).metrics == {}
    (tmp_path / "result.json").write_text("{")
    with pytest.raises(DataError, match=r"result\.json is not whole JSON"):
        read_outcome(tmp_path)


def test_amounts():
    assert [amount(1234567.0, "count"), amount(1308880, "bytes"), amount(0.0123, "seconds")] == [
        "1,234,567",
        "1.3 MB",
        "12.3 ms",
    ]
    assert [amount(999_940, "bytes"), amount(999_960, "bytes")] == ["999.9 kB", "1.0 MB"]
    assert [amount(0, "bytes"), amount(2.5, "seconds"), amount(3e-6, "seconds")] == ["0 B", "2.5 s", "3.0 \u00b5s"]
    assert amount(None, "bytes") is None
