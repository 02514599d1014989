"""The typed result: written and read, and what is malformed is refused."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from weightlora.errors import DataError
from weightlora.train.result import RESULT, Result, read_result, write_result

EXAMPLE = Result(
    task="cola",
    method="weightlora",
    label="weightlora-k3",
    seed=1,
    settings={"rank": 8},
    metric="matthews",
    metric_units={"held_out_loss": "none", "matthews": "fraction"},
    metrics={"validation": {"held_out_loss": 0.5, "matthews": 0.25}, "other": {"held_out_loss": 1.0, "matthews": 0.0}},
    train_loss=0.75,
    steps=4,
    names=["a", "b"],
    sizes=[10, 20],
    kept=["b"],
    adapters_before=2,
    adapters_after=1,
    adapter_parameters_before=30,
    adapter_parameters_after=20,
    trainable_parameters_before=36,
    trainable_parameters_after=26,
    optimizer_state_bytes_before=1,
    optimizer_state_bytes_after=None,
    peak_process_bytes=5,
    peak_gpu_bytes=None,
    wall_seconds=1,
    versions={"torch": "2"},
    machine={"threads": 1},
    commit=None,
    plan=None,
)


def test_what_is_written_is_read(tmp_path: Path):
    path = write_result(tmp_path / RESULT, EXAMPLE)
    assert read_result(path) == read_result(tmp_path) == EXAMPLE
    assert len(path.read_text().splitlines()) == len(asdict(EXAMPLE)) + 2  # one field per line, and the braces
    assert (EXAMPLE.split, EXAMPLE.held_out_loss, EXAMPLE.value) == ("validation", 0.5, 0.25)


@pytest.mark.parametrize(
    ("guesses", "hardly"),
    [
        (None, False),
        ({"other": 0.1}, False),
        ({"validation": 0.0}, False),  # all rows are of one class
        ({"validation": 0.53}, False),
        ({"validation": 0.52}, True),
        ({"validation": 0.1}, True),
    ],
)
def test_a_run_hardly_learned_if_a_guess_does_about_as_well(guesses: dict[str, float] | None, hardly: bool):
    assert replace(EXAMPLE, guess_losses=guesses).hardly_learned is hardly


@pytest.mark.parametrize(("train_loss", "hardly"), [(None, True), (0.52, True), (0.4, True), (0.39, False)])
def test_a_run_that_overfits_has_learned(train_loss: float | None, hardly: bool):
    assert replace(EXAMPLE, guess_losses={"validation": 0.5}, train_loss=train_loss).hardly_learned is hardly


def test_not_a_number_is_not_written(tmp_path: Path):
    with pytest.raises(ValueError, match="JSON"):
        write_result(tmp_path / RESULT, replace(EXAMPLE, train_loss=float("nan")))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 1}, "has format 1, and this version reads format 2"),
        ({"steps": None}, "has steps=None, which must be int .numbers up to 1e.100.: repeat the run"),
        ({"steps": True}, "has steps=True, which must be int"),
        ({"seed": "1"}, "has seed='1', which must be int"),
        ({"kept": [1]}, "has kept="),
        ({"train_loss": float("nan")}, "has train_loss=nan, which must be float"),
        ({"wall_seconds": 1e308}, "has wall_seconds=1e\\+308, which must be float"),
        ({"metrics": {"validation": {"held_out_loss": 10**200, "matthews": 0.5}}}, "has metrics=.*, which must be"),
        ({"plan": {"rows": {"train": "many"}}}, "has rows={'train': 'many'} in its plan, which must be dict"),
        ({"evidence": {"step_seconds_after": "1"}}, "has step_seconds_after='1' in its evidence, which must be float"),
        ({"metrics": {"validation": {"matthews": 0.5}}}, "has no held_out_loss for the split 'validation'"),
        ({"metrics": {}}, "has no value for its main metric 'matthews'"),
        ({"metric": "f1"}, "has no value for its main metric 'f1'"),
        ({"metric_units": {"matthews": "points"}}, "has the unit 'points' for matthews"),
        ({"loss": 0.5}, "has the field 'loss', which a result does not have"),
    ],
)
def test_a_malformed_result_is_refused(tmp_path: Path, changes: dict[str, Any], message: str):
    (tmp_path / RESULT).write_text(json.dumps({**asdict(EXAMPLE), **changes}))
    with pytest.raises(DataError, match=message):
        read_result(tmp_path)


def test_files_that_are_no_result(tmp_path: Path):
    with pytest.raises(DataError, match="cannot be read"):
        read_result(tmp_path)
    (path := tmp_path / RESULT).write_text('{"format": 2')
    with pytest.raises(DataError, match="is not JSON"):
        read_result(path)
    path.write_text("[]")
    with pytest.raises(DataError, match="is not a JSON object"):
        read_result(path)
    content = asdict(EXAMPLE)
    del content["classes"], content["evidence"]  # results of earlier versions lack these
    path.write_text(json.dumps(content))
    assert read_result(path) == EXAMPLE
    del content["kept"]
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="has no field 'kept'"):
        read_result(path)
