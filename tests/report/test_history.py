"""Reading a history: thinned, while it grows, and damaged."""

import json
from pathlib import Path

import pytest

from weightlora.errors import DataError
from weightlora.report.history import MOST_POINTS, read_history, read_log, thin, thin_log


def write(directory: Path, lines: list[object], end: str = "\n") -> Path:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (directory / "history.jsonl").write_text("\n".join(texts) + end)
    return directory


def step(number: int, *scores: float) -> dict:
    return {"step": number, "phase": "select", "active": 2, "score": list(scores)}


def test_a_short_history_is_read_whole(tmp_path: Path):
    write(tmp_path, [step(1, 0.5, 1), step(2, 1.5, 2), {"step": 2, "kept": ["b"], "ranks": {"b": 8}}])
    history = read_history(tmp_path, 2)
    assert (history.recorded, history.steps, history.scores) == (2, [1, 2], [[0.5, 1], [1.5, 2]])
    assert [(decision.step, decision.kept) for decision in history.decisions] == [(2, {"b"})]


def test_a_long_history_is_thinned_and_keeps_the_steps_of_decisions(tmp_path: Path):
    lines: list[object] = [step(number, number, 0) for number in range(1, 2001)]
    lines.insert(777, {"step": 777, "kept": ["a", "b"], "ranks": {}})
    history = read_history(write(tmp_path, lines), 2)
    assert history.recorded == 2000 and MOST_POINTS <= len(history.steps) <= MOST_POINTS + 1
    assert history.steps[0] == 1 and history.steps[-1] == 2000 and 777 in history.steps
    assert [scores[0] for scores in history.scores] == history.steps


def test_with_many_modules_fewer_steps_are_read(tmp_path: Path):
    write(tmp_path, [step(number, *[0.0] * 2000) for number in range(1, 101)])
    history = read_history(tmp_path, 2000)
    assert (len(history.steps), history.steps[0], history.steps[-1]) == (20, 1, 100)


def test_thin_keeps_both_ends():
    assert thin(3, 5) == [0, 1, 2] and thin(10, 4) == [0, 3, 6, 9] and thin(0, 4) == []


def test_a_last_line_that_is_being_written_is_left_out(tmp_path: Path):
    write(tmp_path, [step(1, 0, 1), '{"step": 2, "sc'], end="")
    assert read_history(tmp_path, 2).steps == [1]


def test_without_a_file_the_history_is_empty(tmp_path: Path):
    assert read_history(tmp_path, 2).steps == [] and read_log(tmp_path) == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2 is not JSON"),
        ("[1]", "line 2 is not a JSON object"),
        (step(2, 1.0), "line 2 has no score for each of the 2 modules"),
        ('{"step": 2, "score": [NaN, 1]}', "line 2 is not JSON"),
        ({"step": 2, "score": ["a", 1]}, "line 2 has no score for each of the 2 modules"),
        ({"score": [1, 2]}, "line 2 has no step"),
        ({"step": 2, "kept": "a"}, "line 2 has no list of names as 'kept'"),
    ],
)
def test_a_damaged_line_is_named(tmp_path: Path, line: object, message: str):
    write(tmp_path, [step(1, 0, 1), line])
    with pytest.raises(DataError, match=message):
        read_history(tmp_path, 2)


def test_entries_of_the_log_have_a_step(tmp_path: Path):
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": 2}\n{"loss": 3}\n')
    assert read_log(tmp_path) == [{"step": 1, "loss": 2}]


def test_evaluations_are_not_thinned_with_the_steps_between_them():
    log = [
        {"step": step, name: 1.0} for step in range(1, 4001) for name in ("loss", "eval_loss")[: 1 + (step % 50 == 0)]
    ]
    found = thin_log(log)
    assert [entry["step"] for entry in found if "eval_loss" in entry] == list(range(50, 4001, 50))
    steps = [entry["step"] for entry in found if "loss" in entry]
    assert len(steps) == MOST_POINTS and steps[0] == 1 and steps[-1] == 4000
    assert found == sorted(found, key=log.index)
