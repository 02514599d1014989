"""Files as tables: which fields are numbers, and that a file is read whole, whatever its first rows have."""

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import ClassLabel, Dataset, Features, Value
from recipes import write_rows

from weightlora.errors import DataError
from weightlora.train.data import read_splits
from weightlora.train.settings import DataArguments
from weightlora.train.tables import check_columns, check_file, read_files
from weightlora.train.tasks import find_task


def labels_in(path: Path, fields: list[str], task: str = "text-classification") -> list[Any]:
    path.write_text("text,label\n" + "".join(f"text {place},{field}\n" for place, field in enumerate(fields)))
    arguments = DataArguments(task=task, train_file=str(path), validation_file=str(path))
    labels: list[Any] = read_splits(arguments, find_task(task)).rows["train"]["label"][:]
    return labels


@pytest.mark.parametrize(
    ("fields", "labels"),
    [
        (["007", "008"], ["007", "008"]),
        (["00", "1"], ["00", "1"]),
        (["1.0", "01.0"], ["1.0", "01.0"]),
        (["12345678901234567890123", "1"], ["12345678901234567890123", "1"]),
        (["7", "word", "08"], ["7", "word", "08"]),
        (["1", "0", "-1"], [1, 0, -1]),
        ([" 1", "0 "], [1, 0]),
        (["1.0", "0", ""], [1.0, 0.0, None]),
        (["True", "false", "TRUE"], [True, False, True]),
        (["true", "no"], ["true", "no"]),
        (["", '"a, b"', " c"], [None, "a, b", " c"]),
    ],
)
def test_labels_are_numbers_only_where_these_are_written_the_same(tmp_path: Path, fields, labels):
    found = labels_in(tmp_path / "rows.csv", fields)
    assert found == labels and list(map(type, found)) == list(map(type, labels))


CHAT = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]


@pytest.mark.parametrize(
    ("task", "header", "first", "last", "read"),
    [
        ("text-classification", "text,label,id", "a {},1,7", "b,0,A7", {"text": "b", "label": 0}),
        ("text-classification", "text,label,note", "a {},x,", "b,y,a remark", {"text": "b", "label": "y"}),
        ("regression", "text,label", "a {},1", "b,0.5", {"text": "b", "label": "0.5"}),
        ("causal-lm", "instruction,input,output", "a {},,o", "b,i,o", None),
    ],
)
def test_fields_of_a_csv_file_are_texts_however_many_rows_are_before_them(
    tmp_path: Path, task: str, header: str, first: str, last: str, read: dict | None
):
    """Datasets gives the first 10,000 rows types, which the fields of the others did not have."""
    lines = [header, *(first.format(number) for number in range(10_000)), last]
    (path := tmp_path / "rows.csv").write_text("\n".join(lines))
    arguments = DataArguments(task=task, train_file=str(path), validation_file=str(path))
    rows = read_splits(arguments, find_task(task), str(tmp_path)).rows["train"]
    read = read or {"prompt": "### Instruction:\nb\n\n### Input:\ni\n\n### Response:\n", "completion": "o"}
    assert len(rows) == 10_001 and rows[-1] == read


def test_a_field_may_be_missing_in_the_first_part_of_a_json_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Datasets takes columns and types from the first 10 MB."""
    last = {"messages": [CHAT[0], {**CHAT[1], "weight": 1}], "note": "n"}
    long = {"messages": [{"role": "user", "content": "q" * 2**20}, CHAT[1]]}
    path = write_rows(tmp_path / "rows.jsonl", [long] * 11 + [last])
    arguments = DataArguments(task="causal-lm", train_file=str(path), validation_file=str(path))
    monkeypatch.setattr("weightlora.train.tables.PART", 10 * 2**20)
    rows = read_splits(arguments, find_task("causal-lm"), str(tmp_path)).rows["train"]
    assert len(rows) == 12 and rows[-1] == {"messages": last["messages"]}
    monkeypatch.setattr("weightlora.train.tables.WHOLE", 0)  # as if it were too large to be read at once
    with pytest.raises(DataError, match=r"cannot be read: .*; give all rows the same fields, with values of the same"):
        read_splits(arguments, find_task("causal-lm"), str(tmp_path / "anew"))


@pytest.mark.parametrize(
    ("name", "remedy"),
    [("rows.jsonl.gz", "unpack it"), ("rows.ZIP", "unpack it"), ("rows.txt", "known are .jsonl, .json, .csv")],
)
def test_a_file_with_another_ending_is_refused_with_the_remedy(tmp_path: Path, name: str, remedy: str):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError, match=f"{name} has no known ending: {remedy}"):
        read_files([tmp_path / name], "train", None, None)


def test_a_file_in_a_locked_directory_is_not_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "stat", refuse)
    with pytest.raises(DataError, match=r"rows\.jsonl for train cannot be reached: change its permissions"):
        check_file(tmp_path / "rows.jsonl", "train")


def test_a_directory_is_no_file(tmp_path: Path):
    with pytest.raises(DataError, match="is a directory: give a file, or the directory as --dataset"):
        check_file(tmp_path, "train")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "text,label\nI liked it, really,pos\n",
            "has 3 fields in its first row, and 2 columns: put texts with ',' in",
        ),
        ("\ufeff\n\nid,text,label\n1,a,b,c", "has 4 fields in its first row, and 3 columns"),
        ("text,label,text\na,b,c\n", "has the column 'text' twice: rename one of them."),
        ("text,label,,\na,b,,\n\nc,d, ,\n", ""),
        ("text,label,\na,b,\nI liked it, really,pos\n", "has 'pos' in row 2, in a column without a name: put texts"),
        (f"text,label,\n{'a' * 2**18},b,\nI liked it, really,pos\n", "has 'pos' in row 2, in a column without"),
        (",text,label\n0,a,b\n", ""),
        ('text,label\n"I liked it, really",pos\na,b,c,d\n', ""),
        ("text,label\nshort\n", ""),
        (
            "text;label\ngood, not bad;1\n",
            "has one column, 'text;label', as if its fields were separated by ';': save it",
        ),
        ("text\tlabel\ngood\t1\n", "as if its fields were separated by '\\t': save it with ',' between them, or as"),
        ("text\ngood; not bad\n", ""),
        ("text,label\n", ""),
        ("", ""),
    ],
)
def test_columns_of_a_csv_file(tmp_path: Path, text: str, message: str):
    (tmp_path / "a.csv").write_text(text, encoding="utf-8")
    if not message:
        check_columns(tmp_path / "a.csv", {})
        return
    with pytest.raises(DataError) as error:
        check_columns(tmp_path / "a.csv", {})
    assert message in str(error.value)


def test_the_columns_are_known_whatever_is_in_the_first_row(tmp_path: Path):
    """The module csv reads no longer fields, and pandas does."""
    (tmp_path / "a.csv").write_text(f"text,label,\n{'long ' * 2**15},1,\n", encoding="utf-8")
    assert check_columns(tmp_path / "a.csv", {}) == ["text", "label"]


def test_a_tab_separates_and_quotes_are_text(tmp_path: Path):
    (tmp_path / "a.tsv").write_text('text\tlabel\n"a, b\tc\n', encoding="utf-8")
    check_columns(tmp_path / "a.tsv", {"delimiter": "\t", "quoting": 3})
    with pytest.raises(DataError, match=r"put texts with '\\t' in them"):
        (tmp_path / "a.tsv").write_text("text\tlabel\na\tb\tc\n", encoding="utf-8")
        check_columns(tmp_path / "a.tsv", {"delimiter": "\t", "quoting": 3})


@pytest.mark.parametrize("as_list", [False, True])
def test_texts_that_look_like_dates_stay_texts(tmp_path: Path, as_list: bool):
    """Arrow takes them for times where all rows have one, also inside lists."""
    rows = [
        {"text": f"2020-01-0{n}", "label": "2020-01-01", "chat": [{"content": "2021-05-05 10:00:00"}], "n": n}
        for n in (1, 2)
    ]
    rows[1] |= {"more": "2020-02-03T04:05:06Z"}
    path = tmp_path / ("rows.json" if as_list else "rows.jsonl")
    path.write_text(json.dumps(rows) if as_list else "".join(f"{json.dumps(row)}\n" for row in rows))
    found = read_files([path], "train", None, None)
    assert [dict(row) for row in found] == [{"more": None} | row for row in rows]


DATED = {"text": "one\u2028two\u0085three", "day": "2020-01-01"}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("\n".join(json.dumps(DATED, ensure_ascii=False) for _ in range(2)), [DATED] * 2),
        ("\ufeff" + "\r\n".join(json.dumps(DATED) for _ in range(2)), [DATED] * 2),
        (json.dumps({"day": "2020-01-01", "n": 2**64}), [{"day": "2020-01-01", "n": 2.0**64}]),
        ("".join(json.dumps({"day": "2020-01-01"}) + "\n" for _ in range(3)), [{"day": "2020-01-01"}] * 3),
        (json.dumps({"day": None}) + "\n" + json.dumps({"day": "2020-01-01"}), [{"day": None}, {"day": "2020-01-01"}]),
    ],
)
def test_dates_beside_what_is_read_in_its_own_way(tmp_path: Path, content: str, expected: list[dict[str, Any]]):
    (tmp_path / "rows.jsonl").write_text(content, encoding="utf-8", newline="")
    assert [dict(row) for row in read_files([tmp_path / "rows.jsonl"], "train", None, None)] == expected


@pytest.mark.parametrize("values", [[1, "a"], [[1], ["a"]]])
def test_dates_beside_a_column_of_mixed_types(tmp_path: Path, values: list[Any]):
    rows = [{"day": "2020-01-01", "odd": value} for value in values]
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    try:
        found = read_files([tmp_path / "rows.jsonl"], "train", None, None)
    except DataError:  # of a version of datasets that does not read it
        return
    assert found["day"][:] == ["2020-01-01"] * 2 and len(found) == 2


@pytest.mark.parametrize("odd", [{}, [{"a": 1}, {"a": "s"}]])
def test_a_column_that_keeps_its_dates_is_no_error_and_the_others_are_texts(tmp_path: Path, odd: Any):
    rows = [{"day": "2020-01-01", "meta": {"day": "2020-01-01", "odd": odd}}] * 2
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    found = read_files([tmp_path / "rows.jsonl"], "train", None, None)
    assert found.column_names == ["day", "meta"] and found["day"][:] == ["2020-01-01"] * 2


def test_a_value_of_another_type_in_a_later_part_changes_no_other(tmp_path: Path):
    """Datasets takes types from the first 10 MB, and would write all labels of the last part as JSON."""
    rows = [{"text": "t" * 2**20, "label": "a"}] * 11 + [{"text": "t", "label": "b"}, {"text": "t", "label": 3}]
    found = read_files([write_rows(tmp_path / "rows.jsonl", rows)], "train", str(tmp_path), "label")
    assert found["label"][:] == ["a"] * 11 + ["b", 3]


SHARD = [{"text": "a", "label": "x"}] * 2


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ([{"label": "y", "text": "b"}], [{"text": "b", "label": "y"}]),
        ([{"text": "b"}], [{"text": "b", "label": None}]),
        ([{"text": "2020-01-01", "label": "y"}], [{"text": "2020-01-01", "label": "y"}]),
        ([{"text": 7, "label": "y"}], [{"text": 7, "label": "y"}]),
        (
            [{"text": "b", "label": "y"}, {"text": "7", "label": 7}],
            [{"text": "b", "label": "y"}, {"text": "7", "label": 7}],
        ),
        ([{"text": "b", "label": True}], [{"text": "b", "label": True}]),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_each_file_has_types_of_its_own(
    tmp_path: Path, second: list[dict[str, Any]], expected: list[dict[str, Any]], turned: bool
):
    both = [(SHARD, SHARD), (second, expected)][:: -1 if turned else 1]
    paths = [write_rows(tmp_path / f"{number}.jsonl", rows) for number, (rows, _) in enumerate(both)]
    assert list(read_files(paths, "train", str(tmp_path), "label")) == [row for _, rows in both for row in rows]


def test_quotes_are_no_remedy_where_they_mean_nothing(tmp_path: Path):
    (tmp_path / "a.tsv").write_text("text\tlabel\nI\tliked it\tpos\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"put texts with '\\t' in them into a \.jsonl file, or name all columns"):
        read_files([tmp_path / "a.tsv"], "train", str(tmp_path / "cache"), None)


def test_a_file_without_rows_is_no_error_beside_others(tmp_path: Path):
    (tmp_path / "0.csv").write_text("text,label\n", encoding="utf-8")
    (tmp_path / "1.csv").write_text("text,label\na,1\n", encoding="utf-8")
    assert list(read_files([tmp_path / "0.csv", tmp_path / "1.csv"], "train", str(tmp_path), "label")) == [
        {"text": "a", "label": 1}
    ]


@pytest.mark.parametrize("names", [["x", "y"], ["y", "x"]])
def test_parquet_files_may_number_the_same_classes_differently(tmp_path: Path, names: list[str]):
    paths = []
    for number, own in enumerate((["x", "y"], names)):
        kinds = {"text": Value("string" if number else "large_string"), "label": ClassLabel(names=own)}
        paths.append(tmp_path / f"{number}.parquet")
        Dataset.from_list([{"text": "a", "label": 1}], features=Features(kinds)).to_parquet(paths[-1])
    if names == ["x", "y"]:
        rows = read_files(paths, "train", str(tmp_path), "label")
        assert rows.features["label"].names == names and rows["label"][:] == [1, 1]
        return
    assert read_files(paths, "train", str(tmp_path), "label")["label"][:] == [1, 0]


def test_a_csv_file_may_have_labels_alone(tmp_path: Path):
    """What lacks is said where the columns are known."""
    (tmp_path / "a.csv").write_text("label\n1\n0\n", encoding="utf-8")
    rows = read_files([tmp_path / "a.csv"], "train", str(tmp_path), "label")
    assert rows.to_dict() == {"label": [1, 0]}
