"""Values and errors in the words of one sentence."""

import pytest

from weightlora.wording import are, counted, first_line, printable, shortened, shown


def test_a_long_value_is_shortened_and_a_short_one_is_its_repr():
    assert shown("text") == "'text'" and shown(3) == "3"
    assert len(shown("x" * 10**6)) <= 80 and shown("x" * 10**6).startswith("'xx")
    assert len(shown(10**2000)) <= 80 and len(shown({"a": ["b" * 1000] * 1000})) < 1000


def test_codes_for_the_terminal_are_written_as_escapes():
    assert printable("a\x1b[31m\r\n\ud800\u2028\U000e0001é b") == r"a\x1b[31m\x0d\x0a\ud800\u2028\U000e0001é b"


def test_a_name_loses_its_middle_only_if_it_is_long():
    assert shortened("a" * 200) == "a" * 200
    assert shortened("a" * 150 + "b" * 100) == "a" * 100 + "..." + "b" * 50


def test_the_verb_after_a_number_agrees_with_it():
    assert [are(number) for number in (0, 1, 2)] == ["are", "is", "are"]


def test_a_number_of_things():
    assert [counted(number, "module") for number in (0, 1, 2, 3000)] == [
        "0 modules",
        "1 module",
        "2 modules",
        "3,000 modules",
    ]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("bad value.\nmore"), "bad value"),
        (KeyError(), "KeyError"),
        (ValueError("  \n "), "ValueError"),
        (ValueError("y" * 1000), "y" * 400),
    ],
)
def test_an_error_is_its_first_line_or_its_class(error, line):
    assert first_line(error) == line
