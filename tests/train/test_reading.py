from pathlib import Path

import pytest

from weightlora.errors import ConfigError, DataError
from weightlora.train.reading import check_columns, check_file, check_name, read_yaml


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2", "'a' is there twice"),
        ("a: {b: 1, b: 1}", "'b' is there twice"),
        ("a: 2026-13-45", "is not valid YAML"),
        ("a: 2026-01-01", "put it in quotes"),
        ("a: !!binary aGk=", "put it in quotes"),
        ("a: !!python/object:os.system {}", "is not valid YAML"),
        ("a: " + "[" * 30 + "]" * 30, "nested more than 20 deep"),
        ("a: " + "[" * 3000 + "]" * 3000, "is not valid YAML"),
        ("a: &a [*a]", "more than 10,000 values, or lists that are nested"),
        (
            "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
            + "".join(
                f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
            ),
            "more than 10,000 values",
        ),
        ("a: " + "1" * 5000, "is not valid YAML"),
        ("[1, 2]", "is not a mapping"),
        ("3", "is not a mapping"),
        ("false", "is not a mapping"),
        ("? [a]\n: 1", "is not valid YAML"),
        ("a: \x00", "is not valid YAML"),
        ("x" * 2**21, "is larger than 1,048,576 bytes"),
    ],
)
def test_what_is_no_file_of_settings(tmp_path: Path, text: str, message: str):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConfigError) as error:
        read_yaml(tmp_path / "a.yaml", "the recipe")
    assert str(error.value).startswith("the recipe ") and message in str(error.value) and len(str(error.value)) < 500


def test_files_that_cannot_be_read(tmp_path: Path):
    (tmp_path / "a.yaml").write_bytes(b"a: \xff")
    with pytest.raises(ConfigError, match="is not a text in UTF-8"):
        read_yaml(tmp_path / "a.yaml", "it")
    with pytest.raises(ConfigError, match="it cannot be read"):
        read_yaml(tmp_path / "none", "it")
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert read_yaml(tmp_path / "empty.yaml", "it") == {}
    (tmp_path / "merged.yaml").write_text("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\n")
    assert read_yaml(tmp_path / "merged.yaml", "it") == {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}}


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "/a", "a\\b", ".hidden", "a\nb", "a\0", "x" * 201, 3, None]
)
def test_names_that_lead_elsewhere(name: object):
    with pytest.raises(ConfigError, match="cannot be the name of a directory"):
        check_name(name, "the column")


def test_names_that_do_not():
    for name in ("sst2", "weightlora-paper-r8-k0.25", "a b", "['q', 'v']", "é"):
        assert check_name(name, "it") == name


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
