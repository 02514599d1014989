import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from recipes import LABELLED, classified, files_of, write_rows

from weightlora.train import parse, prepare
from weightlora.train.families.classification import class_loss
from weightlora.train.labels import guess_loss
from weightlora.train.splitting import hold_out

FIRST = "(counted from 0)"


def test_the_best_guess_that_reads_no_text_predicts_how_often_each_class_occurs():
    labels = [0, 2, 2, 2]
    guess = np.log([0.25, 1e-300, 0.75])
    assert guess_loss(labels) == pytest.approx(class_loss(labels, np.tile(guess, (4, 1))))
    assert guess_loss([1, 1]) == 0


def test_a_label_out_of_range(world: Path, rows: Path, tmp_path: Path, refused):
    more = write_rows(tmp_path / "more.jsonl", [*LABELLED, {"text": "odd", "label": 2}])
    message = refused(*classified(world, write_rows(rows, LABELLED), more), "--class_names", "no", "yes")
    assert message.startswith(
        f"the label 2 in row 2 of validation {FIRST} is out of range: there are 2 classes, 0 to 1"
    )
    assert message.endswith("Fix the row, or name all classes with --class_names.")
    assert "the label -1 in row 0" in refused(
        *classified(world, write_rows(rows, [{"text": "a", "label": -1}, *LABELLED]))
    )
    message = refused(*classified(world, write_rows(rows, [{"text": "a", "label": "x"}] * 2)))
    assert message.startswith("train has only the label 'x'")
    alike = write_rows(rows, [{"text": "a", "label": 0}, {"text": "b", "label": 0}, *LABELLED])
    message = refused(*classified(world, alike), "--class_names", "no", "yes", "--train_examples", "2")
    assert message.startswith(
        "train has only the label 0: give rows of at least two classes, or more --train_examples"
    )
    texts = [{"sentence1": text, "sentence2": "b", "label": 0} for text in "ab"]
    message = refused(
        "--task", "mrpc", "--model", world / "deberta", *files_of(write_rows(rows, texts)), "--class_names", *"abc"
    )
    assert message.startswith("mrpc reports the F1 score of the second of two classes, and there are 3: use --task")
    write_rows(rows, [{"text": "a", "label": "x"}] * 2)
    message = refused("--task", "regression", "--model", world / "deberta", *files_of(rows))
    assert message.startswith(f"the label 'x' in row 0 of train {FIRST} is not a number, and regression needs numbers")
    assert message.endswith("fix the row, leave it out, or use --task text-classification.")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 10**9], "the label 1000000000 in train would make 1000000001 classes for 3 labels"),
        ([0, 1, 2**70], "the label 1180591620717411303424 in train would make"),
        (
            [0, 1, 0.5],
            f"the label 0.5 in row 2 of train {FIRST} is neither a whole number nor a name: fix the row, leave it "
            "out, or use --task regression.",
        ),
        ([0, 1, None], f"row 2 of train {FIRST} has an empty field as its label: fix the row, or"),
        (["a", "b", ""], f"row 2 of train {FIRST} has an empty field as its label: fix the row, or"),
        (["a", "b", " \t"], f"row 2 of train {FIRST} has an empty field as its label: fix the row, or"),
        ([[0], [1]], f"the label [0] in row 0 of train {FIRST} is neither a whole number nor a name"),
        ([0, 1, -1], f"the label -1 in row 2 of train {FIRST} is below 0, and classes count from 0: leave"),
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


@pytest.mark.parametrize("given", [[], ["--class_names", "neg", "pos"]])
def test_classes_have_the_order_of_a_head_that_was_trained_on_them(world: Path, rows: Path, tmp_path: Path, given):
    model = shutil.copytree(world / "deberta", tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    write_rows(rows, [{"text": f"text {i}", "label": ["neg", "pos"][i % 2]} for i in range(6)])
    for names, numbers in ((["pos", "neg"], [1, 0]), (["bad", "good"], [0, 1])):
        labels = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
        (model / "config.json").write_text(json.dumps(config | labels))
        asked = ["--task", "text-classification", "--model", model, "--train_file", rows, "--validation_file", rows]
        job = prepare(parse([*map(str, asked), "--output_dir", str(tmp_path / "out"), "--max_length", "32", *given]))
        assert job.work.train["labels"][:2] == numbers
        assert job.work.config["label2id"] == {"neg": numbers[0], "pos": numbers[1]}


def test_words_for_classes_do_not_move_with_the_names_in_a_config(world: Path, rows: Path, tmp_path: Path):
    model = shutil.copytree(world / "llama", tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    names = {"id2label": {0: "pos", 1: "neg"}, "label2id": {"pos": 0, "neg": 1}}
    write_rows(rows, [{"text": f"text {i}", "label": ["neg", "pos"][i % 2]} for i in range(6)])
    asked = ["--task", "text-classification", "--model", model, "--train_file", rows, "--validation_file", rows]
    asked += ["--pad_token", "</s>", "--verbalised", "--prompt", "{text}:", "--label_words", "no", "yes"]
    found = []
    for more in ({}, names):
        (model / "config.json").write_text(json.dumps(config | more))
        job = prepare(parse([*map(str, asked), "--output_dir", str(tmp_path / "out"), "--max_length", "64"]))
        found.append(job.work.train["labels"])
    assert found[0] == found[1]


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


def test_a_class_that_only_rows_split_off_have_is_a_class(world: Path, rows: Path, tmp_path: Path):
    texts = [f"text {i}" for i in range(20)]
    _, held = hold_out([json.dumps([text]) for text in texts], 0.1)
    write_rows(rows, [{"text": text, "label": "c" if i in held else "ab"[i % 2]} for i, text in enumerate(texts)])
    given = ["--task", "text-classification", "--model", world / "deberta", "--train_file", rows, "--max_length", 32]
    given += ["--max_steps", 8, "--use_cpu", "--output_dir", tmp_path / "out"]
    work = prepare(parse(list(map(str, given)))).work
    assert list(work.config["label2id"]) == ["a", "b", "c"]
    assert set(work.train["labels"]) == {0, 1} and set(work.evaluation["validation"]["labels"]) == {2}


@pytest.mark.parametrize(("label", "names"), [("c", "a b c"), ("so so", "a b 'so so'"), (3, "0 1 2 3")])
def test_a_class_that_only_the_validation_file_has(
    world: Path, rows: Path, tmp_path: Path, refused, label, names: str
):
    known = "ab" if isinstance(label, str) else (0, 1)
    write_rows(rows, [{"text": f"text {i}", "label": known[i % 2]} for i in range(4)])
    more = write_rows(tmp_path / "more.jsonl", [{"text": "fine", "label": known[0]}, {"text": "odd", "label": label}])
    assert refused(*classified(world, rows, more)) == (
        f"the label {label!r} in row 1 of validation {FIRST} is not the label of any training row: add such a row, or "
        f"give all classes, as in --class_names {names}."
    )


def labels_of(world: Path, train: Path, validation: Path, tmp_path: Path, *more: str) -> tuple[list[str], list[int]]:
    """The names of the classes, and the classes of the validation rows."""
    given = [*classified(world, train, validation), "--max_length", "32", "--output_dir", tmp_path / "out", *more]
    work = prepare(parse([*map(str, given), "--max_steps", "8", "--use_cpu"])).work
    return list(work.config["label2id"]), list(work.evaluation["validation"]["labels"])


def test_numbers_in_one_file_and_names_in_the_other(world: Path, tmp_path: Path, refused, capsys):
    """Readers of CSV make numbers of a column that has nothing else, so the same label may be either."""
    train, more = tmp_path / "train.csv", tmp_path / "more.csv"
    train.write_text("text,label\n" + "".join(f"text {i},{label}\n" for i, label in enumerate([1, 2, 3, "other"])))
    more.write_text("text,label\n" + "".join(f"text {i},{label}\n" for i, label in enumerate([1, 2, 3])))
    assert labels_of(world, train, more, tmp_path) == (["1", "2", "3", "other"], [0, 1, 2])
    train.write_text("text,label\n" + "".join(f"text {i},{label}\n" for i, label in enumerate(["True", "False", "?"])))
    more.write_text("text,label\nfine,False\nodd,True\n")
    assert labels_of(world, train, more, tmp_path) == (["?", "False", "True"], [1, 2])
    assert labels_of(world, more, train, tmp_path, "--eval_examples", "2") == (["false", "true"], [1, 0])
    train.write_text("text,label\nfine,0\nodd,1\n")
    assert labels_of(world, more, train, tmp_path) == (["false", "true"], [0, 1])
    train.write_text("text,label\n" + "".join(f"text {i},{label}\n" for i, label in enumerate([1, 2, 3, "other"])))
    more.write_text("text,label\nfine,1\nodd,4\n")
    capsys.readouterr()  # of the reading above
    assert "the label 4 in row 1 of validation" in (message := refused(*classified(world, train, more)))
    assert message.endswith("as in --class_names 1 2 3 4 other.")


def test_given_names_that_are_numbers_are_the_labels(world: Path, rows: Path, tmp_path: Path, refused, capsys):
    write_rows(rows, [{"text": f"text {i}", "label": 1 + i % 4} for i in range(8)])
    names = ["--class_names", "1", "2", "3", "4", "5"]
    assert labels_of(world, rows, rows, tmp_path, *names) == (names[1:], [0, 1, 2, 3] * 2)
    write_rows(rows, [{"text": f"text {i}", "label": i % 4 - 1} for i in range(8)])
    capsys.readouterr()  # of the reading above
    assert refused(*classified(world, rows), "--class_names", "-1", "0", "1") == (
        f"the label 2 in row 3 of train {FIRST} is none of the 3 classes (-1, 0, 1): fix the row, or leave it out."
    )


def test_two_files_may_number_the_same_classes_differently(world: Path, tmp_path: Path, refused, capsys):
    files = []
    for names, labels in ((["a", "b", "c"], [0, 1, 2, 0]), (["b", "c"], [0, 1, 1, 0])):
        columns = {"text": [f"text {i}" for i in range(4)], "label": labels}
        features = Features({"text": Value("string"), "label": ClassLabel(names=names)})
        files.append(tmp_path / f"{len(names)}.parquet")
        Dataset.from_dict(columns, features).to_parquet(files[-1])
    assert labels_of(world, *files, tmp_path) == (["a", "b", "c"], [1, 2, 2, 1])
    assert labels_of(world, *files, tmp_path, "--class_names", "x", "y", "z") == (["x", "y", "z"], [0, 1, 1, 0])
    assert labels_of(world, *files, tmp_path, "--class_names", "c", "b", "a") == (["c", "b", "a"], [1, 0, 0, 1])
    features = Features({"text": Value("string"), "label": ClassLabel(names=["d", "e"])})
    Dataset.from_dict(columns, features).to_parquet(files[1])
    capsys.readouterr()  # of the files that were written
    message = refused(*classified(world, files[0]), "--validation_file", files[1])
    assert message.startswith("validation names its classes d, e, and train a, b, c: give the files the same names")
    assert labels_of(world, *files, tmp_path, "--class_names", "x", "y", "z") == (["x", "y", "z"], [0, 1, 1, 0])


def test_a_number_is_no_place_among_classes_with_fractions_as_names(world: Path, tmp_path: Path, refused, capsys):
    features = Features({"text": Value("string"), "label": ClassLabel(names=["1.0", "2.0", "3.0"])})
    columns = {"text": [f"text {i}" for i in range(4)], "label": [0, 1, 2, 1]}
    Dataset.from_dict(columns, features).to_parquet(tmp_path / "a.parquet")
    write_rows(tmp_path / "b.jsonl", [{"text": f"text {i}", "label": 1.0 + i % 2} for i in range(4)])
    capsys.readouterr()  # of the file that was written
    message = refused(*classified(world, tmp_path / "a.parquet"), "--validation_file", tmp_path / "b.jsonl")
    assert message.startswith("the label 1.0 in row 0 of validation (counted from 0) is")


@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_names_of_classes_that_pandas_takes_for_empty_fields(
    world: Path, tmp_path: Path, ending: str, refused, capsys
):
    names, between = ["None", "NA", "null", "n/a", "nan"], {"csv": ",", "tsv": "\t"}[ending]
    lines = [f"text {i}{between}{name}\n" for i, name in enumerate(names)]
    (rows := tmp_path / f"rows.{ending}").write_text(f"text{between}label\n" + "".join(lines))
    given = [*classified(world, rows), "--max_length", "32", "--output_dir", tmp_path / "out", "--use_cpu"]
    work = prepare(parse([*map(str, given), "--max_steps", "8"])).work
    assert list(work.config["label2id"]) == sorted(names)
    rows.write_text(f"text{between}label\n" + "".join(lines) + f"more{between}\n")
    capsys.readouterr()  # of the first reading
    message = refused(*classified(world, rows))
    assert message == f"row 5 of train {FIRST} has an empty field as its label: fix the row, or leave it out."


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["pos", "neg", "pos "] * 4, r"the classes 'pos' and 'pos ' differ only in case or white space, and count"),
        (["Pos", "neg", "pos"] * 4, r"the classes 'Pos' and 'pos' differ only in case"),
        ([1, 2, 1] * 4, r"no training row has the label 0: there are 3 classes, which count from 0"),
    ],
)
def test_classes_that_may_be_a_slip_are_told(world: Path, tmp_path: Path, labels: list[Any], message: str):
    rows = [{"text": f"film {place}", "label": label} for place, label in enumerate(labels)]
    train = write_rows(tmp_path / "train.jsonl", rows)
    with pytest.warns(UserWarning, match=message):
        labels_of(world, train, train, tmp_path)


def test_names_beside_numbers_are_refused_and_a_mark_of_no_label_is_told(world: Path, rows: Path, refused):
    write_rows(rows, [{"text": "fine", "label": 0}, {"text": "dull", "label": "bad"}] * 3)
    message = refused(*classified(world, rows))
    assert message.startswith("train has names and numbers as labels, such as 'bad' and 0: write all as names")
    write_rows(rows, [{"text": "fine", "label": label} for label in ("good", "-", "bad")] * 3)
    with pytest.warns(UserWarning, match="the label '-' counts as a class: leave its rows out if they have no label"):
        prepare(parse(list(map(str, [*classified(world, rows), "--output_dir", rows.parent / "out"]))))
