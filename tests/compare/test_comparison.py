"""Which runs a comparison has, and which other ones its directory may get."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from weightlora.compare.comparison import read_comparison
from weightlora.compare.spec import RATES, make_comparison
from weightlora.errors import DataError, WeightLoraError


def test_the_runs_are_rates_then_seeds(tmp_path, films):
    comparison = make_comparison(tmp_path, ["lora", "weightlora"], 2, None, films)
    assert comparison.rates == {"lora": RATES, "weightlora": RATES} and comparison.tunes
    names = [run.name for run in comparison.tuning_runs()]
    assert names == [f"{method} at {rate:g}" for rate in RATES for method in ("lora", "weightlora")]
    runs = comparison.runs({"lora": 1e-3, "weightlora": 2e-3})
    assert [(run.method, run.seed, run.rate) for run in runs] == [
        ("lora", 0, 1e-3),
        ("weightlora", 0, 2e-3),
        ("lora", 1, 1e-3),
        ("weightlora", 1, 2e-3),
    ]
    assert runs[3].output == tmp_path / "results" / "weightlora" / "seed-1.json"
    assert runs[0].settings["task"] == "text-classification" and "seed" not in runs[0].settings
    assert len({json.dumps(run.record()) for run in (*runs, *comparison.tuning_runs())}) == 2 + 6


def test_methods_and_seeds_are_added_and_other_settings_refused(tmp_path, films, place):
    out = tmp_path / "out"
    make_comparison(out, ["lora"], 1, None, films).claim()
    make_comparison(out, ["random"], 3, None, films).claim()
    there = read_comparison(out)
    assert (there.methods, there.seeds) == (["lora", "random"], 3)
    make_comparison(out, ["lora"], 1, None, films).claim()
    assert read_comparison(out).seeds == 3
    with pytest.raises(
        DataError, match=r"out has another comparison, which differs in keep: give another --output_dir"
    ):
        make_comparison(out, ["weightlora"], 2, None, [*films, "--keep", "3"]).claim()


@pytest.mark.parametrize(
    ("rates", "line", "remedy", "new_rates", "new_line"),
    [
        (None, [], "leave out --learning_rate and --learning_rates", None, []),
        ([0.00012345678, 1e-3], [], "give --learning_rates 0.00012345678,0.001", [0.00012345678, 1e-3], []),
        (None, ["--learning_rate", "1e-4"], "give --learning_rate 0.0001", None, ["--learning_rate", "1e-4"]),
    ],
)
def test_other_rates_are_refused_and_the_advice_helps(tmp_path, films, rates, line, remedy, new_rates, new_line):
    out = tmp_path / "out"
    make_comparison(out, ["lora"], 1, rates, [*films, *line]).claim()
    for write in (True, False):
        with pytest.raises(DataError, match=f"differs in learning_rates: {remedy}, or give another --output_dir"):
            make_comparison(out, ["lora"], 2, [1e-3, 5e-3], films).claim(write)
    make_comparison(out, ["lora"], 2, new_rates, [*films, *new_line]).claim()


@pytest.mark.parametrize("rates", [None, [1e-4, 1e-3]])
def test_the_advice_is_of_the_method_that_differs(tmp_path, films, rates):
    out = tmp_path / "out"
    make_comparison(out, ["lora"], 1, rates, films).claim()
    added = [*films, "--learning_rate", "2e-4"]
    make_comparison(out, ["random"], 1, None, added).claim()
    with pytest.raises(DataError, match=r"differs in learning_rates: give --learning_rate 0\.0002, or give another"):
        make_comparison(out, ["random"], 1, rates, films).claim()
    with pytest.raises(DataError, match=r"give --learning_rate 0\.0002 with --methods random, or give another"):
        make_comparison(out, ["lora", "random"], 1, rates, films).claim()
    make_comparison(out, ["random"], 1, None, added).claim()


def test_a_claim_that_only_checks_writes_nothing(tmp_path, films):
    make_comparison(tmp_path / "out", ["lora"], 1, None, films).claim(write=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("rates", [None, [5e-4, 2e-3]])
def test_a_method_at_one_rate_is_added_to_a_comparison_that_chooses_rates(tmp_path, films, rates):
    out = tmp_path / "out"
    make_comparison(out, ["lora"], 1, rates, films).claim()
    added = make_comparison(out, ["random"], 1, None, [*films, "--learning_rate", "1e-3"])
    added.claim()
    [later] = read_comparison(out).runs({"random": 1e-3})
    assert added.runs({"random": 1e-3}) == [later] and later.with_validation
    assert added.tuning_runs() == []
    with pytest.raises(DataError, match="differs in learning_rates"):
        make_comparison(out, ["dora"], 1, [1e-4, 2e-4], films).claim()
    make_comparison(out, ["dora"], 1, rates, films).claim()


def test_a_method_with_several_rates_is_no_part_of_a_comparison_at_one(tmp_path, films):
    out = tmp_path / "out"
    make_comparison(out, ["lora"], 1, None, [*films, "--learning_rate", "1e-3"]).claim()
    with pytest.raises(DataError, match="differs in learning_rates"):
        make_comparison(out, ["random"], 1, None, films).claim()
    assert read_comparison(out).methods == ["lora"]


ENTRY = {"learning_rates": [1e-3], "settings": {"task": "text-classification"}}
GOOD = {"format": 1, "seeds": 2, "data": {"train_file": "0"}, "shared": {"rank": 1}, "methods": {"lora": ENTRY}}


def changed(*keys: str, to: Any) -> str:
    content = copy.deepcopy(GOOD)
    inner: Any = content
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = to
    return json.dumps(content)


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "3", "null", "[" * 100_000, '{"format": 1}', changed("format", to=2)),
        *(changed("seeds", to=value) for value in (0, -1, "2", None, 10**9, [1])),
        *(changed("data", to=value) for value in (3, ["a"], {"train_file": 3})),
        *(changed("shared", to=value) for value in (3, None)),
        *(changed("methods", to=value) for value in (3, {}, ["lora"], {"lora": 3}, {"../../x": ENTRY}, {"": ENTRY})),
        *(changed("methods", "lora", "learning_rates", to=value) for value in (3, [], ["a"], [0.0], [float("nan")])),
        *(changed("methods", "lora", "settings", to=value) for value in (3, {}, {"task": 3})),
    ],
)
def test_changed_settings_are_one_sentence(tmp_path: Path, text: str):
    (tmp_path / "settings.json").write_text(text)
    with pytest.raises(WeightLoraError) as error:
        read_comparison(tmp_path)
    assert str(error.value).startswith(str(tmp_path)) and str(error.value).endswith(".")
