import json
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from recipes import arguments, files_of, squad_paragraphs, write_rows
from transformers import EvalPrediction

from weightlora.train import fit, parse, prepare
from weightlora.train.families.answering import best_spans, span_loss


def test_long_contexts_have_windows_and_questions_may_have_no_answer(world: Path, tmp_path: Path):
    more = ["--dataset", world / "squad_v2", "--stride", "16"]
    job = prepare(parse(arguments(world, "squad_v2", "deberta", tmp_path, *more)))
    assert job.plan.rows["train"] > 12 and job.plan.rows["validation"] > 6
    answered = 0
    for row in job.work.train:
        start, end = row["start_positions"], row["end_positions"]
        if (start, end) != (0, 0):
            answered += 1
            assert job.tokenizer.decode(row["input_ids"][start : end + 1]).replace(" ", "") in {"Ann", "Bob", "Carl"}
    assert answered >= 6  # every second question of 12
    found = fit(job).metrics["validation"]
    assert {"f1", "exact_match", "HasAns_f1", "NoAns_f1", "best_f1"} <= found.keys() and found["best_f1"] >= 50


def test_an_answer_that_is_not_in_its_context(world: Path, tmp_path: Path, refused):
    paragraphs = squad_paragraphs(3, v2=False)
    paragraphs[1]["qas"][0]["answers"][0]["answer_start"] += 1
    for split in ("train", "validation"):
        (tmp_path / f"{split}.json").write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    arguments = ["--task", "squad", "--dataset", tmp_path, "--model", world / "deberta"]
    message = refused(*arguments, "--max_length", 64, "--stride", 16)
    assert message.startswith(
        "the answer 'Bob' of question 'q1' in row 1 of train (counted from 0) is not in its context at character"
    )
    message = refused("--task", "squad", "--dataset", world / "squad", "--model", world / "deberta", "--stride", 120)
    assert message.startswith("max_length=128 is too short for the longest question of train")


def test_an_empty_text_is_no_answer(world: Path, rows: Path, tmp_path: Path):
    answers = [{"text": ["", "Ann"], "answer_start": [0, 0]}, {"text": [""], "answer_start": [1]}]  # inside of a word
    asked = [{"id": str(i), "question": "who", "context": f"Ann {i}", "answers": answers[i % 2]} for i in range(4)]
    write_rows(rows, asked)
    given = ["question-answering", "deberta", tmp_path / "out", *files_of(rows), "--stride", "16"]
    work = prepare(parse(arguments(world, *given))).work
    assert [row["start_positions"] > 0 for row in work.train] == [True, False] * 2
    assert {"best_f1", "best_exact"} <= set(work.reported)
    logits = np.zeros((2, 4, max(map(len, work.evaluation["validation"]["input_ids"]))))
    logits[:, :, 0] = 1.0  # no answer to any question
    found = work.metrics["validation"](EvalPrediction(tuple(logits), np.zeros((2, 4), dtype=int)))
    assert (found["exact_match"], found["NoAns_f1"], found["HasAns_f1"]) == (50, 100, 0)


def test_white_space_around_an_answer_is_no_part_of_it(world: Path, rows: Path, tmp_path: Path):
    texts = [("Bob", 4), ("Bob ", 4), (" Bob", 3), (" Bob ", 3)]
    asked = [
        {"id": str(i), "question": "who", "context": "Ann Bob Carl", "answers": {"text": [t], "answer_start": [start]}}
        for i, (t, start) in enumerate(texts)
    ]
    write_rows(rows, asked)
    given = ["question-answering", "deberta", tmp_path / "out", *files_of(rows), "--stride", "16"]
    train = prepare(parse(arguments(world, *given))).work.train
    spans = {(row["start_positions"], row["end_positions"]) for row in train}
    assert len(spans) == 1 and (0, 0) not in spans


def test_spans_come_from_the_best_window_and_are_not_too_long():
    inside = [(-1, -1), (0, 3), (4, 7), (8, 13)]
    windows = Dataset.from_dict(
        {"example": [0, 0], "offsets": [inside, [(-1, -1), (4, 7), (8, 13), (14, 17)]], "cls": [0, 0]}
    )
    starts = np.array([[1.0, 5, 0, 0], [0.0, 0, 0, 9]])
    ends = np.array([[1.0, 0, 0, 5], [0.5, 0, 0, 2]])
    text = "Ann met Carla now"
    assert best_spans(starts, ends, windows, [text], 20, 30) == ([("now", 11.0)], [0.5])
    starts[1] = 0  # then the first window's: all of it, or what is short enough
    assert best_spans(starts, ends, windows, [text], 20, 30)[0] == [("Ann met Carla", 10.0)]
    assert best_spans(starts, ends, windows, [text], 20, 2)[0] == [("Ann", 5.0)]


def test_spans_by_hand():
    logits = np.log(np.array([[0.5, 0.25, 0.25, 9.0], [0.1, 0.2, 0.3, 0.4]]))
    lengths = [3, 4]  # the last column of the first window is padding
    loss = span_loss((logits, logits), ([0, 3], [1, 0]), lengths)
    assert loss == pytest.approx(-(np.log([0.5, 0.4]).mean() + np.log([0.25, 0.1]).mean()) / 2)
