from pathlib import Path

import pytest

from weightlora.errors import ConfigError
from weightlora.train.reading import check_name, read_yaml


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
