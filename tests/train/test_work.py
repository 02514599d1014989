from pathlib import Path
from typing import Any

import pytest
from recipes import LABELLED, classified, family_arguments, files_of, write_rows

from weightlora.train import parse, prepare


def test_a_label_out_of_range(world: Path, rows: Path, tmp_path: Path, refused):
    more = write_rows(tmp_path / "more.jsonl", [*LABELLED, {"text": "odd", "label": 2}])
    message = refused(*classified(world, write_rows(rows, LABELLED), more))
    assert message.startswith("the label 2 in row 2 of validation is out of range: there are 2 classes, 0 to 1")
    assert "the label -1 in row 0" in refused(
        *classified(world, write_rows(rows, [{"text": "a", "label": -1}, *LABELLED]))
    )
    message = refused(*classified(world, write_rows(rows, [{"text": "a", "label": "x"}] * 2)))
    assert message.startswith("train has only the label 'x'")
    message = refused("--task", "regression", "--model", world / "deberta", *files_of(rows))
    assert message.startswith("the label 'x' in row 0 of train is not a number")


def test_a_text_longer_than_the_model(world: Path, refused):
    arguments = ["--task", "cola", "--dataset", world / "glue", "--model", world / "deberta"]
    assert refused(*arguments, "--max_length", 129).startswith(
        "max_length=129 is longer than the model's 128 positions"
    )
    arguments = ["--task", "xsum", "--dataset", world / "xsum", "--model", world / "bart", "--max_target_length", 300]
    assert refused(*arguments).startswith("max_target_length=300 is longer than the model's 128 positions")


def test_inputs_may_be_padded_to_max_length(world: Path, tmp_path: Path):
    for task in ("cola", "squad", "token-classification", "causal-lm", "sst2-verbalised"):
        work = prepare(parse([*family_arguments(world, task, tmp_path), "--pad_to_max_length"])).work
        batch = work.collate([work.train[i] for i in range(2)])
        assert batch["input_ids"].shape == (2, 64), task


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 10**9], "the label 1000000000 in train would make 1000000001 classes for 3 labels"),
        ([0, 1, 2**70], "the label 1180591620717411303424 in train would make"),
        ([0, 1, 0.5], "the label 0.5 in row 2 of train is neither a whole number nor a name"),
        ([0, 1, None], "the label None in row 2 of train is neither a whole number nor a name"),
        ([[0], [1]], "the label [0] in row 0 of train is neither a whole number nor a name"),
        ([0, 1, -1], "the label -1 in row 2 of train is out of range"),
        ([0, 0], "train has only the label 0: give rows of at least two classes"),
    ],
)
def test_labels_that_are_no_classes(world: Path, rows: Path, refused, labels: list[Any], message: str):
    write_rows(rows, [{"text": f"text {i}", "label": label} for i, label in enumerate(labels)])
    assert message in refused(*classified(world, rows))


def test_whole_numbers_of_a_column_of_floats_are_classes(world: Path, rows: Path, tmp_path: Path):
    write_rows(rows, [{"text": f"text {i}", "label": float(i % 3)} for i in range(6)])
    given = [*classified(world, rows), "--max_length", "32", "--output_dir", tmp_path / "out", "--use_cpu"]
    job = prepare(parse([*map(str, given), "--max_steps", "8"]))
    assert job.work.train["labels"][:4] == [0, 1, 2, 0] and list(job.work.config["label2id"]) == ["0", "1", "2"]


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_truth_values_are_two_classes(world: Path, rows: Path, tmp_path: Path, kind: str):
    """Readers of both formats make truth values of `true` and `false`."""
    labels = [True, False, False, True]
    if kind == "csv":
        rows = rows.with_suffix(".csv")
        rows.write_text("text,label\n" + "".join(f"text {i},{str(one).lower()}\n" for i, one in enumerate(labels)))
    else:
        write_rows(rows, [{"text": f"text {i}", "label": label} for i, label in enumerate(labels)])
    given = [*classified(world, rows), "--max_length", "32", "--output_dir", tmp_path / "out", "--use_cpu"]
    work = prepare(parse([*map(str, given), "--max_steps", "8"])).work
    assert list(work.train["labels"]) == [1, 0, 0, 1] and list(work.config["label2id"]) == ["false", "true"]


def test_a_class_name_twice(world: Path, rows: Path, refused):
    write_rows(rows, LABELLED)
    assert "has a name twice" in refused(*classified(world, rows), "--class_names", "a", "a")
