from pathlib import Path

from recipes import LABELLED, classified, files_of, write_rows


def test_a_wrong_column(world: Path, rows: Path, refused):
    message = refused(*classified(world, write_rows(rows, [{"txt": "fine", "label": 0}])))
    assert message.startswith("the column 'text' (text) is not in train, did you mean txt: it has txt, label")
    assert message.endswith("""name the right one, as in --columns '{"text": "txt"}'.""")
    message = refused(*classified(world, rows), "--columns", '{"words": "txt"}')
    assert message.startswith("columns has 'words', which text-classification does not read")
    assert message.endswith("""as in --columns '{"text": "your_column"}'.""")
    message = refused(*classified(world, rows), "--columns", "text=txt")
    assert message.endswith("""--columns '{"text": "your_column"}'.""")
    message = refused("--task", "causal-lm", "--model", world / "llama", "--pad_token", "</s>", *files_of(rows))
    assert message.startswith("train has neither messages, nor prompt and completion, nor text: it has txt, label")


def test_an_empty_split(world: Path, rows: Path, tmp_path: Path, refused):
    empty = write_rows(tmp_path / "empty.jsonl", [])
    message = refused(*classified(world, write_rows(rows, LABELLED), empty))
    assert message == f"the split validation is empty: {empty} has no rows."
    (table := tmp_path / "empty.csv").write_text("text,label\n")
    assert "the split validation is empty" in refused(*classified(world, rows, table))


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
