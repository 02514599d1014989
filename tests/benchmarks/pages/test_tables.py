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
        result(label, seed, loss, task="imdb", kept=kept)
        for label, several in RUNS.items()
        for seed, (loss, kept) in enumerate(several)
    )
    for module in (runs, tables):
        monkeypatch.setattr(module, "pool", lambda: made)


def test_compared_pairs_by_seed_and_counts_what_did_not_learn():
    row = tables.compared([Pair("imdb", "ours", "other")]).splitlines()[2]
    assert row.startswith("| imdb | `ours` | 0.5067 (3), 1 not learned | 100 | 0.56 | `other` | -0.0300 ± ")
    assert row.endswith(" | 2 of 2 |")


def test_compared_needs_a_common_seed():
    with pytest.raises(ValueError, match="missing and other have no common seed on imdb"):
        tables.compared([Pair("imdb", "missing", "other")])


def test_by_seed():
    assert tables.by_seed("imdb", ["ours", "full"], kinds=True).splitlines()[2:] == [
        "| `ours` | 0.4000 (1 + 1) | 0.4200 (1 + 1) | 0.7000 (1 + 1) |",
        "| `full` | 0.3900 |  |  |",
    ]
    assert tables.by_seed("imdb", ["other"]).splitlines()[2] == "| `other` | 0.4500 | 0.4300 |"


def test_by_layer():
    assert tables.by_layer("imdb", ["ours"]).splitlines()[2] == "| `ours` (3) | 0.3 | 0.7 | 0.0 | 0.0 | 0.0 | 1.0 |"


def test_early():
    row = tables.early([Pair("imdb", "ours", "other")], seeds=1).splitlines()[2]
    assert row.startswith("| imdb | `ours` | `other` | -0.0500 (1) | -0.0300 ± ") and row.endswith(" (2) |")


def test_by_count():
    assert tables.by_count("imdb", "other", ("query", "value")).splitlines() == [
        "| members | 1 | 2 |",
        "| --- | ---: | ---: |",
        "| sets | 1 | 1 |",
        "| mean loss | 0.4300 | 0.4500 |",
    ]


def test_rates():
    assert tables.rates(["imdb"], ["ours", "full"]).splitlines()[2] == "| imdb | 0.001 | 0.001 |"


def test_pairs_and_table():
    assert tables.pairs(["a", "b"], "x", ["y", "z"])[1] == Pair("a", "x", "z")
    assert tables.table([["a", "b", "c"], ["1", "2", "3"]], left=2).splitlines()[1] == "| --- | --- | ---: |"
