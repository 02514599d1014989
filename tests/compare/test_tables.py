from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from weightlora.compare.statistics import paired
from weightlora.compare.tables import difference, markdown_table, print_table


def test_a_difference_is_marked_where_its_interval_excludes_zero():
    assert difference(paired({0: 0.4, 1: 0.5}, {0: 0.5, 1: 0.6})) == "-0.1000 ± 0.0000 ▼"
    assert difference(paired({0: 0.6, 1: 0.7}, {0: 0.5, 1: 0.6})) == "+0.1000 ± 0.0000 ▲"
    assert difference({"mean": -0.1, "ci": 0.2}) == "-0.1000 ± 0.2000"
    assert difference({"mean": -0.1, "ci": None}) == "-0.1000" and difference(None) == ""


@given(st.lists(st.lists(st.text(max_size=12), min_size=3, max_size=3), min_size=1, max_size=4))
def test_no_text_breaks_a_table(rows):
    _, _, *lines = markdown_table(["a", "b", "c"], rows).split("\n")
    assert len(lines) == len(rows)
    for line in lines:
        assert line.replace("\\\\", "").replace("\\|", "").count("|") == 4
        assert "<" not in line


def test_a_table_is_printed_as_it_is():
    console = Console(width=80)
    with console.capture() as capture:
        print_table(console, ["method", "[b]loss"], [["a[b]", "0.5"]], "title")
    assert all(text in capture.get() for text in ("title", "[b]loss", "a[b]", "0.5"))
