"""Stored results are read from where they belong, and nothing doubtful is in an average."""

import json
import math
from dataclasses import asdict

import pytest
from benchmarks.results import by_seed, load_results, notes
from benchmarks.summary import read_summary, write_summary
from stored import VERSIONS, result, store

from weightlora.errors import DataError


def runs(label, losses, **changes):
    return [result(label, seed, loss, **changes) for seed, loss in enumerate(losses)]


def test_results_are_read_from_where_they_belong(tmp_path):
    for made in (*runs("b", [0.5] * 11), *runs("a", [0.4]), result("a", task="other")):
        store(tmp_path, made)
    (tmp_path / "tiny" / "results" / "b" / ".seed-3.json.123.partial").write_text("{")
    results, set_aside = load_results(tmp_path)
    assert set_aside == []
    read = [(r.task, r.label, r.seed) for r in results]
    assert read == [("other", "a", 0), ("tiny", "a", 0), *(("tiny", "b", seed) for seed in range(11))]


def text(**changes):
    return json.dumps(asdict(result("b", 1)) | changes)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (text()[:-20], "is not JSON"),
        ("", "is not JSON"),
        ("[1]", "is not a JSON object"),
        (text(format=1), "has format 1"),
        (
            text(metrics={"test": {"held_out_loss": math.nan, "accuracy": 0.5}}),
            "'held_out_loss': nan, .* .numbers up to 1e.100.: repeat",
        ),
        (
            text(metrics={"test": {"held_out_loss": math.inf, "accuracy": 0.5}}),
            "'held_out_loss': inf, .* .numbers up to 1e.100.: repeat",
        ),
        (text(metrics={"test": {"accuracy": 0.5}}), "no held_out_loss"),
        (text(kept="layer"), "kept='layer'"),
        (text(metric="f1"), "no value for its main metric 'f1'"),
        (text(versions=None), "versions=None"),
        (text(seed=2), "belongs in .*seed-2.json"),
        (text(label="c"), "belongs in .*c.*seed-1.json"),
    ],
)
def test_a_doubtful_file_is_set_aside_with_the_reason(tmp_path, content, reason):
    store(tmp_path, result("b", 0, 0.4))
    bad = tmp_path / "tiny" / "results" / "b" / "seed-1.json"
    bad.write_text(content)
    results, set_aside = load_results(tmp_path)
    assert [r.seed for r in results] == [0]
    assert [path for path, _ in set_aside] == [bad]
    with pytest.raises(DataError, match=reason):
        raise DataError(set_aside[0][1])
    write_summary(tmp_path, tmp_path / "out")
    _, summary, remarks = read_summary(tmp_path)
    assert summary["tasks"]["tiny"]["b"]["loss"] == {"mean": 0.4, "ci": None}
    page = (tmp_path / "out" / "summary.md").read_text("utf-8")
    assert len(remarks) == 1 and "Set aside, in no average: tiny/results/b/seed-1.json" in page


def test_runs_of_one_method_with_different_settings_are_refused(tmp_path):
    store(tmp_path, result("a", 0))
    store(tmp_path, result("a", 1, settings={**result("a").settings, "learning_rate": 2e-3}))
    with pytest.raises(DataError, match=r"seed-0\.json and .*seed-1\.json .*\(learning_rate\): delete .* or repeat"):
        load_results(tmp_path)


@pytest.mark.parametrize(
    ("label", "setting", "first"),
    [
        ("b", {"steps": 600}, "b at seed 0"),
        ("b", {"test_examples": 50}, "b at seed 0"),
        ("a", {"keep": 3}, "a at seed 1"),
    ],
)
def test_runs_that_cannot_be_compared_are_never_paired(label, setting, first):
    """Neither between studies, which are loaded apart, nor between methods that read other texts."""
    others = [result("b"), result("a", 1)]
    changed = result(label, 2, settings={**result(label).settings, **setting})
    with pytest.raises(DataError, match=rf"tiny: {first} and {label} at seed 2 .*\({next(iter(setting))}\), so they"):
        by_seed([*others, changed])
    assert by_seed([*others, result("b", 2, settings={**result("b").settings, "seeds": 9})])["tiny", "b"].keys() == {
        0,
        2,
    }


def test_the_list_of_seeds_is_no_setting(tmp_path):
    for seed in range(2):
        store(tmp_path, result("a", seed, settings={**result("a").settings, "seeds": seed + 3}))
    assert len(load_results(tmp_path)[0]) == 2


def test_notes_tell_what_is_not_alike():
    longer = result("a", 1, settings={**result("a").settings, "steps": 600})
    older = result("b", 0, versions={**VERSIONS, "torch": "2.7.0"})
    elsewhere = result("b", 1, machine={"capability": "AVX2"})
    found = notes([*runs("random", [0.5], machine={"capability": "AVX512"}), longer, older, elsewhere])
    assert found == [
        "tiny: the runs used different versions of torch: 2.7.0 (1 runs), 2.8.0 (3 runs).",
        "tiny: the runs used different processors: AVX2 (1 runs), AVX512 (1 runs).",
        "tiny: a and random ran with different settings: steps.",
        "tiny: b is compared with random at 1 of its 2 seeds.",
    ]
    assert notes([*runs("random", [0.5, 0.6]), *runs("b", [0.5, 0.4])]) == []


def test_results_of_an_older_version_are_in_no_average(tmp_path):
    for seed, version in enumerate(("0.2.0", "0.10.0", "0.10.0")):
        store(tmp_path, result("a", seed, 0.1 * (seed + 1), versions={**VERSIONS, "weightlora": version}))
    store(tmp_path, result("a", 0, 0.9, task="other", versions={**VERSIONS, "weightlora": "0.2.0"}))
    results, aside = load_results(tmp_path)
    assert [(r.task, r.seed) for r in results] == [("other", 0), ("tiny", 1), ("tiny", 2)], "by task"
    ((path, reason),) = aside
    assert path.name == "seed-0.json" and reason == "of weightlora 0.2.0, and there are results of 0.10.0"
