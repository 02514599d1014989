from pathlib import Path

import numpy as np
import pytest
from recipes import arguments, files_of, write_parquet

from weightlora.train import fit, parse, prepare
from weightlora.train.families.tokens import _first_pieces, _with_spaces, score_tokens


def test_words_of_a_sentence_have_classes(world: Path, tmp_path: Path):
    rows = [{"tokens": ["Ann", "made", "films"], "tags": ["PER", "O", "O"]}] * 6
    write_parquet(tmp_path / "rows.parquet", rows)
    more = ["--train_file", tmp_path / "rows.parquet", "--validation_file", tmp_path / "rows.parquet"]
    job = prepare(parse(arguments(world, "token-classification", "deberta", tmp_path / "out", *more)))
    row = job.work.train[0]
    assert [label for label in row["labels"] if label != -100] == [1, 0, 0]
    assert len(row["labels"]) == len(row["input_ids"]) > 5
    assert job.plan.adapters == 12  # the head trains whole
    assert job.work.guess_losses == {"validation": pytest.approx(np.log(3) - 2 / 3 * np.log(2))}
    assert fit(job).metrics["validation"].keys() == {"held_out_loss", "f1", "precision", "recall", "accuracy"}


def test_lists_of_words_and_tags_differ(world: Path, tmp_path: Path, refused):
    write_parquet(tmp_path / "t.parquet", [{"tokens": ["a", "b"], "tags": [0]}])
    arguments = ["--task", "token-classification", "--model", world / "deberta", *files_of(tmp_path / "t.parquet")]
    assert refused(*arguments) == "row 0 of train (counted from 0) has 2 tokens and 1 tags: give one tag per token."


@pytest.mark.parametrize("model", ["llama", "deberta"])
def test_words_of_a_list_have_the_tokens_that_they_have_in_a_text(world: Path, tmp_path: Path, model: str):
    """Llama's tokens have the space before a word. Those of a list have none, in Transformers without a word."""
    write_parquet(tmp_path / "rows.parquet", [{"tokens": ["a", "moving", "film", "."], "tags": ["O", "A", "B", "O"]}])
    job = prepare(
        parse(arguments(world, "token-classification", model, tmp_path / "out", *files_of(tmp_path / "rows.parquet")))
    )
    [row] = job.work.train
    assert row["input_ids"] == job.tokenizer("a moving film .").input_ids
    assert [label for label in row["labels"] if label != -100] == [2, 0, 1, 2]


def test_words_have_spaces_between_them_where_their_script_has_some():
    assert _with_spaces(["Ann", "saw", "", "\u6771\u4eac", "in", "\ubd04"]) == [
        *("Ann", " saw", "", "\u6771\u4eac", " in", " \ubd04"),
    ]


def test_words_outside_count_in_accuracy_alone():
    scores = score_tokens(["O", "PER", "LOC"], np.array([0, 1, 1, 2, 0]), np.array([0, 1, 2, 0, 1]))
    # found 3 (one right), wanted 3
    assert scores == {
        "f1": pytest.approx(1 / 3),
        "precision": pytest.approx(1 / 3),
        "recall": pytest.approx(1 / 3),
        "accuracy": 0.4,
    }


def test_an_empty_sentence_has_no_labels_where_the_tokenizer_adds_no_tokens():
    assert _first_pieces([], []) == []
    assert _first_pieces([None, None], []) == [-100, -100]
    assert _first_pieces([0, 0, 1], [5, 6]) == [5, -100, 6]
