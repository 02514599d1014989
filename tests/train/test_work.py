from pathlib import Path

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
