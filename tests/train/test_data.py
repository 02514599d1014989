import json
from dataclasses import replace
from pathlib import Path

import pytest
from datasets import Dataset
from recipes import LABELLED, classified, files_of, write_rows

from weightlora.errors import DataError
from weightlora.train.data import files_of as paths_of
from weightlora.train.data import lacks_evaluation, read_splits
from weightlora.train.settings import DataArguments
from weightlora.train.tables import check_json
from weightlora.train.tasks import find_task


def test_a_wrong_column(world: Path, rows: Path, refused):
    message = refused(*classified(world, write_rows(rows, [{"txt": "fine", "label": 0}])))
    assert message.startswith("train has no column 'text' (its text): it has txt, label")
    assert message.endswith("""name the right one, as in --columns '{"text": "txt"}'.""")
    message = refused(*classified(world, rows), "--columns", '{"words": "txt"}')
    assert message.startswith("columns has 'words', which text-classification does not read")
    assert message.endswith("""as in --columns '{"text": "your_column"}'.""")
    message = refused(*classified(world, rows), "--columns", "text=txt")
    assert message.endswith(""": write --columns '{"text": "your_column"}'.""")
    given = '{"text": "txt", "label": "lable"}'
    message = refused(*classified(world, rows), "--columns", given)
    assert message.endswith("""name the right one, as in --columns '{"text": "txt", "label": "label"}'.""")
    message = refused("--task", "causal-lm", "--model", world / "llama", "--pad_token", "</s>", *files_of(rows))
    assert message.startswith("train has neither messages, nor prompt and completion, nor text: it has txt, label")


def test_of_several_tags_those_of_names_are_proposed(world: Path, rows: Path, refused):
    """As in CoNLL 2003, where the tags of parts of speech were proposed, and a mapping is not questioned again."""
    write_rows(rows, [{"tokens": ["Ann"], "pos_tags": [0], "chunk_tags": [1], "ner_tags": [2]}] * 2)
    message = refused("--task", "token-classification", "--model", world / "deberta", *files_of(rows))
    assert message.endswith("""as in --columns '{"tags": "ner_tags"}'.""")


def test_a_column_that_is_read_as_another_one_is_not_proposed(world: Path, rows: Path, refused):
    message = refused(*classified(world, write_rows(rows, [{"text": "fine", "gold": 0}])))
    assert message.endswith("""name the right one, as in --columns '{"label": "gold"}'.""")
    message = refused(*classified(world, write_rows(rows, [{"text": "fine"}])))
    assert message.endswith("""it has text; name the right one, as in --columns '{"label": "your_column"}'.""")


def test_a_column_that_one_split_names_in_another_way(world: Path, rows: Path, tmp_path: Path, refused):
    """Another `--columns` would lead to the same error about the other split."""
    more = write_rows(tmp_path / "more.jsonl", [{"comment": "fine", "label": 0}])
    write_rows(rows, [{"review": row["text"], "label": row["label"]} for row in LABELLED])
    assert refused(*classified(world, rows, more), "--columns", '{"text": "review"}') == (
        "validation has no column 'review' (its text), which other splits have: it has comment, label; rename "
        "one of its columns to 'review'."
    )


def test_splits_in_two_forms_of_a_causal_lm(world: Path, rows: Path, tmp_path: Path, refused):
    texts = write_rows(tmp_path / "texts.jsonl", [{"text": "a b c"}])
    pairs = write_rows(rows, [{"prompt": "a b", "completion": " c"}])
    for train, validation, found in (
        (pairs, texts, "train has prompts and completions, and validation has texts"),
        (texts, pairs, "train has texts, and validation has prompts and completions"),
    ):
        given = ["--task", "causal-lm", "--model", world / "llama", "--pad_token", "</s>"]
        message = refused(*given, "--train_file", train, "--validation_file", validation)
        assert message == f"{found}, of which other tokens are learned: give both the same form."


def test_an_empty_split(world: Path, rows: Path, tmp_path: Path, refused):
    empty = write_rows(tmp_path / "empty.jsonl", [])
    message = refused(*classified(world, write_rows(rows, LABELLED), empty))
    assert message == f"the split validation is empty: {empty} has no rows; add some, or give another file."
    (table := tmp_path / "empty.csv").write_text("text,label\n")
    message = refused(*classified(world, rows, table))
    assert message == f"the split validation is empty: {table} has no rows; add some, or give another file."


@pytest.mark.parametrize("name", ["rows[1].jsonl", "rows*.jsonl", "[new] data/rows.jsonl", "ROWS.JSONL"])
def test_a_name_is_no_pattern(tmp_path: Path, name: str):
    """Datasets would read rows1.jsonl, or both files, or none. Windows often writes endings in capitals."""
    for place, text in ((name, "right"), ("rows1.jsonl", "wrong")):
        write_rows(tmp_path / place, [{"text": f"{text} {i}", "label": i % 2} for i in range(4)])
    arguments = DataArguments(train_file=str(tmp_path / name), validation_file=str(tmp_path / name))
    splits = read_splits(arguments, find_task("text-classification"), str(tmp_path)).rows
    assert [row["text"] for rows in splits.values() for row in rows] == [f"right {i}" for i in range(4)] * 2


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a::b.jsonl", b'{"text": "a", "label": 1}', "a::b.jsonl has '::', which datasets cannot read: rename it."),
        ("a.json", b"\xef\xbb\xbf null", "a.json has null in line 1, which is no row: leave it out."),
        ("a.json", b'[\n null,\n {"text": "a"}]', "a.json has null in line 2, which is no row: leave it out."),
        ("a.jsonl", b'null\n{"text": "a"}\n', "a.jsonl has null in line 1, which is no row: leave it out."),
        ("a.jsonl", b'{"text": "a"}\n' + b"null\n" * 100_000, "null in line 2, which is no row: leave it out."),
        ("a.jsonl", '{"text": "a"}\n'.encode("utf-16"), "a.jsonl is UTF-16: save it as UTF-8."),
        ("a.csv", "text,label\né,1\n".encode("utf-16"), "invalid start byte; save it as UTF-8."),
        ("a.tsv", b"text,label\na,1\n", "separated by ',': save it with '\\t' between them, or as .jsonl."),
    ],
)
def test_a_file_that_libraries_cannot_read(tmp_path: Path, name: str, content: bytes, message: str):
    """Arrow ends the process where a block of a JSON file begins with null."""
    (tmp_path / name).write_bytes(content)
    arguments = DataArguments(train_file=str(tmp_path / name), validation_file=str(tmp_path / name))
    with pytest.raises(DataError) as refused:
        read_splits(arguments, find_task("text-classification"), str(tmp_path))
    assert str(refused.value).endswith(message)


def test_files_of_two_kinds_in_a_directory_are_not_read_in_part(world: Path, tmp_path: Path, refused):
    (folder := tmp_path / "data").mkdir()
    write_rows(folder / "train.jsonl", LABELLED)
    (folder / "train-2.csv").write_text("text,label\nfine,1\n")
    message = refused("--task", "text-classification", "--model", world / "deberta", "--dataset", folder)
    assert message == f"{folder} has train.jsonl and train-2.csv for train: keep the files of one kind."


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"data": LABELLED}, "train has no column 'text' (its text): it has data; "),
        (
            {name: {i: row[name] for i, row in enumerate(LABELLED)} for name in ("text", "label")},
            "rows.json has one row",
        ),
    ],
)
def test_rows_inside_of_one_object(world: Path, tmp_path: Path, refused, content: dict, message: str):
    """The second is what `DataFrame.to_json` writes."""
    (tmp_path / "rows.json").write_text(json.dumps(content))
    given = ["--task", "text-classification", "--model", world / "deberta", "--train_file", tmp_path / "rows.json"]
    found = refused(*given)
    assert message in found and found.endswith("if it holds all of yours, save them as JSON Lines.")


def test_one_text_cannot_be_split(world: Path, rows: Path, refused):
    write_rows(rows, [{"text": "fine", "label": i % 2} for i in range(4)])
    message = refused("--task", "text-classification", "--model", world / "deberta", "--train_file", rows)
    assert message == (
        f"{rows} has one distinct text, and a part for validation can be split off from 2 or more: add rows, or give "
        "--validation_file."
    )


def test_one_prompt_cannot_be_split(world: Path, rows: Path, refused):
    write_rows(rows, [{"prompt": "why", "completion": f" because {i}"} for i in range(4)])
    given = ["--task", "causal-lm", "--model", world / "llama", "--pad_token", "</s>"]
    message = refused(*given, "--train_file", rows)
    assert message.startswith(f"{rows} has one distinct prompt, and a part for validation")


def test_chats_of_one_question_are_on_one_side(rows: Path):
    """As prompts with several completions are: their answers would else be known in part."""
    chats = [[{"role": "user", "content": f"q{i // 4}"}, {"role": "assistant", "content": f"a{i}"}] for i in range(40)]
    write_rows(rows, [{"messages": chat} for chat in chats])
    splits = read_splits(DataArguments(task="causal-lm", train_file=str(rows)), find_task("causal-lm")).rows
    assert {name: len(split) for name, split in splits.items()} == {"train": 36, "validation": 4}
    assert len({chat[0]["content"] for chat in splits["validation"]["messages"]}) == 1


def test_a_misspelt_key_and_a_missing_file(world: Path, rows: Path, tmp_path: Path, refused):
    (tmp_path / "recipe.yaml").write_text("lerning_rate: 1e-3\n")
    message = refused("--config", tmp_path / "recipe.yaml")
    assert message.endswith("has 'lerning_rate', which is not a setting: the nearest is learning_rate.")
    assert refused("--config", tmp_path / "recip.yaml").endswith("is not a file: the nearest is recipe.yaml.")
    message = refused(*classified(world, tmp_path / "none.csv"))
    assert message == f"the file {tmp_path / 'none.csv'} for train is missing: check its path."
    message = refused("--task", "cola", "--model", world / "deberta", "--dataset", tmp_path)
    assert message.startswith(f"{tmp_path} has no split train: a file train, with one of the endings .jsonl")
    rows.write_text('{"text": "cut sho')
    assert f"the file {rows} cannot be read" in refused(*classified(world, rows))


def test_a_folder_of_save_to_disk_has_a_remedy(world: Path, tmp_path: Path, refused, capsys):
    Dataset.from_list(LABELLED).save_to_disk(tmp_path)
    capsys.readouterr()  # its progress
    message = refused("--task", "cola", "--model", world / "deberta", "--dataset", tmp_path)
    assert message == (
        f"{tmp_path} has no split train: save_to_disk() wrote it; write its splits with to_parquet('train.parquet') "
        "instead."
    )


def test_a_data_set_without_a_validation_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """In a directory and on the hub, a tenth of the training texts is split off."""
    task = find_task("text-classification")
    texts = [{"text": f"text {i // 2}", "label": i % 2} for i in range(40)]
    write_rows(tmp_path / "train.jsonl", texts)
    write_rows(tmp_path / "test.jsonl", LABELLED)
    asked = []

    def names(name: str, config: str | None, **settings: object) -> list[str]:
        asked.append(name)
        return ["train", "test"] if name == "who/films" else ["train", "validation"]

    monkeypatch.setattr("datasets.get_dataset_split_names", names)
    for source in (str(tmp_path), "who/films"):
        if source == "who/films":
            monkeypatch.setattr("datasets.load_dataset", lambda *args, **settings: Dataset.from_list(texts))
        arguments = DataArguments(task="text-classification", dataset=source)
        assert lacks_evaluation(arguments, task)
        splits = read_splits(arguments, task).rows
        assert {name: len(rows) for name, rows in splits.items()} == {"train": 36, "validation": 4}
        assert not set(splits["train"]["text"]) & set(splits["validation"]["text"])
    assert asked == ["who/films"] * 2, "a directory is not looked for on the hub"
    assert not lacks_evaluation(DataArguments(dataset="who/whole"), task)
    assert not lacks_evaluation(DataArguments(), find_task("sst2")) and asked[2:] == ["who/whole"]


def test_a_hub_that_cannot_be_asked_is_an_error_of_reading():
    arguments = DataArguments(task="text-classification", dataset="who/films")
    assert not lacks_evaluation(arguments, find_task("text-classification"))
    with pytest.raises(DataError, match="the data set who/films cannot be loaded from the hub"):
        read_splits(arguments, find_task("text-classification"))


@pytest.mark.parametrize("ending", [".jsonl", ".json"])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_deep_json_is_refused_before_arrow_reads_it(
    world: Path, tmp_path: Path, refused, ending: str, opening: str, closing: str
):
    """Arrow's parser ends the process at 100,000 levels."""
    row = f'{{"text": "fine", "label": 1, "more": {opening * 100_000}1{closing * 100_000}}}\n'
    (rows := tmp_path / f"rows{ending}").write_text('{"text": "dull [[[[", "label": 0}\n' + row)
    message = refused(*classified(world, rows))
    assert message == f"the file {rows} has lists or objects that are nested more than 64 deep: flatten them."


def test_brackets_in_texts_are_not_levels(tmp_path: Path):
    (rows := tmp_path / "rows.json").write_text(json.dumps([{"text": "[{" * 100 + '\\"' * 3}] * 3, indent=1))
    check_json(rows)
    rows.write_text("[\n" * 65 + "]\n" * 65)
    with pytest.raises(DataError, match="nested more than 64 deep"):
        check_json(rows)


@pytest.mark.parametrize(("ending", "mark"), [(".csv", ","), (".tsv", "\t")])
def test_numbers_in_a_column_of_texts_are_texts(tmp_path: Path, ending: str, mark: str):
    """pandas reads 10,000 rows at a time, and tells the type of a column from them."""
    path = tmp_path / f"rows{ending}"
    arguments = DataArguments(task="causal-lm", train_file=str(path), validation_file=str(path))

    def completions(names: tuple[str, str], values: list[str]) -> list[str]:
        path.write_text(
            "".join(f"{one}{mark}{other}\n" for one, other in [names, *(("q", value) for value in values)])
        )
        rows = read_splits(arguments, find_task("causal-lm")).rows["train"]
        found: list[str] = rows["completion"][:]
        return found

    last = ["007", "1.50", "123456789012345678901234567890"]
    assert completions(("prompt", "completion"), [*["word"] * 10_000, *last])[-3:] == last
    assert completions(("instruction", "output"), ["010", ""]) == ["010", None]


def test_a_column_that_the_user_names_is_read_whatever_else_there_is(tmp_path: Path):
    row = {"messages": [{"role": "user", "content": "hi"}], "body": "b"}
    (path := tmp_path / "rows.jsonl").write_text(f"{json.dumps(row)}\n")
    arguments = DataArguments(task="causal-lm", train_file=str(path), validation_file=str(path))
    found = read_splits(replace(arguments, columns='{"text": "body"}'), find_task("causal-lm")).rows
    assert found["train"][0] == {"text": "b"}
    with pytest.raises(DataError, match=r"train has no column 'prompt' \(its prompt\): it has messages, body; name"):
        read_splits(replace(arguments, columns='{"completion": "body"}'), find_task("causal-lm"))


def test_bytes_that_are_no_text(world: Path, rows: Path, tmp_path: Path, refused):
    rows.write_bytes('{"text": "caf\xe9", "label": 1}\n{"text": "dull", "label": 0}\n'.encode("latin-1"))
    assert refused(*classified(world, rows)).startswith("train has a text that is not in UTF-8")
    (array := tmp_path / "rows.json").write_bytes('[{"text": "caf\xe9", "label": 1}]'.encode("latin-1"))
    assert "UTF-8" in refused(*classified(world, array)) or "cannot be read" in refused(*classified(world, array))


def test_a_file_that_is_nearly_squads(world: Path, tmp_path: Path, refused):
    (rows := tmp_path / "rows.json").write_text('{"data": [{"paragraphs": [{"context": "a", "qas": [{"id": "q"}]}]}]}')
    arguments = ["--task", "question-answering", "--model", world / "deberta", "--max_length", "64", "--stride", "8"]
    message = refused(*arguments, *files_of(rows))
    assert message.startswith(f"the file {rows} is not in SQuAD's format ('answers'): correct it.")


def test_columns_that_no_row_can_have(world: Path, rows: Path, refused):
    write_rows(rows, LABELLED)
    assert "columns has 3 for text" in refused(*classified(world, rows), "--columns", '{"text": 3}')
    assert "columns has None for label" in refused(*classified(world, rows), "--columns", '{"label": null}')
    message = refused(*classified(world, rows), "--columns", '{"text": "label"}')
    assert message.startswith("the column 'label' is named for both text and label")


def test_a_name_that_no_file_can_have(world: Path, refused):
    for name in ("a\0b.jsonl", "x" * 5000 + ".jsonl"):
        assert "is missing" in refused(*classified(world, name))


def test_a_file_beside_that_of_a_split_is_no_part_of_it(tmp_path: Path):
    """An old or augmented copy would join the training data without a word."""
    for name in ("train", "train-old", "validation-2"):
        write_rows(tmp_path / f"{name}.jsonl", [{"text": name}])
    assert paths_of(tmp_path, None, "train") == [tmp_path / "train.jsonl"]
    assert paths_of(tmp_path, None, "validation") == [tmp_path / "validation-2.jsonl"]
    shards = [write_rows(tmp_path / f"train-0000{part}-of-00002.jsonl", [{"text": "a"}]) for part in (0, 1)]
    with pytest.raises(DataError, match=r"has train.jsonl and train-00000-of-00002.jsonl for train: keep the files"):
        paths_of(tmp_path, None, "train")
    (tmp_path / "train.jsonl").unlink()
    assert paths_of(tmp_path, None, "train") == shards
    shards[1].rename(tmp_path / "train-00001-of-00002.JSONL")  # as --train_file may end, too
    assert [path.suffix for path in paths_of(tmp_path, None, "train")] == [".jsonl", ".JSONL"]


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ('{"text": ', r"the file .*train-00001-of-00002.jsonl cannot be read: "),
        ('{"text": "b"}\nno', r"the file .*train-00001-of-00002.jsonl cannot be read: "),
    ],
)
def test_of_several_files_the_broken_one_is_named(tmp_path: Path, second, message):
    write_rows(tmp_path / "train-00000-of-00002.jsonl", [{"text": 1}])
    (tmp_path / "train-00001-of-00002.jsonl").write_text(second)
    arguments = DataArguments(task="causal-lm", dataset=str(tmp_path))
    with pytest.raises(DataError, match=message):
        read_splits(arguments, find_task("causal-lm"), str(tmp_path / "cache"))
