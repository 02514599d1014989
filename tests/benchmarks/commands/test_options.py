import argparse

import pytest
from benchmarks.commands.options import add_option, integers, names, number, positive, rates, setting


def test_both_spellings_are_one_option():
    parser = argparse.ArgumentParser()
    add_option(parser, "output_dir")
    assert parser.parse_args(["--output_dir", "a"]) == parser.parse_args(["--output-dir", "a"])


def test_values_are_read():
    assert names(" a, b,") == ["a", "b"] and rates("1e-3,2") == [1e-3, 2.0]
    assert setting("a=b=c") == ("a", "b=c") and number("9") == 9 and number("0.25") == 0.25
    assert integers(0)("8,0,8") == [0, 8] and positive("1") == 1


@pytest.mark.parametrize(("read", "text"), [(setting, "a"), (integers(1), "0"), (integers(1), ""), (positive, "0")])
def test_bad_values_are_refused(read, text):
    with pytest.raises(argparse.ArgumentTypeError, match="is not"):
        read(text)
