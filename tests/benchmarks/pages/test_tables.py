"""Tables of stored runs, on a few made-up runs."""

import pytest
from benchmarks.pages import runs, tables
from benchmarks.pages.tables import Pair
from benchmarks.results import by_seed
from stored import result

QUERY, VALUE, MLP = "encoder.layer.0.attention.query", "encoder.layer.1.attention.value", "encoder.layer.5.output"
RUNS = {
    "ours": [(0.40, [VALUE, MLP]), (0.42, [VALUE, MLP]), (0.70, [QUERY, MLP])],
    "other": [(0.45, [QUERY, VALUE]), (0.43, [QUERY, MLP])],
    "full": [(0.39, None)],
}


@pytest.fixture(autouse=True)
def pool(monkeypatch: pytest.MonkeyPatch) -> None:
    made = by_seed(
        [
            *(
                result(label, seed, loss, task="imdb", kept=kept)
                for label, several in RUNS.items()
                for seed, (loss, kept) in enumerate(several)
            ),
            *(result(label, 0, loss, task="spam") for label, loss in {"ours": 0.3, "other": 0.2, "full": 0.3}.items()),
        ]
    )
    for module in (runs, tables):
        monkeypatch.setattr(module, "pool", lambda: made)


def test_compared_on_one_task_has_a_column_for_each_reference():
    head, _, ours, full = tables.compared(
        [Pair("imdb", "ours", "other"), Pair("imdb", "ours", "full"), Pair("imdb", "full", "other")]
    ).splitlines()
    assert head == "| method | loss (seeds) | parameters | minus `other` | minus `full` |"
    assert ours.startswith("| `ours` | 0.5067 (3), 1 not learned | 100 | -0.0300 ± ")
    assert ours.endswith(" (2 of 2) | +0.0100 (0 of 1) |")
    assert full == "| `full` | 0.3900 (1) | 100 | -0.0600 (1 of 1) |  |"


def test_compared_on_several_tasks_has_a_column_for_each():
    rows = [Pair("imdb", "ours", "full"), Pair("spam", "ours", "full")]
    assert tables.compared([*rows, Pair("spam", "other", "full")]).splitlines() == [
        "| minus `full` | imdb | spam |",
        "| --- | ---: | ---: |",
        "| `ours` | +0.0100 (0 of 1) | +0.0000 (0 of 1) |",
        "| `other` |  | -0.1000 (1 of 1) |",
    ]
    assert tables.compared([*rows, Pair("spam", "ours", "other")]).splitlines() == [
        "| method | minus | imdb | spam |",
        "| --- | --- | ---: | ---: |",
        "| `ours` | `full` | +0.0100 (0 of 1) | +0.0000 (0 of 1) |",
        "| `ours` | `other` |  | +0.1000 (0 of 1) |",
    ]


def test_compared_needs_a_common_seed():
    with pytest.raises(ValueError, match="missing and other have no common seed on imdb"):
        tables.compared([Pair("imdb", "missing", "other")])


def test_by_layer():
    assert tables.by_layer("imdb", ["ours"]).splitlines()[2] == "| `ours` (3) | 0.3 | 0.7 | 0.0 | 0.0 | 0.0 | 1.0 |"


def test_early():
    row = tables.early([Pair("imdb", "ours", "other")], seeds=1).splitlines()[2]
    assert row.startswith("| imdb | `ours` | `other` | -0.0500 (1) | -0.0300 ± ") and row.endswith(" (2) |")


def test_rates():
    assert tables.rates(["imdb"], ["ours", "full"]).splitlines()[2] == "| imdb | 0.001 | 0.001 |"


def test_pairs_and_table():
    assert tables.pairs(["a", "b"], "x", ["y", "z"])[1] == Pair("a", "x", "z")
    assert tables.table([["a", "b", "c"], ["1", "2", "3"]], left=2).splitlines()[1] == "| --- | --- | ---: |"
