"""Which runs a comparison has, and which other ones its directory may get."""

import json

import pytest

from weightlora.compare.spec import RATES, make_comparison, read_comparison
from weightlora.errors import DataError


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
    with pytest.raises(DataError, match="differs in learning_rates"):
        make_comparison(out, ["lora"], 2, [1e-3], films).claim()
