"""Single settings, and amounts of memory."""

import numpy as np
import pytest

from weightlora.errors import ConfigError
from weightlora.values import (
    check_fraction,
    check_int,
    check_keep,
    check_known,
    check_share,
    is_int,
    is_number,
    parse_number,
    plain,
    to_bytes,
)


@pytest.mark.parametrize(
    ("text", "amount"),
    [("6GiB", 6 * 2**30), ("512 MiB", 2**29), ("1.5GB", 1_500_000_000), (" 7 B ", 7), (123, 123), ("2TB", 2 * 10**12)],
)
def test_amounts_of_memory(text, amount):
    assert to_bytes("keep_memory", text) == amount


@pytest.mark.parametrize(
    "text",
    [
        "6",
        "6 gib",
        "GiB",
        "-1GB",
        "1e3MB",
        "0GB",
        "1GBB",
        True,
        None,
        0,
        -5,
        "9" * 999 + "GB",
        float("inf"),
        float("nan"),
    ],
)
def test_what_is_no_amount_of_memory(text):
    with pytest.raises(
        ConfigError, match=r"^keep_memory=.* is not an amount of memory: give bytes, or a number with one"
    ):
        to_bytes("keep_memory", text)


@pytest.mark.parametrize(
    ("check", "wrong"),
    [
        (lambda value: check_int("rounds", value, 1), (0, True, 1.0, "1")),
        (lambda value: check_fraction("keep", value, "adapters"), (0.0, 1.0, float("nan"))),
        (check_keep, (0, True, "3", 1.5)),
        (lambda value: check_share("keep_step_time", value, "it"), (0.0, 1.0, float("nan"), 1, True, "0.5")),
    ],
)
def test_single_values(check, wrong):
    for value in wrong:
        with pytest.raises(ConfigError):
            check(value)
    check(0.5 if isinstance(wrong[0], float) else 1)


@pytest.mark.parametrize(
    ("value", "whole", "number"),
    [(3, True, True), (2.5, False, True), (float("nan"), False, True), (True, False, False), ("3", False, False)],
)
def test_truth_values_and_texts_are_no_numbers(value, whole, number):
    assert (is_int(value), is_number(value)) == (whole, number)


def test_a_value_that_is_not_known_gets_the_nearest_one_or_all():
    check_known("rule", "credit", {"credit": 1, "random": 2})
    for value, hint in (("Credits", "the nearest is credit"), (7, "choose one of 'credit', 'random'")):
        with pytest.raises(ConfigError) as error:
            check_known("rule", value, {"credit": 1, "random": 2})
        assert str(error.value) == f"rule={value!r} is not known: {hint}."


@pytest.mark.parametrize("value", [np.int64(3), np.float32(0.5), 3, 0.5, True, None, "3"])
def test_numbers_of_numpy_become_those_of_python(value):
    found = plain(value)
    assert found == value and type(found) in (int, float, bool, type(None), str)
    assert not isinstance(value, bool) or found is value


@pytest.mark.parametrize(("text", "number"), [("9", 9), ("1e3", 1000), ("0.25", 0.25), ("25e-2", 0.25)])
def test_whole_numbers_may_have_an_exponent(text: str, number: float):
    found = parse_number(text)
    assert found == number and type(found) is type(number)
