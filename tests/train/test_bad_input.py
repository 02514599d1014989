"""What is wrong with the input is one sentence, said before the weights are read."""

import json
import shutil
from pathlib import Path

import pytest
from recipes import squad_paragraphs, write_parquet

from weightlora.train import loading


@pytest.fixture(autouse=True)
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("weightlora.train.fitting.load_model", lambda *args: pytest.fail("the model was loaded"))


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return tmp_path / "rows.jsonl"


def write(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def classified(world: Path, train: Path, validation: Path | None = None) -> list[object]:
    files = ["--train_file", train, "--validation_file", validation or train]
    return ["--task", "text-classification", "--model", world / "deberta", *files]


GOOD = [{"text": "fine", "label": 0}, {"text": "dull", "label": 1}]


def test_a_wrong_column(world: Path, rows: Path, refused):
    message = refused(*classified(world, write(rows, [{"txt": "fine", "label": 0}])))
    assert message.startswith("the column 'text' (text) is not in train, did you mean txt: it has txt, label")
    assert message.endswith("""name the right one, as in --columns '{"text": "txt"}'.""")
    message = refused(*classified(world, rows), "--columns", '{"words": "txt"}')
    assert message.startswith("columns has 'words', which text-classification does not read")
    assert message.endswith("""as in --columns '{"text": "your_column"}'.""")
    message = refused(*classified(world, rows), "--columns", "text=txt")
    assert message.endswith("""--columns '{"text": "your_column"}'.""")
    message = refused("--task", "causal-lm", "--model", world / "llama", "--pad_token", "</s>", *_files(rows))
    assert message.startswith("train has neither messages, nor prompt and completion, nor text: it has txt, label")


def _files(rows: Path) -> list[object]:
    return ["--train_file", rows, "--validation_file", rows]


def test_an_empty_split(world: Path, rows: Path, tmp_path: Path, refused):
    empty = write(tmp_path / "empty.jsonl", [])
    message = refused(*classified(world, write(rows, GOOD), empty))
    assert message == f"the split validation is empty: {empty} has no rows."
    (table := tmp_path / "empty.csv").write_text("text,label\n")
    assert "the split validation is empty" in refused(*classified(world, rows, table))


def test_a_label_out_of_range(world: Path, rows: Path, tmp_path: Path, refused):
    more = write(tmp_path / "more.jsonl", [*GOOD, {"text": "odd", "label": 2}])
    message = refused(*classified(world, write(rows, GOOD), more))
    assert message.startswith("the label 2 in row 2 of validation is out of range: there are 2 classes, 0 to 1")
    assert "the label -1 in row 0" in refused(*classified(world, write(rows, [{"text": "a", "label": -1}, *GOOD])))
    message = refused(*classified(world, write(rows, [{"text": "a", "label": "x"}] * 2)))
    assert message.startswith("train has the label 'x' alone")
    message = refused("--task", "regression", "--model", world / "deberta", *_files(rows))
    assert message.startswith("the label 'x' in row 0 of train is no number")


def test_a_text_longer_than_the_model(world: Path, refused):
    arguments = ["--task", "cola", "--dataset", world / "glue", "--model", world / "deberta"]
    assert refused(*arguments, "--max_length", 129).startswith(
        "max_length=129 is longer than the model's 128 positions"
    )
    arguments = ["--task", "xsum", "--dataset", world / "xsum", "--model", world / "bart", "--max_target_length", 300]
    assert refused(*arguments).startswith("max_target_length=300 is longer than the model's 128 positions")


def test_a_tokenizer_without_a_pad_token(world: Path, refused):
    arguments = ["--task", "cola", "--dataset", world / "glue", "--model", world / "llama"]
    assert refused(*arguments).endswith("has no pad token: give --pad_token, for example its end of text, '</s>'.")
    message = refused(*arguments, "--pad_token", "[PADDING]")
    assert message.startswith("pad_token='[PADDING]' is not in the vocabulary")


def test_an_answer_that_is_not_in_its_context(world: Path, tmp_path: Path, refused):
    paragraphs = squad_paragraphs(3, v2=False)
    paragraphs[1]["qas"][0]["answers"][0]["answer_start"] += 1
    for split in ("train", "validation"):
        (tmp_path / f"{split}.json").write_text(json.dumps({"data": [{"paragraphs": paragraphs}]}))
    arguments = ["--task", "squad", "--dataset", tmp_path, "--model", world / "deberta"]
    message = refused(*arguments, "--max_length", 64, "--stride", 16)
    assert message.startswith(
        "the answer 'Bob' of question 'q1' (row 1 of train) is not in its context at character 48"
    )
    message = refused("--task", "squad", "--dataset", world / "squad", "--model", world / "deberta", "--stride", 120)
    assert message.startswith("max_length=128 is too short for the longest question of train")


def test_a_misspelt_key_and_a_missing_file(world: Path, rows: Path, tmp_path: Path, refused):
    (tmp_path / "recipe.yaml").write_text("lerning_rate: 1e-3\n")
    message = refused("--config", tmp_path / "recipe.yaml")
    assert message.endswith("has 'lerning_rate', which is no setting: did you mean learning_rate.")
    assert refused("--config", tmp_path / "recip.yaml").endswith("is no file: did you mean recipe.yaml.")
    message = refused(*classified(world, tmp_path / "none.csv"))
    assert message == f"the file {tmp_path / 'none.csv'} for train is missing."
    message = refused("--task", "cola", "--model", world / "deberta", "--dataset", tmp_path)
    assert message.startswith(f"{tmp_path} has no split train")
    rows.write_text('{"text": "cut sho')
    assert f"the file {rows} cannot be read" in refused(*classified(world, rows))


def test_models_that_are_not_there(world: Path, tmp_path: Path, refused):
    data = ["--task", "cola", "--dataset", world / "glue", "--model"]
    message = refused(*data, "meta-llama/Meta-Llama-3-8B")  # gated
    assert message.startswith(
        "the model meta-llama/Meta-Llama-3-8B is not in the local cache, and HF_HUB_OFFLINE is set"
    )
    assert "hf auth login" in message
    assert refused(*data, tmp_path / "no") == f"the model {tmp_path / 'no'} is missing: there is no such directory."
    shutil.copytree(world / "bart", broken := tmp_path / "bart")
    (broken / "config.json").write_text("{")
    assert refused(*data, broken).startswith(f"the model {broken} cannot be loaded")
    assert "nyu-mll/glue cannot be loaded from the hub (HF_HUB_OFFLINE is set)" in refused(
        "--task", "cola", "--model", world / "deberta"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "colla"], "task='colla' is unknown: did you mean cola."),
        (["--method", "wieghtlora"], "method='wieghtlora' is unknown: did you mean weightlora"),
        (["--keep", "15"], "keep=15 is more than the model's 14 LoRA adapters"),
        (["--keep", "many"], "keep='many' is no number"),
        (["--rank", "0"], "rank=0 is too small"),
        (["--select_steps", "9"], "select_steps=9 is longer than the training of 4 steps"),
        (["--target_modules", "nothing"], "target_modules=['nothing'] do not fit the model"),
        (["--verbalised", "--task", "stsb"], "verbalised=True needs classes, and stsb is of regression"),
        (["--verbalised", "--label_words", " x", " x"], "must differ in their first token"),
        (["--verbalised", "--prompt", "Well?"], "prompt='Well?' must hold the row's text"),
        (["--method_options", "[]"], "method_options='[]' is not a JSON object"),
    ],
)
def test_settings_that_do_not_fit(world: Path, refused, arguments: list[str], message: str):
    base = ["--task", "cola", "--dataset", world / "glue", "--model", world / "llama", "--pad_token", "</s>"]
    assert message in refused(*base, "--max_steps", 4, "--max_length", 64, *arguments)


def test_a_finished_run_is_not_overwritten(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    from weightlora.cli import main

    (tmp_path / "result.json").write_text("{}")
    base = ["--task", "cola", "--dataset", world / "glue", "--model", world / "deberta", "--max_steps", "2"]
    assert main(["train", *map(str, base), "--output_dir", str(tmp_path)]) == 2
    assert "has the result of a finished run" in capsys.readouterr().err
    assert (tmp_path / "result.json").read_text() == "{}"


def test_the_hub_may_be_reachable_and_a_file_still_missing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with (
        pytest.raises(ValueError, match=r"the model a/b cannot be loaded from the hub: gone\."),
        loading._in_one_sentence("model", "a/b"),
    ):
        raise OSError("gone.\nsecond line")


def test_lists_of_words_and_tags_differ(world: Path, tmp_path: Path, refused):
    write_parquet(tmp_path / "t.parquet", [{"tokens": ["a", "b"], "tags": [0]}])
    arguments = ["--task", "token-classification", "--model", world / "deberta", *_files(tmp_path / "t.parquet")]
    assert refused(*arguments) == "row 0 of train has 2 tokens and 1 tags: give as many."
